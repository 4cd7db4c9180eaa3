"""PaddleSeg's own loop: it runs on Paddle 3, with our scores in it, and refuses what it does not have."""

import importlib
import json
import logging
import sys
import types
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from paddleseg.core import train as original

from paddle_rt.checkpoint import read_state_dict
from paddle_rt.config import load_config
from paddle_rt.errors import UserError
from paddle_rt.paddleseg import loop
from paddle_rt.tasks.segmentation import losses
from paddle_rt.training import TrainOptions
from tests.helpers import launch_two_processes, smooth_image, tiny_config

RUN = Path(__file__).with_name("two_ranks.py")


@pytest.fixture(autouse=True)
def no_rest(monkeypatch) -> None:
    """The loop sleeps for a second after each run."""
    monkeypatch.setattr(importlib.import_module("paddleseg.core.train").time, "sleep", lambda _: None)


def run(folder: Path, opts: list[str] | None = None, iters: int = 2, **options: object) -> Path:
    save_dir = folder / "run"
    settings = {"device": "cpu", "seed": 0, "log_iters": 1, **options}
    loop.train(load_config(tiny_config(folder), opts, iters=iters), TrainOptions(str(save_dir), **settings))
    return save_dir


def test_the_original_fails_at_its_first_log_line(tmp_path):
    """Or else the patch would not be needed."""
    network = paddle.nn.Sequential(paddle.nn.Conv2D(3, 4, 1))
    network.forward = lambda images: [network[0](images)]
    items = [{"img": np.ones([3, 4, 4], "float32"), "label": np.zeros([4, 4], "int64")}] * 4
    optimizer = paddle.optimizer.SGD(0.1, parameters=network.parameters())
    pair = {"types": [losses.CrossEntropyLoss()], "coef": [1]}
    with pytest.raises(IndexError, match="array is 0-dimensional"):
        original(network, items, optimizer=optimizer, save_dir=str(tmp_path), losses=pair, iters=1, log_iters=1)


def test_a_run_with_everything(tmp_path, monkeypatch, caplog):
    scalars: dict[str, float] = {}
    writer = types.SimpleNamespace(add_scalar=lambda tag, value, _: scalars.update({tag: value}), close=lambda: None)
    monkeypatch.setitem(sys.modules, "visualdl", types.SimpleNamespace(LogWriter=lambda _: writer))
    caplog.set_level(logging.INFO, "paddle_rt")
    options = dict(do_eval=True, use_ema=True, use_vdl=True, save_interval=1, keep_checkpoint_max=1, repeats=2)
    folder = run(tmp_path, **options)
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    assert files == [
        "best_model/model.pdparams",
        "ema_best_model/ema_model.pdparams",
        "iter_2/ema_model.pdparams",
        "iter_2/model.pdopt",
        "iter_2/model.pdparams",
    ]
    assert abs(scalars["Train/loss"] - scalars["Train/loss_0"] - scalars["Train/loss_1"]) < 1e-6
    assert {"Train/lr", "Evaluate/mIoU", "Evaluate/Acc", "Evaluate/Ema_mIoU"} <= scalars.keys()
    lines = [record.getMessage() for record in caplog.records if "[EVAL] #Images: 8 mIoU" in record.getMessage()]
    assert len(lines) == 4, "two evaluations, each of the network and of its average"
    assert f"mIoU: {scalars['Evaluate/mIoU']:.4f}" in lines[2]
    assert sum("road" in record.getMessage() for record in caplog.records) >= 4, "the table of classes"


def test_resume_and_a_run_that_is_finished(tmp_path, caplog):
    folder = run(tmp_path)
    before = read_state_dict(folder / "iter_2")
    run(tmp_path, iters=3, resume_model=str(folder / "iter_2"))
    after = read_state_dict(folder / "iter_3")
    assert any((before[name] != after[name]).any() for name in before)
    caplog.set_level(logging.INFO, "paddle_rt")
    run(tmp_path, resume_model=str(folder / "iter_3"))
    assert "iter_3 has 3 of 2 iterations: nothing is left to train" in caplog.text


