"""The rows of a GPU as a table and a page, with the papers' figures beside them."""

import shlex
from collections.abc import Sequence
from typing import Any

from paddle_rt.benchmark.gpu import BLOCKS, WARM_UP
from paddle_rt.benchmark.report import Columns, markdown_table, packages

COLUMNS: Columns = (
    ("model", "model", "{}"), ("pipeline", "pipeline", "{}"), ("backend", "backend", "{}"),
    ("device", "device", "{}"), ("precision", "precision", "{}"), ("network ms", "network_ms", "{:.2f}"),
    ("its fps", "network_fps", "{:.1f}"), ("with copies ms", "with_copies_ms", "{:.2f}"),
    ("frame to labels ms", "end_to_end_ms", "{:.2f}"), ("p90 ms", "p90_ms", "{:.2f}"), ("p99 ms", "p99_ms", "{:.2f}"),
    ("fps", "fps", "{:.1f}"), ("speed-up", "speedup", "{:.2f}"), ("same labels", "label_agreement", "{:.4%}"),
    ("engines", "engines", "{}"), ("nodes elsewhere", "nodes_elsewhere", "{}"), ("GPU MB", "gpu_memory_mb", "{:.0f}"),
)  # fmt: skip

_UNMEASURED = """\
**Unmeasured**: none of this has been run on a GPU. On a machine with an NVIDIA GPU,

    make benchmark-gpu

installs what it needs into an environment of its own, trains RTFormer-Slim on rendered streets, measures the papers'
networks at 1024x2048 and writes this page with its table.
"""

_PROTOCOL = f"""\
## How it is measured

- Three times are kept apart. *network*: the exported graph alone, its input and output on the device, by the wall clock
  around a run that waits for the device. *with copies*: the same with the input copied from the host and the output
  copied back. *frame to labels*: from a decoded frame (uint8) to its labels (uint8), as `Segmenter` runs it. Medians,
  batch 1, real frames (`--frames`, or rendered streets); p90 and p99 are of frame to labels.
- Each row has {BLOCKS} blocks of time, in which it alone is in memory, in a process of its own; the order of the rows
  is turned from one block to the next. The speed-up is the median of the ratios of the blocks' medians to the first
  row's.
- In each block each of the three times has at least {WARM_UP[0]} runs and {WARM_UP[1]:.0f} seconds to warm up, and 200
  runs that count, unless `--runs` says otherwise.
- The driver is asked for clocks, power, temperature and what holds the clocks down before a block and after the runs of
  each time; the JSON file has all answers. To fix the clocks: `nvidia-smi -pm 1; nvidia-smi -lgc MHZ`, and
  `nvidia-smi -rgc` afterwards.
- Our graphs compute the labels on the device (`--output_op labels`), but for int8, which gives coarse logits, of which
  the CPU makes labels.
- *same labels* is the share of pixels with the label of the same export in single precision on the CPU; for PaddleSeg's
  row, of ours with the same weights.
- *engines* is the number of parts of the graph that TensorRT runs, *nodes elsewhere* that of the nodes that it, or CUDA
  on the device gpu, left to another. An engine is built once and kept; building is not in the times. *GPU MB* is what
  the driver counts more with the row loaded than before, the memory of the libraries themselves included.
- `paddleseg` is PaddleSeg's deployment on the same GPU: its model class, with our weights where it is the counterpart
  of ours, its transforms, its graph with an argmax, Paddle Inference. Its option for TensorRT has no effect on the
  graphs of Paddle 3, so that it has one row. PaddleSeg's infer_benchmark.py copies the input once and the output every
  time: its figure lies between our *network* and *with copies*.
"""

_PAPERS = (
    ("from", "network", "data, size", "GPU", "figure", "what is known of it"),
    ("RTFormer (arXiv 2210.07124)", "RTFormer-Slim", "Cityscapes, 1024x2048", "RTX 2080Ti", "110.0 fps",
     "as recalled from a summary of the paper, not confirmed; the library is not named"),
    ("RTFormer", "RTFormer-Base", "Cityscapes, 1024x2048", "RTX 2080Ti", "39.1 fps", "as recalled, not confirmed"),
    ("RTFormer", "RTFormer-Slim", "CamVid", "RTX 2080Ti", "190.7 fps", "from the paper's table; library not named"),
    ("other authors' lists", "RTFormer-Slim, -Base", "Cityscapes, 1024x2048", "not named; RTX 3090 as recalled",
     "89.6, 50.2 fps", "measured again by others"),
    ("FANet (arXiv 2007.03815)", "FANet-18, -34", "1024x2048", "Titan X", "72, 58 fps",
     "by its code: PyTorch, a random tensor on the GPU, no copies, and a network without its BatchNorm"),
    ("SegFormer++ (arXiv 2405.14467)", "B5 with bsm_hq, bsm_fast, n2d_2x2", "Cityscapes", "not named",
     "1.61, 1.94, 1.90 times the speed without merging", "by its code: PyTorch, a random input; it gives no fps"),
)  # fmt: skip


def page(rows: Sequence[dict[str, Any]], command: Sequence[str] = ()) -> str:
    """Return a page in Markdown with the rows, how they were measured, and the papers' figures.

    Args:
        rows: The rows; without any, the page says that nothing has been measured.
        command: The flags of the command that measured them.
    """
    head, *body = ["| " + " | ".join(line) + " |" for line in _PAPERS]
    papers = "\n".join([head, "|" + " --- |" * len(_PAPERS[0]), *body])
    return f"""# Benchmarks on a GPU

{_measured(rows, command) if rows else _UNMEASURED}
{_PROTOCOL}
## What the papers report

These figures are theirs, on their GPUs and by their rules; none was measured here.

{papers}
"""


def _measured(rows: Sequence[dict[str, Any]], command: Sequence[str]) -> str:
    row = rows[0]
    states = [state for row in rows for states in row["gpu_states"] for state in states[1:]]
    versions = {name: text for row in rows for name, text in row["versions"].items()}
    said = {"driver", *row["machine"]}  # stated elsewhere in the sentence
    libraries = ", ".join(f"{name} {text}" for name, text in versions.items() if not said & {name, f"{name}-gpu"})
    reasons = [reason for state in states for reason in state["throttled"] or ()]
    limits = ", ".join(f"{name} {reasons.count(name)} times" for name in dict.fromkeys(reasons)) or "none"
    asked = "" if any(state["throttled"] is not None for state in states) else " (the driver does not say)"
    notes = "The weights of some are random, whose agreement means little.\n" if _any_random(rows) else ""
    return f"""\
From a decoded frame of {row["size"][0]}x{row["size"][1]} to its labels on one {row["gpu"]}, driver {row["driver"]},
{libraries or "libraries that name no versions"};
{packages(row["machine"])}, {row["threads"]} threads of {row["machine"]["cpu"]}. Written by

    python tools/benchmark.py {shlex.join(command)}

{markdown_table(rows, COLUMNS)}

After the runs the clock was {_range(states, "sm_mhz", "MHz")} ({_range(states, "memory_mhz", "MHz")} of the memory), \
the power {_range(states, "power_w", "W")}, the temperature {_range(states, "temperature_c", "degrees")}.
What held the clocks down, in {len(states)} answers of the driver: {limits}{asked}.
{notes}"""


def _any_random(rows: Sequence[dict[str, Any]]) -> bool:
    return any(row["random_weights"] for row in rows)


def _range(states: Sequence[dict[str, Any]], key: str, unit: str) -> str:
    values = [state[key] for state in states if state[key] is not None]
    return f"{min(values):.0f} to {max(values):.0f} {unit}" if values else "not known"
