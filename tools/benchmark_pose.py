"""The command `paddle-rt benchmark_pose`, run from a clone."""

from paddle_rt.cli.benchmark_pose import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
