"""`paddle-rt train` from a clone: python tools/train.py --help"""

from paddle_rt.cli.run import run_tool
from paddle_rt.cli.train import main

if __name__ == "__main__":
    run_tool(main)
