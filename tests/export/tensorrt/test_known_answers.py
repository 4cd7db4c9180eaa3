"""Graphs for the CPU, whose engines had been counted before the graphs for a GPU were written, by other code.

The counts are those of the product at 957b386, but for what its code has lost since: SegFormer++ adds its head's first
level to 0.0 no more (one operator less), and each of the eight bsm blocks adds one constant less to its places (eight
operators, eight nodes). The sizes are smaller than the 1024x2048 of then; of what is counted, only K depends on them.
"""

import pathlib
from collections import Counter

import pytest

import paddle_rt
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.export.tensorrt import onnx_engines, paddle_engines
from tests.export.tensorrt.exports import write_graph
from tests.export.tensorrt.paddle_engines import Partition
from tests.export.tensorrt.pir import Program, read_program
from tests.helpers import NORMALIZE

slow = pytest.mark.slow
SMALL, MIDDLE, OPEN = (64, 128), (128, 256), (None, None)  # bsm merges in every stage from 128x256 on
BYTES = "TypeError: Unsupported dtype: UINT8 (its input from outside)"
RTFORMER = "cast index_select sum"
FANET = "cast clip index_select leaky_relu split sum"
CUTS = {"trilinear_interp": 4}  # of FANet
WINDOW = {"temporal_window": 4}
SEGFORMER = "cast depthwise_conv2d index_select split_with_num"
DYNAMIC = " arange floor_divide minimum stack"

# model, arguments, size, operators, engines, engines if cast is disabled, operators that stay in Paddle, and the
# operators whose converters are for TensorRT 8 only.
CASES = [
    pytest.param("rtformer_slim", {}, SMALL, 250, 1, 1, {}, RTFORMER, id="slim"),
    pytest.param("rtformer_slim", {}, OPEN, 378, 1, 1, {}, RTFORMER + DYNAMIC, id="slim-open", marks=slow),
    pytest.param("fanet18", {}, SMALL, 212, 4, 4, CUTS, FANET, id="fanet18"),
    pytest.param("fanet18", {}, OPEN, 248, 5, 5, CUTS, FANET + " stack", id="fanet-open", marks=slow),
    pytest.param("fanet18", WINDOW, SMALL, 218, 4, 4, CUTS, FANET, id="T4", marks=slow),
    pytest.param("segformerpp_b0", {}, SMALL, 377, 1, 1, {}, SEGFORMER, id="b0", marks=slow),
    pytest.param("segformerpp_b0", {}, OPEN, 423, 1, 1, {}, SEGFORMER + " stack", id="b0-open", marks=slow),
    pytest.param(
        "segformerpp_b0", {"token_merging": "downsample"}, SMALL, 378, 1, 1, {}, SEGFORMER + " strided_slice",
        id="downsample", marks=slow,
    ),
    pytest.param(
        "segformerpp_b0", {"token_merging": "downsample"}, OPEN, 433, 2, 2, {"strided_slice": 1},
        SEGFORMER + " floor_divide stack", id="downsample-open", marks=slow,
    ),
    pytest.param(
        "segformerpp_b0", {"token_merging": "n2d_2x2"}, SMALL, 449, 1, 1, {}, SEGFORMER + " sum", id="n2d", marks=slow
    ),
    pytest.param(
        "segformerpp_b0", {"token_merging": "bsm_hq"}, MIDDLE, 661, 9, 17, {"put_along_axis": 8},
        SEGFORMER + " argsort equal gather sum", id="bsm_hq", marks=slow,
    ),
]  # fmt: skip


def write(folder: pathlib.Path, name: str, arguments: dict, size: tuple, op: str = "coarse", road: str = "paddle"):
    network = paddle_rt.create_model(name, num_classes=19, **arguments)
    batch = None if size == OPEN and network.temporal_window == 1 else 1
    return write_graph(folder, network, SegmentationExport([NORMALIZE]), op, [batch, 3, *size], "cpu", road)


def left(part: Partition) -> dict[str, int]:
    """The operators that stay in Paddle, without those that only join lists of tensors."""
    names = [op.name.removeprefix("pd_op.") for op, _ in part.refused if not op.name.startswith("builtin.")]
    return dict(Counter(names))


def without_cast(program: Program) -> Partition:
    return paddle_engines.partition(program, ["pd_op.cast"])


@pytest.mark.parametrize(("name", "arguments", "size", "operators", "engines", "no_cast", "stays", "only_trt8"), CASES)
def test_engines_of_paddle(tmp_path, name, arguments, size, operators, engines, no_cast, stays, only_trt8):
    graph = write(tmp_path, name, arguments, size)
    program = read_program(graph)
    part, disabled = paddle_engines.partition(program), without_cast(program)
    assert (part.operators, len(part.engines)) == (operators, engines)
    assert left(part) == stays
    assert part.only_trt8 == sorted(only_trt8.split())
    assert [reason for _, reason in part.failures].count(BYTES) == 1, part.failures
    assert len(disabled.engines) == no_cast
    if size != OPEN:
        assert not disabled.failures


@pytest.mark.slow
def test_sorting_at_full_size_exceeds_the_limit_of_topk(tmp_path):
    graph = write(tmp_path, "segformerpp_b0", {"token_merging": "bsm_hq"}, (1024, 2048))
    reasons = {reason for _, reason in without_cast(read_program(graph)).failures}
    assert reasons == {"sorts 7680 values with TopK, whose K must be below 3840"}


@pytest.mark.slow
@pytest.mark.parametrize(("name", "engines"), [("rtformer_slim", 1), ("fanet18", 4)])
def test_engines_of_paddle_with_labels(tmp_path, name, engines):
    """The last resize of FANet is a fifth trilinear one; what follows it is too small for an engine."""
    graph = write(tmp_path, name, {}, SMALL, "argmax")
    part = paddle_engines.partition(read_program(graph))
    assert len(part.engines) == engines
    assert left(part) == ({"trilinear_interp": 5, "squeeze": 1, "argmax": 1} if engines > 1 else {})


@pytest.mark.parametrize(
    ("name", "arguments", "size", "nodes", "doubts"),
    [
        pytest.param("rtformer_slim", {}, SMALL, 232, 0, id="slim"),
        pytest.param("rtformer_slim", {}, OPEN, 494, 0, id="slim-open", marks=slow),
        pytest.param("fanet18", {}, OPEN, 264, 4, id="fanet18-open", marks=slow),
        pytest.param("segformerpp_b0", {"token_merging": "bsm_hq"}, MIDDLE, 615, 0, id="bsm_hq", marks=slow),
    ],
)
def test_engines_of_onnx(tmp_path, name, arguments, size, nodes, doubts):
    """Every graph is one engine; the dynamic FANet has Resize in five dimensions."""
    graph = onnx_engines.read_graph(write(tmp_path, name, arguments, size, road="onnx"))
    assert len(graph.nodes) == nodes
    for version in ("8.6", "10"):
        part = onnx_engines.partition(graph, version)
        assert (len(part.engines), part.refused) == (1, []), version
        assert [reason for _, reason in part.doubts] == ["Resize of rank 5"] * doubts, version
