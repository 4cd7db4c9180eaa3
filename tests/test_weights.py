"""Trained weights of the package: packed, found by name, and taken by every tool. The tests pack their own."""

import hashlib
import json
import pathlib
import shutil

import numpy as np
import paddle
import pytest
import yaml

from paddle_rt import create_model, list_weights, weights
from paddle_rt.checkpoint import atomic_save, read_state_dict
from paddle_rt.cli.pack_weights import in_half_precision, network_name, read_run
from paddle_rt.config import Config, load_config, trained_network
from paddle_rt.errors import UserError
from tests.helpers import call_tool, message, randomize, refused, smooth_image, tiny_config, written
from tests.tools.conftest import call  # noqa: F401  a fixture

NAME = "rtformer_slim_streetscenes"
LOG = [
    {"kind": "train", "iter": 10, "loss": 2.0, "batch_cost": 360.0},
    {"kind": "eval", "iter": 10, "model": "model", "mIoU": 0.3},
    {"kind": "eval", "iter": 10, "model": "ema_model", "mIoU": 0.9},
    {"kind": "train", "iter": 15, "loss": 1.0, "batch_cost": 720.0},
    {"kind": "eval", "iter": 15, "model": "model", "mIoU": 0.2},
]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> pathlib.Path:
    """A run of the full network: its config, log and best model, whose weights are random."""
    folder = tmp_path_factory.mktemp("run")
    scenes = {"type": "StreetScenes", "num_samples": 2, "height": 32, "width": 64}
    tiny_config(folder, model={"type": "RTFormer", "variant": "slim", "bn_momentum": 0.9},
                val_dataset={**scenes, "mode": "val", "transforms": [{"type": "Normalize"}]})  # fmt: skip
    network = create_model("rtformer_slim")
    randomize(network)
    atomic_save(network.state_dict(), folder / "best_model/model.pdparams")
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, LOG)))
    return folder


@pytest.fixture(scope="module")
def packed(run, tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("packed")
    line = ["-c", run / "config.yml", "--model_path", run / "best_model", "--save_dir", folder, "--device", "cpu"]
    assert call_tool("pack_weights", *line) == 0
    return folder


@pytest.fixture
def installed(packed, monkeypatch) -> pathlib.Path:
    """The package holds the packed weights and no others."""
    monkeypatch.setattr(weights, "FOLDER", packed)
    return packed


def test_the_card_describes_the_file(packed, run):
    assert written(packed) == [f"{NAME}.safetensors", f"{NAME}.yml"]
    data, card = (packed / f"{NAME}.safetensors").read_bytes(), yaml.safe_load((packed / f"{NAME}.yml").read_text())
    assert card["sha256"] == hashlib.sha256(data).hexdigest() and card["bytes"] == len(data) < 12_000_000
    assert (card["name"], card["model"], card["data"], card["licence"]) == (
        NAME, "rtformer_slim", "streetscenes", "Apache-2.0"
    )  # fmt: skip
    assert card["run"] == {
        "iterations": 15,
        "hours": 2.0,
        "model": "best_model",
        "best_iteration": 10,
        "best": "mIoU 0.3000",
    }
    assert card["size"] == [32, 64] and card["images"] == {"train": 8, "val": 2} and len(card["class_iou"]) == 19
    saved = read_state_dict(packed / f"{NAME}.safetensors")
    assert {value.dtype for value in saved.values()} == {np.dtype(np.float16)}
    original = read_state_dict(run / "best_model")
    assert all(np.array_equal(saved[name], value.astype(np.float16)) for name, value in original.items())


def test_the_score_of_the_card_is_that_of_val(installed, call, tmp_path):  # noqa: F811
    code, _, err = call("val", "--model_path", NAME, "--output", tmp_path / "scores.json", "--device", "cpu")
    assert code == 0, err
    card, found = (
        yaml.safe_load((installed / f"{NAME}.yml").read_text()),
        json.loads((tmp_path / "scores.json").read_text()),
    )
    assert card["scores"]["mIoU"] == round(found["mIoU"], 4) and found["config"] == found["model_path"] == NAME


def test_networks_take_them_by_name(installed):
    assert list_weights() == [NAME]
    state = read_state_dict(NAME)
    for name in ("streetscenes", NAME):
        network = create_model("rtformer_slim", checkpoint=name)
        assert all(np.array_equal(v.numpy(), state[n].astype(np.float32)) for n, v in network.state_dict().items())
    started = create_model("rtformer_slim", 11, pretrained="streetscenes").state_dict()
    same = [name for name, value in started.items() if np.array_equal(value.numpy(), state[name])]
    assert len(started) > len(same) > 0.9 * len(started), "all but the heads"
    config = load_config(NAME)
    assert config.values["val_dataset"]["transforms"][0] == {"type": "ResizeByShort", "short_size": 32}
    trained_network(config, NAME)


def test_the_card_names_the_weights_of_the_start(installed, run, call, tmp_path):  # noqa: F811
    line = ["-c", run / "config.yml", "--model_path", run / "best_model", "--save_dir", tmp_path, "--device", "cpu"]
    code, _, err = call("pack_weights", *line, "--opts", "model.pretrained=streetscenes")
    assert code == 0, err
    first, second = (yaml.safe_load((folder / f"{NAME}.yml").read_text()) for folder in (installed, tmp_path))
    assert first["made"]["start"] == "random weights"
    assert NAME in second["made"]["start"] and first["sha256"] in second["made"]["start"]
    assert "pretrained" not in second["config"]["model"], "the card's config starts training from random weights"


def test_names_that_stand_for_nothing(installed, monkeypatch, tmp_path):
    assert message(read_state_dict, "cityscapes").endswith(f"trained weights of the package: {NAME}")
    assert f"for FANet; there are {NAME}" in message(weights.find_weights, "streetscenes", "FANet")
    assert "does not fit RTFormer" in message(create_model, "rtformer_slim", 11, checkpoint="streetscenes")
    shutil.copy(installed / f"{NAME}.yml", tmp_path / f"{NAME}.yml")
    shutil.copy(installed / f"{NAME}.yml", tmp_path / "rtformer_base_streetscenes.yml")
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    assert "give one of rtformer_base_streetscenes, rtformer_slim_streetscenes" in message(
        read_state_dict, "streetscenes"
    )
    assert "no file of weights at" in message(read_state_dict, NAME)
    (tmp_path / f"{NAME}.yml").write_text("data: streetscenes\n")
    assert "is damaged: a card of weights has the keys data, sha256, config" in message(read_state_dict, NAME)
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "none")
    assert list_weights() == [] and message(read_state_dict, NAME).endswith("of the package: none in this installation")


