"""Show exports on a page in the browser: images, videos or a webcam in; overlays, areas, keypoints and times out.

paddle-rt demo --config EXPORT/deploy.yaml

Several exports stand side by side. Nothing is fetched from the net, and nothing leaves this machine. Ctrl-C ends it;
what users uploaded is removed then.
"""

import argparse
import atexit
import os
import shutil
import signal
import tempfile
from pathlib import Path

import cv2

from paddle_rt.cli.arguments import Parser, file_or_folder
from paddle_rt.cli.backend import add_engine_flags, load_predictor
from paddle_rt.demo.exports import Export, names_of
from paddle_rt.inference import load_deployment
from paddle_rt.inference.engines import cores
from paddle_rt.kinds import flag, whole
from paddle_rt.listening import address_of, bind


def main() -> None:
    arguments = parse_arguments()
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # the page says what is wrong with a video
    cv2.setLogLevel(1)  # fatal errors alone
    with (
        bind(arguments.host, arguments.port) as listener,
        tempfile.TemporaryDirectory(prefix="paddle_rt_demo_", ignore_cleanup_errors=True) as name,
    ):
        atexit.register(shutil.rmtree, name, ignore_errors=True)  # of an upload that a thread wrote meanwhile
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # else the folder would stay
        configure_gradio(name)
        from paddle_rt.demo.page import build_page
        from paddle_rt.demo.server import serve

        exports = load_exports(arguments)
        page = build_page(exports, Path(name))
        print(f"the page is at {address_of(listener)}; Ctrl-C ends it", flush=True)
        serve(page, listener)


def configure_gradio(folder: str) -> None:
    """Set the variables that Gradio reads when it is imported: where it keeps files, and that it reports nothing."""
    quiet = {"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "1"}
    os.environ.update(quiet, GRADIO_TEMP_DIR=folder)


def load_exports(arguments: argparse.Namespace) -> list[Export]:
    """Load the exports that the flags name.

    Raises:
        UserError: One is damaged or of a task that the page does not show, or is named twice.
    """
    names = names_of([load_deployment(config).folder for config in arguments.config])
    exports = []
    for name, config in zip(names, arguments.config, strict=True):
        chosen = argparse.Namespace(**{**vars(arguments), "config": config})
        predictor = load_predictor(chosen)
        predictor.warmup()
        number = chosen.threads or cores()
        where = f"{number} thread{'s' * (number > 1)}" if chosen.device == "cpu" else chosen.device
        exports.append(Export(name, predictor, f"{chosen.backend} {chosen.precision}, {where}"))
    return exports


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--config", type=file_or_folder, nargs="+", required=True, help="deploy.yaml of each export, or its folder")
    add_engine_flags(parser)
    add("--host", default="127.0.0.1", help="the address to listen at; 0.0.0.0 lets other machines in")
    add("--port", type=flag(whole(0, 65535)), default=7860, help="the port; 0 for a free one")
    return parser.parse_args()
