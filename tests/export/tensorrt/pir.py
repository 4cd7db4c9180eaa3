"""A reader of Paddle's PIR graphs (model.json), and the constant folding that convert() runs before it cuts engines."""

import json
import pathlib
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

DIALECTS = {"0": "builtin", "1": "pd_op"}
DTYPES = {
    "t_bool": "bool", "t_i8": "int8", "t_ui8": "uint8", "t_i16": "int16", "t_i32": "int32", "t_i64": "int64",
    "t_f16": "float16", "t_bf16": "bfloat16", "t_f32": "float32", "t_f64": "float64",
}  # fmt: skip
CONSTANTS = ("builtin.parameter", "builtin.constant")
# Operators with side effects and those that the pass names.
# Source: paddle/fluid/pir/transforms/general/constant_folding_pass.cc at 0ab6998.
NEVER_FOLDED = (*CONSTANTS, "pd_op.data", "pd_op.feed", "pd_op.fetch", "pd_op.assign_value", "builtin.shadow_output")
KNOWN = ("pd_op.full", "pd_op.full_int_array")  # whose attribute `value` a constant keeps
ENDS = ("pd_op.fetch", "builtin.shadow_output")


@dataclass(frozen=True)
class Tensor:
    """The type of a value: -1 stands for an open length."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(eq=False)
class Operation:
    """One operator; inputs and outputs are the numbers of values, 0 an input that is absent."""

    name: str
    attributes: dict[str, Any]
    inputs: list[int]
    outputs: list[int]

    def __str__(self) -> str:
        return f"{self.name} ({self.attributes.get('struct_name', 'no layer')})"


@dataclass
class Program:
    """The operators of the only block, in order, and the type of every value: a tensor or a tuple of tensors."""

    operations: list[Operation]
    types: dict[int, Tensor | tuple[Tensor, ...]] = field(repr=False)

    @cached_property
    def makers(self) -> dict[int, Operation]:
        return {value: operation for operation in self.operations for value in operation.outputs}

    @cached_property
    def users(self) -> dict[int, list[Operation]]:
        found = {value: [] for value in self.makers}
        for operation in self.operations:
            for value in operation.inputs:
                if value:
                    found[value].append(operation)
        return found

    def maker(self, operation: Operation, position: int) -> Operation | None:
        """The operator that makes an input, None where the input is absent."""
        return self.makers.get(operation.inputs[position])

    def input_type(self, operation: Operation, position: int) -> Tensor:
        return self.types[operation.inputs[position]]


def _decoded(attribute: Any) -> Any:
    if isinstance(attribute, dict) and "D" in attribute:
        return _decoded(attribute["D"])
    return [_decoded(item) for item in attribute] if isinstance(attribute, list) else attribute


def _type(content: dict) -> Tensor | tuple[Tensor, ...]:
    kind = content["#"].split(".")[1]
    if kind == "t_vec":
        return tuple(_type(item) for item in content["D"])
    assert kind == "t_dtensor", f"a type that pir.py does not read: {content}"
    return Tensor(DTYPES[content["D"][0]["#"].split(".")[1]], tuple(content["D"][1]))


def read_program(path: pathlib.Path) -> Program:
    """Read model.json."""
    content = json.loads(path.read_text(encoding="utf-8"))
    (region,) = content["program"]["regions"]
    (block,) = region["blocks"]
    operations, types = [], {}
    for entry in block["ops"]:
        outputs = [entry["O"]] if isinstance(entry["O"], dict) else entry["O"]
        types.update((output["%"], _type(output["TT"])) for output in outputs)
        numbers = [output["%"] for output in outputs]
        if entry["#"] == "p":
            operations.append(Operation("builtin.parameter", {"parameter_name": entry["A"][3]}, [], numbers))
            continue
        dialect, name = entry["#"].split(".", 1)
        attributes = {item["N"]: _decoded(item["AT"]) for item in entry["A"]}
        inputs = [item["%"] for item in entry["I"]]
        operations.append(Operation(f"{DIALECTS[dialect]}.{name}", attributes, inputs, numbers))
    return Program(operations, types)


def fold_constants(program: Program) -> Program:
    """Replace what depends on parameters alone by constants, then drop what nothing reads.

    Source: general/constant_folding_pass.cc at 0ab6998 (ConstantFoldingPattern::Match) and
    general/dead_code_elimination_pass.cc; python/paddle/tensorrt/util.py at d337c5a runs both after the first marking.
    """
    operations, constant = [], set()
    for operation in program.operations:
        if operation.name in CONSTANTS or _folds(program, operation, constant):
            constant.update(operation.outputs)
            if operation.name not in CONSTANTS:
                known = operation.attributes if operation.name in KNOWN else {}
                operations += [Operation("builtin.constant", known, [], [value]) for value in operation.outputs]
                continue
        operations.append(operation)
    kept, read = [], set()
    for operation in reversed(operations):
        if operation.name in ENDS or read.intersection(operation.outputs):
            kept.append(operation)
            read.update(operation.inputs)
    return Program(kept[::-1], program.types)


def _folds(program: Program, operation: Operation, constant: set[int]) -> bool:
    if operation.name in NEVER_FOLDED or any(isinstance(program.types[v], tuple) for v in operation.outputs):
        return False
    if operation.name == "pd_op.full":
        users = program.users[operation.outputs[0]]
        return not {user.name for user in users} & {"pd_op.full_with_tensor", "pd_op.linspace"}
    return all(_is_constant(program, value, constant) for value in operation.inputs if value)


def _is_constant(program: Program, value: int, constant: set[int]) -> bool:
    maker = program.makers[value]
    if maker.name == "builtin.combine":
        return len(program.users[value]) == 1 and set(maker.inputs) <= constant
    return value in constant


def fuse_convolutions(program: Program) -> Program:
    """Join each conv2d with the sum of a constant of another size that alone reads it.

    Source: gpu/conv2d_add_fuse_pass.cc at 02d9e8c, which runs after the folding.
    """
    fused, gone = {}, set()
    for operation in program.operations:
        if operation.name != "pd_op.conv2d" or len(users := program.users[operation.outputs[0]]) != 1:
            continue
        (add,) = users
        if add.name != "pd_op.add" or add.inputs[0] != operation.outputs[0]:
            continue
        bias = program.maker(add, 1)
        same = program.input_type(add, 1).shape == program.input_type(add, 0).shape
        if bias.name in CONSTANTS and not same:
            inputs = [*operation.inputs, add.inputs[1], 0]
            fused[id(add)] = Operation("pd_op.fused_conv2d_add_act", operation.attributes, inputs, add.outputs)
            gone.add(id(operation))
    return Program([fused.get(id(op), op) for op in program.operations if id(op) not in gone], program.types)
