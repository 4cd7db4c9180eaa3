"""The config that new_config writes: valid as it is, and chosen from the data and the machine."""

import re
from collections import Counter

import cv2
import numpy as np
import pytest

from paddle_rt.analysis import Report, SplitReport
from paddle_rt.analysis.files import PairFacts
from paddle_rt.analysis.findings import ClassCounts
from paddle_rt.imaging.label_format import LabelFormat
from paddle_rt.imaging.labels import read_label
from paddle_rt.new_config.choice import Machine, choose, iterations
from tests import own_data
from tests.helpers import call_tool, message, refused

CPU, GPU = Machine("cpu", 2), Machine("gpu", 8, 16.0)
MODELS = ["rtformer_slim", "fanet18", "segformerpp_b0"]


def report(size=(480, 640), number=100, pixels=(99, 1), names=("background", "crack"), weights=(0.51, 50.0)):
    """Return an analysis of images of one size."""
    facts = [PairFacts(f"{i}.png", f"{i}.png", size=size, label_size=size) for i in range(number)]
    labels = LabelFormat(len(names))
    counts = ClassCounts(Counter(), Counter(), 0, number, len(names), 255)
    counts.pixels.update(dict(enumerate(pixels)))
    part = SplitReport(facts, labels, counts, {}, {}, False)
    return Report([], {"train_dataset": part}, labels, list(names), [0.5] * 3, [0.2] * 3, list(weights), (32, 32))


@pytest.fixture
def data(tmp_path):
    """Write a data set of 12 images of 32x32 in four classes."""
    own_data.make(tmp_path / "in", "tiny", 12)
    line = ["--format", "class_masks", "--input", tmp_path / "in/labels", "--images", tmp_path / "in/images",
            "--classes", tmp_path / "in/names.txt", "--output", tmp_path / "data", "--model", "none"]  # fmt: skip
    assert call_tool("data/prepare_data", *line) == 0
    return tmp_path / "data"


@pytest.mark.parametrize("model", MODELS)
def test_the_config_is_valid_as_it_is(data, tmp_path, monkeypatch, model):
    from paddle_rt.config import load_config
    from paddle_rt.new_config import write

    monkeypatch.setattr(write, "_measure", lambda text: 2.0)
    monkeypatch.setattr(write, "_machine", lambda device: CPU)
    monkeypatch.chdir(tmp_path)
    write.write_config("data", model, str(tmp_path / "c.yml"), hours=0.25)
    values = load_config(str(tmp_path / "c.yml")).values
    assert (values["batch_size"], values["iters"]) == (4, 400)
    train, val = values["train_dataset"], values["val_dataset"]
    assert train["train_path"] == str(data / "train.txt") and val["val_path"] == str(data / "val.txt")
    assert train["class_names"] == ["background", "thing 1", "thing 2", "thing 3"]
    assert train["transforms"][0] == val["transforms"][0] == {"type": "ResizeByShort", "short_size": 192}
    assert len(values["loss"]["types"][0]["weight"]) == 4 and values["lr_scheduler"]["warmup_iters"] == 40
    text = (tmp_path / "c.yml").read_text(encoding="utf-8")
    assert "2.00 s an iteration with its data, the median of 3, so 400 iterations take about 13 minutes" in text
    assert "what --hours leaves; random weights need about 700 for 4 classes" in text
    assert re.search(r"The rarest class, thing \d, has \d\.\d+% of the pixels", text)
    assert "exists, and may have been edited" in message(write.write_config, "data", model, str(tmp_path / "c.yml"))


def test_sizes_follow_from_images_and_machine():
    assert [choose(report(size), CPU).short_size for size in ((32, 48), (128, 200), (300, 300), (480, 640))] == \
        [192, None, None, 320]  # fmt: skip
    assert choose(report((32, 48)), CPU).crop == (192, 288)
    assert choose(report((480, 640)), CPU).crop == (320, 448) and choose(report((480, 640)), GPU).crop == (480, 640)
    large = choose(report((2000, 3000)), GPU)
    assert (large.short_size, large.crop, large.batch_size) == (1024, (512, 1024), 7)
    assert choose(report(number=3), CPU).batch_size == 3 and choose(report((64, 64)), GPU).batch_size == 16


