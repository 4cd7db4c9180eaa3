"""Exports for GPUs: the network's numbers, operators that TensorRT takes, labels, and half precision."""

import json
import pathlib
import shutil

import numpy as np
import onnx
import paddle
import pytest
from onnx import TensorProto

import paddle_rt
from paddle_rt.errors import UserError
from paddle_rt.export.publish import export
from paddle_rt.inference import Segmenter, load, load_deployment
from paddle_rt.models import token_merging_export
from paddle_rt.models.base import Network
from paddle_rt.models.token_merging import PRESETS
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.export.tensorrt import onnx_engines, paddle_engines
from tests.export.tensorrt.onnx_rows import VERSIONS
from tests.export.tensorrt.pir import read_program
from tests.helpers import NORMALIZE, TINY, randomize, relative_error, smooth_image

SEGFORMER = dict(embed_dim=8, depths=(1, 1, 1, 1), head_channels=8)
SPEC = SegmentationExport([NORMALIZE], "CamVid")
# Name, arguments, and (height, width).
NETWORKS = {
    "rtformer": ("rtformer_slim", TINY, (64, 96)),
    "fanet": ("fanet18", {}, (64, 64)),
    "fanet T=4": ("fanet18", {"temporal_window": 4}, (64, 64)),
    "segformer mlp": ("segformerpp_b0", {**SEGFORMER, "head": "mlp"}, (64, 64)),
    **{f"segformer {name}": ("segformerpp_b0", {**SEGFORMER, "token_merging": name}, (128, 160)) for name in PRESETS},
}


def build(kind: str, **changes: object) -> Network:
    name, arguments, _ = NETWORKS[kind]
    network = paddle_rt.create_model(name, num_classes=5, **{**arguments, **changes})
    randomize(network)
    network.eval()
    return network


@pytest.mark.parametrize("kind", NETWORKS)
def test_the_network_for_a_gpu_gives_the_same_numbers_for_bgr(kind):
    network, size = build(kind), NETWORKS[kind][2]
    before = {name: value.numpy() for name, value in network.state_dict().items()}
    exported = network.for_export("gpu")
    images = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 3, *size)).astype(np.float32))
    with paddle.no_grad():
        coarse = network.coarse_logits(images)
        error = relative_error(exported.coarse_logits(images.flip(axis=1)), coarse)
        resized = exported.resize_logits(coarse, images)
        full_error = relative_error(resized, network(images)[0])
    print(f"relative error {error:.1e}")
    assert exported.takes_bgr and not network.takes_bgr
    assert error <= 1e-6 and full_error == 0, f"relative errors {error:.1e}, {full_error:.1e}"
    assert all(np.array_equal(value.numpy(), before[name]) for name, value in network.state_dict().items())


def test_short_keys_change_fanet_by_nothing_at_all():
    network = build("fanet")
    exported = network.for_export("gpu")
    for attention, scaled in ((network.ffm_4, exported.ffm_4), (network.ffm_32, exported.ffm_32)):
        channels = attention.qkv.conv.weight.shape[1]
        features = paddle.to_tensor(np.random.default_rng(1).standard_normal((1, channels, 5, 7)).astype(np.float32))
        with paddle.no_grad():
            level, other = attention.read(features), scaled.read(features)
            assert np.array_equal(other.context.numpy() * 256, level.context.numpy())
            assert np.array_equal(scaled(*other).numpy(), attention(*level).numpy())


def check_graphs(folder: pathlib.Path) -> None:
    """Assert that both graphs are whole in TensorRT and take and give what they should."""
    deployment = load_deployment(folder)
    op, is_video = deployment.output_op, deployment.state_shape is not None
    assert (deployment.target, deployment.input_dtype) == ("gpu", "uint8")
    found = paddle_engines.partition(read_program(folder / deployment.model))
    assert len(found.engines) == 1 and not found.faults(), found.faults()
    text = (folder / deployment.model).read_text()
    for name in ("trilinear_interp", "put_along_axis", "argsort", "scatter", "full_like"):
        assert f'"1.{name}"' not in text, name
    merges = '"1.topk"' in text
    assert merges or '"1.cast"' not in text, "a frame of float32 needs no cast"
    for file in filter(None, (deployment.onnx, deployment.fp16)):
        graph = onnx.load(str(folder / file)).graph
        first, last, values = graph.node[0], graph.node[-1], [*graph.input, *graph.output]
        types = [value.type.tensor_type.elem_type for value in values]
        result = TensorProto.UINT8 if op == "labels" else TensorProto.FLOAT
        state = [TensorProto.FLOAT] * is_video
        assert first.op_type == "Cast" and types == [TensorProto.UINT8, *state, result, *state]
        makers = {name: node for node in graph.node for name in node.output}
        assert op != "labels" or makers[graph.output[0].name].op_type == "Cast"
        assert last.op_type != "Constant"
        casts = [n for n in graph.node if n.op_type == "Cast" and n.attribute[0].i == TensorProto.UINT8]
        assert len(casts) == (op == "labels")
        parsed = onnx_engines.read_graph(folder / file)
        for version in VERSIONS:
            part = onnx_engines.partition(parsed, version)
            assert len(part.engines) == 1 and not part.faults(), f"{file}, TensorRT {version}: {part.faults()}"


def check_half(report: dict, folder: pathlib.Path) -> None:
    for row in report["fp16"]["comparisons"]:
        print(row)
        assert row["label_agreement"] >= 0.97 and row["largest_value"] < 65504 / 8, row
    assert {row["frames"] for row in report["fp16"]["comparisons"]} == {"photograph", "noise", "black", "grey"}
    graph = onnx.load(str(folder / "model_fp16.onnx")).graph
    kinds = {tensor.data_type for tensor in graph.initializer if tensor.name.startswith(("Conv", "conv", "p2o"))}
    assert TensorProto.FLOAT16 in {tensor.data_type for tensor in graph.initializer}, kinds


