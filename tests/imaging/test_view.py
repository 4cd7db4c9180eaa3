"""Views of labels: what each option changes, text in any script, and the flags that predict and infer share."""

import json
import logging
import pathlib

import numpy as np
import pytest
from PIL import Image, ImageDraw

from paddle_rt.cli.arguments import Parser
from paddle_rt.errors import FlagError
from paddle_rt.imaging import overlay, palette
from paddle_rt.imaging.draw import as_bgr, colorize
from paddle_rt.imaging.label_files import open_label_files
from paddle_rt.imaging.polygons import find_polygons
from paddle_rt.imaging.text import draw_texts, drawable_name, text_width
from paddle_rt.imaging.view import View, add_view_flags, given_flags, view_of_flags
from tests.helpers import smooth_image, written

NAMES = ["sky", "road", "car", "pole"]
COLOURS = palette(None, len(NAMES))


def scene() -> tuple[np.ndarray, np.ndarray]:
    """Return an image and its labels: a car with a hole on a road below the sky, a thin pole, pixels without label."""
    labels = np.zeros((60, 100), np.uint8)
    labels[30:] = 1
    labels[35:55, 20:60] = 2
    labels[42:50, 30:45] = 1
    labels[10:50, 80:82] = 3
    labels[58:] = 255
    return smooth_image(60, 100, cell=8), labels


def flags(*words: str) -> View:
    parser = Parser("")
    add_view_flags(parser)
    arguments = parser.parse_args(list(words))
    assert (given_flags(arguments) == []) == (words == ())
    return view_of_flags(arguments, NAMES, COLOURS)


def test_by_default_a_view_is_the_overlay():
    image, labels = scene()
    for picture in (image, image[..., 0], np.dstack([image, image[..., :1]])):
        assert np.array_equal(flags().draw(picture, labels), overlay(picture, labels, COLOURS))


def test_opacity_is_the_weight_of_the_colours():
    image, labels = scene()
    drawn = flags("--opacity", "1").draw(image, labels)
    assert np.array_equal(drawn[:58], colorize(labels, COLOURS)[:58]) and np.array_equal(drawn[58:], image[58:])
    assert np.array_equal(flags("--opacity", "0").draw(image, labels), image)


def test_only_some_classes_are_shown():
    image, labels = scene()
    drawn = flags("--classes", "car", "3").draw(image, labels)
    shown = np.isin(labels, [2, 3])
    assert np.array_equal(drawn[shown], overlay(image, labels, COLOURS)[shown])
    assert np.array_equal(drawn[~shown], image[~shown])


def test_contours_are_the_borders_in_full_colours():
    image, labels = scene()
    drawn = flags("--contours", "--opacity", "0").draw(image, labels)
    changed = (drawn != image).any(axis=2)
    assert changed[29, 5] and changed[30, 5] and not changed[28, 5] and not changed[31, 5]
    assert np.array_equal(drawn[changed], colorize(labels, COLOURS)[changed])
    assert np.array_equal(drawn[35, 20], COLOURS[2, ::-1]) and not changed[58:].any()


def test_the_image_stands_on_the_left_and_the_legend_on_the_right():
    image, labels = scene()
    drawn = flags("--side_by_side", "--legend").draw(image, labels)
    assert np.array_equal(drawn[:, :100], image)
    assert np.array_equal(drawn[:, 100:200], overlay(image, labels, COLOURS))
    panel = drawn[:, 200:]
    wanted = {tuple(COLOURS[label, ::-1]) for label in (0, 1, 2)}  # three lines fit, of which the last counts the rest
    found = {tuple(colour) for colour in panel.reshape(-1, 3)}
    assert len(wanted & found) == 2 and (panel == 255).mean() > 0.5
    width = flags("--legend").draw(image, np.full_like(labels, 255)).shape[1] - 100
    assert width == panel.shape[1]  # so that all frames of a video have one size


def test_heat_maps_go_from_0_to_1():
    confidence = np.linspace(-0.1, 1.1, 60, dtype=np.float32)[:, np.newaxis].repeat(30, axis=1)
    plain, with_scale = flags("--confidence").heat_map(confidence), flags("--legend").heat_map(confidence)
    assert plain.shape == (60, 30, 3) and np.array_equal(with_scale[:, :30], plain) and with_scale.shape[1] > 60
    assert plain[0, 0].tolist() == [84, 1, 68] and plain[-1, 0].tolist() == [37, 231, 253]  # the ends of viridis


