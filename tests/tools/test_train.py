"""tools/train.py: what it writes, and how it ends on bad input."""

import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_rt.checkpoint import read_saved, read_state_dict
from paddle_rt.config import build_task, load_config, trained_network
from tests.helpers import (
    ROOT,
    camvid_dataset,
    launch_two_processes,
    refused,
    run_python,
    tiny_config,
    written,
)

CLASSES = 19


def test_train_writes_paddlesegs_files(trained):
    files = written(trained / "run")
    in_each = ("ema_model.pdparams", "model.pdopt", "model.pdparams", "train_state.safetensors")
    checkpoints = [f"iter_{i}/{name}" for i in (4, 5) for name in in_each]
    best = [f"{kind}best_model/{kind}model.{end}" for kind in ("", "ema_") for end in ("pdparams", "pdstates")]
    assert [name for name in files if not name.startswith("vdlrecords")] == sorted(
        [*checkpoints, *best, "metrics.jsonl"]
    )
    assert len(files) == 2 + len(checkpoints + best), files
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
    task, network = build_task(loaded), trained_network(loaded, str(trained / "run/best_model"))
    values = task.evaluate(network, task.build_data("val")).values
    assert abs(values["mIoU"] - states["mIoU"]) < 1e-9 and abs(values["Acc"] - states["Acc"]) < 1e-9


def test_visualdl_log_can_be_read(trained):
    from visualdl import LogReader

    (file,) = (trained / "run").glob("vdlrecords*")
    tags = LogReader(file_path=str(file)).get_tags()["scalar"]
    assert {"Train/loss", "Train/lr", "Evaluate/mIoU", "Evaluate/Ema_mIoU"} <= set(tags)


@pytest.mark.slow
def test_resume_goes_on_and_to_static_trains(trained, config, tmp_path):
    resumed = ["--resume_model", trained / "run/iter_4", "--iters", 6, "--log_iters", 1]
    options = ["--opts", "to_static_training=True", "lr_scheduler.power=0.5"]
    done = run_python("tools/train.py", "-c", config, "--save_dir", tmp_path, *resumed, *options)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"iter: (\d)/6", done.stdout) == ["5", "6"]
    assert "Successfully applied @to_static" in done.stdout and "power: 0.5" not in done.stderr
    assert {name.split("/")[0] for name in written(tmp_path)} == {"iter_6", "metrics.jsonl"}


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


@pytest.mark.slow
def test_two_processes_score_what_they_save(config, tmp_path):
    """Each rank scores its half of the images; the sum is the saved model's only if both ranks have its statistics."""
    flags = ["--do_eval", "--use_ema", "--device", "cpu", "--iters", 3, "--batch_size", 2, "--seed", 0]
    launch_two_processes(tmp_path / "log", "tools/train.py", "-c", config, "--save_dir", tmp_path / "run", *flags)
    loaded = load_config(config)
    task = build_task(loaded)
    dataset = task.build_data("val")
    for kind in ("", "ema_"):
        file = tmp_path / "run" / f"{kind}best_model" / f"{kind}model.pdparams"
        states = read_saved(file.with_suffix(".pdstates"))
        scores = task.evaluate(trained_network(loaded, str(file)), dataset)
        assert np.sum(scores.report["confusion_matrix"]) == 8 * dataset.height * dataset.width
        assert abs(scores.values["Acc"] - states["Acc"]) < 1e-9, f"{kind}model: {states}"
        last = read_state_dict(tmp_path / "run/iter_3" / file.name)
        assert all(np.array_equal(last[name], value) for name, value in read_state_dict(file).items())


