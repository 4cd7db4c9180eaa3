"""Strike training runs at every moment, and check what each fault leaves and how the run goes on.

    python -m tests.kill_runs --kills 200 --full 100 --seed 0

A small network is trained by tools/train.py's own `main` in processes that are forked from this one. One third of the
kills strike a new run at chosen moments: before every opening, renaming, deletion and flush of a file, and in the
middle of every write. One third strike a run that goes on, at chosen moments too. The others come from outside at
random times, again and again on one run. After each kill, every visible file has to be whole, and best_model has to be
the best that was ever logged. In the end the run has to equal, byte for byte, one that nothing struck, and nothing else
may be in its folder. A full disk strikes at chosen moments as well: the run has to end with one line.
"""

import argparse
import collections
import contextlib
import ctypes
import itertools
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import tempfile
import time

import yaml
from safetensors import safe_open

from tests.moments import FULL, KILL, NEEDS_SPACE, Moments, watch

CONFIG = {
    "task": "brightness",
    "batch_size": 2,
    "iters": 12,
    "train_dataset": {"number": 11},
    "val_dataset": {"number": 3, "first": 100, "augment": False},
    "model": {"type": "BrightnessNetwork"},
    "optimizer": {"type": "AdamW", "weight_decay": 0.01},
    "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.05, "end_lr": 0, "power": 1.0},
}
FLAGS = ["--device", "cpu", "--do_eval", "--use_ema", "--use_vdl", "--seed", "1", "--save_interval", "3"]
FLAGS += ["--log_iters", "2"]
KEPT = 2
NAMES = ("best_model", "ema_best_model", "metrics.jsonl")
STATE = "train_state.safetensors"
TIMINGS = ("batch_cost", "reader_cost", "ips")
_PR_SET_PDEATHSIG = 1


class Broken(AssertionError):
    """A promise that a fault broke."""


class Lab:
    """Starts runs in folders below a temporary one.

    Args:
        root: The temporary folder.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.config = root / "config.yml"
        self.config.write_text(yaml.safe_dump(CONFIG))

    def start(
        self, folder: pathlib.Path, moments: Moments | None = None, keep: int = KEPT, workers: int = 0, stop: int = 0
    ) -> int:
        """Start a process that trains in a folder or goes on there, and return its id.

        Args:
            folder: The run's folder.
            moments: Where a fault strikes.
            keep: Checkpoints to keep.
            workers: Processes that load samples.
            stop: SIGTERM strikes in this evaluation of a network, counted from 1; 0 for none.
        """
        command = ["train", "-c", self.config, "--save_dir", folder, *FLAGS, "--keep_checkpoint_max", keep]
        command += ["--resume_model", "auto", "--num_workers", workers]
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            os.setsid()
            for number, name in ((1, "out"), (2, "err")):
                os.dup2(os.open(self.root / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
            if stop:
                _interrupt_evaluation(stop)
            code = _train([str(word) for word in command], moments)
            if moments is not None:
                (self.root / "moments").write_text("\n".join(moments.names))
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)

    def run(self, folder: pathlib.Path, moments: Moments | None = None, **options: int) -> int:
        """Train in a folder or go on there until the end; return the exit code, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.start(folder, moments, **options), 0)[1])

    def moments_of(self, folder: pathlib.Path) -> list[str]:
        """Train in a folder or go on there, and return what happened at each moment."""
        if self.run(folder, Moments(str(folder))) != 0:
            raise Broken(f"the run failed: {self.errors()}")
        return (self.root / "moments").read_text().split("\n")

    def errors(self) -> str:
        return (self.root / "err").read_text()


def _train(command: list[str], moments: Moments | None) -> int:
    """Run the tool in this process, and return its exit code."""
    from paddle_rt.cli.run import run_tool
    from paddle_rt.cli.train import main

    sys.argv = command
    if moments is not None:
        watch(moments)
    try:
        run_tool(main)
    except SystemExit as end:
        return end.code or 0
    return 0


def _interrupt_evaluation(number: int) -> None:
    from tests.training.toy import BrightnessTask

    evaluate, calls = BrightnessTask.evaluate, itertools.count(1)

    def interrupted(self, network, dataset, num_workers=0):
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        return evaluate(self, network, dataset, num_workers)

    BrightnessTask.evaluate = interrupted


