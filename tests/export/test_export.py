"""Export, its verification, and running what was exported."""

import json
import pathlib
import shutil
import subprocess

import cv2
import numpy as np
import onnx
import paddle
import pytest
import yaml

from paddle_rt.errors import UserError
from paddle_rt.export import convert
from paddle_rt.export.publish import export
from paddle_rt.export.verify import VerificationError
from paddle_rt.imaging import read_label
from paddle_rt.inference import Segmenter, load_deployment
from paddle_rt.inference.engines import OnnxRuntime, OpenVino
from paddle_rt.inference.preprocess import Preprocess
from paddle_rt.models.layers_export import GatheredMaxPool2D
from paddle_rt.models.rtformer import RTFormer
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.helpers import NORMALIZE, ROOT, run_python, smooth_image

TINY = dict(num_classes=5, base_channels=8, head_channels=8, spp_channels=8, cross_size=3)


@pytest.fixture(scope="module")
def model() -> RTFormer:
    """A tiny RTFormer whose classes all occur, with running statistics that are not those of a fresh network."""
    paddle.seed(3)
    net = RTFormer(**TINY)
    rng = np.random.default_rng(0)
    net.train()
    for momentum in (0.0, 0.5):
        for layer in net.sublayers():
            if isinstance(layer, paddle.nn.BatchNorm2D):
                layer._momentum = momentum
        net(paddle.to_tensor(rng.standard_normal((2, 3, 96, 160)).astype(np.float32)))
    net.eval()
    return net


