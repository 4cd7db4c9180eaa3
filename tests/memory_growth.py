"""Measure whether memory stays flat while frames of many sizes are labelled.

python tests/memory_growth.py [--backends openvino mnn onnxruntime paddle] [--loads images video threads]
                              [--frames 5000]

Each backend and each load runs in a process of its own, on a small RTFormer whose graph leaves the size open. The
resident memory, as the operating system counts it, is printed every tenth of the way. Labels are compared with those of
a segmenter that has seen no other frame.

    images   one thread, frames of random sizes, through the pipeline of infer.py
    video    one thread, frames of one size from a video file, through the pipeline of infer.py
    threads  eight threads that share one segmenter, frames of random sizes
"""

import argparse
import multiprocessing
import pathlib
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np

LOADS = ("images", "video", "threads")
SIZES = (64, 320)  # the smallest and the largest side
CHECKED = 5  # frames whose labels are compared


def resident_mb() -> float:
    """Return the resident memory of this process in megabytes, as the operating system counts it."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 1e6


def frame(number: int) -> np.ndarray:
    """Return a frame of a random size: the same one for the same number."""
    rng = np.random.default_rng(number)
    height, width = rng.integers(SIZES[0], SIZES[1] + 1, 2)
    coarse = rng.integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(16, axis=0).repeat(16, axis=1)[:height, :width])


def make_export(folder: str) -> None:
    """Export a small network with random weights and open sizes."""
    import paddle

    from paddle_rt.export.publish import FORMATS, export
    from paddle_rt.models.rtformer import RTFormer
    from paddle_rt.tasks.segmentation.export import SegmentationExport

    paddle.seed(0)
    network = RTFormer(5, base_channels=8, head_channels=8, spp_channels=8, num_heads=2, cross_size=3)
    transforms = [{"type": "Normalize"}]
    export(network, folder, SegmentationExport(transforms), formats=FORMATS)


def make_video(path: str, frames: int) -> None:
    """Write a video of frames of one size."""
    import cv2

    writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter_fourcc(*"mp4v"), 25, (192, 128))
    for number in range(frames):
        writer.write(cv2.resize(frame(number % 50), (192, 128)))
    writer.release()


def measure(export: str, backend: str, load: str, frames: int) -> tuple[list[float], int]:
    """Label frames and return the resident memory after every tenth of them, and the number of wrong labels."""
    from paddle_rt.inference import Segmenter
    from paddle_rt.inference.media.pipeline import label_frames
    from paddle_rt.inference.media.sources import Frame, Source, open_source

    segmenter, kept, memory = Segmenter(export, backend, threads=1), {}, []

    def done(number: int, image: np.ndarray, labels: np.ndarray) -> None:
        if number >= frames - CHECKED:
            kept[number] = image, labels
        if (number + 1) % max(frames // 10, 1) == 0:
            memory.append(resident_mb())

    if load == "threads":

        def label(number: int) -> None:
            image = frame(number)
            done(number, image, segmenter(image))

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(label, range(frames)))
    else:

        def images() -> Iterator[Frame]:
            for number in range(frames):
                yield Frame(str(number), pathlib.Path(str(number)), frame(number))

        source = open_source(f"{export}/video.mp4") if load == "video" else Source(images())
        count = iter(range(frames))
        label_frames(segmenter, source, lambda item, labels: done(next(count), item.image, labels))
    wrong = 0
    for image, labels in kept.values():
        wrong += int((Segmenter(export, backend, threads=1)(image) != labels).sum())
    return memory, wrong


def growth(memory: list[float]) -> float:
    """Return how much memory the last nine tenths of the frames added, in megabytes."""
    return max(memory[1:]) - memory[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backends", nargs="+", default=["openvino", "mnn", "onnxruntime", "paddle"])
    parser.add_argument("--loads", nargs="+", default=LOADS, choices=LOADS)
    parser.add_argument("--frames", type=int, default=5000)
    parser.add_argument("--export", help="a folder to keep the export in")
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.export or f"{scratch}/export"
        for call, values in ((make_export, (folder,)), (make_video, (f"{folder}/video.mp4", arguments.frames))):
            with context.Pool(1) as pool:
                pool.apply(call, values)
        for backend in arguments.backends:
            for load in arguments.loads:
                with context.Pool(1) as pool:
                    memory, wrong = pool.apply(measure, (folder, backend, load, arguments.frames))
                steps = " ".join(f"{value:.0f}" for value in memory)
                print(
                    f"{backend:12} {load:8} MB: {steps}; growth {growth(memory):.1f}; wrong labels {wrong}", flush=True
                )


if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
    main()
