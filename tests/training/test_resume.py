"""A run that was interrupted goes on as if it had not been: bit for bit, whatever struck it, at any moment."""

import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import paddle
import pytest
import safetensors.numpy
from safetensors import safe_open

from paddle_rt.checkpoint import read_state_dict
from paddle_rt.errors import UserError
from paddle_rt.run_logs import METRICS, read_metrics
from paddle_rt.training import Interrupted, TrainOptions
from tests.helpers import ROOT, launch_two_processes, run_python, written
from tests.training.run_toy import run
from tests.training.toy import BrightnessTask

ITERS = 20
FOLDERS = ("best_model", "ema_best_model")


def options(folder: pathlib.Path, **changes: object) -> TrainOptions:
    settings = dict(device="cpu", seed=1, do_eval=True, use_ema=True, save_interval=5, log_iters=2)
    return TrainOptions(**{"save_dir": str(folder), **settings, **changes})


def assert_same_runs(one: pathlib.Path, other: pathlib.Path, iteration: int = ITERS) -> None:
    """Compare every file of the last checkpoint and of the best models, byte for byte, and the logged numbers."""
    for folder in (f"iter_{iteration}", *FOLDERS):
        names = written(one / folder)
        assert names == written(other / folder) and names, folder
        for name in names:
            assert (one / folder / name).read_bytes() == (other / folder / name).read_bytes(), f"{folder}/{name}"
    timings = {"batch_cost", "reader_cost", "ips"}
    logs = [
        [{k: v for k, v in line.items() if k not in timings} for line in read_metrics(folder / METRICS)]
        for folder in (one, other)
    ]
    assert logs[0] == logs[1]


@pytest.mark.parametrize(
    "changes",
    [
        *({}, {"num_workers": 2}, {"accumulate": 2, "repeats": 3}, {"keep_checkpoint_max": 2}),
        {"weights_format": "safetensors"},
    ],
    ids=["thread", "workers", "accumulate and repeats", "fewer checkpoints", "safetensors"],
)
def test_ten_and_ten_iterations_are_twenty(changes, tmp_path):
    """An epoch has 5 iterations, so that iteration 13, where one of the runs goes on, is in the middle of one."""
    run(ITERS, options(tmp_path / "whole", **changes))
    run(10, options(tmp_path / "parts", **changes))
    run(ITERS, options(tmp_path / "parts", resume_model=str(tmp_path / "parts" / "iter_10"), **changes))
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")
    assert written(tmp_path / "whole") == written(tmp_path / "parts")
    assert f"best_model/model.{changes.get('weights_format', 'pdparams')}" in written(tmp_path / "whole")


def test_in_the_middle_of_an_epoch(tmp_path):
    changes = dict(save_interval=13, log_iters=1)
    run(ITERS, options(tmp_path / "whole", **changes))
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    shutil.rmtree(tmp_path / "parts" / "iter_20")
    run(ITERS, options(tmp_path / "parts", resume_model="auto", **changes))
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_without_a_seed_it_is_exact_as_well(tmp_path):
    """The seed that the first run draws is in its checkpoint; weights come from Paddle's generator."""
    paddle.seed(5)
    run(ITERS, options(tmp_path / "whole", seed=None))
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    for iteration in (15, 20):
        shutil.rmtree(tmp_path / "parts" / f"iter_{iteration}")
    run(ITERS, options(tmp_path / "parts", seed=None, resume_model="auto"))
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_what_differs_is_told(tmp_path, caplog):
    caplog.set_level("INFO", logger="paddle_rt")
    run(5, options(tmp_path))
    run(10, options(tmp_path, resume_model="auto", accumulate=2))
    assert "accumulate is 2, was 1" in caplog.text


def test_auto_starts_anew_without_a_checkpoint(tmp_path, caplog):
    caplog.set_level("INFO", logger="paddle_rt")
    run(5, options(tmp_path, resume_model="auto"))
    assert "no checkpoint to resume from" in caplog.text and (tmp_path / "iter_5").is_dir()


def test_auto_takes_the_newest_that_can_be_read(tmp_path, caplog):
    caplog.set_level("INFO", logger="paddle_rt")
    run(10, options(tmp_path))
    (tmp_path / "iter_10" / "model.pdopt").write_bytes(b"cut off")
    (tmp_path / "iter_15").mkdir()  # no checkpoint
    run(10, options(tmp_path, resume_model="auto"))
    assert f"{tmp_path / 'iter_10'} cannot be resumed from" in caplog.text
    assert (tmp_path / "iter_10" / "train_state.safetensors").is_file()


