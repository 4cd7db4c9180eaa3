"""Command lines: `paddle-rt TOOL ...`, and the files of a clone's tools/ folder, which call the same functions."""

import importlib
import sys

from paddle_rt.cli.run import run_tool
from paddle_rt.errors import FlagError, unknown

TOOLS = {
    "train": "train a network by a config",
    "val": "score a checkpoint on a config's validation data",
    "predict": "run a checkpoint on images",
    "check_data": "tell what is wrong with a data set, and what is in it",
    "export": "export a checkpoint to graphs that are checked against it",
    "quantize": "add an int8 graph to an export",
    "infer": "run an export on images, a video or a camera",
    "demo": "show exports on a page in the browser",
    "serve": "answer requests for an export by HTTP",
    "benchmark": "measure exports beside PaddleSeg's deployment",
    "benchmark_training": "measure training steps beside PaddleSeg's",
    "benchmark_pose": "measure pose estimation beside PaddleDetection's way",
    "benchmark_video": "measure videos through infer beside the network alone",
    "benchmark_serve": "measure the service under load beside the network alone",
    "benchmark_quality": "show what lower precision and token merging cost a trained network",
    "benchmark_originals": "measure the PyTorch originals on a GPU",
    "ablations": "repeat the ablation tables of RTFormer's paper",
    "compare": "compare a network with PaddleSeg's on the same weights",
    "convert": "convert a PyTorch checkpoint",
    "pack_weights": "make the best model of a run one of the package's trained weights",
    "plot_runs": "draw the curves of training runs",
    "bn_momentum": "show what the momentum of BatchNorm does to scores",
    "video_metrics": "score checkpoints on videos",
    "new_config": "write a config for a data set of one's own",
    "prepare_data": "convert annotations of LabelMe, COCO and others, or masks, to a data set of one's own",
    "prepare_camvid": "convert a CamVid download to the layout that the data set reads",
    "prepare_jbd": "convert the jump broadcast data set to annotations in COCO's form",
    "render_streetscenes": "write StreetScenes images and labels as files",
}


def main() -> None:
    """Run the tool that the first argument names, with the arguments behind it."""
    run_tool(_run)


def _run() -> None:
    if len(sys.argv) < 2 or sys.argv[1] in ("-h", "--help"):
        print("usage: paddle-rt TOOL ...; paddle-rt TOOL --help lists the flags of a tool\n")
        print("\n".join(f"  {name:<22}{summary}" for name, summary in TOOLS.items()))
        return
    name = sys.argv[1].replace("-", "_")
    if name not in TOOLS:
        raise FlagError(str(unknown("tool", sys.argv[1], TOOLS)))
    sys.argv = [f"paddle-rt {name}", *sys.argv[2:]]
    importlib.import_module(f"paddle_rt.cli.{name}").main()
