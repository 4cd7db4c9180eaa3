"""The command `paddle-rt new_config`, run from a clone."""

from paddle_rt.cli.new_config import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