def test_auto_never_starts_anew_beside_unreadable_checkpoints(tmp_path):
    run(5, options(tmp_path))
    (tmp_path / "iter_5" / "model.pdopt").write_bytes(b"cut off")
    with pytest.raises(UserError, match="model.pdopt"):
        run(10, options(tmp_path, resume_model="auto"))


@pytest.mark.parametrize("folder", ["best_model", "iter_7", "nowhere"])
def test_what_is_no_checkpoint_is_one_clear_line(folder, tmp_path):
    run(5, options(tmp_path))
    with pytest.raises(UserError, match="cannot resume from"):
        run(10, options(tmp_path, resume_model=str(tmp_path / folder)))


def test_a_damaged_state_is_one_clear_line(tmp_path):
    run(5, options(tmp_path))
    file = tmp_path / "iter_5" / "train_state.safetensors"
    whole = file.read_bytes()
    for damaged in (b"", whole[:-9], whole[:50], whole.replace(b"paddle_rt", b"something")):
        file.write_bytes(damaged)
        with pytest.raises(UserError, match=r"train_state\.safetensors"):
            run(10, options(tmp_path, resume_model=str(tmp_path / "iter_5")))


def test_checkpoints_of_paddleseg_resume(tmp_path, caplog):
    """They hold weights and optimizer state; the log says what they do not hold."""
    caplog.set_level("INFO", logger="paddle_rt")
    run(10, options(tmp_path))
    for name in ("train_state.safetensors", "ema_model.pdparams"):
        (tmp_path / "iter_10" / name).unlink()
    before = read_state_dict(tmp_path / "iter_10")
    state = run(ITERS, options(tmp_path, resume_model=str(tmp_path / "iter_10")))
    assert state.progress.iteration == ITERS
    assert "ema_model.pdparams" in caplog.text and "train_state.safetensors" in caplog.text
    assert not np.array_equal(before["conv.weight"], read_state_dict(tmp_path / "iter_20")["conv.weight"])


@pytest.mark.parametrize("entries", ["none", "another optimizer's", "of another shape"])
def test_another_optimizers_state_is_one_clear_line(entries, tmp_path):
    run(5, options(tmp_path))
    file = tmp_path / "iter_5" / "model.pdopt"
    states = paddle.load(str(file))
    rate = {"LR_Scheduler": states["LR_Scheduler"]}
    name = next(key for key in states if key.endswith("_moment1_0"))
    changed = {
        "none": rate,
        "another optimizer's": {**rate, name.replace("moment1", "velocity"): states[name]},
        "of another shape": {**states, name: paddle.zeros([7, 7])},
    }
    paddle.save(changed[entries], str(file))
    with pytest.raises(UserError, match=r"model\.pdopt"):
        run(10, options(tmp_path, resume_model=str(tmp_path / "iter_5")))


def test_the_best_model_survives_a_resume_from_before_it(tmp_path):
    """A kill between the best model and the checkpoint behind it: the run goes on from the checkpoint before."""
    run(ITERS, options(tmp_path / "whole"))
    best = int(paddle.load(str(tmp_path / "whole" / "best_model" / "model.pdstates"))["iter"])
    shutil.copytree(tmp_path / "whole", tmp_path / "parts")
    for iteration in range(5, ITERS + 1, 5):
        if iteration >= max(best, 10):
            shutil.rmtree(tmp_path / "parts" / f"iter_{iteration}")
    run(ITERS, options(tmp_path / "parts", resume_model="auto"))
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_a_finished_run_changes_nothing(tmp_path):
    run(5, options(tmp_path))
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in written(tmp_path)}
    run(5, options(tmp_path, resume_model="auto"))
    assert {name: (tmp_path / name).stat().st_mtime_ns for name in written(tmp_path) if name != METRICS} == {
        name: time for name, time in before.items() if name != METRICS
    }


def start(folder: pathlib.Path, **changes: object) -> subprocess.Popen:
    settings = {"save_dir": str(folder), "use_ema": True, "save_interval": 2, "log_iters": 1, **changes}
    command = [sys.executable, "-W", "ignore", "-m", "tests.training.run_toy", "40", json.dumps(settings)]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )


def finish(process: subprocess.Popen) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def wait_for_iteration(process: subprocess.Popen, iteration: int) -> None:
    for line in process.stdout:
        if f"iter: {iteration}/" in line:
            return
    raise AssertionError(f"the run ended before iteration {iteration}: {process.stderr.read()}")


