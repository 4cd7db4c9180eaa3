"""The command paddle-rt, and what every tool does with log lines and errors."""

import importlib
import logging
import os
import re

import pytest

from paddle_rt import cli
from paddle_rt.cli.run import run_tool
from paddle_rt.errors import InternalError, UserError
from tests.bad_inputs import alias_bomb
from tests.helpers import ROOT, refused, run_python, written

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


def test_help_keeps_commands_on_lines_of_their_own_and_names_no_absent_default():
    done = run_python("tools/check_data.py", "--help", cwd=ROOT)
    commands = [line for line in done.stdout.splitlines() if line.startswith("paddle-rt check_data")]
    assert done.returncode == 0 and len(commands) == 2
    text = " ".join(done.stdout.split())
    assert "(default: gpu)" in text and "default: None" not in text and "default: False" not in text


def test_the_command_lists_its_tools_and_names_the_nearest():
    done = run_python("-c", PROGRAM)
    assert done.returncode == 0 and all(f"  {name} " in done.stdout for name in cli.TOOLS), done.stdout
    done = run_python("-c", PROGRAM, "exprot")
    assert done.returncode == 2 and done.stderr.startswith("error: unknown tool 'exprot', did you mean 'export'?")
    done = run_python("-c", PROGRAM, "render-streetscenes", "--help")
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
        (ModuleNotFoundError("x", name="fastapi"),
         "error: this needs the package fastapi, which is not installed: pip install 'paddle_rt[serve]'\n"),
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


def test_a_tool_goes_on_where_nobody_reads_its_log():
    code = "import logging\nfrom paddle_rt.cli.run import run_tool\ndef main():\n    for _ in range(100):\n"
    code += "        logging.getLogger('paddle_rt').info('x' * 9999)\nrun_tool(main)"
    shell = (
        "import subprocess, sys\nout = subprocess.Popen([sys.executable, '-c', sys.argv[1]], stdout=-1, stderr=-1)\n"
    )
    shell += "out.stdout.close()\nprint(out.wait(timeout=60), out.stderr.read())"
    done = run_python("-c", shell, code)
    warning = "b'warning: stdout is closed; the tool goes on without its log\\n'"
    assert done.stdout == f"0 {warning}\n", done.stdout + done.stderr


