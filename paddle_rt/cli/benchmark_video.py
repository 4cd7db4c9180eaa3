"""Frames per second of videos through infer beside those of the network alone, in turns.

paddle-rt benchmark_video --config EXPORT/deploy.yaml --threads 2
"""

import argparse
import pathlib
import statistics
import tempfile
from typing import Any

import cv2
import numpy as np
from tqdm import tqdm

from paddle_rt.cli import infer
from paddle_rt.cli.arguments import Parser, count, file_or_folder, output_file, threads
from paddle_rt.cpu import import_paddle
from paddle_rt.errors import UserError
from paddle_rt.inference import BACKENDS
from paddle_rt.inference.engines import PRECISIONS
from paddle_rt.inference.media.pipeline import label_frames
from paddle_rt.inference.media.sources import open_source
from paddle_rt.inference.segmenter import FrameSegmenter
from paddle_rt.streetscenes.scenes import make_scene, render

SIZES = ((720, 1280), (1024, 2048))
RENDERED = 8  # different frames; a clip plays them forwards and backwards
FPS = 10.0
STAGES = ("read", "preprocess", "network", "labels", "write")


def main() -> None:
    arguments = parse_arguments()
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder)
        options = infer.parse_arguments(_line_of_infer(arguments, place))
        if options.backend == "paddle":
            import_paddle()
        predictor = infer.open_predictor(options)
        if not isinstance(predictor, FrameSegmenter):
            raise UserError(f"{options.config} is an export for {predictor.task}; videos are timed for segmentation")
        predictor.warmup()
        rows = [_measure(predictor, options, size, arguments, place) for size in SIZES]
    from paddle_rt.benchmark.report import machine, publish

    for row in rows:
        row["machine"] = machine()
    print(publish(rows, rows, COLUMNS, arguments.output, None))


def _line_of_infer(arguments: argparse.Namespace, folder: pathlib.Path) -> list[str]:
    flags = {"image_path": folder, "save_dir": folder / "out"}
    flags.update({key: getattr(arguments, key) for key in ("config", "backend", "precision")})
    flags.update({} if arguments.threads is None else {"threads": arguments.threads})
    return [word for key, value in flags.items() for word in (f"--{key}", str(value))]


COLUMNS = (
    ("video", "video", "{}"), ("network alone fps", "network_fps", "{:.2f}"), ("infer fps", "fps", "{:.2f}"),
    ("share", "share", "{:.0%}"), *((f"{stage} ms", f"{stage}_ms", "{:.1f}") for stage in STAGES),
)  # fmt: skip


def _measure(
    predictor: FrameSegmenter, options: argparse.Namespace, size: tuple[int, int], arguments: Any, folder: pathlib.Path
) -> dict[str, Any]:
    """Time the network on the frames of a clip, and infer on the clip, in turns.

    Returns:
        A row: the median rates, the median of their ratios within a round, and what a frame of the clip takes in each
        stage, where reading and writing run beside the others.
    """
    clip = folder / f"{size[1]}x{size[0]}.mp4"
    frames = _write_clip(clip, size, arguments.frames)
    alone, whole, stages = [], [], []
    for number in tqdm(range(arguments.runs + 1), clip.stem, disable=None):
        seconds = []
        for frame in frames:
            predictor(frame)
            seconds.append(predictor.timings["network"])
        source = open_source(str(clip))
        with infer._open_outputs(predictor, source, options) as write:
            report = label_frames(predictor, source, write)
        if number:  # the first round brings both into the caches
            alone.append(len(frames) / sum(seconds))
            whole.append(report.labelled / report.seconds)
            stages.append({stage: 1e3 * report.stages[stage] / report.labelled for stage in STAGES})
    return {
        "video": clip.stem,
        "network_fps": statistics.median(alone),
        "fps": statistics.median(whole),
        "share": statistics.median(b / a for a, b in zip(alone, whole, strict=True)),
        **{f"{stage}_ms": statistics.median(values[stage] for values in stages) for stage in STAGES},
        **{key: getattr(arguments, key) for key in ("frames", "runs")},
        **{key: getattr(options, key) for key in ("config", "backend", "device", "precision", "threads")},
    }


def _write_clip(path: pathlib.Path, size: tuple[int, int], length: int) -> list[np.ndarray]:
    """Write a clip of rendered streets, and return its different frames."""
    scene, number = make_scene(0), min(RENDERED, length)
    frames = [render(scene, *size, k / FPS)[0] for k in tqdm(range(number), f"{path.stem}, frames", disable=None)]
    order = [*range(number), *reversed(range(number))]
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), FPS, size[::-1])
    for k in range(length):
        writer.write(frames[order[k % len(order)]])
    writer.release()
    return frames


def parse_arguments() -> argparse.Namespace:
    parser = Parser(__doc__)
    add = parser.add_argument
    add("--config", type=file_or_folder, required=True, help="deploy.yaml of an export, or its folder")
    add("--backend", choices=BACKENDS, default="openvino", help="the engine")
    add("--precision", choices=PRECISIONS, default="fp32", help="in which it computes")
    add("--threads", type=threads, help="CPU threads of the network; by default one for each core")
    add("--frames", type=count, default=48, help="frames of a clip")
    add("--runs", type=count, default=5, help="rounds that count")
    add("--output", type=output_file, default="output/bench_video.json", help="the rows")
    return parser.parse_args()
