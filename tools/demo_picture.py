"""Draw the picture of `make demo` and compare its mIoU with that of the most frequent class at each place."""

import json
import pathlib
from collections.abc import Iterable, Sequence

import cv2
import numpy as np

from paddle_rt import imaging
from paddle_rt.cli.arguments import new_parser
from paddle_rt.cli.run import run_tool
from paddle_rt.cpu import import_paddle

_FONT = (cv2.FONT_HERSHEY_SIMPLEX, 0.5)

Color = tuple[int, int, int]


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--folder", required=True, help="the demo's folder, with metrics.json, frames and result")
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 4, 6], help="which frames to show")
    arguments = parser.parse_args()
    import_paddle()

    from paddle_rt.config import build_task, load_config
    from paddle_rt.tasks.segmentation.baseline import most_frequent_by_place, score

    # Without augmentation; 200 scenes are enough to tell which class is the most frequent at a place.
    overrides = ["train_dataset.transforms=[]", "val_dataset.transforms=[]", "train_dataset.num_samples=200"]
    task = build_task(load_config(arguments.config, overrides + (arguments.opts or [])))
    names, colours = task.class_names, task.palette
    folder, rows, seen = pathlib.Path(arguments.folder), [], []
    places = {"truth": folder / "frames/labels", "prediction": folder / "result/pseudo_color_prediction"}
    if (folder / "trained").is_dir():  # the package holds trained weights
        places["trained weights"] = folder / "trained/label_prediction"
    for number in arguments.frames:
        name = f"{number:05d}.png"
        frame = imaging.read_image(folder / "frames/images" / name)
        labels = [imaging.read_label(place / name, len(names)) for place in places.values()]
        labels = [cv2.resize(label, frame.shape[1::-1], interpolation=cv2.INTER_NEAREST) for label in labels]
        drawn = [(title, imaging.colorize(label, colours)) for title, label in zip(places, labels, strict=True)]
        rows.append(side_by_side([("input", frame), *drawn]))
        seen += labels
    strip = legend(legend_entries(seen, names, colours), rows[0].shape[1])
    imaging.write_image(folder / "demo.png", np.vstack([*rows, strip]))

    guess = score(most_frequent_by_place(task.build_data("train")), task.build_data("val"))
    result = json.loads((folder / "metrics.json").read_text())
    print(f"mIoU of the trained model on {result['images']} validation scenes:     {result['mIoU']:.4f}")
    print(f"mIoU of the most frequent class at each place:           {guess:.4f}")
    if "trained weights" in places:
        trained = json.loads((folder / "trained/metrics.json").read_text())
        print(f"mIoU of the package's trained weights on {trained['images']} scenes at 512x256: {trained['mIoU']:.4f}")
    print(f"picture: {folder / 'demo.png'}")


def legend_entries(labels: Iterable[np.ndarray], names: Sequence[str], palette: np.ndarray) -> list[tuple[str, Color]]:
    """Return the names and RGB colours of the classes that occur in any of the label images, in the classes' order."""
    present = set().union(*(np.unique(image).tolist() for image in labels))
    return [(name, tuple(palette[index].tolist())) for index, name in enumerate(names) if index in present]


def legend(entries: Sequence[tuple[str, Color]], width: int) -> np.ndarray:
    """Draw a legend of classes, uint8 BGR [H, width, 3], in as many rows as the width needs."""
    row, box, gap = 26, 16, 8
    places, x, y = [], gap, 0
    for name, _ in entries:
        needed = box + gap + _text_width(name) + 2 * gap
        if x + needed > width and x > gap:
            x, y = gap, y + row
        places.append((x, y))
        x += needed
    strip = np.full((y + row, width, 3), 255, np.uint8)
    for (name, color), (x, y) in zip(entries, places, strict=True):
        cv2.rectangle(strip, (x, y + 5), (x + box, y + 5 + box), color[::-1], cv2.FILLED)
        cv2.rectangle(strip, (x, y + 5), (x + box, y + 5 + box), (90, 90, 90), 1)
        _write_text(strip, name, x + box + gap, y + 18)
    return strip


def side_by_side(images: Sequence[tuple[str, np.ndarray]]) -> np.ndarray:
    """Place images of one size beside each other below their titles; narrow ones are enlarged to fit the titles."""
    assert len({image.shape for _, image in images}) == 1, [image.shape for _, image in images]
    bar, gap = 28, 6
    tiles = []
    for title, image in images:
        factor = -(-240 // image.shape[1])
        tile = cv2.resize(image, None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST)
        tile = cv2.copyMakeBorder(tile, bar, gap, gap, gap, cv2.BORDER_CONSTANT, value=(255, 255, 255))
        _write_text(tile, title, gap, 19)
        tiles.append(tile)
    return np.hstack(tiles)


def _text_width(text: str) -> int:
    return cv2.getTextSize(text, *_FONT, 1)[0][0]


def _write_text(image: np.ndarray, text: str, x: int, y: int) -> None:
    cv2.putText(image, text, (x, y), *_FONT, (20, 20, 20), 1, cv2.LINE_AA)


if __name__ == "__main__":
    run_tool(main)