@pytest.mark.slow
def test_kills_and_full_disks_at_every_kind_of_moment():
    """The short form of the script that docs/training.md describes."""
    done = run_python("-W", "ignore", "-m", "tests.kill_runs", "--kills", 36, "--full", 16, "--seed", 1)
    print(done.stdout[-3000:])
    assert done.returncode == 0, f"{done.stdout[-3000:]}{done.stderr[-3000:]}"


@pytest.mark.parametrize(
    "number, code", [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)], ids=["TERM", "HUP", "INT"]
)
def test_signals_save_a_checkpoint_that_resumes_exactly(number, code, tmp_path):
    """The signal goes to the whole process group, as a terminal or a job scheduler sends it."""
    changes = dict(num_workers=1, save_interval=20)
    run(40, options(tmp_path / "whole", log_iters=1, **changes))
    process = start(tmp_path / "parts", **changes)
    wait_for_iteration(process, 7)
    os.killpg(process.pid, number)
    found, _, err = finish(process)
    assert found == code, err
    checkpoint = pathlib.Path(err.strip().splitlines()[-1])
    assert checkpoint.parent == tmp_path / "parts" and int(checkpoint.name[5:]) >= 7
    run(40, options(tmp_path / "parts", log_iters=1, resume_model=str(checkpoint), **changes))
    for folder in ("iter_40", *FOLDERS):
        for name in written(tmp_path / "whole" / folder):
            if name != "train_state.safetensors":  # it also says which checkpoints were saved
                whole, parts = ((tmp_path / run / folder / name).read_bytes() for run in ("whole", "parts"))
                assert whole == parts, f"{folder}/{name}"


def test_a_signal_ends_an_evaluation_which_the_resumed_run_makes_up_for(tmp_path):
    """The last evaluation of the run is struck: the run that goes on has nothing to train, and evaluates."""
    run(ITERS, options(tmp_path / "whole"))
    original = BrightnessTask.evaluate

    def struck(self, network, dataset, num_workers=0):
        if len(list((tmp_path / "parts").glob("iter_*"))) == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        return original(self, network, dataset, num_workers)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted) as caught:
        patch.setattr(BrightnessTask, "evaluate", struck)
        run(ITERS, options(tmp_path / "parts"))
    assert (caught.value.iteration, caught.value.exit_code) == (ITERS, 143)
    run(ITERS, options(tmp_path / "parts", resume_model="auto"))
    for folder in (f"iter_{ITERS}", *FOLDERS):
        for name in written(tmp_path / "whole" / folder):
            if name != "train_state.safetensors":  # the one of the struck run still owes the evaluation
                whole, parts = ((tmp_path / run / folder / name).read_bytes() for run in ("whole", "parts"))
                assert whole == parts, f"{folder}/{name}"


def test_a_second_signal_ends_the_run_at_once(tmp_path):
    process = start(tmp_path, save_interval=20)
    wait_for_iteration(process, 3)
    for _ in range(2):
        process.send_signal(signal.SIGTERM)
        time.sleep(0.001)
    code, _, _ = finish(process)
    assert code == 143