def test_an_unknown_class_is_named_with_the_nearest_one():
    for word, text in (("cat", "did you mean 'car'"), ("4", "unknown class '4'"), ("²", "unknown class")):
        with pytest.raises(FlagError, match=text):
            flags("--classes", word)


def test_text_without_a_font_becomes_question_marks_and_names_become_numbers(caplog):
    image = np.full((20, 200, 3), 255, np.uint8)
    known, lost = (draw_texts(image, [(2, 10, text)], 12) for text in ("road", "road\U0010fff0"))
    assert (known < 128).any() and np.array_equal(lost, draw_texts(image, [(2, 10, "road?")], 12))
    assert text_width("road road", 12) > text_width("road", 12)
    with caplog.at_level(logging.WARNING):
        assert [drawable_name(name, 7) for name in ("road?", "road\U0010fff0")] == ["road?", "class 7"]
    assert "no font of this machine has all characters" in caplog.text


def painted(polygons: list[tuple[int, list]], shape: tuple[int, ...]) -> np.ndarray:
    """Paint polygons in their order, as LabelMe does."""
    labels = np.full(shape, 255, np.uint8)
    for label, points in polygons:
        mask = Image.new("L", shape[::-1])
        ImageDraw.Draw(mask).polygon([tuple(point) for point in points], outline=1, fill=1)
        labels[np.array(mask) > 0] = label
    return labels


def test_polygons_go_back_into_the_annotation_tools(tmp_path):
    coco = pytest.importorskip("pycocotools.coco")
    image, labels = scene()
    with open_label_files(tmp_path, flags("--polygons", "coco", "labelme", "--min_area", "4")) as add:
        add(str(tmp_path / "in/a.jpg"), pathlib.Path("b/a"), labels, None)
        add(str(tmp_path / "in/c.png"), pathlib.Path("c.png"), np.full((8, 9), 255, np.uint8), None)
    assert written(tmp_path) == ["coco_annotations.json", "labelme/b/a.json", "labelme/c.png.json"]
    content = json.loads((tmp_path / "labelme/b/a.json").read_text())
    assert content["imagePath"] == "../../in/a.jpg" and (content["imageHeight"], content["imageWidth"]) == (60, 100)
    shapes = [(NAMES.index(shape["label"]), shape["points"]) for shape in content["shapes"]]
    dataset = coco.COCO(str(tmp_path / "coco_annotations.json"))
    assert [entry["file_name"] for entry in dataset.loadImgs([1, 2])] == ["b/a.jpg", "c.png"]
    again = np.full(labels.shape, 255, np.uint8)
    for annotation in dataset.loadAnns(dataset.getAnnIds(imgIds=[1])):
        again[dataset.annToMask(annotation) > 0] = annotation["category_id"] - 1
        assert annotation["area"] == (labels == annotation["category_id"] - 1).sum() or annotation["category_id"] == 2
    assert [entry["name"] for entry in dataset.loadCats(dataset.getCatIds())] == NAMES
    shares = {
        name: float((found == labels).mean())
        for name, found in (("COCO", again), ("LabelMe", painted(shapes, labels.shape)))
    }
    print(f"share of pixels that keep their labels: {shares}")
    assert min(shares.values()) > 0.98 and np.array_equal(again, labels)


def test_small_regions_and_hidden_classes_are_no_polygons():
    labels = scene()[1]
    found = find_polygons(labels, [2, 3], min_area=81)
    assert [(polygon.label, polygon.area) for polygon in found] == [(2, 20 * 40 - 8 * 15)]
    filled = find_polygons(labels, [2], min_area=121)[0]
    assert len(filled.points) == 4  # the hole has 120 pixels


def test_every_kind_of_image_has_a_view():
    assert as_bgr(np.zeros((4, 5), np.uint8)).shape == (4, 5, 3)
    assert flags("--legend", "--contours").draw(np.zeros((1, 1, 3), np.uint8), np.zeros((1, 1), np.uint8)).shape[0] == 1
