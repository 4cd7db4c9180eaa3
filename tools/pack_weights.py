"""The command `paddle-rt pack_weights`, run from a clone."""

from paddle_rt.cli.pack_weights import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
