"""The command `paddle-rt serve`, run from a clone."""

from paddle_rt.cli.run import run_tool
from paddle_rt.cli.serve import main

if __name__ == "__main__":
    run_tool(main)