class Reference:
    """A run that nothing struck, and what a run that was struck has to share with it.

    Args:
        lab: Starts it.
    """

    def __init__(self, lab: Lab) -> None:
        self.all, self.pruned = lab.root / "all", lab.root / "pruned"
        for folder, keep in ((self.all, 0), (self.pruned, KEPT)):
            if lab.run(folder, keep=keep) != 0:
                raise Broken(f"the undisturbed run failed: {lab.errors()}")
        self.rows = rows(self.all)

    def check_struck(self, folder: pathlib.Path, best_logged: float, owing: bool = False) -> float:
        """Check what a fault has left.

        Args:
            folder: The run's folder.
            best_logged: The best score that was logged before.
            owing: One checkpoint may still owe its evaluation.

        Returns:
            The best score that was ever logged.
        """
        from paddle_rt.training.checkpoints import read_best

        for path in sorted(folder.iterdir()) if folder.exists() else ():
            if path.name.startswith("iter_"):
                same_files(self.all / path.name, path, except_for=STATE)
                if not owing:
                    same_state(self.all / path.name / STATE, path / STATE)
            elif not path.name.startswith((".", "vdlrecords.")) and path.name not in NAMES:
                raise Broken(f"{path.name} is left")
        logged = rows(folder)
        if logged != self.rows[: len(logged)]:
            raise Broken("metrics.jsonl is no beginning of that of the undisturbed run")
        scores = [row["Closeness"] for row in logged if row["kind"] == "eval" and row["model"] == "model"]
        best_logged = max([best_logged, *scores])
        best = read_best(folder / "best_model" / "model.pdparams", "Closeness")
        if best_logged > (best or (0.0, 0))[0]:
            raise Broken(f"best_model is {best}, logged was {best_logged}")
        for name, file in (("best_model", "model.pdparams"), ("ema_best_model", "ema_model.pdparams")):
            if (folder / name).exists():
                score = read_best(folder / name / file, "Closeness")
                if (folder / name / file).read_bytes() != (self.all / f"iter_{score[1]}" / file).read_bytes():
                    raise Broken(f"{name} does not hold the weights of iteration {score[1]}")
        return best_logged

    def check_finished(self, folder: pathlib.Path) -> None:
        """Check that a run is byte for byte the undisturbed one, and that nothing else is left."""
        names, expected = (
            sorted(path.name for path in run.iterdir() if not path.name.startswith("vdlrecords."))
            for run in (folder, self.pruned)
        )
        if names != expected:
            raise Broken(f"the folder holds {names}, expected {expected}")
        for path in self.pruned.iterdir():
            if path.is_dir():
                same_files(path, folder / path.name)
        if rows(folder) != self.rows or (folder / "metrics.jsonl").read_bytes().count(b"\n") != len(self.rows):
            raise Broken("metrics.jsonl differs from that of the undisturbed run")
        from paddle_rt.run_logs import read_scalars

        curves: dict = {}
        for log in sorted(folder.glob("vdlrecords.*.log")):
            for tag, curve in read_scalars(log).items():
                curves.setdefault(tag, {}).update(curve)
        iterations = [row["iter"] for row in self.rows if row["kind"] == "train"]
        if sorted(curves["Train/loss"]) != iterations:
            raise Broken(f"the VisualDL logs hold the iterations {sorted(curves['Train/loss'])}")


def rows(folder: pathlib.Path) -> list[dict]:
    """Return the whole rows of metrics.jsonl, without times."""
    file = folder / "metrics.jsonl"
    found = [json.loads(line) for line in file.read_text().split("\n")[:-1]] if file.exists() else []
    return [{key: value for key, value in row.items() if key not in TIMINGS} for row in found]


def same_files(one: pathlib.Path, other: pathlib.Path, except_for: str | None = None) -> None:
    names, found = (sorted(path.name for path in folder.iterdir()) for folder in (one, other))
    if names != found:
        raise Broken(f"{other.name} holds {found}, expected {names}")
    for name in names:
        if name != except_for and (one / name).read_bytes() != (other / name).read_bytes():
            raise Broken(f"{other.name}/{name} differs from that of the undisturbed run")


def same_state(one: pathlib.Path, other: pathlib.Path) -> None:
    """Compare two train_state.safetensors but for the list of checkpoints, which depends on how many are kept."""
    contents = []
    for file in (one, other):
        with safe_open(str(file), framework="np") as opened:
            content = json.loads(opened.metadata()["paddle_rt"]) | {"saved": None}
            contents.append((content, {name: opened.get_tensor(name).tolist() for name in opened.keys()}))
    if contents[0] != contents[1]:
        raise Broken(f"{other} differs from that of the undisturbed run")


