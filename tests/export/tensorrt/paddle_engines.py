"""Cut the engines of a PIR graph as paddle.tensorrt.convert does: mark, fold, group, and ask the converters.

Sources, PaddlePaddle/Paddle: python/paddle/tensorrt/{export,util,converter}.py at 02a5e4e, d337c5a, 662fb9f;
paddle/fluid/pir/transforms/sub_graph_detector.cc at a7ff758; tensorrt/trt_sub_graph_extract_pass.cc at 02a5e4e. What is
marked anew after the folding is left out but for fused convolutions: folding only takes constants away that the marker
asks for.
"""

from collections.abc import Collection
from dataclasses import dataclass, field

from tests.export.tensorrt.paddle_rows import BORDER_DTYPES, find_row
from tests.export.tensorrt.pir import CONSTANTS, ENDS, Operation, Program, fold_constants, fuse_convolutions

GROUP_SIZE = 3  # min_subgraph_size of TensorRTConfig
OUTSIDE = (*CONSTANTS, *ENDS, "pd_op.data", "pd_op.feed")  # which no engine takes


@dataclass
class Partition:
    """What becomes of a graph.

    Args:
        operators: The number of operators that are left after folding; parameters, inputs, outputs and what joins or
            parts lists of tensors do not count.
        engines: The operators of each engine.
        refused: The operators that stay in Paddle, each with its reason.
        failures: What makes convert() fail, or gives an engine that is unlikely to build, each with its reason.
        only_trt8: Operators in engines whose converters are registered for TensorRT 8 alone (Paddle up to 3.2).
    """

    operators: int
    engines: list[list[Operation]]
    refused: list[tuple[Operation, str]]
    failures: list[tuple[str, str]]
    only_trt8: list[str]

    def faults(self) -> list[str]:
        """Return what keeps the graph from being one engine that builds; nothing if it is."""
        found = [f"{operation} stays in Paddle: {reason}" for operation, reason in self.refused]
        found += [f"{operation} cannot be converted: {reason}" for operation, reason in self.failures]
        return found if len(self.engines) == 1 else [f"{len(self.engines)} engines", *found]


def partition(program: Program, disable_ops: Collection[str] = ()) -> Partition:
    """Cut a graph.

    Args:
        program: The graph as it is exported.
        disable_ops: Names of operators that stay in Paddle, as for TensorRTConfig.

    Raises:
        UnknownOperator: An operator has no row.
    """
    reasons = {}
    for operation in program.operations:
        if operation.name not in OUTSIDE and not operation.name.startswith("builtin."):
            reasons[id(operation)] = find_row(operation.name).marker(program, operation)
    folded = fold_constants(program)
    operators = sum(op.name not in OUTSIDE and not op.name.startswith("builtin.") for op in folded.operations)
    folded = fuse_convolutions(folded)
    for operation in folded.operations:
        if operation.name == "pd_op.fused_conv2d_add_act":
            reasons[id(operation)] = None
        if operation.name in disable_ops:
            reasons[id(operation)] = "disabled"
    for operation in folded.operations:  # mark_builtin_op
        if operation.name == "builtin.split":
            reasons[id(operation)] = reasons[id(folded.maker(operation, 0))]
        if operation.name == "builtin.combine":
            reasons[id(operation)] = reasons[id(folded.users[operation.outputs[0]][0])]
    groups = detect(folded, {key for key, reason in reasons.items() if reason is None})
    engines = [group for group in groups if len(group) >= GROUP_SIZE]
    inside = {id(operation) for engine in engines for operation in engine}
    small = f"its group is smaller than {GROUP_SIZE}"
    rest = [op for op in folded.operations if op.name not in OUTSIDE and id(op) not in inside]
    refused = [(operation, reasons[id(operation)] or small) for operation in rest]
    converted = [op for engine in engines for op in engine if not op.name.startswith("builtin.")]
    only_trt8 = sorted({op.name.removeprefix("pd_op.") for op in converted if find_row(op.name).trt == "8.x"})
    failures = [failure for engine in engines for failure in _failures(folded, engine)]
    return Partition(operators, engines, refused, failures, only_trt8)


