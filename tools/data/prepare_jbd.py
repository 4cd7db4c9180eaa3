"""The command `paddle-rt prepare_jbd`, run from a clone."""

from paddle_rt.cli.prepare_jbd import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