def test_damaged_weights_are_refused(packed, monkeypatch, tmp_path):
    shutil.copytree(packed, tmp_path / "weights")
    monkeypatch.setattr(weights, "FOLDER", tmp_path / "weights")
    file = tmp_path / f"weights/{NAME}.safetensors"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    assert "is damaged: its SHA-256 is" in message(create_model, "rtformer_slim", checkpoint="streetscenes")


def test_a_path_is_no_name(installed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atomic_save({"weight": paddle.zeros([2])}, tmp_path / "streetscenes/model.pdparams")
    for path in ("./streetscenes", pathlib.Path("streetscenes"), tmp_path / "streetscenes"):
        assert list(read_state_dict(path)) == ["weight"], path
    assert len(read_state_dict("streetscenes")) > 1


def test_predict_labels_images_without_a_config(installed, call, tmp_path):  # noqa: F811
    import cv2
    from PIL import Image

    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images/street.png"), smooth_image(64, 96))
    line = ["--image_path", tmp_path / "images", "--save_dir", tmp_path / "out", "--device", "cpu"]
    code, out, err = call("predict", *line)
    assert code == 0 and "1 image labelled" in out, err
    assert Image.open(tmp_path / "out/label_prediction/street.png").size == (96, 64)
    named = call("predict", "--model_path", "streetscenes", *line)
    assert named[0] == 0, named
    refused(call("predict", "-c", NAME, *line), "arguments are required: --model_path", 2)


def test_without_weights_in_the_package_a_config_is_asked_for(call, tmp_path, monkeypatch):  # noqa: F811
    monkeypatch.setattr(weights, "FOLDER", tmp_path)
    refused(
        call("predict", "--image_path", tmp_path),
        f"required: -c/--config, --model_path .the package holds no {NAME}",
        2,
    )
    for tool in ("val", "export"):
        refused(call(tool, "--model_path", NAME), "required: -c/--config", 2)
    refused(call("export", "--random_weights"), "--random_weights needs a config", 2)


def test_what_is_not_packed(run, call, tmp_path):  # noqa: F811
    line = ["-c", run / "config.yml", "--device", "cpu", "--save_dir", tmp_path / "out"]
    best = ["--model_path", run / "best_model"]
    refused(call("pack_weights", *line, *best, "--opts", "model.use_injection=[True,False]"), "does not fit RTFormer")
    refused(
        call("pack_weights", *line, *best, "--opts", "model.pretrained=x.pdparams"), "that started from x.pdparams are"
    )
    (tmp_path / "plain").mkdir()
    plain = yaml.safe_load((run / "config.yml").read_text())
    del plain["model"]["variant"]
    (tmp_path / "plain/config.yml").write_text(yaml.safe_dump(plain))
    refused(call("pack_weights", "-c", tmp_path / "plain/config.yml", *best), "names no variant of a network")
    shutil.copytree(run / "best_model", tmp_path / "alone/best_model")
    refused(call("pack_weights", *line, "--model_path", tmp_path / "alone/best_model"), "no log of a run at")
    assert not (tmp_path / "out").exists()


def test_weights_of_other_data_are_not_packed():
    config = Config("x.yml", {"train_dataset": {"type": "CamVid"}, "model": {"type": "RTFormer", "variant": "slim"}})
    assert "weights trained on CamVid are not packed" in message(network_name, config)


def test_a_log_without_evaluation(tmp_path):
    (tmp_path / "run/best_model").mkdir(parents=True)
    (tmp_path / "run/metrics.jsonl").write_text(json.dumps(LOG[0]))
    with pytest.raises(UserError, match="holds no evaluation: train with --do_eval"):
        read_run(tmp_path / "run/best_model")


def test_the_moving_average_has_scores_of_its_own(run):
    assert read_run(run / "ema_best_model/model.pdparams")["best"] == "mIoU 0.9000"


def test_arrays_that_half_precision_cannot_hold_stay_as_they_are():
    state = {"a": np.float32([1, 2]), "b": np.float32([1e5]), "c": np.array([7])}
    assert [value.dtype.name for value in in_half_precision(state).values()] == ["float16", "float32", "int64"]
