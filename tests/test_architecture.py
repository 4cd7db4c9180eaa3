"""What ruff cannot check: which part imports which, the length of functions, and what the repository may hold."""

import ast
import graphlib
import pathlib
import re
import subprocess

import pytest

from tests.helpers import ROOT, run_python

LIBRARY = sorted((ROOT / "paddle_rt").rglob("*.py"))
COMMANDS = sorted([*(ROOT / "tools").rglob("*.py"), *(ROOT / "deploy").rglob("*.py"), ROOT / "hubconf.py"])

BASIC = {"arguments", "compiled", "errors", "files", "kinds", "stderr", "yaml_file"}
# A part of the library, and the parts that it may import besides itself. A part is a module or package of paddle_rt;
# the bridge to PaddleSeg is divided by module, since the library uses its catalogue and its loop uses the library.
MAY_IMPORT = {
    "__init__": {"registry", "weights"},
    "compiled": {"errors"},
    "errors": set(),
    "files": {"errors"},
    "stderr": set(),
    "yaml_file": {"errors", "files"},
    "kinds": {"errors"},
    "listening": {"errors"},
    "arguments": {"errors", "kinds"},
    "weights": {"errors", "files", "yaml_file"},
    "paddledetection": {"errors"},
    "config_file": {"errors", "files", "paddledetection", "weights", "yaml_file"},
    "cpu": BASIC,
    "run_logs": BASIC,
    "imaging": BASIC,
    "workers": {"errors", "files"},
    "parallel": {"workers", *BASIC},
    "analysis": {"imaging", "parallel", *BASIC},
    "streetscenes": BASIC,
    "paddleseg/__init__": set(),
    "paddleseg/patching": BASIC,
    "formats": BASIC,
    "downloads": {"formats", *BASIC},
    "checkpoint": {"downloads", "formats", "weights", *BASIC},
    "models": {"checkpoint", "cpu", *BASIC},
    "registry": {"checkpoint", "models", *BASIC},
    "convert": {"checkpoint", "formats", "registry", *BASIC},
    "inference": {"imaging", *BASIC},
    "demo": {"imaging", "inference", "streetscenes", *BASIC},
    "serving": {"imaging", "inference", *BASIC},
    "paddleseg/components": {"checkpoint", "downloads", "models", "paddleseg/patching", "weights", *BASIC},
    "paddleseg/functional": BASIC,
    "paddleseg/fast_transforms": {"paddleseg/components", "paddleseg/functional", "paddleseg/patching", *BASIC},
    "paddleseg/releases": BASIC,
    "components": {"models", "registry", "paddleseg/components", *BASIC},
    "tasks": {
        "analysis",
        "components",
        "imaging",
        "inference",
        "models",
        "parallel",
        "paddleseg/components",
        "paddleseg/fast_transforms",
        "streetscenes",
        "workers",
        *BASIC,
    },
    "config": {
        *("checkpoint", "components", "config_file", "models", "paddledetection", "paddleseg/components"),
        *("registry", "tasks", *BASIC),
    },
    "training": {"checkpoint", "config", "run_logs", "tasks", *BASIC},
    "new_config": {"analysis", "config", "imaging", "registry", "tasks", "training", *BASIC},
    "export": {"imaging", "inference", "models", "tasks", *BASIC},
    "paddleseg/compare": {"checkpoint", "weights", *BASIC},
    "paddleseg/counterparts": {"components", "models", "registry", "paddleseg/components", *BASIC},
    "paddleseg/pipeline": {"inference", "paddleseg/components", *BASIC},
    "paddleseg/loop": {
        "checkpoint",
        "config",
        "paddleseg/components",
        "paddleseg/patching",
        "tasks",
        "training",
        *BASIC,
    },
    "benchmark": {
        *(
            "checkpoint",
            "config",
            "cpu",
            "export",
            "imaging",
            "inference",
            "models",
            "registry",
            "streetscenes",
            "tasks",
        ),
        *("paddleseg/components", "paddleseg/counterparts", "paddleseg/loop", "paddleseg/pipeline", "run_logs"),
        *("serving", "training"),
        *BASIC,
    },
    "cli": {
        *(
            "analysis",
            "new_config",
            "benchmark",
            "checkpoint",
            "components",
            "config",
            "config_file",
            "convert",
            "cpu",
            "demo",
            "downloads",
            "export",
            "imaging",
            "listening",
        ),
        *("inference", "paddleseg/compare", "paddleseg/counterparts", "paddleseg/loop", "paddleseg/releases"),
        *("registry", "run_logs", "serving", "streetscenes", "tasks", "training", "weights", *BASIC),
    },
}

