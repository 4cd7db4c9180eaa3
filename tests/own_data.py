"""Trains on three made-up data sets with the config that new_config writes, as it is, and scores the rarest class.

python -m tests.own_data --folder output/own_data

Prints, for each data set, the IoU of its rarest class and the mean IoU, beside those of labels that are all background,
and ends with exit code 1 where the rarest class has less than 0.5.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable

import cv2
import numpy as np

from tests.helpers import ROOT, call_tool

LEAST_IOU = 0.5
Sample = tuple[np.ndarray, np.ndarray]


def _ground(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Return a soft, dull ground with some noise."""
    coarse = rng.integers(60, 160, (4, 5, 3)).astype(np.float32)
    noise = rng.normal(0, 8, (height, width, 3))
    return cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC) + noise


def _finish(image: np.ndarray) -> np.ndarray:
    return image.clip(0, 255).astype(np.uint8)


def rare(rng: np.random.Generator) -> Sample:
    """Return 120x160 with dark stripes, which are background, and one reddish disc, the class, of 1 % of the pixels."""
    image, label = _ground(rng, 120, 160), np.zeros((120, 160), np.uint8)
    for _ in range(3):
        x = int(rng.integers(0, 150))
        image[:, x : x + 6] -= 50
    centre, radius = (int(rng.integers(12, 148)), int(rng.integers(12, 108))), int(rng.integers(7, 10))
    cv2.circle(label, centre, radius, 1, -1)
    image[label == 1] = image[label == 1] * 0.4 + np.array([60, 60, 190]) * 0.6
    return _finish(image), label


def many(rng: np.random.Generator) -> Sample:
    """Return 128x128 with eight boxes of 29 classes, each a hue and a brightness, where one in eight boxes is cut."""
    image, label = _ground(rng, 128, 128), np.zeros((128, 128), np.uint8)
    for _ in range(8):
        name = int(rng.integers(1, 30))
        height, width = rng.integers(24, 56, 2)
        top, left = int(rng.integers(-8, 128 - 24)), int(rng.integers(-8, 128 - 24))
        place = slice(max(top, 0), top + height), slice(max(left, 0), left + width)
        hue, level = (name - 1) % 10 * 18, 110 + 70 * ((name - 1) // 10)
        colour = cv2.cvtColor(np.array([[[hue, 220, level]]], np.uint8), cv2.COLOR_HSV2BGR)[0, 0]
        shape = label[place].shape
        image[place], label[place] = colour + rng.normal(0, 10, (*shape, 3)), name
    return _finish(image), label


def tiny(rng: np.random.Generator) -> Sample:
    """Return 32x32 with two of three shapes: a bright square, a dark disc, a green bar."""
    image, label = _ground(rng, 32, 32), np.zeros((32, 32), np.uint8)
    for name in rng.permutation(3)[:2] + 1:
        mask, (x, y) = np.zeros((32, 32), np.uint8), rng.integers(6, 26, 2).tolist()
        if name == 1:
            cv2.rectangle(mask, (x - 3, y - 3), (x + 3, y + 3), 1, -1)
        elif name == 2:
            cv2.circle(mask, (x, y), 4, 1, -1)
        else:
            cv2.rectangle(mask, (x - 5, y - 1), (x + 5, y + 1), 1, -1)
        image[mask == 1] = np.array([[230, 230, 230], [20, 20, 20], [40, 180, 40]])[name - 1] + rng.normal(0, 8, 3)
        label[mask == 1] = name
    return _finish(image), label


DATA: dict[str, tuple[Callable[[np.random.Generator], Sample], int, int]] = {
    "rare": (rare, 2, 150),
    "many": (many, 30, 400),
    "tiny": (tiny, 4, 300),
}


def make(folder: pathlib.Path, name: str, number: int | None = None) -> None:
    """Write images/ and labels/ of class numbers, with the names of the classes in names.txt."""
    draw, classes, usual = DATA[name]
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for index in range(number or usual):
        image, label = draw(rng)
        cv2.imwrite(str(folder / f"images/{index:04d}.png"), image)
        cv2.imwrite(str(folder / f"labels/{index:04d}.png"), label)
    names = ["background", *(f"thing {number}" for number in range(1, classes))]
    (folder / "names.txt").write_text("".join(f"{name}\n" for name in names))


def prepare(folder: pathlib.Path, name: str, *flags: object, number: int | None = None) -> pathlib.Path:
    """Make a data set, prepare it with a config for rtformer_slim, and return the folder."""
    make(folder / "in", name, number)
    line = ["--format", "class_masks", "--input", folder / "in/labels", "--images", folder / "in/images",
            "--classes", folder / "in/names.txt", "--output", folder / "data", "--device", "cpu", *flags]  # fmt: skip
    assert call_tool("data/prepare_data", *line) == 0
    return folder / "data"


def train(folder: pathlib.Path, name: str, hours: float) -> bool:
    """Train and score one data set; return whether the rarest class is found."""
    config, run = prepare(folder, name, "--hours", hours) / "rtformer_slim.yml", folder / "run"
    shared = ["-c", config, "--device", "cpu"]
    _run(folder, "train", *shared, "--seed", 0, "--save_dir", run, "--log_iters", 50)
    newest = max(run.glob("iter_*"), key=lambda path: int(path.name[5:]))
    _run(folder, "val", *shared, "--model_path", newest, "--output", folder / "metrics.json")
    scores = json.loads((folder / "metrics.json").read_text())
    pixels = np.sum(scores["confusion_matrix"], 1)
    share, ious = pixels / pixels.sum(), [entry["iou"] for entry in scores["classes"]]
    rarest, nothing = int(np.argmin(share)), [share[0], *np.zeros(len(share) - 1)]
    print(
        f"{name}: rarest class {rarest} ({share[rarest]:.2%} of the pixels): IoU {ious[rarest]:.3f}, all background "
        f"{nothing[rarest]:.3f}; mean {scores['mIoU']:.3f}, all background {np.mean(nothing):.3f}",
        flush=True,
    )
    return ious[rarest] >= LEAST_IOU


def _run(folder: pathlib.Path, tool: str, *flags: object) -> None:
    line = [str(ROOT / f"tools/{tool}.py"), *map(str, flags)]
    print(f"python {' '.join(line)}", flush=True)
    with (folder / f"{tool}.log").open("w") as log:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        subprocess.run([sys.executable, *line], stdout=log, stderr=subprocess.STDOUT, env=environment, check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=pathlib.Path, default=pathlib.Path("output/own_data"))
    parser.add_argument("--data", nargs="+", choices=list(DATA), default=list(DATA))
    parser.add_argument("--hours", type=float, default=3.0, help="of each training")
    args = parser.parse_args()
    passed = [train(args.folder / name, name, args.hours) for name in args.data]
    sys.exit(not all(passed))


if __name__ == "__main__":
    main()