@pytest.mark.parametrize(
    ("shell", "code", "message"),
    [
        (">&-", 0, ""),
        (">&- 2>&-", 0, ""),
        ("<&- >&-", 0, ""),
        (">/dev/full", 1, "error: No space left on device\n"),
    ],
)
def test_a_tool_works_without_its_streams(shell, code, message, tmp_path):
    """A stream that is closed leaves its number to the next file, which must not get what is printed."""
    main = "import os; file = open('file', 'w'); print('text', flush=True); os.write(1, b'more')"
    program = f"from paddle_rt.cli.run import run_tool\ndef main():\n    {main}\nrun_tool(main)\n"
    (tmp_path / "tool.py").write_text(program)
    line = f"import subprocess, sys; sys.exit(subprocess.call(sys.executable + ' tool.py {shell}', shell=True))"
    done = run_python("-c", line, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (code, message)
    assert (tmp_path / "file").read_bytes() == b""


FLAGS = {
    "train --save_dir /": "--save_dir: / is the root of the file system",
    "export --save_dir {file}": "--save_dir: .*file is no folder",
    "predict --save_dir {file}/deeper": "--save_dir: .*file is no folder",
    "val --model_path /": "--model_path: / is the root of the file system",
    "infer --image_path //": "--image_path: // is the root of the file system",
    "benchmark_training --model rtformer_slum": "unknown model 'rtformer_slum', did you mean 'rtformer_slim'",
    "benchmark_training --model rtformer_slim:num_heads=0": "model.num_heads must be a whole number",
    "val --output {pipe}": "--output: .*pipe is a device, a pipe or a socket; give the name of a file",
    "val --output {folder}": "--output: .* is a folder; give the name of a file",
    "val --output {file}/x.json": "--output: .*file is no folder",
    "train --save_dir {nul}": r"--save_dir: 'a\\x00b' cannot be the name",
    "infer --image_path {nul}": r"--image_path: 'a\\x00b' cannot be the name",
    "train --repeats 99999999999999999999": "--repeats: expected a whole number from 1 to 1000000, got '99999999999999",
    "train --learning_rate nan": "--learning_rate: expected a number above 0, got 'nan'",
    "train --iters ٣": "--iters: expected a whole number",
    "quantize --agreement 1.5": "--agreement: expected a number from 0 to 1, got '1.5'",
    "quantize --max_drop -1": "--max_drop: expected a number from 0 to 1, got '-1'",
    "export --input_size 0 64": "--input_size: expected a whole number from 1 to 65500, got '0'",
    "export --input_size 99999999999999999999 64": "--input_size: expected a whole number from 1 to 65500, got",
    "compare --input_size 65500 65500": "--input_size: 65500 x 65500 are more than 268435456 pixels",
    "benchmark --size 1e3 64": "--size: expected a whole number from 1 to 65500, got '1e3'",
    "data/render_streetscenes --seed -1": "--seed: expected a whole number from 0 to 4611686018427387904, got '-1'",
    "infer --backend openvin": "--backend: unknown choice 'openvin', did you mean 'openvino'",
    "infer --threads 5000": r"--threads/--cpu_threads: expected a whole number from 1 to \d+, got",
    "infer --thread 5": "unknown flag or word '--thread', did you mean '--threads'",
    "export --conifg x": "unknown flag or word '--conifg', did you mean '--config'",
    "quantize --exprt_dir x": "unknown flag or word '--exprt_dir', did you mean '--export_dir'",
    "infer --device_id -1": "--device_id: expected a whole number from 0 to 1023, got '-1'",
    "infer --profile 64x64 64 64x64": "--profile: expected a whole number from 1 to 65500, got ''",
    "infer --tile 64 0": "--tile: expected a whole number from 1 to 65500, got '0'",
    "infer --tile 65500 65500": "--tile: 65500 x 65500 are more than",
    "infer --overlap 64": "--overlap is that of tiles; give --tile H W, too",
    "infer --opacity 2": "--opacity: expected a number from 0 to 1, got '2'",
    "infer --polygons voc": "--polygons: unknown choice 'voc'",
    "infer --overlap -1": "--overlap: expected a whole number of at least 0, got '-1'",
    "infer --threshold 2": "--threshold: expected a number from 0 to 1, got '2'",
    "benchmark_pose --people 0": "--people: expected a whole number from 1 to 1000000, got '0'",
    "infer --scene_cut nan": "--scene_cut: expected a number from 0 to 255, got 'nan'",
}


@pytest.mark.parametrize("line", FLAGS)
def test_a_bad_flag_is_one_line_and_exit_code_2(call, line, tmp_path):
    """Before anything is read: none of the files exists."""
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    tool, flag, *values = line.split()
    places = {"file": tmp_path / "file", "pipe": tmp_path / "pipe", "folder": tmp_path, "nul": "a\0b"}
    given = [flag, *(value.format(**places) for value in values)]
    required = {"infer": ["--config", "x", "--image_path", "x"], "quantize": ["--export_dir", "x"]}
    required |= {"benchmark": [], "benchmark_training": ["--output", tmp_path / "x"]}
    required |= {"benchmark_pose": ["--output", tmp_path / "x"]}
    required = required.get(tool, ["--model_path", "x"])
    required += ["--image_path", "x"] if tool == "predict" else []
    if tool in ("train", "data/render_streetscenes"):
        required = ["--output", tmp_path / "x"] if "render" in tool else []
    if tool not in ("infer", "benchmark", "benchmark_pose", "benchmark_training", "data/render_streetscenes"):
        required += ["-c", "x.yml"]
    refused(call(tool, *required, *given), FLAGS[line], 2)
    assert written(tmp_path) == ["file"]


@pytest.mark.parametrize("tool", ["val", "predict"])
def test_a_misspelled_flag_is_named_before_a_missing_one(call, tool):
    said = "unknown flag or word '--model_pth', did you mean '--model_path'"
    refused(call(tool, "-c", "x.yml", "--image_path", "x", "--model_pth", "x"), said, 2)


CONFIG_TOOLS = {
    "train": [],
    "val": ["--model_path", "x"],
    "predict": ["--model_path", "x", "--image_path", "x"],
    "export": ["--model_path", "x"],
    "quantize": ["--export_dir", "x"],
    "compare": [],
    "video_metrics": ["--model_path", "x"],
}


@pytest.mark.parametrize("tool", CONFIG_TOOLS)
def test_a_broken_config_is_refused_before_paddle_is_imported(call, tool, tmp_path, monkeypatch):
    monkeypatch.setattr("paddle_rt.cli.arguments.import_paddle", lambda: pytest.fail("Paddle is imported"))
    config = tmp_path / "config.yml"
    for text, expected in ((alias_bomb(), "more than 20000 values"), ("a: [", "not valid YAML")):
        config.write_text(text)
        refused(call(tool, "-c", config, *CONFIG_TOOLS[tool]), expected)
    refused(call(tool, "-c", tmp_path / "none.yml", *CONFIG_TOOLS[tool]), "no config file at")
    refused(call(tool, "-c", tmp_path / "x.json", *CONFIG_TOOLS[tool]), "a config is a .yml or .yaml file")


def test_the_originals_are_refused_without_a_clone(call, tmp_path):
    refused(call("benchmark_originals"), "give a clone with --fanet, --segformerpp or both", 2)
    refused(call("benchmark_originals", "--fanet", tmp_path), "--fanet: .* is no clone of the original")
