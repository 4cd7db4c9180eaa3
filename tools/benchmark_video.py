"""The command `paddle-rt benchmark_video`, run from a clone."""

from paddle_rt.cli.benchmark_video import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
