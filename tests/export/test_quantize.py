"""int8: made whole or not at all, judged by labels, and run by the backends that take it."""

import json
import logging
import pathlib
import shutil

import numpy as np
import onnx
import paddle
import pytest

from paddle_rt.errors import UserError
from paddle_rt.export.publish import export
from paddle_rt.export.quantize import Judgement, _keep_more, quantize
from paddle_rt.inference import Segmenter
from paddle_rt.models.rtformer import RTFormer
from paddle_rt.tasks.segmentation.export import SegmentationExport, take_samples
from paddle_rt.tasks.segmentation.street_dataset import StreetScenes
from tests.export.tensorrt import onnx_engines
from tests.export.tensorrt.onnx_rows import VERSIONS
from tests.helpers import TINY, randomize

SIZE = (64, 128)
SPEC = SegmentationExport([{"type": "Normalize", "mean": [0.5], "std": [0.5]}], "StreetScenes")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    paddle.seed(0)
    net = RTFormer(num_classes=19, **TINY)
    randomize(net)
    folder = tmp_path_factory.mktemp("int8") / "export"
    export(net, folder, SPEC, [1, 3, *SIZE], "coarse", ["onnx", "mnn"])
    return folder


@pytest.fixture(scope="module")
def samples() -> list[tuple[np.ndarray, np.ndarray]]:
    return take_samples(StreetScenes([], "val", 6, *SIZE), 4)


