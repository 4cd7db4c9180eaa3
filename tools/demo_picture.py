"""The last step of `make demo`: one picture, and what the mIoU is worth."""

import pathlib

from paddle_rt.cli.arguments import new_parser
from paddle_rt.cli.run import run_tool
from paddle_rt.cpu import import_paddle


def main() -> None:
    parser = new_parser(__doc__)
    parser.add_argument("--folder", required=True, help="the demo's folder, with metrics.json, frames and result")
    parser.add_argument("--frames", type=int, nargs="+", default=[1, 4, 6], help="which frames to show")
    arguments = parser.parse_args()
    import_paddle()

    import json

    import numpy as np

    from paddle_rt.config.build import SegBuilder, class_names, load_config, palette
    from paddle_rt.imaging import images
    from paddle_rt.tasks.segmentation.baseline import most_frequent_by_place, score

    augmentation_free = ["train_dataset.transforms=[]", "val_dataset.transforms=[]"]
    config = load_config(arguments.config, augmentation_free + (arguments.opts or []))
    builder, names, colours = SegBuilder(config), class_names(config), palette(config)
    folder, rows, seen = pathlib.Path(arguments.folder), [], []
    for number in arguments.frames:
        name = f"{number:05d}.png"
        frame = images.read_image(folder / "frames/images" / name)
        folders = [folder / "frames/labels", folder / "result/pseudo_color_prediction"]
        labels = [images.read_label(place / name, len(names)) for place in folders]
        truth, prediction = (images.colorize(label, colours) for label in labels)
        rows.append(images.side_by_side([("input", frame), ("truth", truth), ("prediction", prediction)]))
        seen += labels
    legend = images.legend(images.legend_entries(seen, names, colours), rows[0].shape[1])
    images.write_image(folder / "demo.png", np.vstack([*rows, legend]))

    guess = score(most_frequent_by_place(builder.train_dataset), builder.val_dataset)
    result = json.loads((folder / "metrics.json").read_text())
    print(f"mIoU of the trained model on {result['images']} validation scenes:     {result['mIoU']:.4f}")
    print(f"mIoU of the most frequent class at each place:           {guess:.4f}")
    print(f"picture: {folder / 'demo.png'}")


if __name__ == "__main__":
    run_tool(main)
