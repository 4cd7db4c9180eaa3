"""The command `paddle-rt plot_runs`, run from a clone."""

from paddle_rt.cli.plot_runs import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
