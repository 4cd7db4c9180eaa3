"""The command paddle-rt, and what every tool does with log lines and errors."""

import importlib
import logging
import re

import pytest

from paddle_rt import cli
from paddle_rt.cli.run import run_tool
from paddle_rt.errors import InternalError, UserError
from tests.helpers import ROOT, run_python

PROGRAM = "from paddle_rt.cli import main; main()"


def test_every_tool_is_a_command_and_a_file_of_a_clone():
    files = [*(ROOT / "tools").rglob("*.py"), ROOT / "deploy/python/infer.py"]
    assert {file.stem for file in files} == {*cli.TOOLS, "demo_picture"}
    for name in cli.TOOLS:
        assert callable(importlib.import_module(f"paddle_rt.cli.{name}").main)


def test_importing_the_command_lines_leaves_paddle_alone():
    """Its threads are chosen before it is imported."""
    imports = "".join(f"import paddle_rt.cli.{name}\n" for name in cli.TOOLS)
    done = run_python("-c", f"import sys\n{imports}print({{'paddle', 'paddleseg'}} & set(sys.modules))")
    assert done.stdout == "set()\n", done.stdout + done.stderr


def test_the_command_lists_its_tools_and_names_the_nearest():
    done = run_python("-c", PROGRAM)
    assert done.returncode == 0 and all(f"  {name} " in done.stdout for name in cli.TOOLS), done.stdout
    done = run_python("-c", PROGRAM, "exprot")
    assert done.returncode == 2 and done.stderr.startswith("error: unknown tool 'exprot', did you mean 'export'?")
    done = run_python("-c", PROGRAM, "render_streetscenes", "--help")
    assert done.returncode == 0 and "usage: paddle-rt render_streetscenes" in done.stdout


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("two\nlines"), "error: two lines\n"),
        (UserError("a folder is missing", "the\ntree"), "error: a folder is missing\nthe\ntree\n"),
        (InternalError("an engine failed"), "error: an engine failed\n"),
        (FileNotFoundError(2, "No such file", "x.yml"), "error: No such file: x.yml\n"),
        (MemoryError("x"), "error: out of memory: x\n"),
        (ModuleNotFoundError("x", name="nncf.quantization"),
         "error: this needs the package nncf, which is not installed: pip install 'paddle_rt[int8]'\n"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_1(capsys, error, line):
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as end:
        run_tool(main)
    assert end.value.code == 1 and capsys.readouterr().err == line


@pytest.mark.parametrize("error", [ValueError("x"), ModuleNotFoundError("x", name="paddle_rt.gone")])
def test_a_fault_of_ours_keeps_its_traceback(error):
    def main() -> None:
        raise error

    with pytest.raises(type(error)):
        run_tool(main)


def test_the_first_process_logs_in_paddlesegs_format(capsys, monkeypatch):
    def main() -> None:
        logging.getLogger("paddle_rt.any.module").info("%s lines", 1)
        logging.getLogger("another").warning("not ours")

    for rank, pattern in (
        (None, r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d \[INFO\]\t1 lines\n$"),
        ("0", "1 lines"),
        ("1", r"^$"),
    ):
        if rank is not None:
            monkeypatch.setenv("PADDLE_TRAINER_ID", rank)
        run_tool(main)
        run = capsys.readouterr().out
        assert re.search(pattern, run), (rank, run)


def test_a_closed_pipe_ends_a_tool_that_logs():
    code = "import logging\nfrom paddle_rt.cli.run import run_tool\ndef main():\n    while True:\n"
    code += "        logging.getLogger('paddle_rt').info('x' * 9999)\nrun_tool(main)"
    shell = (
        "import subprocess, sys\nout = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=-1, stderr=-1)\n"
    )
    shell += "out.stdout.close()\nprint(out.wait(timeout=60), out.stderr.read())"
    done = run_python("-c", shell, code)
    assert done.stdout == "1 b''\n", done.stdout + done.stderr
