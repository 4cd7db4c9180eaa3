"""tools/predict.py."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.helpers import TINY, randomize, refused, run_python, smooth_image, tiny_config, written

CLASSES = 19


def test_predict_writes_three_images_of_each(weights, config, images, tmp_path):
    line = ["-c", config, "--model_path", weights, "--image_path", images, "--save_dir", tmp_path]
    done = run_python("tools/predict.py", *line)
    assert (done.returncode, done.stderr) == (0, "")
    # Two differ in their suffix alone: their labels must not overwrite each other.
    names = ["a/b/alpha.png", "a/grey.png", "a/one.bmp", "street.jpg", "street.png.png"]
    assert written(tmp_path / "added_prediction") == names
    labelled = [str(Path(name).with_suffix(".png")) for name in names]
    assert written(tmp_path / "label_prediction") == written(tmp_path / "pseudo_color_prediction") == sorted(labelled)
    for name, label in zip(names, labelled, strict=True):
        file = name if (images / name).exists() else name[:-4]
        size = Image.open(images / file).size
        classes = np.asarray(Image.open(tmp_path / "label_prediction" / label))
        colours = Image.open(tmp_path / "pseudo_color_prediction" / label)
        assert classes.shape == size[::-1] and classes.dtype == np.uint8 and classes.max() < CLASSES
        assert colours.mode == "P" and np.array_equal(np.asarray(colours), classes)
        assert Image.open(tmp_path / "added_prediction" / name).size == size


def test_predict_takes_lists_and_colours(call, weights, config, images, tmp_path):
    line = ["-c", config, "--model_path", weights / "model.pdparams", "--save_dir", tmp_path]
    code, out, err = call("predict", *line, "--image_path", images / "list.txt", "--custom_color", *range(1, 58))
    assert code == 0 and "2 images labelled" in out, err
    assert written(tmp_path / "label_prediction") == ["a/b/alpha.png", "a/grey.png"]
    palette = Image.open(tmp_path / "pseudo_color_prediction/a/grey.png").getpalette()
    assert palette[:57] == list(range(1, 58))
    code, _, err = call("predict", *line, "--image_path", images / "a/one.bmp", "--aug_pred", "--flip_horizontal")
    assert code == 0 and (tmp_path / "label_prediction/one.png").is_file(), err


def test_predict_names_what_it_cannot_read(call, weights, config, images, tmp_path):
    broken, jpeg = tmp_path / "broken", (images / "street.jpg").read_bytes()
    broken.mkdir()
    contents = {"empty.png": b"", "half.jpg": jpeg[: len(jpeg) // 2], "text.png": b"x", "whole.jpg": jpeg}
    for name, content in contents.items():
        (broken / name).write_bytes(content)
    line = ["-c", config, "--model_path", weights, "--image_path", broken, "--save_dir", tmp_path / "out"]
    code, _, err = call("predict", *line)
    assert code == 1 and err.startswith("error: 3 of 4 images could not be labelled") and err.count("\n") == 1
    assert "empty.png is empty" in err and "half.jpg is cut off" in err and "text.png: it is damaged" in err
    assert written(tmp_path / "out/label_prediction") == ["whole.png"]


def test_lists_cannot_write_outside_of_the_folder(call, weights, config, images, tmp_path):
    (tmp_path / "list").mkdir()
    shutil.copy(images / "street.jpg", tmp_path / "above.jpg")
    (tmp_path / "list/list.txt").write_text(f"../above.jpg\n{images / 'a/grey.png'}\n")
    out = tmp_path / "out"
    code, _, err = call("predict", "-c", config, "--model_path", weights, "--image_path", tmp_path / "list/list.txt",
                        "--save_dir", out)  # fmt: skip
    assert code == 0, err
    names = written(out / "label_prediction")
    assert len(names) == 2 and names[0] == "above.png" and names[1].endswith("a/grey.png")
    assert not list(tmp_path.glob("*.png"))


BAD_FLAGS = {
    "--model_path {weights} --image_path nowhere": (1, "no image, folder or list of images at nowhere"),
    "--model_path {weights} --image_path {images} --save_dir {config}": (2, "--save_dir: .*config.yml is no folder"),
    "--model_path {weights} --image_path {images} --custom_color 1 2": (2, "--custom_color takes three"),
    "--image_path {images}": (2, "arguments are required: --model_path"),
}


@pytest.mark.parametrize("line", BAD_FLAGS)
def test_bad_flag_gets_one_line(call, line, config, weights, images, tmp_path):
    code, expected = BAD_FLAGS[line]
    flags, before = line.format(config=config, weights=weights, images=images).split(), written(weights.parent)
    refused(call("predict", "-c", config, *flags), expected, code)
    assert written(tmp_path) == [] and written(weights.parent) == before and Path(config).is_file()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_labels_that_it_writes_are_those_that_val_scores(call, channels, tmp_path):
    """Their confusion matrix, counted here with NumPy, is the one that val writes."""
    from paddle_rt.checkpoint import atomic_save
    from paddle_rt.models.rtformer import RTFormer

    classes, sizes, confusion = 5, ((40, 56), (33, 47)), np.zeros((5, 5), int)
    for number, (height, width) in enumerate(sizes):
        image = np.concatenate([smooth_image(height, width, seed) for seed in (number, 9)], axis=2)
        cv2.imwrite(str(tmp_path / f"{number}.png"), image[..., :channels])
        labels = np.random.default_rng(number).choice([0, 1, 2, 3, 255], (height, width)).astype(np.uint8)
        cv2.imwrite(str(tmp_path / f"{number}_labels.png"), labels)
    (tmp_path / "list.txt").write_text("0.png 0_labels.png\n1.png 1_labels.png\n")
    network = RTFormer(num_classes=classes, in_channels=channels, **TINY)
    randomize(network)
    atomic_save(network.state_dict(), tmp_path / "model.pdparams")
    transforms = [{"type": "Resize", "target_size": [64, 32]}, {"type": "Normalize"}]
    if channels != 3:
        transforms[1] |= {"mean": [0.5] * channels, "std": [0.5] * channels}
    data = {"type": "Dataset", "dataset_root": str(tmp_path), "num_classes": classes, "img_channels": channels,
            "mode": "val", "val_path": str(tmp_path / "list.txt"), "transforms": transforms}  # fmt: skip
    model = {**TINY, "type": "RTFormer", "in_channels": channels}
    sections = {"train_dataset": {**data, "mode": "train", "train_path": data["val_path"]}, "val_dataset": data}
    del sections["train_dataset"]["val_path"]
    line = ["-c", tiny_config(tmp_path, model=model, **sections), "--model_path", tmp_path, "--device", "cpu"]
    code, _, err = call("val", *line, "--output", tmp_path / "scores.json")
    assert code == 0, err
    code, _, err = call("predict", *line, "--image_path", tmp_path / "list.txt", "--save_dir", tmp_path / "out")
    assert code == 0, err
    for number in range(len(sizes)):
        truth = np.asarray(Image.open(tmp_path / f"{number}_labels.png")).astype(int)
        found = np.asarray(Image.open(tmp_path / f"out/label_prediction/{number}.png"))
        np.add.at(confusion, (truth[truth < classes], found[truth < classes]), 1)
    scored = np.array(json.loads((tmp_path / "scores.json").read_text())["confusion_matrix"])
    assert np.array_equal(scored, confusion), f"{np.abs(scored - confusion).sum()} pixels differ"
    assert (confusion.sum(0) > 0).sum() > 1, "one class is predicted everywhere, which shows little"


def test_predict_and_infer_take_the_same_views(call, weights, config, images, tmp_path):
    line = ["-c", config, "--model_path", weights, "--save_dir", tmp_path / "plain", "--image_path", images / "a"]
    code, _, err = call("predict", *line)
    assert code == 0, err
    line[5] = tmp_path / "views"
    flags = ["--legend", "--side_by_side", "--contours", "--opacity", 0.5, "--classes", "road", "car", "--confidence"]
    code, _, err = call("predict", *line, *flags, "--polygons", "coco", "labelme", "--min_area", 2)
    assert code == 0, err
    names = [name.removesuffix(".png") for name in written(tmp_path / "plain/label_prediction")]
    assert [name.removesuffix(".json") for name in written(tmp_path / "views/labelme")] == names
    assert [name.removesuffix(".png") for name in written(tmp_path / "views/confidence")] == names
    assert (tmp_path / "views/coco_annotations.json").is_file()
    for folder in ("label_prediction", "pseudo_color_prediction"):
        for name in written(tmp_path / "plain" / folder):  # they hold all classes, whatever is shown
            plain, views = (tmp_path / kind / folder / name for kind in ("plain", "views"))
            assert plain.read_bytes() == views.read_bytes()
    first = written(tmp_path / "plain/added_prediction")[0]
    widths = [Image.open(tmp_path / kind / "added_prediction" / first).size[0] for kind in ("plain", "views")]
    assert widths[1] > 2 * widths[0]
    refused(call("predict", *line, "--classes", "cat"), "--classes: unknown class 'cat'", 2)
