"""Exports of networks that merge tokens: every preset and mode in every engine, with operators that engines have."""

import onnx
import paddle
import pytest

import paddle_rt
from paddle_rt.errors import UserError
from paddle_rt.export.publish import export
from paddle_rt.export.verify import make_cases
from paddle_rt.inference import Segmenter
from paddle_rt.models.token_merging import PRESETS
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.helpers import NORMALIZE, TENSORRT_OPERATORS, randomize, smooth_image

TINY = dict(num_classes=5, embed_dim=8, depths=(1, 1, 1, 1), head_channels=8)
SHAPE = (1, 3, 128, 160)  # the stages have 32x40, 16x20, 8x10 and 4x5 tokens: all of them merge, not all evenly
LISTS = {
    "n1d": [dict(q_mode="n1d", q_s=3), {}, dict(kv_mode="n1d", kv_s=2), dict(q_mode="n1d", q_s=3)],
    "n2d": [dict(q_mode="n2d", q_s=(2, 3), kv_mode="n2d", kv_s=2)] * 4,
    "bsm": [dict(q_mode="bsm", q_r=0.5, q_sx=2, q_sy=2, kv_mode="bsm", kv_r=0.3, kv_sx=3, kv_sy=2), {}, {}, {}],
}
MERGINGS = {**{name: name for name in PRESETS}, **LISTS}


def tiny(merging, head: str) -> paddle.nn.Layer:
    net = paddle_rt.create_model("segformerpp_b0", head=head, token_merging=merging, **TINY)
    randomize(net)
    return net


@pytest.mark.parametrize(("merging", "head"), [*((name, "conv") for name in MERGINGS), ("n2d_2x2", "mlp")])
def test_every_merging_is_exported_to_every_engine(merging, head, tmp_path):
    """Export compares the logits of Paddle Inference, ONNX Runtime and OpenVINO with the model's."""
    batch = 2 if merging == "bsm" else 1
    report = export(tiny(MERGINGS[merging], head), tmp_path / "e", SegmentationExport([NORMALIZE]), (batch, *SHAPE[1:]))
    errors = {row["engine"]: row["relative_error"] for row in report["comparisons"]}
    assert len(errors) == 4 and max(errors.values()) <= 1e-4, f"relative errors {errors}"
    nodes = onnx.load(str(tmp_path / "e" / "model.onnx")).graph.node
    operators = {node.op_type for node in nodes}
    assert operators <= TENSORRT_OPERATORS, f"not in TensorRT's list: {operators - TENSORRT_OPERATORS}"
    assert not {"Shape", "Pad"} & operators, "at a fixed size everything that follows from it is a constant"
    assert "ScatterND" not in operators, "ONNX Runtime adds from several threads at once and loses some of it"


@pytest.mark.parametrize(("merging", "least"), [("bsm_hq", 1e-3), ("n2d_2x2", 1e-4)])
def test_near_ties_widen_the_tolerance_of_matching_alone(merging, least):
    model = tiny(merging, "conv")
    model.eval()
    assert min(case.tolerance for case in make_cases(model, SegmentationExport([NORMALIZE]), SHAPE, "coarse")) == least


@pytest.mark.slow
def test_shared_matches_are_exported(tmp_path):
    deep = {**TINY, "depths": (3, 1, 3, 1)}
    model = paddle_rt.create_model("segformerpp_b0", token_merging="bsm_hq", matching_every=2, **deep)
    randomize(model)
    report = export(model, tmp_path / "e", SegmentationExport([NORMALIZE]), SHAPE)
    assert max(row["relative_error"] for row in report["comparisons"]) <= 1e-4, report["comparisons"]
    searches = [node for node in onnx.load(str(tmp_path / "e" / "model.onnx")).graph.node if node.op_type == "ArgMax"]
    assert len(searches) == 2 + 1 + 2 + 1, "one for each pair of blocks in each stage"


def test_segmenter_merges_in_every_backend(tmp_path):
    export(tiny("bsm_hq", "conv"), tmp_path / "e", SegmentationExport([NORMALIZE]), SHAPE)
    image = smooth_image(*SHAPE[2:])
    labels = {b: Segmenter(tmp_path / "e", backend=b)(image) for b in ("paddle", "onnxruntime", "openvino")}
    for backend, found in labels.items():
        same = float((found == labels["paddle"]).mean())
        assert found.shape == SHAPE[2:] and same > 0.999, f"{backend}: {same} of the labels agree"


@pytest.mark.parametrize("merging", [name for name in MERGINGS if name != "downsample"])
@pytest.mark.parametrize("shape", [(1, 3, None, None), (None, 3, None, 160)])
def test_an_open_size_is_refused_in_one_line(merging, shape, tmp_path):
    with pytest.raises(UserError, match="needs a fixed height and width") as refused:
        export(tiny(MERGINGS[merging], "conv"), tmp_path / "e", SegmentationExport([NORMALIZE]), shape)
    assert "\n" not in str(refused.value) and "--input_size" in str(refused.value) and not list(tmp_path.iterdir())


def test_the_batch_may_stay_open(tmp_path):
    """Two inputs of another batch each, in every engine; sums by cells with a border, and the matching."""
    merging = [dict(q_mode="n2d", q_s=(3, 3)), dict(q_mode="bsm", q_r=0.6, q_sx=2, q_sy=2), {}, {}]
    report = export(tiny(merging, "conv"), tmp_path / "e", SegmentationExport([NORMALIZE]), (None, *SHAPE[1:]))
    assert {row["input"][0] for row in report["comparisons"]} == {1, 2}
    assert max(row["relative_error"] for row in report["comparisons"]) <= 1e-4, report["comparisons"]


def test_downsampling_takes_any_size(tmp_path):
    report = export(tiny("downsample", "conv"), tmp_path / "e", SegmentationExport([NORMALIZE]), (1, 3, None, None))
    assert max(row["relative_error"] for row in report["comparisons"]) <= 1e-4, report["comparisons"]


def test_positions_survive_half_precision(tmp_path):
    """bf16 has whole numbers up to 256: a position that passes through it becomes another one."""
    merging = [dict(q_mode="bsm", q_r=0.5, q_sx=2, q_sy=2)] + [{}] * 3
    export(tiny(merging, "conv"), tmp_path / "e", SegmentationExport([NORMALIZE]), (1, 3, 96, 128), formats=["onnx"])
    graph = onnx.load(str(tmp_path / "e" / "model.onnx")).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    cast = {makers.get(node.input[0]) for node in graph.node if node.op_type == "Cast"}
    assert cast <= {None, "Equal"}, f"converted to floating point: {cast}"
