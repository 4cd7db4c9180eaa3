"""Facts of an NVIDIA GPU, from its driver's nvidia-smi: neither CUDA nor a framework is loaded."""

import os
import shutil
import subprocess
from dataclasses import dataclass

from paddle_rt.errors import UserError

_QUERY = ("uuid", "name", "compute_cap", "driver_version")
# The least compute capability that computes in a precision on a GPU.
_LEAST = {"fp32": (5, 0), "fp16": (5, 3), "int8": (6, 1), "bf16": (8, 0)}


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Args:
        uuid: Its identity.
        name: As its driver names it, such as "NVIDIA GeForce RTX 2080 Ti".
        capability: Its compute capability, such as (7, 5).
        driver: The version of the driver.
    """

    uuid: str
    name: str
    capability: tuple[int, int]
    driver: str


def find_gpu(device_id: int = 0) -> Gpu:
    """Return the GPU that CUDA counts as `device_id`.

    CUDA_VISIBLE_DEVICES chooses and orders the GPUs. CUDA_DEVICE_ORDER is set to PCI_BUS_ID, the order of nvidia-smi,
    unless it is set; CUDA reads it when it starts.

    Args:
        device_id: The number of the GPU, from 0.

    Raises:
        UserError: There is no driver, it finds no GPU, or not that many.
    """
    os.environ.setdefault("CUDA_DEVICE_ORDER", "PCI_BUS_ID")
    rows = [row for row in nvidia_smi(*_QUERY) if row[2].replace(".", "", 1).isdigit()]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        rows = _visible(rows, [entry.strip() for entry in visible.split(",")])
    if device_id >= len(rows):
        chosen = f", with CUDA_VISIBLE_DEVICES={visible}" if visible is not None else ""
        raise UserError(f"there is no GPU {device_id}: the driver has {len(rows)}{chosen}; use device cpu without one")
    uuid, name, capability, driver = rows[device_id]
    major, minor = capability.split(".")
    return Gpu(uuid, name, (int(major), int(minor)), driver)


def check_precision(gpu: Gpu, precision: str) -> None:
    """Check that a GPU computes in a precision.

    Raises:
        UserError: It is too old.

    Source: NVIDIA's table of arithmetic by compute capability: half from 5.3, dot products of bytes from 6.1, bfloat16
    from 8.0.
    """
    least = _LEAST[precision]
    if gpu.capability < least:
        has, needs = (".".join(map(str, version)) for version in (gpu.capability, least))
        raise UserError(f"{gpu.name} (compute capability {has}) has no {precision}, which needs {needs}; use fp32")


def nvidia_smi(*fields: str) -> list[list[str]]:
    """Return the values of fields of nvidia-smi, such as "clocks.sm", with a row for each GPU of the machine.

    Raises:
        UserError: There is no driver, it does not answer, it finds no GPU, or it does not know a field.
    """
    program = shutil.which("nvidia-smi")
    if program is None:
        raise UserError("there is no NVIDIA driver here (no nvidia-smi); install it, or use device cpu")
    command = [program, f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UserError(f"the NVIDIA driver does not answer ({program}: {error}); is it loaded?") from error
    rows = [[field.strip() for field in line.split(",")] for line in done.stdout.splitlines()]
    rows = [row for row in rows if len(row) == len(fields)]
    if done.returncode or not rows:
        said = " ".join((done.stdout + done.stderr).split())[:200] or f"exit code {done.returncode}"
        raise UserError(
            f"the NVIDIA driver offers no GPU (nvidia-smi: {said}); repair its installation, or use device cpu"
        )
    return rows


def _visible(rows: list[list[str]], entries: list[str]) -> list[list[str]]:
    """Return the rows that CUDA_VISIBLE_DEVICES names, up to the first entry that names none, as CUDA does."""
    found = []
    for entry in entries:
        if entry.isdigit():
            row = rows[int(entry)] if int(entry) < len(rows) else None
        elif entry.startswith("MIG-"):  # a part of a GPU; machines that are divided so have GPUs of one kind
            row = rows[0]
        else:
            row = next((row for row in rows if entry and row[0].startswith(entry)), None)
        if row is None:
            break
        found.append(row)
    return found
