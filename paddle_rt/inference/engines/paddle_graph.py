"""What a Paddle graph holds, read from its model.json without Paddle."""

import json
import pathlib
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np

_FLOAT32 = ("softmax", "sum", "scale", "divide", "sqrt", "clip", "layer_norm")


@dataclass(frozen=True)
class GraphInput:
    """An input of a graph.

    Args:
        name: Its name.
        shape: Its lengths; -1 for one that is open.
        dtype: The name of its data type.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class PaddleGraph:
    """The contents of a model.json.

    Args:
        inputs: In their order.
        operators: How often an operator occurs, by its name without the dialect, such as "conv2d". Inputs, outputs,
            parameters and the tuples of PIR are no operators, TensorRT's engines neither.
        engines: The paths of the files of TensorRT's engines, one for each engine.
    """

    inputs: tuple[GraphInput, ...]
    operators: Counter[str]
    engines: tuple[str, ...]


def read_graph(path: pathlib.Path) -> PaddleGraph:
    """Read a model.json of Paddle 3.

    Raises:
        ValueError, LookupError, TypeError: It is damaged.

    Source: Paddle's pir/serialize_deserialize, schema.h: "#" is the name of an operator after the number of its
        dialect, 0 for builtin and 1 for pd_op, so that pd_op.tensorrt_engine is written 1.tensorrt_engine; "p" is a
        parameter, "A" the attributes with "N" for a name and "AT" for a value, whose content is "D".
    """
    block = json.loads(path.read_text(encoding="utf-8"))["program"]["regions"][0]["blocks"][0]
    inputs, operators, engines = [], Counter(), []
    for operator in block["ops"]:
        dialect, _, name = operator["#"].rpartition(".")
        if name == "data":
            values = _attributes(operator)
            shape = tuple(int(length) for length in values["shape"])
            inputs.append(GraphInput(values["name"], shape, np.dtype(values["dtype"]).name))
        elif name == "tensorrt_engine":
            engines.append(_attributes(operator)["engine_serialized_data"])
        elif name != "fetch" and dialect not in ("", "0", "builtin"):
            operators[name] += 1
    return PaddleGraph(tuple(inputs), operators, tuple(engines))


def float32_operators(graph: PaddleGraph) -> list[str]:
    """Return Paddle's names of the operators that stay in single precision where the rest is computed in half.

    Paddle takes names alone: each stands for all operators of its kind. RTFormer divides by a sum of attention weights
    plus 1e-6, FANet by a length that is at least 1e-12, SegFormer++ by the length of a token; half precision keeps few
    digits of such numbers or none. FANet, whose attention alone has a clip, adds products of keys and values over all
    positions: where an engine adds in half precision, such a sum stops growing, and in graphs that are not made for a
    GPU it comes near the largest number, 65504.
    """
    names = (*_FLOAT32, *(["matmul"] if "clip" in graph.operators else []))
    return [f"pd_op.{name}" for name in names if name in graph.operators]


def _attributes(operator: dict[str, Any]) -> dict[str, Any]:
    return {attribute["N"]: attribute["AT"].get("D") for attribute in operator["A"]}