@pytest.fixture(scope="module")
def dynamic(model: RTFormer, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """An export with everything open, labels out, made where neither pip nor any other program can be started."""
    folder = tmp_path_factory.mktemp("dynamic") / "export"

    def refuse(*command: object, **_: object) -> None:
        raise AssertionError(f"the export started a program: {command}")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("Popen", "run", "call", "check_call", "check_output"):
            patch.setattr(subprocess, name, refuse)
        patch.setattr("os.system", refuse)
        export(model, folder, SegmentationExport([NORMALIZE], "CamVid"), output_op="argmax")
    return folder


def run_network(model: RTFormer, images: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return model(paddle.to_tensor(images))[0].numpy()


def files(folder: pathlib.Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_export_writes_complete_and_honest_files(dynamic: pathlib.Path) -> None:
    assert files(dynamic) == {"model.json", "model.pdiparams", "model.onnx", "deploy.yaml", "verification.json"}
    report = json.loads((dynamic / "verification.json").read_text())
    assert {row["engine"] for row in report["comparisons"]} == {
        "Paddle Inference, plain", "Paddle Inference, oneDNN", "ONNX Runtime", "OpenVINO"
    }  # fmt: skip
    logits = [row for row in report["comparisons"] if row["output_op"] == "none"]
    labels = [row for row in report["comparisons"] if row["output_op"] == "argmax"]
    assert len(logits) == len(labels) == 8
    assert len({tuple(row["input"]) for row in logits}) == 2
    worst = max(row["relative_error"] for row in logits)
    assert worst < 1e-4, f"worst relative error of the logits {worst:.1e}"
    assert {"paddle", "paddle2onnx", "onnxruntime"} <= set(report["versions"])


def test_deploy_yaml_is_what_paddleseg_reads(dynamic: pathlib.Path) -> None:
    from paddleseg.deploy.infer import DeployConfig

    config = DeployConfig(str(dynamic / "deploy.yaml"))
    assert pathlib.Path(config.model).is_file() and pathlib.Path(config.params).is_file()
    image = smooth_image(37, 53)
    expected = config.transforms({"img": image.astype(np.float32)})["img"]
    np.testing.assert_array_equal(Preprocess(load_deployment(dynamic).transforms)(image)[0], expected)
    described = yaml.safe_load((dynamic / "deploy.yaml").read_text())["Deploy"]
    assert described["output_op"] == "argmax" and described["output_dtype"] == "int32"
    assert described["input_shape"] == [None, 3, None, None]


def test_onnx_graph_is_one_that_tensorrt_parses(dynamic: pathlib.Path) -> None:
    graph = onnx.load(str(dynamic / "model.onnx")).graph
    constants = {item.name for item in graph.initializer}
    computed = [node.name for node in graph.node if node.op_type.startswith("Conv") and node.input[1] not in constants]
    assert sum(node.op_type == "Conv" for node in graph.node) > 40
    assert not computed, f"convolutions with weights made at run time: {computed}"
    assert "MaxPool" not in {node.op_type for node in graph.node}
    assert [dim.dim_param for dim in graph.input[0].type.tensor_type.shape.dim] == ["batch", "", "height", "width"]


@pytest.mark.parametrize("size", [(97, 131), (161, 160), (33, 40), (1, 1), (1, 70)])
@pytest.mark.parametrize("backend", ["onnxruntime", "paddle"])
def test_dynamic_export_labels_frames_of_any_size(
    model: RTFormer, dynamic: pathlib.Path, backend: str, size: tuple
) -> None:
    image = smooth_image(*size)
    logits = run_network(model, Preprocess([NORMALIZE])(image)[0][np.newaxis])[0]
    labels = Segmenter(dynamic, backend, threads=1)(image)
    assert labels.dtype == np.uint8 and labels.shape == size
    different = float((labels != logits.argmax(0)).mean())
    assert different < 1e-3, f"{backend}: {different:.2%} of the labels differ from the model's"


@pytest.mark.parametrize(
    ("output_op", "shape"),
    [("none", [1, 3, 161, 131]), ("softmax", [None, 3, 161, 131]), ("coarse", [1, 3, 161, 131]),
     ("coarse", [None, 3, None, None])],
)  # fmt: skip
def test_outputs_that_leave_the_labels_to_us(
    model: RTFormer, tmp_path: pathlib.Path, output_op: str, shape: list[int | None]
) -> None:
    report = export(model, tmp_path / "e", SegmentationExport([NORMALIZE]), shape, output_op)
    worst = max(row["relative_error"] for row in report["comparisons"])
    assert worst < 1e-4, f"{output_op}: worst relative error {worst:.1e}"
    image = smooth_image(161, 131)
    expected = run_network(model, Preprocess([NORMALIZE])(image)[0][np.newaxis])[0].argmax(0)
    for backend in ("onnxruntime", "paddle"):
        segment = Segmenter(tmp_path / "e", backend, threads=1)
        different = float((segment(image) != expected).mean())
        assert different < 1e-3, f"{backend}, {output_op}: {different:.2%} of the labels differ"
        assert segment(smooth_image(40, 300)).shape == (40, 300)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("output_op: argmax", "output_op: none", "was verified with 'argmax', as verification.json beside it says"),
        ("type: Normalize", "type: [Normalize]", r"unknown transform \['Normalize'\]"),
        ("- 0.485", "- .inf", "Normalize.mean must be a list of 1, 3 or 4 items, each a number"),
        ("- 0.485", "- a", "Normalize.mean must be a list of 1, 3 or 4 items, each a number"),
        ("num_classes: 5", "num_classes: 5.0", "num_classes must be a whole number of at least 1, got 5.0"),
        ("task: segmentation", "task: pose", "is for the task 'pose', not 'segmentation'"),
        ("task: segmentation", "task: [pose]", "task must be a name"),
    ],
)
def test_deploy_yaml_that_contradicts_its_graph(
    dynamic: pathlib.Path, tmp_path: pathlib.Path, old: str, new: str, message: str
) -> None:
    shutil.copytree(dynamic, tmp_path / "e")
    text = (tmp_path / "e/deploy.yaml").read_text()
    assert old in text, text
    (tmp_path / "e/deploy.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        Segmenter(tmp_path / "e", threads=1)(smooth_image(40, 60))


def test_model_is_left_as_it_was(model: RTFormer, tmp_path: pathlib.Path) -> None:
    model.train()
    try:
        export(model, tmp_path / "e", SegmentationExport([NORMALIZE]), [1, 3, 64, 64], "none", ["paddle"])
        assert model.training and len(model(paddle.zeros([2, 3, 64, 64]))) == 2
    finally:
        model.eval()


def broken_pooling(self: GatheredMaxPool2D, x: paddle.Tensor) -> paddle.Tensor:
    return paddle.nn.functional.adaptive_max_pool2d(x, self.output_size)


def test_wrong_pooling_of_paddle2onnx_is_caught(
    model: RTFormer, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """paddle2onnx gives the operator one fixed window; 5 rows or columns do not divide into 3."""
    monkeypatch.setattr(GatheredMaxPool2D, "forward", broken_pooling)
    with pytest.raises(VerificationError, match="does not compute what the network does.*ONNX Runtime"):
        export(model, tmp_path / "e", SegmentationExport([NORMALIZE]), [1, 3, 160, 160], "none")
    assert not files(tmp_path)


def test_mismatch_leaves_an_earlier_export_untouched(
    model: RTFormer, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "e"
    export(model, folder, SegmentationExport([NORMALIZE]), [1, 3, 64, 96], "none")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    convert_to_onnx = convert.convert_to_onnx

    def damage(graph: pathlib.Path, parameters: pathlib.Path, file: pathlib.Path, target: str) -> None:
        convert_to_onnx(graph, parameters, file, target)
        changed = onnx.load(str(file))
        weight = max(changed.graph.initializer, key=lambda item: np.prod(item.dims))
        values = onnx.numpy_helper.to_array(weight) * np.float32(1.01)
        weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
        onnx.save(changed, str(file))

    monkeypatch.setattr(convert, "convert_to_onnx", damage)
    with pytest.raises(VerificationError, match="nothing was written.*ONNX Runtime"):
        export(model, folder, SegmentationExport([NORMALIZE]), [1, 3, 64, 96], "none")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert files(tmp_path) == {"e"}
    monkeypatch.undo()

    export(model, folder, SegmentationExport([NORMALIZE]), [1, 3, 64, 96], "none", ["paddle"])
    assert "model.onnx" not in files(folder), "the graph of the export before this one"
    with pytest.raises(UserError, match="no fp32 graph for openvino.*--formats onnx"):
        Segmenter(folder)


def test_weights_that_are_not_finite_are_refused(tmp_path: pathlib.Path) -> None:
    net = RTFormer(**TINY)
    net.seghead.conv2.bias.set_value(np.full(5, np.nan, np.float32))
    with pytest.raises(UserError, match="not finite"):
        export(net, tmp_path / "e", SegmentationExport([NORMALIZE]))
    assert not files(tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"output_op": "argmin"}, "did you mean 'argmax'"),
        ({"formats": ["onxx"]}, "did you mean 'onnx'"),
        ({"formats": []}, "no format"),
        ({"formats": ["mnn"], "target": "gpu", "output_op": "coarse"}, "format mnn is for target cpu, got target gpu"),
        ({"input_shape": [1, None, 32, 32]}, "input_shape must be"),
        ({"input_shape": [1, 3, 0, 32]}, "input_shape must be"),
        ({"input_shape": [3, 32, 32]}, "input_shape must be"),
    ],
)
def test_wrong_arguments(model: RTFormer, tmp_path: pathlib.Path, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        export(model, tmp_path / "e", SegmentationExport([NORMALIZE]), **arguments)
    assert not files(tmp_path)


@pytest.mark.parametrize(
    "transforms",
    [
        [{"type": "Resize", "target_size": [96, 64]}, NORMALIZE],
        [{"type": "Resize", "target_size": [128, 64], "keep_ratio": True, "size_divisor": 32}, NORMALIZE],
        [{"type": "ResizeByLong", "long_size": 100}, {"type": "Padding", "target_size": [128, 104]}, NORMALIZE],
        [{"type": "ResizeByShort", "short_size": 50, "max_size": 90}, {"type": "Normalize"}],
    ],
)
def test_transforms_are_paddleseg_s(model: RTFormer, transforms: list[dict]) -> None:
    """The network's input bit by bit, and the way back against PaddleSeg's reverse_transform."""
    from paddleseg.core.infer import reverse_transform
    from paddleseg.cvlibs import manager
    from paddleseg.transforms import Compose

    from paddle_rt.inference.segmenter import _best_class

    steps = [dict(item) for item in transforms]
    theirs = Compose([manager.TRANSFORMS[item.pop("type")](**item) for item in steps])
    for size in ((75, 133), (150, 60)):
        image = smooth_image(*size)
        sample = theirs({"img": image.astype(np.float32)})
        ours, resize_steps = Preprocess(transforms)(image)
        np.testing.assert_array_equal(ours, sample["img"])
        logits = run_network(model, ours[np.newaxis])
        restored = reverse_transform(paddle.to_tensor(logits), sample["trans_info"], mode="bilinear")
        expected = restored.numpy()[0].argmax(0)
        different = float((_best_class(logits[0], resize_steps, size) != expected).mean())
        assert different < 1e-3, f"{different:.2%} of the labels differ from PaddleSeg's"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: "", "under the key 'Deploy'"),
        (lambda text: "[1, 2", "damaged"),
        (lambda text: "Deploy:\n- 1\n", "under the key 'Deploy'"),
        (lambda text: text[: text.index("output_op")], "'output_op' is missing"),
        (lambda text: text[: text.index("std")], "'input_shape' is missing"),
        (lambda text: text[: text.rindex("- ")], "not whole"),
        (lambda text: text.replace("output_op", "output_opp"), "did you mean 'output_op'"),
        (lambda text: text.replace("model.json", "model.pdmodel"), "no file model.pdmodel"),
        (lambda text: text.replace("argmax", "argmin"), "did you mean 'argmax'"),
        (lambda text: text.replace("Normalize", "Normalise"), "did you mean 'Normalize'"),
        (lambda text: text.replace("mean", "means"), "did you mean 'mean'"),
    ],
)
def test_damaged_deploy_yaml(dynamic: pathlib.Path, tmp_path: pathlib.Path, change: callable, message: str) -> None:
    for name in files(dynamic):
        (tmp_path / name).write_bytes((dynamic / name).read_bytes())
    text = (tmp_path / "deploy.yaml").read_text()
    (tmp_path / "deploy.yaml").write_text(change(text))
    with pytest.raises(UserError, match=message):
        Segmenter(tmp_path)


