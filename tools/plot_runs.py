"""`paddle-rt plot_runs` from a clone: python tools/plot_runs.py --help"""

from paddle_rt.cli.plot_runs import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