class Tally:
    """What was struck, and what was found.

    Args:
        total: The faults that are planned.
    """

    def __init__(self, total: int) -> None:
        self.total, self.done = total, 0
        self.kinds: collections.Counter = collections.Counter()
        self.broken: list[str] = []
        self.began = time.perf_counter()

    def add(self, kind: str, moment: str = "") -> None:
        self.done += 1
        self.kinds[f"{kind}: {moment.split()[0]}" if moment else kind] += 1
        if self.done % 20 == 0 or self.done == self.total:
            seconds = time.perf_counter() - self.began
            print(f"{self.done}/{self.total} faults, {len(self.broken)} broken promises, {seconds:.0f} s", flush=True)

    @contextlib.contextmanager
    def noting(self, where: str):
        try:
            yield
        except Broken as error:
            self.broken.append(f"{where}: {error}")
            print(f"BROKEN {self.broken[-1]}", flush=True)


def draw(choose: random.Random, moments: list[str], number: int) -> list[int]:
    """Draw moments, counted from 1: each once before any comes twice."""
    drawn: list[int] = []
    while len(drawn) < number:
        drawn += choose.sample(range(1, len(moments) + 1), len(moments))
    return drawn[:number]


def kill_new_runs(lab: Lab, reference: Reference, tally: Tally, choose: random.Random, number: int) -> None:
    """Kill a new run at chosen moments, and let it go on to its end."""
    moments = lab.moments_of(lab.root / "count")
    for at in draw(choose, moments, number):
        folder = lab.root / "run"
        with tally.noting(f"new run killed at moment {at} ({moments[at - 1]})"):
            _kill(lab, folder, at)
            reference.check_struck(folder, 0.0)
            _finish(lab, folder)
            reference.check_finished(folder)
        shutil.rmtree(folder, ignore_errors=True)
        tally.add("new run, chosen moment", moments[at - 1])


def kill_resumed_runs(lab: Lab, reference: Reference, tally: Tally, choose: random.Random, number: int) -> None:
    """Kill a run that goes on after a kill or after SIGTERM, at chosen moments, and let it go on again to its end."""
    first = lab.moments_of(lab.root / "count_2")
    folder, struck = lab.root / "run", lab.root / "struck"
    while number > 0:
        stop = choose.choice([0, 0, choose.randint(1, 8)])
        if stop:
            where = f"stopped in evaluation {stop}"
            if (code := lab.run(struck, stop=stop)) != 128 + signal.SIGTERM:
                raise Broken(f"SIGTERM ended the run with {code}: {lab.errors()}")
        else:
            start = choose.randint(1, len(first))
            where = f"killed at moment {start} ({first[start - 1]})"
            _kill(lab, struck, start)
        shutil.copytree(struck, folder)
        moments = lab.moments_of(folder)
        shutil.rmtree(folder)
        for second in draw(choose, moments, min(number, 6)):
            with tally.noting(f"{where}, then killed at {second} ({moments[second - 1]})"):
                shutil.copytree(struck, folder)
                best = reference.check_struck(folder, 0.0, bool(stop))
                _kill(lab, folder, second)
                reference.check_struck(folder, best, bool(stop))
                _finish(lab, folder)
                reference.check_finished(folder)
            shutil.rmtree(folder)
            tally.add("run that goes on, chosen moment", moments[second - 1])
            number -= 1
        shutil.rmtree(struck)


