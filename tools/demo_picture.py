"""Draw the picture of `make demo` and compare its mIoU with that of the most frequent class at each place."""

import json
import pathlib

import cv2
import numpy as np

from paddle_rt import imaging
from paddle_rt.cli.arguments import new_parser
from paddle_rt.cli.run import run_tool
from paddle_rt.cpu import import_paddle
from paddle_rt.imaging.charts import contact_sheet


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--folder", required=True, help="the demo's folder, with metrics.json, frames and result")
    parser.add_argument("--frames", type=int, nargs="+", default=[2, 5], help="which frames to show")
    arguments = parser.parse_args()
    import_paddle()

    from paddle_rt.config import build_task, load_config
    from paddle_rt.tasks.segmentation.baseline import most_frequent_by_place, score

    # Without augmentation; 200 scenes are enough to tell which class is the most frequent at a place.
    overrides = ["train_dataset.transforms=[]", "val_dataset.transforms=[]", "train_dataset.num_samples=200"]
    task = build_task(load_config(arguments.config, overrides + (arguments.opts or [])))
    names, colours = task.class_names, task.palette
    folder, tiles, present = pathlib.Path(arguments.folder), [], set()
    frames, trained = "frames", folder / "trained"
    places = {"truth": "frames/labels", "this short training": "result/pseudo_color_prediction"}
    if trained.is_dir():  # what trained weights find in larger images of the same streets
        frames = "large"
        places.update({"truth": "large/labels", "weights of the package": "trained/label_prediction"})
    for number in arguments.frames:
        name = f"{number:05d}.png"
        frame = imaging.read_image(folder / frames / "images" / name)
        labels = [imaging.read_label(folder / place / name, len(names)) for place in places.values()]
        labels = [cv2.resize(label, frame.shape[1::-1], interpolation=cv2.INTER_NEAREST) for label in labels]
        tiles.append((f"street {number}", [frame, *(imaging.colorize(label, colours) for label in labels)]))
        present.update(*(np.unique(label).tolist() for label in labels))
    classes = [label for label in range(len(names)) if label in present]
    imaging.write_image(
        folder / "demo.png", contact_sheet(tiles, classes, names, colours, columns=1, heads=("input", *places))
    )

    guess = score(most_frequent_by_place(task.build_data("train")), task.build_data("val"))
    result = json.loads((folder / "metrics.json").read_text())
    print(f"mIoU of the trained model on {result['images']} validation scenes:     {result['mIoU']:.4f}")
    print(f"mIoU of the most frequent class at each place:           {guess:.4f}")
    if trained.is_dir():
        result = json.loads((trained / "metrics.json").read_text())
        print(f"mIoU of the package's trained weights on {result['images']} scenes at 512x256: {result['mIoU']:.4f}")
    print(f"picture: {folder / 'demo.png'}")


if __name__ == "__main__":
    run_tool(main)