def _failures(program: Program, engine: list[Operation]) -> list[tuple[str, str]]:
    """What convert() or the builder would say of an engine."""
    inside, found = {id(operation) for operation in engine}, []
    for operation in engine:
        for value in operation.inputs:
            maker = program.makers.get(value)
            if maker is None or id(maker) in inside or maker.name in (*CONSTANTS, "builtin.combine"):
                continue
            dtype = program.types[value].dtype
            if dtype not in BORDER_DTYPES:
                found.append(
                    (str(operation), f"TypeError: Unsupported dtype: {dtype.upper()} (its input from outside)")
                )
        if not operation.name.startswith("builtin."):
            reason = find_row(operation.name).converter(program, operation)
            if reason is not None:
                found.append((str(operation), reason))
    return found


@dataclass(eq=False)
class _Group:
    """A subgraph of the detector; `operations` and the others are dicts for their order."""

    takes: bool
    operations: dict[int, Operation] = field(default_factory=dict)
    producers: dict["_Group", None] = field(default_factory=dict)
    consumers: dict["_Group", None] = field(default_factory=dict)


def detect(program: Program, marked: set[int]) -> list[list[Operation]]:
    """Return the groups of marked operators that form subgraphs without a path through others.

    Args:
        program: The folded graph.
        marked: The identities of the operators that may enter.
    """
    position = {id(operation): number for number, operation in enumerate(program.operations)}
    groups = _grown_groups(program, marked, position)
    changed = True
    while changed:
        changed = False
        for group in groups:
            if group.takes:
                changed |= _merge_consumers(group)
    return [sorted(group.operations.values(), key=lambda op: position[id(op)]) for group in groups if group.takes]


def _consumers_first(program: Program) -> list[Operation]:
    """InverselyTopologicalSort: an operator follows when all readings of its outputs have been seen."""
    pending = {id(operation): 0 for operation in program.operations}
    for operation in program.operations:
        for value in filter(None, operation.inputs):
            pending[id(program.makers[value])] += 1
    queue = [operation for operation in program.operations if not pending[id(operation)]]
    for operation in queue:
        for value in filter(None, operation.inputs):
            maker = program.makers[value]
            pending[id(maker)] -= 1
            if not pending[id(maker)]:
                queue.append(maker)
    return queue


def _grown_groups(program: Program, marked: set[int], position: dict[int, int]) -> list[_Group]:
    """DoOpFusion and BuildSubGraph: a producer joins the group that holds all of its consumers."""
    group_of: dict[int, _Group] = {}
    order = _consumers_first(program)
    for operation in order:
        if id(operation) not in group_of:
            group_of[id(operation)] = _Group(id(operation) in marked, {id(operation): operation})
        group = group_of[id(operation)]
        producers = {id(maker): maker for v in operation.inputs if v for maker in [program.makers[v]]}
        for producer in sorted(producers.values(), key=lambda op: -position[id(op)]):
            if (id(producer) in marked) != group.takes:
                continue
            readers = [user for value in producer.outputs for user in program.users[value]]
            if all(id(reader) in group.operations for reader in readers):
                group.operations[id(producer)] = producer
                group_of[id(producer)] = group
    groups = list(dict.fromkeys(group_of[id(operation)] for operation in order))
    for group in groups:
        for operation in group.operations.values():
            for value in filter(None, operation.inputs):
                source = group_of[id(program.makers[value])]
                if source is not group:
                    group.producers[source] = None
                    source.consumers[group] = None
    return groups[::-1]


def _merge_consumers(group: _Group) -> bool:
    """FuseSubGraph: take in every marked consumer that no path reaches by way of another consumer."""
    candidates = [consumer for consumer in group.consumers if consumer.takes and not _reached_twice(group, consumer)]
    for candidate in candidates:
        candidate.takes = False
        group.operations.update(candidate.operations)
        group.producers.update(candidate.producers)
        group.consumers.update(candidate.consumers)
        for producer in candidate.producers:
            if producer is not group:
                producer.consumers[group] = None
                producer.consumers.pop(candidate, None)
        for consumer in candidate.consumers:
            consumer.producers[group] = None
            consumer.producers.pop(candidate, None)
        group.producers.pop(candidate, None)
        group.consumers.pop(candidate, None)
    group.producers.pop(group, None)
    group.consumers.pop(group, None)
    return bool(candidates)


def _reached_twice(group: _Group, consumer: _Group) -> bool:
    """IsDependency: whether another consumer of the group lies above this one.

    IsDependencySimplify is the same search with branches left out, so it finds nothing more.
    """
    queue, seen = [consumer], set()
    for candidate in queue:
        for producer in candidate.producers:
            if producer is group:
                continue
            if producer in group.consumers:
                return True
            if producer not in seen:
                seen.add(producer)
                queue.append(producer)
    return False
