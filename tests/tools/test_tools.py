"""The command lines train, val, predict and compare: what they write, and how they end on bad input."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from PIL import Image

from paddle_rt.checkpoint import read_saved, read_state_dict
from paddle_rt.config.build import SegBuilder, build, load_config, trained_model
from paddle_rt.models.rtformer import RTFormer
from paddle_rt.paddleseg import compare
from paddle_rt.tasks.segmentation.evaluate import evaluate
from paddle_rt.tasks.segmentation.metrics import scores
from tests.helpers import ROOT, TINY, call_tool, launch_two_processes, run_python, tiny_config, written

CLASSES = 19


@pytest.fixture
def call(capsys):
    """Run a tool within this process: exit code, stdout, stderr."""

    def run(tool: str, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return call_tool(tool, *arguments), *capsys.readouterr()

    return run


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    return tiny_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory) -> Path:
    """A run of five iterations with every part of training switched on."""
    folder = tmp_path_factory.mktemp("trained")
    flags = ["--do_eval", "--use_ema", "--use_vdl", "--seed", 1]
    numbers = ["--save_interval", 2, "--log_iters", 1, "--keep_checkpoint_max", 2]
    done = run_python("tools/train.py", "--config", config, "--save_dir", folder / "run", *flags, *numbers)
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "a run without mistakes has nothing to say on stderr"
    (folder / "log").write_text(done.stdout)
    return folder


@pytest.fixture
def weights(trained) -> Path:
    return trained / "run" / "iter_5"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Path:
    """Pictures of all kinds, in sub-folders and in a list."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    content = {
        "street.jpg": rng.integers(0, 255, (30, 50, 3), np.uint8),
        "street.png": rng.integers(0, 255, (33, 47, 3), np.uint8),
        "a/grey.png": rng.integers(0, 255, (24, 40), np.uint8),
        "a/deep.png": rng.integers(0, 65535, (25, 41, 3), np.uint16),
        "a/b/alpha.png": rng.integers(0, 255, (26, 42, 4), np.uint8),
        "a/one.bmp": rng.integers(0, 255, (1, 1, 3), np.uint8),
    }
    for name, image in content.items():
        (folder / name).parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / name), image)
    (folder / "list.txt").write_text("a/grey.png label.png\na/b/alpha.png\n")
    return folder


def test_train_writes_paddlesegs_files(trained):
    files = written(trained / "run")
    in_each = ("ema_model.pdparams", "model.pdopt", "model.pdparams")
    checkpoints = [f"iter_{i}/{name}" for i in (4, 5) for name in in_each]
    best = [f"{kind}best_model/{kind}model.{end}" for kind in ("", "ema_") for end in ("pdparams", "pdstates")]
    assert [name for name in files if not name.startswith("vdlrecords")] == sorted(checkpoints + best)
    assert len(files) == 1 + len(checkpoints + best), files
    run = trained / "run"
    plain, averaged = read_state_dict(run / "iter_5"), read_state_dict(run / "iter_5" / "ema_model.pdparams")
    assert list(plain) == list(averaged) and not all(np.array_equal(plain[name], averaged[name]) for name in plain)


def test_train_logs_in_paddlesegs_words(trained):
    log = (trained / "log").read_text()
    assert re.findall(r"\[TRAIN\] epoch: (\d), iter: (\d)/5, loss: \d+\.\d{4}, lr: ", log) == [
        ("1", "1"), ("1", "2"), ("2", "3"), ("2", "4"), ("3", "5")]  # fmt: skip
    assert len(re.findall(r"\[EVAL\] #Images: 8 mIoU: 0\.\d{4} Acc: ", log)) == 6
    assert "traffic light" in log and "The model with the best validation mIoU" in log
    assert "flops" not in log.lower()


def test_best_score_is_that_of_the_best_model(trained, config):
    states = read_saved(trained / "run/best_model/model.pdstates")
    loaded = load_config(config)
    model = trained_model(loaded, str(trained / "run/best_model"))
    result = scores(evaluate(model, build(SegBuilder(loaded), "val_dataset")))
    assert abs(result["mIoU"] - states["mIoU"]) < 1e-9 and abs(result["Acc"] - states["Acc"]) < 1e-9


