"""The commands in README.md and docs/: every tool, flag, file and test that they name is there."""

import re

import pytest

from paddle_rt.cli import TOOLS
from tests.helpers import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
SHARED = [ROOT / "paddle_rt/cli/arguments.py", ROOT / "paddle_rt/cli/backend.py", ROOT / "paddle_rt/imaging/view.py",
          ROOT / "paddle_rt/tasks/segmentation/task.py", ROOT / "paddle_rt/tasks/segmentation/tta.py",
          ROOT / "paddle_rt/tasks/classification/task.py", ROOT / "paddle_rt/tasks/pose/task.py"]  # fmt: skip
COMMAND = re.compile(
    r"(?:paddle-rt (?P<tool>[a-z_]+)|(?<![\w/])(?:tools|deploy)/(?:\w+/)?(?P<script>\w+)\.py)(?P<rest>[^`\n]*)"
)
# Scripts of PaddleSeg and MMSegmentation.
NOT_OURS = ("convert_cocostuff", "split_dataset_list", "tools/test", "tools/deploy", "dist_train", "analysis_tools")


def text(page) -> str:
    return page.read_text(encoding="utf-8").replace("\\\n", " ")


def commands():
    for page in PAGES:
        for found in COMMAND.finditer(text(page)):
            tool = found["tool"] or found["script"]
            if found["tool"] or tool in TOOLS:
                yield pytest.param(tool, found["rest"], id=f"{page.name}:{found.group(0)[:70]}")


@pytest.mark.parametrize(("tool", "rest"), commands())
def test_every_command_has_its_flags(tool, rest):
    assert tool in TOOLS
    sources = "".join(path.read_text() for path in [ROOT / f"paddle_rt/cli/{tool}.py", *SHARED])
    known = set(re.findall(r'"(--?[a-z_]+)"', sources)) | {"--help"}
    words = [word for word in re.split(r"[\s=,;:'\"()]+", rest) if re.fullmatch(r"--?[a-z_]+", word)]
    assert [word for word in words if word not in known] == []


def test_every_file_that_is_named_is_there():
    lost = []
    for page in PAGES:
        for name in re.findall(r"(?<![\w/.])((?:configs|tests|paddle_rt|tools|docs|deploy)/[\w./-]*\w)", text(page)):
            there = any((ROOT / f"{name}{suffix}").exists() for suffix in ("", ".yml"))  # shell variables lack it
            if not there and not any(word in name for word in NOT_OURS):
                lost.append(f"{page.name}: {name}")
        for name in re.findall(r"\]\((?!http)([^)#]+)", text(page)):
            if not (page.parent / name).exists():
                lost.append(f"{page.name}: link to {name}")
    assert lost == []
