"""The command `paddle-rt bn_momentum`, run from a clone."""

from paddle_rt.cli.bn_momentum import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