BAD_FLAGS = {
    "--iterss 3": (2, "unknown flag or word '--iterss', did you mean '--iters'"),
    "--save_interval 0": (2, "--save_interval: expected a whole number of at least 1, got '0'"),
    "--num_workers -1": (2, "--num_workers: expected a whole number from 0 to 1024, got '-1'"),
    "--keep_checkpoint_max x": (2, "--keep_checkpoint_max: expected a whole number of at least 0, got 'x'"),
    "--seed 4294967296": (2, "--seed: expected a whole number from 0 to 4294967295"),
    "--device tpu": (2, "--device: unknown choice 'tpu'"),
    "--learning_rate 0": (2, "--learning_rate: expected a number above 0, got '0'"),
    "--learning_rate -1": (2, "--learning_rate: expected a number above 0, got '-1'"),
    "--learning_rate nan": (2, "--learning_rate: expected a number above 0, got 'nan'"),
    "--learning_rate 1e30": (1, "not finite at iteration 1: try a lower --learning_rate"),
    "--batch_size 100": (1, "has 8 images, fewer than one iteration takes .100 images"),
    "--precision fp16 --device cpu": (1, "precision fp16 does nothing"),
    "--profiler_options foo=1": (2, "unknown profiler option 'foo'"),
    "--profiler_options batch_range=[0,1];state=QPU": (
        2,
        "unknown state in --profiler_options 'QPU'.*Valid: All, CPU, GPU",
    ),
    "--profiler_options batch_range=[5,7": (2, "batch_range in --profiler_options takes two increasing iterations"),
    "--profiler_options batch_range=[a,b]": (2, "batch_range in --profiler_options takes two increasing iterations"),
    "--opts loss.coef=[1]": (1, "the model gives 2 outputs while training, but loss.coef has 1 entries"),
    "--opts model.num_classes=5": (1, "numbers of classes differ: model 5, train_dataset 19"),
    "--resume_model nowhere/iter_3": (1, "cannot resume from nowhere/iter_3: .*model.pdparams is missing"),
    "--save_dir {config}": (2, "--save_dir: .*config.yml is no folder"),
    "--save_dir /": (2, "--save_dir: / is the root of the file system"),
    "--repeats 99999999999999999999": (2, "--repeats: expected a whole number from 1 to 1000000"),
}


@pytest.mark.parametrize("line", BAD_FLAGS)
def test_bad_flag_gets_one_line(call, line, config, weights, images, tmp_path):
    code, expected = BAD_FLAGS[line]
    flags, before = line.format(config=config, weights=weights, images=images).split(), written(weights.parent)
    if "--save_dir" not in flags:
        flags += ["--save_dir", str(tmp_path)]
    refused(call("train", "-c", config, *flags), expected, code)
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
    (["optimizer.type=SGD", "optimizer.momentum=0.9"], "model.pdopt is not of the config's optimizer Momentum"),
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


def without(dataset: dict, name: str) -> dict:
    Path(dataset["dataset_root"], name).unlink()
    return dataset


BAD_DATA = {
    "label_out_of_range": (lambda folder: camvid_dataset(folder, 11), "labels/2.png: label values 11 are out of range"),
    "missing_image": (
        lambda folder: without(camvid_dataset(folder), "images/1.png"),
        "train.txt, line 2: no image at .*images/1.png",
    ),
    "missing_label": (
        lambda folder: without(camvid_dataset(folder), "labels/3.png"),
        "train.txt, line 4: no label at .*labels/3.png",
    ),
    "sizes": (
        lambda folder: camvid_dataset(folder, sizes=((32, 64), (40, 64))),
        "different sizes .*: .64, 32., .64, 40.",
    ),
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
    good, bad = camvid_dataset(tmp_path / "good"), camvid_dataset(tmp_path / "bad", 11)
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
    refused(result, "File too large: .*iter_1")
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
    names = ["model.pdopt", "model.pdparams", "train_state.safetensors"]
    assert written(tmp_path / "iter_1") == names
    assert os.listdir(tmp_path) == ["iter_1"]


@pytest.mark.slow
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
    iteration = int(re.search(r"stopped by SIGINT after iteration (\d+)", err)[1])
    last = tmp_path / f"iter_{iteration}"
    assert err.splitlines()[-1].endswith(f"--resume_model {last}") and "Traceback" not in err
    assert len(list(tmp_path.glob("iter_*"))) == iteration
    assert not [name for name in os.listdir(tmp_path) if name.startswith(".")]
    code, _, err = call("train", "-c", config, "--save_dir", tmp_path, "--iters", iteration + 1, "--resume_model", last)
    assert code == 0, err
