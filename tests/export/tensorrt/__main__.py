"""Print the engines that TensorRT would cut from exports, and what it refuses; see the package's docstring.

    python -m tests.export.tensorrt EXPORT_DIR [EXPORT_DIR ...]

The exit code is 0 if every graph is one engine on every road.
"""

import pathlib
import sys
from collections import Counter

from tests.export.tensorrt import onnx_engines, paddle_engines
from tests.export.tensorrt.onnx_rows import VERSIONS
from tests.export.tensorrt.pir import read_program

ONNX = {"ONNX": "model.onnx", "fp16": "model_fp16.onnx", "int8": "model_int8.onnx"}


def _cells(folder: pathlib.Path, kinds: list[str]) -> tuple[list[str], list[str]]:
    """Return the row of the table for an export, and its faults."""
    cells, faults = [folder.name], []
    if (folder / "model.json").is_file():
        paddle = paddle_engines.partition(read_program(folder / "model.json"))
        cells += [paddle.operators, len(paddle.engines), ", ".join(paddle.only_trt8) or "none"]
        faults += [f"Paddle: {fault}" for fault in paddle.faults()]
    else:
        cells += ["-"] * 3
    for name in (ONNX[kind] for kind in kinds):
        if not (folder / name).is_file():
            cells += ["-"] * (1 + len(VERSIONS))
            continue
        graph = onnx_engines.read_graph(folder / name)
        parts = {version: onnx_engines.partition(graph, version) for version in VERSIONS}
        cells += [len(graph.nodes), *(len(part.engines) for part in parts.values())]
        faults += [f"{name}, TensorRT {v}: {fault}" for v, part in parts.items() for fault in part.faults()]
    return [str(cell) for cell in cells], faults


def main(folders: list[str]) -> int:
    paths = [pathlib.Path(folder) for folder in folders]
    kinds = [kind for kind, name in ONNX.items() if any((path / name).is_file() for path in paths)]
    columns = ["export", "Paddle operators", "engines", "converters for TensorRT 8 only"]
    columns += [f"{kind} {what}" for kind in kinds for what in ("nodes", *(f"engines {v}" for v in VERSIONS))]
    rows = [_cells(path, kinds) for path in paths]
    for line in (columns, ["---"] * len(columns), *(cells for cells, _ in rows)):
        print(f"| {' | '.join(line)} |")
    for cells, faults in rows:
        for fault, number in Counter(faults).items():
            print(f"{cells[0]}: {fault}{f' ({number} times)' if number > 1 else ''}")
    return int(any(faults for _, faults in rows))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(f"usage: python -m {__spec__.parent} EXPORT_DIR [EXPORT_DIR ...]")
    sys.exit(main(sys.argv[1:]))