SUFFIXES = {".cpp", ".hpp", ".md", ".npz", ".png", ".pth", ".py", ".safetensors", ".toml", ".txt", ".yml"}
NAMES = {".ci/run", ".gitignore", "deploy/cpp/.clang-format", "LICENSE", "Makefile", "NOTICE"}


def part_of(module: str) -> str:
    """Return the part of a module of the library, given without "paddle_rt."."""
    first, *rest = module.split(".")
    return f"paddleseg/{rest[0] if rest else '__init__'}" if first == "paddleseg" else first


def imported(path: pathlib.Path) -> set[str]:
    """Return the names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {name if is_module(name) else node.module for name in whole}
    return names


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or (path / "__init__.py").is_file()


def tracked_files() -> list[pathlib.Path]:
    names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [path for name in names.split("\0") if name and (path := ROOT / name).exists()]


def relative(path: pathlib.Path) -> str:
    return str(path.relative_to(ROOT))


def test_dependencies_point_one_way():
    order = list(graphlib.TopologicalSorter(MAY_IMPORT).static_order())  # raises CycleError where there is a circle
    assert set(order) == set(MAY_IMPORT)


@pytest.mark.parametrize("path", LIBRARY, ids=relative)
def test_parts_import_what_they_may(path):
    part = part_of(".".join(path.relative_to(ROOT / "paddle_rt").with_suffix("").parts))
    if path.name == "__init__.py" and path.parent.name != "paddle_rt":
        part = part_of(f"{path.parent.relative_to(ROOT / 'paddle_rt').parts[0]}.__init__")
    used = {part_of(name.removeprefix("paddle_rt.")) for name in imported(path) if name.startswith("paddle_rt.")}
    assert part in MAY_IMPORT, f"MAY_IMPORT does not say what {part} may import"
    assert used <= MAY_IMPORT[part] | {part}, f"{part} may not import {sorted(used - MAY_IMPORT[part] - {part})}"


@pytest.mark.parametrize("path", [*LIBRARY, *COMMANDS], ids=relative)
def test_the_bridge_alone_imports_paddleseg(path):
    if path.parent != ROOT / "paddle_rt" / "paddleseg":
        assert not {name for name in imported(path) if name.partition(".")[0] == "paddleseg"}


@pytest.mark.parametrize("module", ["paddle_rt", "paddle_rt.inference", "paddle_rt.paddleseg", "paddle_rt.imaging"])
def test_importing_it_loads_neither_paddle_nor_paddleseg(module):
    code = f"import sys, {module}; sys.exit(' '.join({{'paddle', 'paddleseg'}} & set(sys.modules)) or 0)"
    result = run_python("-c", code)
    assert result.returncode == 0, f"{module} loads {result.stderr}"


@pytest.mark.parametrize("path", [*LIBRARY, *COMMANDS], ids=relative)
def test_functions_fit_on_a_screen(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef):
            length, allowed = node.end_lineno - node.lineno + 1, 40 if node.name == "forward" else 60
            assert length <= allowed, f"{node.name} has {length} lines, {allowed} are allowed"


def test_no_path_of_a_machine_is_in_the_text():
    found = []
    for path in tracked_files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        found += [
            f"{relative(path)}: {m.group()}" for m in re.finditer(r"(?<![\w.])/(?:home|root|mnt|Users)/\S*", text)
        ]
    assert not found, found


def test_tracked_files_are_small_and_of_known_kinds():
    """What tools make belongs below output/, and large files do not belong in a repository."""
    files = tracked_files()
    assert files, "git lists no files"
    kinds = [
        name
        for path in files
        if (name := relative(path)) not in NAMES
        and path.suffix not in SUFFIXES
        and not re.fullmatch(r"docs/runs/[^/]*\.jsonl", name)  # logs of the trainings that the documentation quotes
    ]
    assert not kinds, f"files of kinds that the repository does not hold: {kinds}"
    large = {
        name: size
        for path in files
        if (size := path.stat().st_size)
        > (12_000_000 if re.fullmatch(r"paddle_rt/weights/[^/]*\.safetensors", name := relative(path)) else 300_000)
    }
    assert not large, f"files that are too large, in bytes: {large}"
