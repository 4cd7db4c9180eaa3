"""`paddle-rt predict` from a clone: python tools/predict.py --help"""

from paddle_rt.cli.predict import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