@pytest.mark.parametrize("damage", ["name", "optimizer", "weights", "hostile"])
def test_resume_folder_is_checked(tmp_path, damage):
    folder = run(tmp_path) / "iter_2"
    if damage == "name":
        folder = folder.rename(folder.with_name("last"))
    elif damage == "optimizer":
        (folder / "model.pdopt").unlink()
    elif damage == "hostile":
        (folder / "model.pdopt").write_bytes(b"cposix\nsystem\n(Vtouch mark\ntR.")
    opts = ["model.base_channels=16"] if damage == "weights" else None
    expected = {
        "name": "does not end in _<iteration>",
        "optimizer": "model.pdopt is missing",
        "weights": "does not fit",
        "hostile": "refused: the file asks for posix.system",
    }
    with pytest.raises(UserError, match=expected[damage]) as raised:
        run(tmp_path, opts, iters=3, resume_model=str(folder))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("options, opts, match", [
    (dict(accumulate=2), [], "no --accumulate"),
    (dict(early_stop_intervals=1), [], "no --early_stop_intervals"),
    (dict(precision="bf16"), [], "no --precision bf16"),
    (dict(precision="fp16"), [], "fp16 does nothing in Paddle on a CPU"),
    (dict(resume_model="auto"), [], "cannot resume from auto"),
    (dict(profiler_options="batch=[1,2]"), [], "unknown profiler option 'batch', did you mean 'batch_range'"),
    ({}, ["batch_size=9"], "fewer images than one batch of 9"),
    ({}, ["loss.coef=[1,1,1]"], "the model gives 2 outputs while training, but loss.coef has 3 entries"),
    ({}, ["lr_scheduler.learning_rate=1.0e+30"], "at iteration [12]: try a lower --learning_rate"),
])  # fmt: skip
def test_refusals(tmp_path, options, opts, match):
    with pytest.raises(UserError, match=match):
        run(tmp_path, opts, iters=4, **options)


def test_unreadable_image_ends_the_run(tmp_path):
    """Paddle's own loader would wait for ever."""
    for number in range(4):
        cv2.imwrite(str(tmp_path / f"{number}.png"), smooth_image(64, 128, number))
        cv2.imwrite(str(tmp_path / f"l{number}.png"), np.zeros((64, 128), np.uint8))
    (tmp_path / "3.png").write_bytes(b"no image")
    (tmp_path / "list.txt").write_text("".join(f"{n}.png l{n}.png\n" for n in range(4)))
    section = {
        "type": "Dataset",
        "mode": "train",
        "num_classes": 19,
        "dataset_root": str(tmp_path),
        "train_path": str(tmp_path / "list.txt"),
        "transforms": [{"type": "Normalize"}],
    }
    config = load_config(tiny_config(tmp_path, train_dataset=section, val_dataset={**section}))
    with pytest.raises(UserError, match="3.png"):
        loop.train(config, TrainOptions(str(tmp_path / "run"), "cpu"))


@pytest.mark.slow
def test_groups_compile_and_profile(tmp_path):
    """Parameter groups, a compiled network, and a profile that ends the run."""
    trace = tmp_path / "trace"
    options = f"batch_range=[1,2];profile_path={trace};exit_on_finished=true"
    opts = ["to_static_training=True", "optimizer.custom_cfg=[{'name':'seghead','lr_mult':2.0}]"]
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, opts, iters=9, profiler_options=options)
    assert ended.value.code == 0 and [path.suffix for path in trace.iterdir()] == [".json"]


def test_other_tasks_are_refused(tmp_path):
    config = types.SimpleNamespace(task_name="pose")
    with pytest.raises(UserError, match="trains segmentation only, and the config's task is 'pose'"):
        loop.train(config, TrainOptions(str(tmp_path)))


@pytest.mark.slow
def test_two_processes_score_and_save_one_network(tmp_path):
    """Without the patch each evaluates with statistics of its own, and those of one are saved."""
    config = tiny_config(tmp_path, iters=2, batch_size=2)
    launch_two_processes(tmp_path / "log", RUN, config, tmp_path)
    first, second = (json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in (0, 1))
    assert first["evaluated"] == second["evaluated"] and len(first["evaluated"]) == 2
    for name, file in (("model", first["evaluated"][0]), ("ema_model", first["evaluated"][1])):
        saved = read_state_dict(tmp_path / "run/iter_2" / f"{name}.pdparams")
        np.testing.assert_array_equal(saved["conv1.1._mean"], np.float32(file["mean"]))
    assert first["mIoU"] == second["mIoU"]