def files(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_frames_are_the_data_set_s(samples):
    assert len(samples) == 4
    for frame, label in samples:
        assert frame.shape == (*SIZE, 3) and frame.dtype == np.uint8 and label.shape == SIZE
    item = StreetScenes([], "val", 6, *SIZE)[0]
    np.testing.assert_array_equal(samples[0][0][..., ::-1].transpose(2, 0, 1), item["img"])


def test_int8_graph_runs_and_is_described(exported, samples, tmp_path):
    shutil.copytree(exported, tmp_path / "e")
    report = quantize(tmp_path / "e", [frame for frame, _ in samples], samples, SPEC, max_drop=1.0, agreement=0.5)
    assert set(files(tmp_path / "e")) == {*files(exported), "model_int8.onnx"}
    assert json.loads((tmp_path / "e/verification.json").read_text())["int8"] == report
    assert 0.5 <= report["label_agreement"] <= 1 and 0 <= report["mIoU_int8"] <= 1
    nodes = [node.op_type for node in onnx.load(str(tmp_path / "e/model_int8.onnx")).graph.node]
    assert nodes.count("QuantizeLinear") > 20
    plain = Segmenter(tmp_path / "e", threads=1)
    quantised = Segmenter(tmp_path / "e", "openvino", "int8", threads=1)
    agreement = float(np.mean([(plain(frame) == quantised(frame)).mean() for frame, _ in samples]))
    assert agreement == pytest.approx(report["label_agreement"], abs=1e-3)
    there = Segmenter(tmp_path / "e", "onnxruntime", "int8", threads=1)
    share = float(np.mean([(there(frame) == quantised(frame)).mean() for frame, _ in samples]))
    assert share > 0.9, f"ONNX Runtime and OpenVINO agree on {share:.3f} of the labels"


def test_a_graph_for_gpus_has_what_tensorrt_quantises_to(samples, tmp_path):
    net = RTFormer(num_classes=19, **TINY)
    randomize(net)
    folder = tmp_path / "e"
    export(net, folder, SPEC, [1, 3, *SIZE], "coarse", ["onnx"], target="gpu")
    quantize(folder, [frame for frame, _ in samples], [(samples[0][0], None)], SPEC, agreement=0.5)
    graph = onnx.load(str(folder / "model_int8.onnx")).graph
    constants = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in graph.initializer}
    quantisers = [node for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    zeros = [constants[node.input[2]] for node in quantisers]
    assert len(zeros) > 20 and all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    for version in VERSIONS:
        faults = onnx_engines.partition(onnx_engines.read_graph(folder / "model_int8.onnx"), version).faults()
        assert not faults, f"TensorRT {version}: {faults}"
    plain, quantised = (Segmenter(folder, "onnxruntime", name, threads=1) for name in ("fp32", "int8"))
    share = float(np.mean([(plain(frame) == quantised(frame)).mean() for frame, _ in samples]))
    assert share > 0.9, f"{share:.3f} of the labels are those of single precision"
    with pytest.raises(UserError, match="no int8 graph for openvino; export it with --target cpu, or use backend onnx"):
        Segmenter(folder, "openvino", "int8")


def test_handlers_of_others_keep_their_level(exported, samples, tmp_path):
    shutil.copytree(exported, tmp_path / "e")
    deploy = tmp_path / "e/deploy.yaml"
    deploy.write_text(deploy.read_text().replace("output_op: coarse", "output_op: labels"))
    handler, logger = logging.NullHandler(logging.WARNING), logging.getLogger("nncf")
    logger.addHandler(handler)
    try:
        with pytest.raises(UserError, match="needs an ONNX graph"):
            quantize(tmp_path / "e", [samples[0][0]], samples, SPEC)
    finally:
        logger.removeHandler(handler)
    assert (handler.level, logger.level) == (logging.WARNING, logging.ERROR)


@pytest.mark.slow
def test_attention_and_the_ends_stay_in_higher_precision(exported, samples, tmp_path):
    shutil.copytree(exported, tmp_path / "e")
    report = quantize(tmp_path / "e", [frame for frame, _ in samples], samples, SPEC, max_drop=1.0)
    graph = onnx.load(str(tmp_path / "e/model_int8.onnx")).graph
    makers = {name: node for node in graph.node for name in node.output}
    products = [node for node in graph.node if node.op_type in ("Conv", "MatMul")]
    real = [n for n in products if getattr(makers.get(n.input[0]), "op_type", None) != "DequantizeLinear"]
    assert {node.op_type for node in products if node not in real} == {"Conv"}
    assert sum(node.op_type == "MatMul" for node in real) == 4, "two for each cross attention"
    assert products[0] in real and products[-1] in real
    assert len(real) == len(report["higher_precision"])


def test_the_graph_that_loses_the_least_is_published():
    drops = {(): 0.03, ("a",): 0.02, ("b",): 0.01, ("c",): 0.025, ("b", "a"): 0.004, ("b", "c"): 0.008}
    made = []

    def attempt(layers):
        made.append(tuple(layers))
        return Judgement(0.9, drops[tuple(layers)], {}, [])

    groups = [["a"], ["b"], ["c"], ["d"]]
    drops |= {("d",): 0.03, ("b", "d"): 0.009}
    kept, found = _keep_more(attempt, [], groups, lambda judged: max(judged.drop - 0.005, 0))
    assert kept == ["b", "a"] and made[-1] == ("b", "a") and found.drop == 0.004
    kept, found = _keep_more(attempt, [], [["a"], ["b"], ["c"]], lambda judged: max(judged.drop - 0.001, 0))
    assert len(kept) == 2 and made[-1] == tuple(kept), "half of the groups are quantised in any case"


@pytest.mark.slow
def test_below_the_threshold_layers_are_put_back_and_then_nothing_is_written(exported, samples, tmp_path):
    shutil.copytree(exported, tmp_path / "e")
    before = files(tmp_path / "e")
    with pytest.raises(
        UserError,
        match="int8 changes too much: 0.* 1.0 were asked for; the score falls by .* mIoU_fp32 .*nothing was written",
    ):
        quantize(tmp_path / "e", [samples[0][0]], samples[:1], SPEC, agreement=1.0, groups=2)
    assert files(tmp_path / "e") == before


def test_what_cannot_be_quantised(exported, samples, tmp_path):
    with pytest.raises(UserError, match="the data set is empty"):
        quantize(exported, [], samples, SPEC)
    with pytest.raises(UserError, match="share from 0 to 1"):
        quantize(exported, [samples[0][0]], samples, SPEC, agreement=97)
    with pytest.raises(UserError, match="drop of the score is a share from 0 to 1, got 5"):
        quantize(exported, [samples[0][0]], samples, SPEC, max_drop=5)
    net = RTFormer(num_classes=19, **TINY)
    export(net, tmp_path / "e", SegmentationExport([{"type": "Normalize"}]), [1, 3, *SIZE], "argmax", ["onnx"])
    with pytest.raises(UserError, match="--output_op coarse"):
        quantize(tmp_path / "e", [samples[0][0]], samples, SPEC)
