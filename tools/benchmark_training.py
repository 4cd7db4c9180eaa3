"""`paddle-rt benchmark_training` from a clone: python tools/benchmark_training.py --help"""

from paddle_rt.cli.benchmark_training import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