def kill_at_random(lab: Lab, reference: Reference, tally: Tally, choose: random.Random, number: int) -> None:
    """Kill a run at random times, up to eight times, and let it go on to its end."""
    began = time.perf_counter()
    lab.run(lab.root / "timed")
    seconds = time.perf_counter() - began
    while number > 0:
        folder, best, workers, struck = lab.root / "run", 0.0, choose.choice([0, 0, 2]), set()
        kills = min(number, choose.randint(1, 8))
        with tally.noting(f"{kills} kills at random times with {workers} workers"):
            for _ in range(kills):
                before = _shared_memory()
                pid = lab.start(folder, workers=workers)
                time.sleep(choose.uniform(0, seconds))
                others = _session(pid)
                together = choose.random() < 0.5
                (os.killpg if together else os.kill)(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
                _check_processes(pid)
                left = [name for name in _shared_memory() - before if int(name.split("_")[1]) in others]
                if left and not together:
                    raise Broken(f"shared memory is left: {left}")
                struck |= set(left)  # the next run frees it
                best = reference.check_struck(folder, best)
            _finish(lab, folder, workers)
            reference.check_finished(folder)
            if left := struck & _shared_memory():
                raise Broken(f"shared memory is left by runs that were killed with their workers: {left}")
        shutil.rmtree(folder, ignore_errors=True)
        number -= kills
        for _ in range(kills):
            tally.add("random time")


def fill_disk(lab: Lab, reference: Reference, tally: Tally, choose: random.Random, number: int) -> None:
    """Let the disk be full from a moment on: the run ends with one line, and later it goes on to its end."""
    moments = lab.moments_of(lab.root / "count_3")
    while moments[-1].split()[0] not in NEEDS_SPACE:
        moments.pop()
    for at in draw(choose, moments, number):
        folder = lab.root / "run"
        with tally.noting(f"disk full from moment {at} ({moments[at - 1]})"):
            code, errors = lab.run(folder, Moments(str(folder), FULL, at)), lab.errors()
            if code != 1 or errors.count("\n") != 1 or not errors.startswith("error: No space left on device"):
                raise Broken(f"exit code {code}, stderr {errors!r}")
            if str(folder) not in errors:
                raise Broken(f"the line names no file: {errors}")
            reference.check_struck(folder, 0.0)
            file = folder / "metrics.jsonl"
            if file.exists() and not file.read_text().endswith("\n") and file.stat().st_size:
                raise Broken("metrics.jsonl ends in half a row")
            if hidden := [path.name for path in folder.glob(".*")]:
                raise Broken(f"{hidden} are left")
            _finish(lab, folder)
            reference.check_finished(folder)
        shutil.rmtree(folder, ignore_errors=True)
        tally.add("full disk", moments[at - 1])


def _kill(lab: Lab, folder: pathlib.Path, at: int) -> None:
    code = lab.run(folder, Moments(str(folder), KILL, at))
    if code != -signal.SIGKILL:
        raise Broken(f"the run ended with {code} before the kill: {lab.errors()}")


def _finish(lab: Lab, folder: pathlib.Path, workers: int = 0) -> None:
    if (code := lab.run(folder, workers=workers)) != 0:
        raise Broken(f"the run that goes on ended with {code}: {lab.errors()}")


def _session(pid: int) -> list[int]:
    """Return the processes of a run, which are a session of their own."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(ProcessLookupError):
            if os.getsid(int(name)) == pid:
                found.append(int(name))
    return found


def _shared_memory() -> set[str]:
    """Return the names of Paddle's segments, paddle_<process>_<number>_<random>."""
    return {path.name for path in pathlib.Path("/dev/shm").glob("paddle_*_*_*")}


def _check_processes(pid: int) -> None:
    """Check that a killed run's processes are gone."""
    end = time.monotonic() + 60  # a worker looks for the process that started it every 5 seconds
    while _session(pid):
        if time.monotonic() > end:
            raise Broken("processes of the killed run are left")
        time.sleep(0.01)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="number of kills")
    parser.add_argument("--full", type=int, default=60, help="number of times that the disk is full")
    parser.add_argument("--seed", type=int, default=0, help="of the moments that are drawn")
    arguments = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads do not survive a fork
    import paddle  # noqa: F401  once, for all processes that are forked

    import paddle_rt.training
    from paddle_rt.registry import Entry, register_model
    from paddle_rt.tasks.base import register_task
    from tests.training.toy import BrightnessTask

    assert paddle_rt.training
    register_task(BrightnessTask)
    register_model("brightness", Entry("tests.training.toy", "BrightnessNetwork", "only", {}, task="brightness"))
    choose, tally = random.Random(arguments.seed), Tally(arguments.kills + arguments.full)
    with tempfile.TemporaryDirectory(prefix="kill_runs_") as root:
        lab = Lab(pathlib.Path(root))
        reference = Reference(lab)
        third = arguments.kills // 3
        kill_new_runs(lab, reference, tally, choose, third)
        kill_resumed_runs(lab, reference, tally, choose, third)
        kill_at_random(lab, reference, tally, choose, arguments.kills - 2 * third)
        fill_disk(lab, reference, tally, choose, arguments.full)
    for kind, number in sorted(tally.kinds.items()):
        print(f"{number:>5}  {kind}")
    print(
        f"seed {arguments.seed}: {arguments.kills} kills and {arguments.full} full disks in "
        f"{time.perf_counter() - tally.began:.0f} s, {len(tally.broken)} broken promises"
    )
    return 1 if tally.broken else 0


if __name__ == "__main__":
    sys.exit(main())
