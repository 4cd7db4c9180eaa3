"""The command `paddle-rt prepare_data`, run from a clone."""

from paddle_rt.cli.prepare_data import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
