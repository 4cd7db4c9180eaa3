"""The command `paddle-rt render_streetscenes`, run from a clone."""

from paddle_rt.cli.render_streetscenes import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
