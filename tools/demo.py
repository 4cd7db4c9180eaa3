"""The command `paddle-rt demo`, run from a clone."""

from paddle_rt.cli.demo import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
