"""The command `paddle-rt video_metrics`, run from a clone."""

from paddle_rt.cli.run import run_tool
from paddle_rt.cli.video_metrics import main

if __name__ == "__main__":
    run_tool(main)
