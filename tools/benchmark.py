"""`paddle-rt benchmark` from a clone: python tools/benchmark.py --help"""

from paddle_rt.cli.benchmark import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