def test_visualdl_log_can_be_read(trained):
    from visualdl import LogReader

    (file,) = (trained / "run").glob("vdlrecords*")
    tags = LogReader(file_path=str(file)).get_tags()["scalar"]
    assert {"Train/loss", "Train/lr", "Evaluate/mIoU", "Evaluate/Ema_mIoU"} <= set(tags)


def test_resume_goes_on_and_to_static_trains(trained, config, tmp_path):
    resumed = ["--resume_model", trained / "run/iter_4", "--iters", 6, "--log_iters", 1]
    options = ["--opts", "to_static_training=True", "lr_scheduler.power=0.5"]
    done = run_python("tools/train.py", "-c", config, "--save_dir", tmp_path, *resumed, *options)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"iter: (\d)/6", done.stdout) == ["5", "6"]
    assert "Successfully applied @to_static" in done.stdout and "power: 0.5" not in done.stderr
    assert written(tmp_path) == ["iter_6/model.pdopt", "iter_6/model.pdparams"]


def test_resume_of_a_finished_run_says_so(call, trained, config, tmp_path):
    code, out, err = call("train", "-c", config, "--save_dir", tmp_path, "--resume_model", trained / "run/iter_5")
    assert (code, err) == (0, "") and "iter_5 has 5 of 5 iterations: nothing is left to train" in out


