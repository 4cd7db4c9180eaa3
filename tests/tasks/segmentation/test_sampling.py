"""Oversampling of rare classes: weights by hand, from label files, and what a config may ask for."""

import pathlib

import numpy as np
import pytest

from paddle_rt.config import build_task, load_config
from paddle_rt.imaging import palette, write_label
from paddle_rt.tasks.segmentation.sampling import balanced
from tests.helpers import camvid_dataset, message, tiny_config


def test_every_class_that_occurs_is_drawn_as_often():
    present = np.array([[1, 1, 0, 0], [1, 0, 0, 0], [1, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    weights = balanced(present)
    expected = [(1 / 4 + 1) / 3, 1 / 12, (1 / 4 + 1) / 3, 1 / 12, 0]
    error = np.abs(weights - expected).max()
    assert error < 1e-12 and weights.sum() == pytest.approx(1), error
    assert "no pixel of the training labels belongs to a class" in message(balanced, np.zeros((3, 2), bool))


def config_of(folder: pathlib.Path, **changes: object) -> str:
    dataset = camvid_dataset(folder / "camvid")  # its third image holds class 10, the others hold class 0
    labels = np.zeros((32, 64), np.uint8)
    labels[:4] = 255
    write_label(folder / "camvid/labels/0.png", labels, palette(None, 11))
    return tiny_config(folder, train_dataset=dataset, val_dataset={**dataset, "mode": "val"}, **changes)


def test_weights_are_those_of_the_label_files(tmp_path):
    config = load_config(config_of(tmp_path, sampler="class_balanced"))
    task = build_task(config)
    weights = task.sample_weights(task.build_data("train"))
    assert weights.tolist() == pytest.approx([1 / 6, 1 / 6, 1 / 2, 1 / 6])  # ignored pixels are of no class
    plain = build_task(load_config(config.path, ["sampler=null"]))
    assert plain.sample_weights(plain.build_data("train")) is None


def test_rendered_scenes_have_weights_too(tmp_path):
    task = build_task(load_config(tiny_config(tmp_path, sampler="class_balanced")))
    weights = task.sample_weights(task.build_data("train"))
    assert weights.shape == (8,) and weights.sum() == pytest.approx(1) and (weights > 0).all()


def test_an_unknown_sampler_is_refused(tmp_path):
    path = tiny_config(tmp_path, sampler="class_balance")
    assert "unknown sampler 'class_balance', did you mean 'class_balanced'" in message(load_config, path)


def test_paddleseg_s_loop_has_no_sampler(tmp_path):
    from paddle_rt.paddleseg.loop import train
    from paddle_rt.training import TrainOptions

    config = load_config(tiny_config(tmp_path, sampler="class_balanced"))
    assert "PaddleSeg's loop has no sampler" in message(train, config, TrainOptions(str(tmp_path / "run")))
    assert not (tmp_path / "run").exists()