@pytest.mark.slow
def test_two_processes_resume_exactly(tmp_path):
    settings = {"use_ema": True, "save_interval": 5, "log_iters": 2}
    module = ROOT / "tests" / "training" / "run_toy.py"
    for folder, iters, resume in (("whole", ITERS, None), ("parts", 10, None), ("parts", ITERS, "auto")):
        text = json.dumps({**settings, "save_dir": str(tmp_path / folder), "resume_model": resume})
        launch_two_processes(tmp_path / f"log_{folder}_{iters}", module, iters, text)
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_what_a_kill_has_left_is_cleared(tmp_path):
    """Killed between two renames, the folder that was moved aside comes back; what is half-written goes."""
    run(10, options(tmp_path))
    os.rename(tmp_path / "iter_10", tmp_path / ".iter_10.old")
    os.rename(tmp_path / "best_model", tmp_path / ".best_model.old")
    (tmp_path / f".iter_15.{os.getppid()}.part").mkdir()  # its process is gone, and the number another one's
    (tmp_path / ".metrics.jsonl.999999999.part").write_text("half")
    state = run(10, options(tmp_path, resume_model="auto"))
    assert state.progress.iteration == 10 and (tmp_path / "best_model" / "model.pdparams").is_file()
    assert not [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_an_evaluation_that_is_owed_is_logged_once(tmp_path):
    """Killed after the evaluation that it made up for, the run makes up for it again."""
    run(ITERS, options(tmp_path / "whole"))
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        patch.setattr(BrightnessTask, "evaluate", lambda *_: os.kill(os.getpid(), signal.SIGTERM) or time.sleep(5))
        run(ITERS, options(tmp_path / "parts"))
    owing = tmp_path / "parts" / "iter_5" / "train_state.safetensors"
    before = owing.read_bytes()
    run(5, options(tmp_path / "parts", resume_model="auto"))
    assert before != owing.read_bytes(), "the checkpoint still owes the evaluation"
    owing.write_bytes(before)
    run(ITERS, options(tmp_path / "parts", resume_model="auto"))
    assert_same_runs(tmp_path / "whole", tmp_path / "parts")


def test_a_run_that_stopped_early_has_nothing_left_to_train(tmp_path, caplog):
    caplog.set_level("INFO", logger="paddle_rt")
    changes = dict(save_interval=1, early_stop_intervals=1)
    before = run(ITERS, options(tmp_path, **changes)).progress.iteration
    assert before < ITERS
    assert run(ITERS, options(tmp_path, resume_model="auto", **changes)).progress.iteration == before
    assert "stopped early: nothing is left to train" in caplog.text


def test_a_run_that_resumes_from_another_folder_has_a_best_model_of_its_own(tmp_path):
    run(10, options(tmp_path / "one", keep_checkpoint_max=1))
    state = run(15, options(tmp_path / "two", resume_model=str(tmp_path / "one" / "iter_10"), keep_checkpoint_max=1))
    assert state.progress.best["model"][1] == 15 and (tmp_path / "two" / "best_model" / "model.pdparams").is_file()
    assert (tmp_path / "one" / "iter_10").is_dir() and state.progress.saved == [15]


@pytest.mark.parametrize("damage", ["no score", "damaged score", "damaged weights"])
def test_a_best_model_without_its_score_is_scored_again(damage, tmp_path, caplog):
    changes = dict(save_interval=1, use_ema=False)
    best = run(10, options(tmp_path / "good", **changes)).progress.best["model"]
    folder = tmp_path / "run"
    run(1, options(folder, **changes))
    shutil.rmtree(folder / "best_model")
    shutil.copytree(tmp_path / "good" / "best_model", folder / "best_model")
    weights, states = folder / "best_model" / "model.pdparams", folder / "best_model" / "model.pdstates"
    before = weights.read_bytes()
    states.write_bytes(b"") if damage == "damaged score" else states.unlink()
    if damage == "damaged weights":
        weights.write_bytes(before[:99])
    state = run(2, options(folder, resume_model="auto", **changes))
    assert f"{weights} has no score beside it" in caplog.text
    if damage == "damaged weights":
        assert state.progress.best["model"][1] == 2 and "its place is taken" in caplog.text
    else:
        assert state.progress.best["model"] == (best[0], 0) and weights.read_bytes() == before
    run(2, options(tmp_path / "whole", **changes))
    one, other = (read_state_dict(run / "iter_2") for run in (tmp_path / "whole", folder))
    assert all(np.array_equal(one[name], other[name]) for name in one), "scoring has changed the network"


@pytest.mark.parametrize("resume", [None, "iter_5"])
def test_later_checkpoints_of_another_run_are_named(resume, tmp_path, caplog):
    run(10, options(tmp_path))
    assert "of another run" not in caplog.text
    run(6, options(tmp_path, resume_model=resume and str(tmp_path / resume)))
    assert f"{tmp_path} already holds iter_10" in caplog.text.replace(", iter_5", "")


@pytest.fixture(scope="module")
def run_of_5(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("run")
    run(5, options(folder))
    return folder


def rewrite(file: pathlib.Path, change) -> None:
    """Change the numbers of a train_state.safetensors."""
    with safe_open(str(file), framework="np") as opened:
        content = json.loads(opened.metadata()["paddle_rt"])
        arrays = {name: opened.get_tensor(name) for name in opened.keys()}
    content = change(content, arrays) or content
    file.write_bytes(safetensors.numpy.save(arrays, metadata={"paddle_rt": json.dumps(content)}))


@pytest.mark.parametrize(
    "change",
    [
        lambda content, arrays: [1],
        lambda content, arrays: {"version": 1},
        lambda content, arrays: content.update(iteration="5"),
        lambda content, arrays: content.update(best={"model": 3}),
        lambda content, arrays: content.update(generators=None),
        lambda content, arrays: content.update(version="x" * 9),
        lambda content, arrays: content["generators"][0].update(paddle=[["x"]]),
        lambda content, arrays: content["generators"][0].update(numpy=["x", 1, 2]),
        lambda content, arrays: content["generators"][0].update(python=[9, None]),
        *(
            lambda content, arrays, key=key, value=value: content.update({key: value})
            for key, value in (
                ("iteration", -5),
                ("iteration", 10**30),
                ("owes_evaluation", 3),
                ("below_best", -1),
                ("seed", -1),
                ("seed", 2**70),
                ("best", {"model": ["a", "b"]}),
                ("best", {"model": [1]}),
                ("losses", [["x"]]),
                ("losses", [{}]),
                ("history", [1]),
                ("history", [{"iter": 1, "model": "model", "scores": {"a": "b"}}]),
                ("saved", ["../../x"]),
                ("conditions", [1]),
            )
        ),
        lambda content, arrays: arrays.pop("numpy.0") is None,
        lambda content, arrays: arrays.update({"numpy.0": np.zeros(3, np.uint32)}),
        lambda content, arrays: arrays.update({"python.0": np.zeros(3, np.uint64)}),
        lambda content, arrays: arrays.update({"paddle_0.0": np.zeros(3, np.uint8)}),
    ],
)
def test_a_state_with_other_content_is_one_clear_line(change, run_of_5, tmp_path):
    shutil.copytree(run_of_5, tmp_path, dirs_exist_ok=True)
    rewrite(tmp_path / "iter_5" / "train_state.safetensors", change)
    with pytest.raises(UserError, match=r"train_state\.safetensors") as caught:
        run(10, options(tmp_path, resume_model=str(tmp_path / "iter_5")))
    assert "\n" not in str(caught.value)


def test_a_checkpoint_whose_folder_names_another_iteration(run_of_5, tmp_path, caplog):
    shutil.copytree(run_of_5 / "iter_5", tmp_path / "start_9")
    state = run(6, options(tmp_path / "run", resume_model=str(tmp_path / "start_9")))
    assert state.progress.iteration == 6
    assert "is of iteration 5, its folder's name says 9: the former counts" in caplog.text


@pytest.mark.parametrize(
    "change, text",
    [
        (lambda states: states["LR_Scheduler"].pop("last_lr"), "lr_scheduler"),
        (lambda states: states["LR_Scheduler"].pop("LinearWarmup_LR"), "LinearWarmup_LR is missing"),
        (lambda states: states["LR_Scheduler"].update(last_epoch="x"), "'x' for last_epoch"),
        (lambda states: states["LR_Scheduler"].update(last_epoch=10**30), "for last_epoch"),
        (lambda states: states.update(LR_Scheduler=5), "everything is missing"),
        (lambda states: states["conv2d_0.w_0_moment1_0"].fill(np.nan), "no finite number in conv2d_0.w_0_moment1_0"),
        (lambda states: states.update({"conv2d_0.w_0_moment1_0": "x"}), "no finite number"),
    ],
)
def test_an_optimizers_state_with_other_content_is_one_clear_line(change, text, tmp_path):
    run(5, options(tmp_path))
    file = tmp_path / "iter_5" / "model.pdopt"
    states = paddle.load(str(file), return_numpy=True)
    change(states)
    paddle.save(states, str(file))
    with pytest.raises(UserError, match=text):
        run(10, options(tmp_path, resume_model=str(tmp_path / "iter_5")))


def test_a_full_disk_leaves_the_checkpoints_before(tmp_path):
    """The limit of a file's size stands for the disk: weights fit, the optimizer's state does not."""
    run(5, options(tmp_path))
    before, logged = written(tmp_path / "iter_5"), (tmp_path / METRICS).read_bytes()
    size = (tmp_path / "iter_5" / "model.pdopt").stat().st_size
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size - 1, limits[1]))
    try:
        with pytest.raises(OSError, match="iter_10"):
            run(10, options(tmp_path, resume_model="auto"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in tmp_path.iterdir()} == {"iter_5", *FOLDERS, METRICS}
    assert written(tmp_path / "iter_5") == before and (tmp_path / METRICS).read_bytes().startswith(logged)
    run(ITERS, options(tmp_path, resume_model="auto"))
    run(ITERS, options(tmp_path / "whole"))
    assert_same_runs(tmp_path / "whole", tmp_path)