def test_damaged_graph_and_wrong_names(dynamic: pathlib.Path, tmp_path: pathlib.Path) -> None:
    for name in files(dynamic):
        (tmp_path / name).write_bytes((dynamic / name).read_bytes()[: 3000 if name == "model.onnx" else None])
    with pytest.raises(UserError, match="model.onnx is not the graph that verification.json describes"):
        Segmenter(tmp_path)
    for engine in (OnnxRuntime, OpenVino):
        with pytest.raises(UserError, match="cannot load"):
            engine(tmp_path / "model.onnx")
    with pytest.raises(UserError, match="did you mean 'paddle'"):
        Segmenter(dynamic, "padle")
    with pytest.raises(UserError, match="did you mean 'fp32'"):
        Segmenter(dynamic, precision="fp23")
    with pytest.raises(UserError, match="uint8 BGR"):
        Segmenter(dynamic)(np.zeros((8, 8), np.uint8))
    with pytest.raises(UserError, match="no deploy.yaml"):
        Segmenter(tmp_path / "nowhere")


def test_infer_command_line(dynamic: pathlib.Path, tmp_path: pathlib.Path) -> None:
    images = {"a.png": (33, 40), "a.jpg": (20, 61), "sub/a.png": (64, 48), "other/a.png": (7, 9)}
    for name, size in images.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(tmp_path / "in" / name), smooth_image(*size))
    (tmp_path / "in" / "broken.png").write_bytes(b"no image")
    command = [str(ROOT / "deploy/python/infer.py"), "--backend", "openvino", "--config", str(dynamic / "deploy.yaml")]
    command += ["--image_path", str(tmp_path / "in"), "--save_dir", str(tmp_path / "out"), "--threads", "1"]
    done = run_python(*command, cwd=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "broken.png" in done.stderr.strip().splitlines()[-1] and "Traceback" not in done.stderr
    labels = {"a.png": "a.png.png", "a.jpg": "a.png", "sub/a.png": "sub/a.png", "other/a.png": "other/a.png"}
    found = {str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*")}
    assert found == {f"pseudo_color_prediction/{n}" for n in labels.values()} | {
        f"added_prediction/{n[:-4]}.jpg" for n in labels.values()
    }
    segment = Segmenter(dynamic, threads=1)
    for name, written in labels.items():
        expected = segment(cv2.imread(str(tmp_path / "in" / name)))
        np.testing.assert_array_equal(read_label(tmp_path / "out/pseudo_color_prediction" / written, 5), expected)


def write_tiny_config(folder: pathlib.Path) -> pathlib.Path:
    dataset = {"type": "Cityscapes", "dataset_root": "nowhere", "transforms": [NORMALIZE], "mode": "val"}
    config = {
        "batch_size": 1,
        "iters": 1,
        "train_dataset": {**dataset, "mode": "train"},
        "val_dataset": dataset,
        "optimizer": {"type": "AdamW"},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 0.1},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 0.4]},
        "model": {"type": "RTFormer", **TINY, "num_classes": 19},
    }
    (folder / "tiny.yml").write_text(yaml.safe_dump(config))
    return folder / "tiny.yml"


def test_tool_exports_a_checkpoint(tmp_path: pathlib.Path) -> None:
    """No data set is there, and none is needed."""
    command = [str(ROOT / "tools/export.py"), "-c", str(write_tiny_config(tmp_path))]
    command += ["--save_dir", str(tmp_path / "e"), "--input_size", "64", "96", "--formats", "paddle"]
    done = run_python(*command, cwd=tmp_path)
    assert done.returncode == 2 and "error: give trained weights with --model_path" in done.stderr
    assert files(tmp_path) == {"tiny.yml"}

    paddle.save(RTFormer(**{**TINY, "num_classes": 19}).state_dict(), str(tmp_path / "model.pdparams"))
    command += ["--model_path", str(tmp_path / "model.pdparams")]
    done = run_python(*command, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert files(tmp_path / "e") == {"model.json", "model.pdiparams", "deploy.yaml", "verification.json"}
    deployment = load_deployment(tmp_path / "e")
    assert deployment.input_shape == [1, 3, 64, 96] and deployment.class_names[13] == "car"
    labels = Segmenter(tmp_path / "e", "paddle", threads=1)(smooth_image(50, 70))
    assert labels.shape == (50, 70) and labels.max() < 19
