"""`paddle-rt compare` from a clone: python tools/compare.py --help"""

from paddle_rt.cli.compare import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
