"""The house rules that a machine can check: who may import whom, sizes, and what the text may not hold."""

import ast
import pathlib
import re
import subprocess

import pytest

from tests.helpers import ROOT, run_python

LIBRARY = sorted((ROOT / "paddle_rt").rglob("*.py"))
COMMANDS = sorted([*(ROOT / "tools").rglob("*.py"), *(ROOT / "deploy").rglob("*.py")])

BASIC = {"errors", "files"}
MAY_IMPORT = {  # part of the library: the parts that it may import besides itself
    "__init__": {"registry"},
    "errors": set(),
    "files": set(),
    "registry": {"checkpoint", "models", *BASIC},
    "checkpoint": BASIC,
    "imaging": BASIC,
    "streetscenes": BASIC,
    "models": {"checkpoint", *BASIC},
    "convert": {"checkpoint", "registry", *BASIC},
    "inference": {"imaging", *BASIC},
    "paddleseg": {"checkpoint", "tasks", *BASIC},
    "training": {"checkpoint", "config", "paddleseg", "tasks", *BASIC},
    "tasks": {"imaging", "inference", "models", "paddleseg", "streetscenes", *BASIC},
    "config": {"checkpoint", "imaging", "models", "paddleseg", "tasks", *BASIC},
    "export": {"imaging", "inference", "models", "tasks", *BASIC},
    "benchmark": {
        "checkpoint",
        "config",
        "export",
        "imaging",
        "inference",
        "paddleseg",
        "registry",
        "streetscenes",
        "tasks",
        "training",
        *BASIC,
    },
    "cli": BASIC,
}


def part_of(path: pathlib.Path) -> str:
    return path.relative_to(ROOT / "paddle_rt").parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path):
    part = part_of(path)
    used = {name.split(".")[1] for name in imported(ast.parse(path.read_text())) if name.startswith("paddle_rt.")}
    assert part in MAY_IMPORT, f"say in MAY_IMPORT what {part} may import"
    assert used <= MAY_IMPORT[part] | {part}, f"{part} may not import {sorted(used - MAY_IMPORT[part] - {part})}"


@pytest.mark.parametrize("module", ["paddle_rt", "paddle_rt.inference", "paddle_rt.paddleseg", "paddle_rt.imaging"])
def test_importing_it_loads_neither_paddle_nor_paddleseg(module):
    code = f"import sys, {module}; sys.exit(' '.join({{'paddle', 'paddleseg'}} & set(sys.modules)) or 0)"
    result = run_python("-c", code)
    assert result.returncode == 0, f"{module} loads {result.stderr}"


@pytest.mark.parametrize("path", [*LIBRARY, *COMMANDS], ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_stay_short(path):
    text = path.read_text()
    lines = text.count("\n")
    limit = 80 if path.parent == ROOT / "tools" else 400
    assert lines <= limit, f"{lines} lines, {limit} are allowed"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            length = node.end_lineno - node.lineno + 1
            allowed = 40 if node.name == "forward" else 60
            assert length <= allowed, f"{node.name} has {length} lines, {allowed} are allowed"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_library_neither_prints_nor_exits_nor_swallows(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and path.name != "errors.py":
            assert node.func.id not in ("print", "exit", "quit"), f"line {node.lineno}: {node.func.id}()"
        if isinstance(node, ast.ExceptHandler):
            broad = node.type is None or getattr(node.type, "id", "") in ("Exception", "BaseException")
            assert not broad or any(isinstance(n, ast.Raise) for n in ast.walk(node)), f"line {node.lineno}"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: str(p.relative_to(ROOT)))
def test_public_functions_are_documented_and_typed(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"
            untyped = [a.arg for a in node.args.args + node.args.kwonlyargs if a.annotation is None]
            assert not untyped, f"{node.name}: no type for {untyped}"


def test_no_path_of_a_machine_is_in_the_text():
    files = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True).stdout.split()
    assert files, "git lists no files"
    found = []
    for name in files:
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue
        found += [f"{name}: {m.group()}" for m in re.finditer(r"(?<![\w.])/(?:home|root|mnt|Users)/\S*", text)]
    assert not found, found
