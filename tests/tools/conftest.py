"""Fixtures of the tools' tests."""

import pathlib

import cv2
import numpy as np
import pytest

from tests.helpers import call_tool, run_python, tiny_config


@pytest.fixture
def call(capsys):
    """Run a tool within this process: exit code, stdout, stderr."""

    def run(tool: str, *arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        return call_tool(tool, *arguments), *capsys.readouterr()

    return run


@pytest.fixture(scope="session")
def config(tmp_path_factory) -> str:
    return tiny_config(tmp_path_factory.mktemp("config"))


@pytest.fixture(scope="session")
def trained(config, tmp_path_factory) -> pathlib.Path:
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
def weights(trained) -> pathlib.Path:
    return trained / "run" / "iter_5"


@pytest.fixture(scope="session")
def images(tmp_path_factory) -> pathlib.Path:
    """Images of all kinds, in sub-folders and in a list."""
    folder, rng = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    content = {
        "street.jpg": rng.integers(0, 255, (30, 50, 3), np.uint8),
        "street.png": rng.integers(0, 255, (33, 47, 3), np.uint8),
        "a/grey.png": rng.integers(0, 255, (24, 40), np.uint8),
        "a/b/alpha.png": rng.integers(0, 255, (26, 42, 4), np.uint8),
        "a/one.bmp": rng.integers(0, 255, (1, 1, 3), np.uint8),
    }
    for name, image in content.items():
        (folder / name).parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(folder / name), image)
    (folder / "list.txt").write_text("a/grey.png label.png\na/b/alpha.png\n")
    return folder
