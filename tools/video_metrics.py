"""`paddle-rt video_metrics` from a clone: python tools/video_metrics.py --help"""

from paddle_rt.cli.run import run_tool
from paddle_rt.cli.video_metrics import main

if __name__ == "__main__":
    run_tool(main)