def test_seed_decides_the_weights(call, config, tmp_path):
    results = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        code, _, err = call("train", "-c", config, "--save_dir", tmp_path / name, "--iters", 1, "--seed", seed)
        assert code == 0, err
        results.append(read_state_dict(tmp_path / name / "iter_1"))
    first, same, other = results
    assert all(np.array_equal(first[name], same[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def test_two_processes_score_what_they_save(config, tmp_path):
    """Each rank scores its half of the images; the sum is the saved model's only if both ranks have its statistics."""
    flags = ["--do_eval", "--use_ema", "--device", "cpu", "--iters", 3, "--batch_size", 2, "--seed", 0]
    launch_two_processes(tmp_path / "log", "tools/train.py", "-c", config, "--save_dir", tmp_path / "run", *flags)
    loaded = load_config(config)
    dataset = build(SegBuilder(loaded), "val_dataset")
    for kind in ("", "ema_"):
        file = tmp_path / "run" / f"{kind}best_model" / f"{kind}model.pdparams"
        states = read_saved(file.with_suffix(".pdstates"))
        confusion = evaluate(trained_model(loaded, str(file)), dataset)
        assert confusion.sum() == 8 * dataset.height * dataset.width
        assert abs(scores(confusion)["Acc"] - states["Acc"]) < 1e-9, f"{kind}model: {states}"
        last = read_state_dict(tmp_path / "run/iter_3" / file.name)
        assert all(np.array_equal(last[name], value) for name, value in read_state_dict(file).items())


def test_val_writes_the_scores(weights, config, tmp_path):
    line = ["-c", config, "--model_path", weights, "--batch_size", 3, "--output", tmp_path / "metrics.json"]
    done = run_python("tools/val.py", *line)
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads((tmp_path / "metrics.json").read_text())
    loaded = load_config(config)
    confusion = evaluate(trained_model(loaded, str(weights)), build(SegBuilder(loaded), "val_dataset"))
    assert content["confusion_matrix"] == confusion.tolist()
    assert content["mIoU"] == pytest.approx(scores(confusion)["mIoU"], abs=1e-12)
    assert content["images"] == 8 and content["config"] == config and content["model_path"] == str(weights)
    assert [row["name"] for row in content["classes"]][:3] == ["road", "sidewalk", "building"]
    assert f"mIoU: {content['mIoU']:.4f} Acc: {content['Acc']:.4f}" in done.stdout
    assert re.search(r"^traffic light +(0\.\d{4}|-) ", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("flags", [
    ["--aug_eval", "--flip_horizontal", "--flip_vertical"],
    ["--aug_eval", "--scales", "0.5", "1"],
    ["--is_slide", "--crop_size", "40", "24", "--stride", "20", "16"],
])  # fmt: skip
def test_val_flags_count(call, flags, weights, config, tmp_path):
    results = []
    for name, more in (("plain", []), ("flags", flags)):
        file = tmp_path / f"{name}.json"
        code, _, err = call("val", "-c", config, "--model_path", weights, "--output", file, *more)
        assert code == 0, err
        results.append(json.loads(file.read_text()))
    plain, changed = results
    assert plain["confusion_matrix"] != changed["confusion_matrix"] and plain["mIoU"] != changed["mIoU"]


@pytest.mark.parametrize("rule, counted", [("exclude", None), ("zero", 0.0), ("one", 1.0)])
def test_val_counts_absent_classes_by_rule(call, rule, counted, tmp_path):
    """Labels hold the first and the last of 11 classes, and the bias of class 5 keeps it from being predicted."""
    dataset, model, absent = camvid(tmp_path / "camvid"), RTFormer(11, **TINY), 5
    path = tiny_config(tmp_path, train_dataset=dataset, val_dataset={**dataset, "mode": "val"})
    model.seghead.conv2.bias.set_value(np.where(np.arange(11) == absent, -1e9, 0).astype("float32"))
    paddle.save(model.state_dict(), str(tmp_path / "model.pdparams"))
    line = ["--model_path", tmp_path, "--absent_class", rule, "--output", tmp_path / "metrics.json"]
    code, out, err = call("val", "-c", path, *line)
    assert code == 0, err
    content = json.loads((tmp_path / "metrics.json").read_text())
    confusion = np.array(content["confusion_matrix"])
    union = confusion.sum(0) + confusion.sum(1) - np.diag(confusion)
    assert confusion.sum() == 4 * 32 * 64 and union[absent] == 0
    found = [hit / both for hit, both in zip(np.diag(confusion), union, strict=True) if both]
    values = found if counted is None else found + [counted] * (11 - len(found))
    error = abs(content["mIoU"] - np.mean(values))
    assert error < 1e-12, f"mIoU {content['mIoU']}, expected {np.mean(values)}, error {error:.1e}"
    assert [row["iou"] for row, both in zip(content["classes"], union, strict=True) if not both] == (
        [counted] * (11 - len(found))
    )
    assert f"mIoU: {np.mean(values):.4f} " in out


def test_predict_writes_three_pictures_of_each(weights, config, pictures, tmp_path):
    line = ["-c", config, "--model_path", weights, "--image_path", pictures, "--save_dir", tmp_path]
    done = run_python("tools/predict.py", *line)
    assert (done.returncode, done.stderr) == (0, "")
    # Two differ in their suffix alone: their labels must not overwrite each other.
    names = ["a/b/alpha.png", "a/deep.png", "a/grey.png", "a/one.bmp", "street.jpg", "street.png.png"]
    assert written(tmp_path / "added_prediction") == names
    labelled = [str(Path(name).with_suffix(".png")) for name in names]
    assert written(tmp_path / "label_prediction") == written(tmp_path / "pseudo_color_prediction") == sorted(labelled)
    for name, label in zip(names, labelled, strict=True):
        file = name if (pictures / name).exists() else name[:-4]
        size = Image.open(pictures / file).size
        classes = np.asarray(Image.open(tmp_path / "label_prediction" / label))
        colours = Image.open(tmp_path / "pseudo_color_prediction" / label)
        assert classes.shape == size[::-1] and classes.dtype == np.uint8 and classes.max() < CLASSES
        assert colours.mode == "P" and np.array_equal(np.asarray(colours), classes)
        assert Image.open(tmp_path / "added_prediction" / name).size == size


def test_predict_takes_lists_and_colours(call, weights, config, pictures, tmp_path):
    line = ["-c", config, "--model_path", weights / "model.pdparams", "--save_dir", tmp_path]
    code, out, err = call("predict", *line, "--image_path", pictures / "list.txt", "--custom_color", *range(1, 58))
    assert code == 0 and "2 images labelled" in out, err
    assert written(tmp_path / "label_prediction") == ["a/b/alpha.png", "a/grey.png"]
    palette = Image.open(tmp_path / "pseudo_color_prediction/a/grey.png").getpalette()
    assert palette[:57] == list(range(1, 58))
    code, _, err = call("predict", *line, "--image_path", pictures / "a/one.bmp", "--aug_pred", "--flip_horizontal")
    assert code == 0 and (tmp_path / "label_prediction/one.png").is_file(), err


def test_predict_names_what_it_cannot_read(call, weights, config, pictures, tmp_path):
    broken, jpeg = tmp_path / "broken", (pictures / "street.jpg").read_bytes()
    broken.mkdir()
    contents = {"empty.png": b"", "half.jpg": jpeg[: len(jpeg) // 2], "text.png": b"x", "whole.jpg": jpeg}
    for name, content in contents.items():
        (broken / name).write_bytes(content)
    line = ["-c", config, "--model_path", weights, "--image_path", broken, "--save_dir", tmp_path / "out"]
    code, _, err = call("predict", *line)
    assert code == 1 and err.startswith("error: 3 of 4 images could not be read") and err.count("\n") == 1
    assert "empty.png is empty" in err and "half.jpg is cut off" in err and "text.png: it is damaged" in err
    assert written(tmp_path / "out/label_prediction") == ["whole.png"]


def test_lists_cannot_write_outside_of_the_folder(call, weights, config, pictures, tmp_path):
    (tmp_path / "list").mkdir()
    shutil.copy(pictures / "street.jpg", tmp_path / "above.jpg")
    (tmp_path / "list/list.txt").write_text(f"../above.jpg\n{pictures / 'a/grey.png'}\n")
    out = tmp_path / "out"
    code, _, err = call("predict", "-c", config, "--model_path", weights, "--image_path", tmp_path / "list/list.txt",
                        "--save_dir", out)  # fmt: skip
    assert code == 0, err
    names = written(out / "label_prediction")
    assert len(names) == 2 and names[0] == "above.png" and names[1].endswith("a/grey.png")
    assert not list(tmp_path.glob("*.png"))


def test_compare_finds_equal_models(trained, config, pictures):
    line = ["-c", config, "--model_path", trained / "run", "--image_path", pictures / "list.txt"]
    done = run_python("tools/compare.py", *line)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("  equal at a relative error of 1e-05") == 6, done.stdout
    assert done.stdout.count("100.0000 % agree") == 6
    assert f"{trained}/run/iter_4/ema_model.pdparams, 2 images" in done.stdout


def test_compare_takes_random_weights(call, config):
    code, out, err = call("compare", "-c", config, "--input_size", 33, 47, "--images", 1)
    assert code == 0 and "random weights, 1 images" in out, err


SEGFORMER = ["-c", "configs/segformerpp/segformerpp_b0_camvid_480x360_cpu.yml", "--input_size", 65, 97, "--images", 1]


@pytest.mark.parametrize("size", [["model.embed_dim=8", "model.head_channels=8"], ["model.depths=[3,2,2,2]"]])
def test_compare_finds_paddlesegs_segformer(call, size):
    code, out, err = call("compare", *SEGFORMER, "--opts", "model.head=mlp", *size)
    assert code == 0 and "  equal at a relative error of 1e-05" in out, out + err


@pytest.mark.parametrize("option", ["model.head=conv", "model.token_merging=bsm_hq"])
def test_compare_says_that_paddleseg_has_no_counterpart(call, option):
    code, _, err = call("compare", *SEGFORMER, "--opts", "model.head=mlp", option)
    assert code == 1 and err.startswith("error: nothing to compare with: PaddleSeg's SegFormer has head 'mlp'"), err
    assert err.count("\n") == 1 and option.partition("=")[2] in err


def test_compare_tells_unequal_models(call, config, weights, monkeypatch):
    """The same weights under another number of heads: the same names and shapes, other logits."""
    monkeypatch.setattr(compare, "paddleseg_model", lambda *_: RTFormer(CLASSES, **{**TINY, "num_heads": 4}))
    code, out, err = call("compare", "-c", config, "--model_path", weights, "--input_size", 32, 64)
    assert code == 1 and "NOT EQUAL at a relative error" in out
    assert err == f"error: {weights} give other logits than PaddleSeg's model\n"


def refused(result: tuple[int, str, str], message: str, code: int = 1) -> None:
    """A run that ended with one line on stderr."""
    got, _, err = result
    assert got == code, err
    assert err.startswith("error: ") and err.count("\n") == 1, err
    assert re.search(message, err), err


BAD_FLAGS = {
    "train --iterss 3": (1, "unknown flag or word '--iterss', did you mean '--iters'"),
    "train --save_interval 0": (2, "--save_interval: expected a whole number of at least 1, got '0'"),
    "train --num_workers -1": (2, "--num_workers: expected a whole number of at least 0, got '-1'"),
    "train --keep_checkpoint_max x": (2, "--keep_checkpoint_max: expected a whole number of at least 0, got 'x'"),
    "train --seed 4294967296": (2, "--seed: expected a whole number from 0 to 4294967295"),
    "train --device tpu": (2, "--device: invalid choice: 'tpu'"),
    "train --learning_rate 0": (1, "lr_scheduler.learning_rate must be a number above 0, got 0.0"),
    "train --learning_rate -1": (1, "lr_scheduler.learning_rate must be a number above 0, got -1.0"),
    "train --learning_rate nan": (1, "lr_scheduler.learning_rate must be a finite number, got nan"),
    "train --learning_rate 1e30": (1, "the loss is (nan|inf) at iteration 2: try a lower --learning_rate"),
    "train --batch_size 100": (1, "fewer images than one batch of 100"),
    "train --precision fp16 --device cpu": (1, "precision fp16 does nothing"),
    "train --profiler_options foo=1": (1, "unknown profiler option 'foo'"),
    "train --profiler_options batch_range=[a,b]": (1, "--profiler_options takes key=value"),
    "train --opts loss.coef=[1]": (1, "the model gives 2 outputs while training, but loss.coef has 1 entries"),
    "train --opts model.num_classes=5": (1, "numbers of classes differ: model 5, train_dataset 19"),
    "train --resume_model nowhere/iter_3": (1, "cannot resume from nowhere/iter_3: .*model.pdparams is missing"),
    "train --save_dir {config}": (1, "--save_dir .*config.yml is a file"),
    "val --model_path nowhere": (1, "no checkpoint at nowhere"),
    "val --model_path {weights} --scales 0 --aug_eval": (1, "scales must be positive numbers"),
    "val --model_path {weights} --is_slide": (1, "is_slide needs both crop_size and stride"),
    "val --model_path {weights} --is_slide --crop_size 8 8 --stride 9 8": (1, "stride .* leaves gaps"),
    "val --model_path {weights} --output {weights}": (1, "--output .*iter_5 is a folder"),
    "val --model_path {weights}/model.pdopt": (1, "model.pdopt is no model's state dict.*an optimizer's file"),
    "val --model_path {weights} --opts model.base_channels=16": (1, "iter_5 does not fit RTFormer: .* another shape"),
    "predict --model_path {weights} --image_path nowhere": (1, "no such image, folder or list of images: nowhere"),
    "predict --model_path {weights} --image_path {pictures} --save_dir {config}": (1, "Not a directory: .*config.yml"),
    "predict --model_path {weights} --image_path {pictures} --custom_color 1 2": (1, "--custom_color takes three"),
    "predict --image_path {pictures}": (2, "arguments are required: --model_path"),
    "compare --model_path {weights} --opts model.base_channels=16": (1, "iter_5 does not fit RTFormer"),
    "compare --opts model.type=DDRNet_23": (1, "unknown argument of DDRNet_23|nothing to compare with"),
}


@pytest.mark.parametrize("line", BAD_FLAGS)
def test_bad_flag_gets_one_line(call, line, config, weights, pictures, tmp_path):
    code, message = BAD_FLAGS[line]
    tool, *flags = line.format(config=config, weights=weights, pictures=pictures).split()
    before = written(weights.parent)
    more = ["--save_dir", tmp_path] if tool == "train" and "--save_dir" not in flags else []
    refused(call(tool, "-c", config, *more, *flags), message, code)
    assert written(tmp_path) == [] and written(weights.parent) == before and Path(config).is_file()


def test_config_is_required(call):
    refused(call("train"), "arguments are required: -c/--config", 2)


DAMAGE = {
    "truncated_weights": ("model.pdparams", lambda data: data[: len(data) // 2], "not a whole Paddle checkpoint"),
    "empty_states": ("model.pdopt", lambda data: b"", "model.pdopt .0 bytes. is not a whole Paddle checkpoint"),
    "truncated_states": ("model.pdopt", lambda data: data[:-100], "model.pdopt .* is not a whole Paddle checkpoint"),
    "no_states": ("model.pdopt", None, "model.pdopt is missing"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_resume_from_a_damaged_checkpoint(call, name, trained, config, tmp_path):
    file, damage, message = DAMAGE[name]
    folder = shutil.copytree(trained / "run/iter_4", tmp_path / "iter_4")
    data = (folder / file).read_bytes()
    (folder / file).unlink()
    if damage is not None:
        (folder / file).write_bytes(damage(data))
    refused(call("train", "-c", config, "--save_dir", tmp_path / "out", "--resume_model", folder), message)
    assert written(tmp_path / "out") == []


@pytest.mark.parametrize("options, message", [
    (["model.base_channels=16"], "iter_4 does not fit RTFormer: .* of another shape"),
    (["model.use_aux_head=False", "loss.coef=[1]"], r"iter_4 does not fit RTFormer: \d+ unknown \(seghead_extra"),
    (["optimizer.type=SGD", "optimizer.momentum=0.9"], "model.pdopt is not of the config's optimizer and model"),
])  # fmt: skip
def test_resume_with_another_config(call, options, message, trained, config, tmp_path):
    line = ["-c", config, "--save_dir", tmp_path, "--resume_model", trained / "run/iter_4", "--opts", *options]
    refused(call("train", *line), message)
    assert written(tmp_path) == []


def test_resume_within_one_process(call, trained, config, tmp_path):
    """Optimizer states go by generated names, which must not depend on what the process built before."""
    line = ["-c", config, "--save_dir", tmp_path, "--resume_model", trained / "run/iter_4"]
    code, _, err = call("train", *line)
    assert code == 0, err


def camvid(folder: Path, highest: int = 10, sizes: tuple = ((32, 64),)) -> dict:
    """Four training images of CamVid's layout, as a dataset's config."""
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (folder / kind).mkdir(parents=True)
    for i in range(4):
        height, width = sizes[i % len(sizes)]
        cv2.imwrite(str(folder / f"images/{i}.png"), rng.integers(0, 255, (height, width, 3), np.uint8))
        labels = np.full((height, width), highest if i == 2 else 0, np.uint8)
        cv2.imwrite(str(folder / f"labels/{i}.png"), labels)
    for name in ("train", "val"):
        (folder / f"{name}.txt").write_text("".join(f"images/{i}.png labels/{i}.png\n" for i in range(4)))
    return {"type": "CamVid", "dataset_root": str(folder), "mode": "train", "transforms": [{"type": "Normalize"}]}


def without(dataset: dict, name: str) -> dict:
    Path(dataset["dataset_root"], name).unlink()
    return dataset


BAD_DATA = {
    "label_out_of_range": (lambda folder: camvid(folder, 11), "labels/2.png: label values 11 are out of range"),
    "missing_image": (lambda folder: without(camvid(folder), "images/1.png"), "cannot read image .*images/1.png"),
    "missing_label": (lambda folder: without(camvid(folder), "labels/3.png"), "cannot read image .*labels/3.png"),
    "sizes": (lambda folder: camvid(folder, sizes=((32, 64), (40, 64))), "different sizes .*: .64, 32., .64, 40."),
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", BAD_DATA)
def test_bad_training_data_ends_the_run(call, name, workers, tmp_path):
    """Paddle's loader waits for ever once an image cannot be read."""
    make, message = BAD_DATA[name]
    dataset = make(tmp_path / "camvid")
    path = tiny_config(tmp_path, train_dataset=dataset, val_dataset={**dataset, "mode": "val"})
    refused(call("train", "-c", path, "--save_dir", tmp_path / "out", "--num_workers", workers), message)
    assert written(tmp_path / "out") == []


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_validation_data_ends_the_run(call, workers, tmp_path):
    good, bad = camvid(tmp_path / "good"), camvid(tmp_path / "bad", 11)
    path = tiny_config(tmp_path, train_dataset=good, val_dataset={**bad, "mode": "val"})
    line = ["-c", path, "--save_dir", tmp_path / "out", "--iters", 1, "--do_eval", "--num_workers", workers]
    refused(call("train", *line), "bad/labels/2.png: label values 11 are out of range; expected 0 to 10, or 255")
    assert written(tmp_path / "out") == []


def test_fault_in_a_dataset_keeps_its_traceback(call, config, tmp_path, monkeypatch):
    from paddle_rt.tasks.segmentation.street_dataset import StreetScenes

    monkeypatch.setattr(StreetScenes, "__getitem__", lambda self, index: 1 / 0)
    with pytest.raises(RuntimeError, match="(?s)the dataset failed:.*ZeroDivisionError"):
        call("train", "-c", config, "--save_dir", tmp_path)


def test_full_disk_leaves_whole_checkpoints_only(call, trained, config, tmp_path):
    """Weights fit below the limit, optimizer states do not: the folder goes, what was there before stays."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    limit = (trained / "run/iter_5/model.pdparams").stat().st_size * 3 // 2
    (tmp_path / "iter_9").mkdir()
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        result = call("train", "-c", config, "--save_dir", tmp_path, "--iters", 1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    refused(result, "File too large: .*iter_1/model.pdopt")
    assert os.listdir(tmp_path) == ["iter_9"]


def test_ctrl_c_while_saving(call, config, tmp_path, monkeypatch):
    save, calls = paddle.save, []

    def interrupted(state: dict, path: str) -> None:
        calls.append(path)
        if len(calls) == 4:  # the optimizer states of the second checkpoint
            Path(path).write_bytes(b"half")
            raise KeyboardInterrupt
        save(state, path)

    monkeypatch.setattr(paddle, "save", interrupted)
    code, _, err = call("train", "-c", config, "--save_dir", tmp_path, "--save_interval", 1)
    assert (code, err) == (130, "interrupted: what was saved before is whole\n")
    assert written(tmp_path) == ["iter_1/model.pdopt", "iter_1/model.pdparams"] and os.listdir(tmp_path) == ["iter_1"]


def test_ctrl_c_while_training(config, tmp_path, call):
    line = [sys.executable, "tools/train.py", "-c", config, "--save_dir", tmp_path, "--iters", "100000"]
    process = subprocess.Popen(
        [*map(str, line), "--save_interval", "1", "--num_workers", "1", "--keep_checkpoint_max", "0"],
        cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        while process.poll() is None and not (tmp_path / "iter_3").exists():
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGINT)  # what a terminal sends: to the tool and to its workers
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130, err
    assert err.endswith("interrupted: what was saved before is whole\n") and "Traceback" not in err
    names = written(tmp_path)
    steps = sorted({int(name.split("/")[0].removeprefix("iter_")) for name in names})
    assert len(names) == 2 * len(steps) and not [name for name in names if name.endswith(".part")]
    last = tmp_path / f"iter_{steps[-1]}"
    code, _, err = call("train", "-c", config, "--save_dir", tmp_path, "--iters", steps[-1] + 1, "--resume_model", last)
    assert code == 0, err