def test_weights_only_where_classes_are_uneven():
    assert choose(report(), CPU).weights == [0.71, 7.07]
    assert choose(report(pixels=(60, 40), weights=(0.8, 1.2)), CPU).weights is None
    assert max(choose(report(weights=(0.5, 1e6)), CPU).weights) == 20.0
    assert choose(report(pixels=(100,)), CPU).weights is None  # a class that does not occur has no share


def test_iterations_by_classes_images_and_time():
    few, many = choose(report(), CPU), choose(report(number=10_000), CPU)
    assert (few.least_iters, few.wanted_iters, many.wanted_iters) == (600, 1000, 40_000)
    thirty = [f"c{i}" for i in range(30)]
    assert choose(report(names=thirty, pixels=[1] * 30, weights=[1] * 30), CPU).wanted_iters == 2000
    assert iterations(few, None, 1) == iterations(few, 0.1, 1) == 1000
    assert iterations(few, 6.0, 1) == 600 and iterations(few, 1e6, 1) == 100


@pytest.mark.parametrize("name", ["left lung", "Hand_Right", "左手"])
def test_no_mirror_images_where_names_tell_left_from_right(name):
    assert choose(report(names=("background", name)), CPU).flip is False
    assert choose(report(names=("background", "copyright")), CPU).flip is True


def test_refused(data, tmp_path, capsys):
    from paddle_rt.new_config.write import read_folder

    assert "no train.txt in" in message(read_folder, str(tmp_path))
    (data / "labels.txt").unlink()
    assert read_folder(str(data))[1].class_names == [f"class {i}" for i in range(4)]
    line = ["--data", data, "--model", "segformerpp_b0_pose"]
    refused((call_tool("new_config", *line), *capsys.readouterr()), "unknown choice 'segformerpp_b0_pose'", 2)


def test_labels_of_any_kind_get_the_keys_that_read_them(data, tmp_path, monkeypatch):
    """A folder that prepare_data did not write: masks of 0 and 255, and no names."""
    from paddle_rt.config import load_config
    from paddle_rt.new_config import write

    (data / "labels.txt").unlink()
    for label in (data / "labels").iterdir():
        cv2.imwrite(str(label), np.where(read_label(label, 4) > 0, 255, 0).astype(np.uint8))
    monkeypatch.setattr(write, "_measure", lambda text: 0.5)
    monkeypatch.setattr(write, "_machine", lambda device: CPU)
    write.write_config(str(data), "rtformer_slim", str(tmp_path / "c d.yml"))
    assert f"# paddle-rt train -c '{tmp_path}/c d.yml' --do_eval" in (tmp_path / "c d.yml").read_text(), "for a shell"
    section = load_config(str(tmp_path / "c d.yml")).values["train_dataset"]
    assert section["label_map"] == {0: 0, 255: 1} and section["num_classes"] == 2


@pytest.mark.slow
def test_a_data_set_gets_a_config_that_trains(tmp_path, capsys):
    folder = own_data.prepare(tmp_path, "tiny", "--hours", 0.01, number=8)
    out = capsys.readouterr().out
    config = folder / "rtformer_slim.yml"
    assert f"{config}\n# rtformer_slim on {folder}: 6 images in train_dataset" in out
    seconds = float(re.search(r"([\d.]+) s an iteration", out)[1])
    assert seconds > 0
    line = ["-c", config, "--device", "cpu", "--opts", "iters=2", "--save_dir", tmp_path / "run", "--do_eval"]
    assert call_tool("train", *line) == 0
    assert (tmp_path / "run/best_model/model.pdparams").exists()
