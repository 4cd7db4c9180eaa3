"""`paddle-rt render_streetscenes` from a clone: python tools/data/render_streetscenes.py --help"""

from paddle_rt.cli.render_streetscenes import main
from paddle_rt.cli.run import run_tool

if __name__ == "__main__":
    run_tool(main)
