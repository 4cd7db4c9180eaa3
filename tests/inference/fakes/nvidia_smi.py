"""A program nvidia-smi that answers like the driver's, as `nvidia-smi --help-query-gpu` describes it."""

import os
import pathlib

import pytest

ANSWERS = {
    "uuid": "GPU-1", "name": "NVIDIA GeForce RTX 2080 Ti", "compute_cap": "7.5", "driver_version": "550.54",
    "clocks.sm": "1350 MHz", "clocks.mem": "7000 MHz", "power.draw": "215.50 W", "temperature.gpu": "71",
    "memory.used": "400 MiB", "clocks_event_reasons.active": "0x0000000000000024",
}  # fmt: skip


def install_nvidia_smi(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, **changes: str | None) -> pathlib.Path:
    """Put the program first on PATH; `changes` are answers, with two underscores for a dot, or None to not know one."""
    answers = {**ANSWERS, **{name.replace("__", "."): value for name, value in changes.items()}}
    cases = "\n".join(f"    {name}) value='{value}';;" for name, value in answers.items() if value is not None)
    return write_program(
        folder,
        monkeypatch,
        f"""for argument; do case "$argument" in --query-gpu=*) fields="${{argument#--query-gpu=}}";; esac; done
IFS=,; line=
for field in $fields; do
  case "$field" in
{cases}
    *) echo "Field \\"$field\\" is not a valid field to query."; exit 2;;
  esac
  line="$line${{line:+, }}$value"
done
echo "$line"
""",
    )


def write_program(folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> pathlib.Path:
    """Write a shell script nvidia-smi and put it first on PATH."""
    program = folder / "bin" / "nvidia-smi"
    program.parent.mkdir(exist_ok=True)
    program.write_text(f"#!/bin/sh\n{lines}")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=os.pathsep)
    return program
