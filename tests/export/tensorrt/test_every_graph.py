"""Every fixed graph for a GPU, of every registered model and preset, is one engine on each road to TensorRT.

A failure lists what stays outside, or may not build, with the reason. An operator that no table has fails with its name
and the table to add it to.
"""

import onnx
import pytest

import paddle_rt
from paddle_rt.export.graph.half import to_half
from paddle_rt.models.rtformer_attention import ATTENTIONS
from paddle_rt.models.token_merging import PRESETS
from paddle_rt.registry import find_entry
from paddle_rt.tasks.classification.export import ClassificationExport
from paddle_rt.tasks.pose.export import PoseExport
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.export.tensorrt import onnx_engines, paddle_engines
from tests.export.tensorrt.exports import ROADS, write_graph
from tests.export.tensorrt.onnx_rows import VERSIONS, Graph
from tests.export.tensorrt.pir import read_program
from tests.helpers import NORMALIZE, TINY

SIZE = (128, 256)  # where bsm merges in every stage
BLOCKS = 3  # of a stage, which are alike, as are channels: more would only take time
NARROW = {
    "RTFormer": TINY,
    **dict.fromkeys(("SegFormerPlusPlus", "SegFormerPose"), {"embed_dim": 8, "head_channels": 16}),
}
# The task's part of the export, and the output with most operators. A task without a row fails the tests.
SPECS = {
    "segmentation": (SegmentationExport([NORMALIZE]), "labels"),
    "classification": (ClassificationExport([NORMALIZE]), "softmax"),
    "pose": (PoseExport([NORMALIZE]), "heatmaps"),
}
FAST = {("paddle", "rtformer_slim"), ("onnx", "rtformer_slim"), ("paddle", "fanet18"), ("paddle", "segformerpp_b0")}


def attention(kind: str) -> dict:
    """Arguments of an RTFormer with one attention in both branches."""
    more = {"linformer": {"image_size": SIZE}, "gfa": {"cross_size": 4}}  # 16 learned keys, which the groups divide
    return {"high_attention": kind, "low_attention": kind, **more.get(kind, {})}


# A name, the model and arguments in which it differs.
PRESETS_AND_MORE = [
    ("fanet18, 4 frames", "fanet18", {"temporal_window": 4}),
    ("segformerpp_b0, mlp", "segformerpp_b0", {"head": "mlp"}),
    *((f"segformerpp_b0, {preset}", "segformerpp_b0", {"token_merging": preset}) for preset in PRESETS),
    *((f"rtformer_slim, {kind}", "rtformer_slim", attention(kind)) for kind in ATTENTIONS if kind != "cross"),
    ("rtformer_slim, mlp", "rtformer_slim", {"feed_forward": "mlp"}),
]


def narrowed(name: str, **changes) -> dict:
    """All arguments of a model, narrowed."""
    entry = find_entry(name)
    arguments = {**entry.arguments, **NARROW.get(entry.class_name, {}), **changes}
    if "depths" in arguments:
        arguments["depths"] = [min(depth, BLOCKS) for depth in arguments["depths"]]
    return arguments


def distinct() -> dict[str, tuple[str, dict]]:
    """Names of all models and presets with one model and its arguments; those that narrowing makes equal share one."""
    found = {}
    for label, name, changes in [*((name, name, {}) for name in paddle_rt.list_models()), *PRESETS_AND_MORE]:
        arguments = narrowed(name, **changes)
        labels, *_ = found.setdefault(f"{find_entry(name).class_name} {arguments}", ([], name, arguments))
        labels.append(label)
    return {" ".join(labels) if len(labels) > 1 else labels[0]: rest for labels, *rest in found.values()}


VARIANTS = distinct()


def faults(folder, variant: str, road: str, output_op: str | None = None, size: tuple[int, int] = SIZE) -> list[str]:
    """What keeps a graph from being one engine; by default the one with most operators."""
    name, arguments = VARIANTS[variant]
    spec, largest = SPECS[find_entry(name).task]
    network = paddle_rt.create_model(name, num_classes=19, **arguments)
    file = write_graph(folder, network, spec, output_op or largest, [1, 3, *size], "gpu", road)
    if road == "paddle":
        return paddle_engines.partition(read_program(file)).faults()
    half = onnx.load(str(file))
    to_half(half)
    graphs = {"fp32": onnx_engines.read_graph(file), "fp16": Graph(half)}
    parts = [(p, v, onnx_engines.partition(graph, v)) for p, graph in graphs.items() for v in VERSIONS]
    return [
        f"{precision}, TensorRT {version}: {fault}" for precision, version, part in parts for fault in part.faults()
    ]


def slow_unless_fast(road: str, variant: str) -> list:
    return [] if (road, variant.split()[0]) in FAST and "," not in variant else [pytest.mark.slow]


def test_every_registered_model_is_walked():
    assert set(paddle_rt.list_models()) <= set(" ".join(VARIANTS).split())


@pytest.mark.parametrize(
    ("road", "variant"),
    [pytest.param(r, v, id=f"{r}-{v}", marks=slow_unless_fast(r, v)) for r in ROADS for v in VARIANTS],
)
def test_graphs_are_one_engine(tmp_path, road, variant):
    """A graph with labels has all operators of one with coarse logits."""
    assert not (found := faults(tmp_path, variant, road)), "\n".join(found)


@pytest.mark.slow
def test_coarse_logits_and_a_state_are_one_engine(tmp_path):
    assert not (found := faults(tmp_path, "fanet18, 4 frames", "paddle", "coarse")), "\n".join(found)


@pytest.mark.slow
def test_merging_is_one_engine_at_full_size(tmp_path):
    """The largest K of a TopK is that of the first stage at 1024x2048."""
    assert not (found := faults(tmp_path, "segformerpp_b0, bsm_hq", "paddle", size=(1024, 2048))), "\n".join(found)
