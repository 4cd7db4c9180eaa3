"""Run a tool in a forked process and judge what it did."""

import faulthandler
import os
import pathlib
import re
import resource
import runpy
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests import bad_inputs as bad
from tests.helpers import ROOT

MEMORY = 24 << 30  # bytes of address space, of which Paddle reserves some
FILE_SIZE = 1 << 29
ALLOWED = re.compile(r"warning: |left out: |interrupted: ")  # lines that may stand before the line of an error
UNFINISHED = re.compile(r"\.(part|old|tmp)(\.\w+)?$|^\.int8\.|^tmp\w{8}$")
WORK = "work"  # the folder that a case runs in; beside it lie what the process prints and its home


@dataclass
class Outcome:
    """What a process did.

    Args:
        code: Its exit code; negative for a signal.
        seconds: How long it ran.
        stderr: What it wrote there.
        problems: The promises that it broke, one line each.
    """

    code: int
    seconds: float
    stderr: str
    problems: list[str] = field(default_factory=list)


def start(tool: str, arguments: Sequence[str], folder: pathlib.Path, seconds: float) -> int:
    """Fork a process that runs a tool in `folder`/work, and return its number.

    Paddle and the packages around it have been imported before, which takes most of a tool's time; nothing has been
    computed with them, so that there are no threads that a fork would lose.
    """
    (folder / "home").mkdir()
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    code = 70
    try:
        os.setsid()
        _isolate(folder)
        file = (folder / "stacks").open("w")
        faulthandler.enable(file)
        faulthandler.dump_traceback_later(seconds * 0.9, file=file)
        script = ROOT / ("deploy/python/infer.py" if tool == "infer" else f"tools/{tool}.py")
        sys.argv = [f"{tool}.py", *arguments]
        runpy.run_path(str(script), run_name="__main__")
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    except BaseException:  # noqa: BLE001  it is printed, as Python does at the end
        traceback.print_exc()
        code = 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _isolate(folder: pathlib.Path) -> None:
    os.chdir(folder / WORK)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ["HOME"] = str(folder / "home")
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE_SIZE, FILE_SIZE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    connections = folder / "connections"

    def refuse(*arguments: object) -> None:
        with connections.open("a") as file:
            file.write(f"{arguments[-1] if isinstance(arguments[0], socket.socket) else arguments[0]}\n")
        raise ConnectionRefusedError(111, "the fuzzer has no network")

    socket.socket.connect = socket.getaddrinfo = refuse


def snapshot(folder: pathlib.Path) -> dict[str, tuple]:
    """Return what lies below a folder, with sizes and times."""
    found = {}
    for path in folder.rglob("*"):
        status = path.lstat()
        found[str(path.relative_to(folder))] = (status.st_mode, status.st_size, status.st_mtime_ns)
    return found


def judge(
    folder: pathlib.Path, before: dict[str, tuple], outputs: Sequence[str], ended: tuple[int, float], limit: float
) -> Outcome:
    """Compare what a process has left with what the tools promise.

    Args:
        folder: Of the case.
        before: `snapshot` of its work folder before the tool ran.
        outputs: Names in the work folder that the tool may write to.
        ended: Exit code, negative for a signal, and seconds.
        limit: How long it was allowed to run.
    """
    code, seconds = ended
    stderr = (folder / "stderr").read_text(errors="replace") if (folder / "stderr").exists() else ""
    lines, problems = stderr.splitlines(), []
    if seconds >= limit:
        problems.append(f"hang: still running after {limit:.0f} s, {_innermost(folder / 'stacks')}")
    elif code < 0:
        last = lines[-1] if lines else ""
        problems.append(f"crash: {signal.Signals(-code).name}, {_innermost(folder / 'stacks')} {last[:200]}")
    elif "Traceback (most recent call last)" in stderr:
        problems.append(f"traceback: {lines[-1][:300]}")
    elif code not in (0, 1, 2):
        problems.append(f"exit code {code}")
    elif code and (wrong := _wrong_lines(lines)):
        problems.append(f"lines of error: {wrong}")
    if any(path.name == bad.MARK for path in folder.rglob(f"*{bad.MARK}*")):
        problems.append("code of the input was run")
    if (folder / "connections").exists():
        problems.append(f"network: {(folder / 'connections').read_text().split()[:3]}")
    home = [str(path.relative_to(folder / "home")) for path in (folder / "home").rglob("*") if path.is_file()]
    if home := [name for name in home if "matplotlib" not in name]:  # which keeps its list of fonts there
        problems.append(f"wrote to $HOME: {sorted(home)[:5]}")
    after = snapshot(folder / WORK)
    new = [name for name in after if name not in before]
    unfinished = [name for name in new if UNFINISHED.search(pathlib.Path(name).name)]
    if unfinished:
        problems.append(f"left behind: {unfinished[:5]}")
    changed = [name for name, status in before.items() if after.get(name, (0, -1))[:2] != status[:2]]
    outside = [name for name in new + changed if name.split("/")[0] not in outputs and name not in unfinished]
    if outside:
        problems.append(f"wrote outside of the output: {outside[:5]}")
    empty = [name for name in new if (folder / WORK / name).is_file() and after[name][1] == 0]
    if empty:
        problems.append(f"empty files: {empty[:5]}")
    return Outcome(code, seconds, stderr, problems)


def _wrong_lines(lines: list[str]) -> list[str]:
    """Return what stands on stderr beside a line of error, warnings before it and a data set's tree behind it."""
    at = [number for number, line in enumerate(lines) if line.startswith("error: ")]
    if len(at) != 1:
        return [line[:200] for line in lines[:3]] or ["no line at all"]
    before = [line for line in lines[: at[0]] if not ALLOWED.match(line)]
    behind = [line for line in lines[at[0] + 1 :] if not line.startswith((" ", "Source: "))]
    return [line[:200] for line in (before + behind)[:3]]


def _innermost(stacks: pathlib.Path) -> str:
    """Return where the main thread was, by the dump of faulthandler."""
    text = stacks.read_text(errors="replace") if stacks.exists() else ""
    frames = re.findall(r'File "(.*?)", line (\d+) in (\w+)', text.rpartition("Current thread")[2] or text)
    ours = [frame for frame in frames if "paddle_rt" in frame[0]]
    name = "/".join((ours or frames)[0][0].split("/")[-2:]) if frames else "?"
    return f"in {name} line {(ours or frames)[0][1]}" if frames else "nowhere known"


def wait(process: int, begun: float, limit: float) -> tuple[int, float] | None:
    """Return exit code and seconds of a process that has ended or has run too long, else None."""
    found, status = os.waitpid(process, os.WNOHANG)
    seconds = time.monotonic() - begun
    if found == 0 and seconds < limit:
        return None
    try:
        os.killpg(process, signal.SIGKILL)  # with whatever it has started
    except ProcessLookupError:
        pass
    if found == 0:
        _, status = os.waitpid(process, 0)
    return os.waitstatus_to_exitcode(status), seconds


def remove(folder: pathlib.Path) -> None:
    """Remove the folder of a case."""
    shutil.rmtree(folder, ignore_errors=True)
