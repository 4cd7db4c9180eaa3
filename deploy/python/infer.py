"""`paddle-rt infer` from a clone: python deploy/python/infer.py --help"""

from paddle_rt.cli.infer import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