def check_export(kind: str, folder: pathlib.Path, output_op: str) -> None:
    """Export for a GPU in both precisions; look at errors, graphs and the labels of every engine on a CPU."""
    network, size = build(kind), NETWORKS[kind][2]
    report = export(network, folder, SPEC, (1, 3, *size), output_op, target="gpu", precisions=("fp32", "fp16"))
    errors = [row["relative_error"] for row in report["comparisons"] if "relative_error" in row]
    print(f"relative errors {errors}")
    assert len(errors) >= 3 and max(errors) <= 1e-4, errors
    assert output_op == "coarse" or [row for row in report["comparisons"] if row["output_op"] == "labels"]
    check_graphs(folder)
    check_half(report, folder)
    frame = smooth_image(*size)
    image = (frame[..., ::-1] / 255 - NORMALIZE["mean"]) / NORMALIZE["std"]
    with paddle.no_grad():
        logits = network(paddle.to_tensor(image.transpose(2, 0, 1)[np.newaxis].astype(np.float32)))[0].numpy()[0]
    for backend in ("onnxruntime", "openvino", "paddle"):
        labels = load(folder, backend, threads=1)(frame)
        different = float((labels != logits.argmax(axis=0)).mean())
        assert labels.dtype == np.uint8 and different <= 1e-3, f"{backend}: {different:.2%} of the labels differ"


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("gpu") / "e"
    check_export("rtformer", folder, "labels")
    return folder


def test_rtformer_is_whole_and_gives_the_network_s_labels(labels):
    assert json.loads((labels / "verification.json").read_text())["target"] == "gpu"
    segment = Segmenter(labels, "onnxruntime", threads=1)
    assert segment(smooth_image(40, 50)).shape == (40, 50), "a frame of another size"
    with pytest.raises(UserError, match="confidence needs a graph of coarse logits"):
        segment.predict(smooth_image(40, 50))


@pytest.mark.slow
@pytest.mark.parametrize("kind, output_op", [
    ("fanet", "coarse"), ("fanet T=4", "labels"), ("segformer mlp", "coarse"), ("segformer downsample", "labels"),
    ("segformer n2d_2x2", "labels"), ("segformer bsm_hq", "coarse"), ("segformer bsm_fast", "labels"),
])  # fmt: skip
def test_every_network_is_whole_and_gives_its_labels(kind, output_op, tmp_path):
    check_export(kind, tmp_path / "e", output_op)


@pytest.mark.parametrize("old, new, message", [
    ("target: gpu", "target: tpu", "target must be cpu or gpu, got 'tpu'"),
    ("target: gpu", "target: cpu", "gives target 'cpu', but the graph was verified with 'gpu'"),
    ("output_op: labels", "output_op: argmax", "input_dtype 'uint8' does not fit output_op 'argmax'"),
])  # fmt: skip
def test_a_deploy_yaml_that_was_changed(labels, tmp_path, old, new, message):
    shutil.copytree(labels, tmp_path / "e")
    text = (tmp_path / "e/deploy.yaml").read_text()
    assert old in text
    (tmp_path / "e/deploy.yaml").write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        load(tmp_path / "e", "onnxruntime")


@pytest.mark.parametrize("arguments, message", [
    ({"target": "cuda"}, "unknown target 'cuda'.*Valid: cpu, gpu"),
    ({"target": "gpu", "output_op": "argmax"}, "output_op coarse or labels of this task, got argmax"),
    ({"precisions": ["fp16"]}, "precision fp16 is for target gpu and format onnx, got target cpu"),
    ({"target": "gpu", "precisions": ["fp16"], "formats": ["paddle"]}, "got target gpu and format paddle"),
    ({"target": "gpu", "precisions": ["int8"]}, "export it as output_op coarse, then use tools/quantize.py"),
    ({"target": "gpu", "precisions": ["fp61"]}, "did you mean 'fp16'"),
])  # fmt: skip
def test_what_there_is_not(tmp_path, arguments, message):
    with pytest.raises(UserError, match=message) as refused:
        export(build("rtformer"), tmp_path / "e", SPEC, (1, 3, 64, 96), **arguments)
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())


def test_more_tokens_than_tensorrt_selects_are_refused_with_a_size(tmp_path, monkeypatch):
    network = build("segformer bsm_hq")
    monkeypatch.setattr(token_merging_export, "SORT_LIMIT", 4)
    with pytest.raises(
        UserError, match=r"selects \d+ tokens.* TopK 4 at most.*128, 160.* --input_size 64 64"
    ) as refused:
        export(network, tmp_path / "e", SPEC, (1, 3, 128, 160), target="gpu")
    assert "\n" not in str(refused.value) and not list(tmp_path.iterdir())
    export_cpu = network.for_export()
    with paddle.no_grad():
        export_cpu.coarse_logits(paddle.zeros([1, 3, 128, 160]))  # on a CPU there is no such limit


def test_equal_similarities_keep_a_choice(tmp_path):
    """A grey frame: all tokens but those at the border are equal, and any choice gives the same numbers."""
    network = build("segformer bsm_fast")
    images = paddle.full([1, 3, 128, 160], 0.5)
    with paddle.no_grad():
        error = relative_error(network.for_export("gpu").coarse_logits(images), network.coarse_logits(images))
    print(f"relative error {error:.1e}")
    assert error <= 1e-3, f"relative error {error:.1e}"
