"""`paddle-rt quantize` from a clone: python tools/quantize.py --help"""

from paddle_rt.cli.quantize import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
