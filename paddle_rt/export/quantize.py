"""int8: post-training quantisation of an export, calibrated and judged on frames of a data set.

NNCF places quantisers around convolutions and products with constant weights and corrects their biases. What is not a
product of that kind stays in higher precision, and so do, measured to cost the most labels, the first and the last
convolution and those beside the softmax of an attention.
"""

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from paddle_rt.errors import UserError
from paddle_rt.files import whole_file
from paddle_rt.inference.deployment import (
    VERIFICATION,
    Deployment,
    check_graph,
    file_digest,
    load_deployment,
    save_deployment,
)  # fmt: skip
from paddle_rt.inference.engines import Engine, OpenVino
from paddle_rt.inference.preprocess import Preprocess
from paddle_rt.inference.upsample import labels_from_logits
from paddle_rt.tasks.segmentation.metrics import confusion_matrix, scores

FILE = "model_int8.onnx"
AGREEMENT = 0.97
_GROUPS = 8  # what is put back into higher precision at once, as a share of all layers; half of them at most
_PRODUCTS = ("Conv", "Gemm", "MatMul")
_PASSES_ON = ("Reshape", "Transpose", "Mul", "Add", "Div", "Squeeze", "Unsqueeze")
Sample = tuple[np.ndarray, np.ndarray]


def quantize(
    export_dir: str | os.PathLike,
    calibration: Sequence[np.ndarray],
    samples: Sequence[Sample],
    ignore_index: int = 255,
    agreement: float = AGREEMENT,
    progress: Callable[[Sequence, str], Any] = lambda items, _: items,
) -> dict[str, Any]:
    """Add model_int8.onnx to an export, or nothing at all.

    Args:
        export_dir: A finished export with output_op "coarse" and an ONNX graph.
        calibration: Frames, uint8 BGR [H, W, 3], from which the ranges of the activations are learned.
        samples: Frames and their labels [H, W], on which the result is judged; best others than `calibration`.
        ignore_index: Label that does not count.
        agreement: Share of pixels whose label must stay what the graph in single precision gives. Below it, groups of
            layers are put back into higher precision, that first which gains most; nothing is written if half of all
            do not suffice.
        progress: Wraps a list that takes long with a description, such as tqdm.

    Returns:
        What verification.json gets under "int8": label_agreement, mIoU before and after, counts, layers kept.

    Raises:
        UserError: The export has no such graph, nncf is missing, or too many labels change.
    """
    if not calibration or not samples:
        raise UserError("int8 needs frames to calibrate with and labelled frames to judge by; the data set is empty")
    if not 0 <= agreement <= 1:
        raise UserError(f"the label agreement to reach is a share from 0 to 1, got {agreement}")
    nncf, onnx = _packages()
    deployment = load_deployment(export_dir)
    if deployment.output_op != "coarse" or not deployment.onnx or deployment.state_shape:
        raise UserError(f"int8 needs images' ONNX graph of coarse logits; export {export_dir} with --output_op coarse")
    check_graph(deployment, deployment.onnx)
    source = deployment.folder / deployment.onnx
    judge = _Judge(deployment, samples, ignore_index, progress)
    before = judge.labels(OpenVino(source))
    feed = [judge.prepare(frame)[0] for frame in calibration]
    kept = _kept_layers(onnx.load(str(source)).graph)
    with tempfile.TemporaryDirectory(dir=deployment.folder, prefix=".int8.") as scratch:
        part = pathlib.Path(scratch) / FILE

        def attempt(layers: Sequence[str]) -> tuple[float, list[np.ndarray]]:
            onnx.save(_quantized(nncf, onnx.load(str(source)), feed, layers), str(part))
            after = judge.labels(OpenVino(part, precision="int8"))
            return float(np.mean([(a == b).mean() for a, b in zip(before, after, strict=True)])), after

        groups = _groups(onnx.load(str(source)).graph, kept)
        kept, share, after = _put_back(attempt, kept, groups, agreement, progress)
        report = {
            "label_agreement": share, "mIoU_fp32": judge.miou(before), "mIoU_int8": judge.miou(after),
            "images": len(samples), "calibration_images": len(calibration), "higher_precision": kept,
            "nncf": nncf.__version__,
        }  # fmt: skip
        if share < agreement:
            raise _too_different(report, agreement)
        os.replace(part, deployment.folder / FILE)
    _describe(deployment, report)
    return report


def take_frames(dataset: Any, number: int, progress: Callable[[Sequence, str], Any]) -> list[Sample]:
    """Frames and labels of a data set that was built without transforms, evenly spaced.

    Args:
        dataset: Items with "img", float32 RGB [3, H, W] from 0 to 255, and "label", [H, W] or [1, H, W].
        number: How many, at most.
        progress: As in `quantize`.

    Returns:
        Pairs of uint8 BGR [H, W, 3] and the label [H, W].
    """
    indices = np.unique(np.linspace(0, len(dataset) - 1, min(number, len(dataset))).astype(int)).tolist()
    items = (dataset[index] for index in progress(indices, "frames"))
    return [
        (np.ascontiguousarray(item["img"].transpose(1, 2, 0)[..., ::-1].astype(np.uint8)), np.squeeze(item["label"]))
        for item in items
    ]


def _too_different(report: dict[str, Any], agreement: float) -> UserError:
    return UserError(
        f"int8 changes too many labels: {report['label_agreement']:.4f} agree with fp32, {agreement} were asked for "
        f"(mIoU {report['mIoU_fp32']:.4f} to {report['mIoU_int8']:.4f}); nothing was written; calibrate with more "
        "images or lower the threshold"
    )


def _put_back(
    attempt: Callable[[Sequence[str]], tuple[float, list[np.ndarray]]], kept: list[str], groups: list[list[str]],
    agreement: float, progress: Callable,
) -> tuple[list[str], float, list[np.ndarray]]:  # fmt: skip
    """Keep more layers in higher precision until enough labels agree; layers kept, the share, and the labels."""
    share, after = attempt(kept)
    while share < agreement and len(groups) > _GROUPS // 2:
        shares = [attempt(kept + group)[0] for group in progress(groups, "layers to keep")]
        kept = kept + groups.pop(int(np.argmax(shares)))
        share, after = attempt(kept)
    return kept, share, after


class _Judge:
    """Labels and scores of engines on the same samples."""

    def __init__(
        self, deployment: Deployment, samples: Sequence[Sample], ignore_index: int, progress: Callable
    ) -> None:
        self._batch, _, *size = deployment.input_shape
        self._preprocess = Preprocess(deployment.transforms, size, normalized=True)
        self._align_corners = deployment.align_corners
        self._classes = deployment.num_classes
        self._samples, self._ignore_index, self._progress = samples, ignore_index, progress

    def prepare(self, frame: np.ndarray) -> tuple[np.ndarray, list]:
        """The graph's input, [N, h, w, 3], and what was done to the size."""
        image, trail = self._preprocess(frame)
        return np.repeat(image[np.newaxis], self._batch or 1, axis=0), trail

    def labels(self, engine: Engine) -> list[np.ndarray]:
        found = []
        for frame, _ in self._progress(self._samples, "labels"):
            images, trail = self.prepare(frame)
            logits = engine.run(images)[0]
            found.append(labels_from_logits(logits, images.shape[1:3], align_corners=self._align_corners, trail=trail))
        return found

    def miou(self, labels: Sequence[np.ndarray]) -> float:
        confusion = sum(
            confusion_matrix(guess, truth, self._classes, self._ignore_index)
            for guess, (_, truth) in zip(labels, self._samples, strict=True)
        )
        return float(scores(confusion)["mIoU"])


def _packages() -> tuple[Any, Any]:
    try:
        with contextlib.redirect_stdout(None):  # it greets
            import nncf
            import onnx
    except ImportError as error:
        raise UserError(f"int8 needs the packages nncf and onnx ({error}): pip install nncf onnx") from error
    nncf.set_log_level(logging.ERROR)
    return nncf, onnx


def _quantized(nncf: Any, model: Any, feed: Sequence[np.ndarray], kept: Sequence[str]) -> Any:
    name = model.graph.input[0].name
    others = {node.op_type for node in model.graph.node} - set(_PRODUCTS)
    scope = nncf.IgnoredScope(names=list(kept), types=sorted(others), validate=False)
    dataset = nncf.Dataset(feed, lambda images: {name: images})
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # progress bars of its own
        return nncf.quantize(
            model, dataset, preset=nncf.QuantizationPreset.MIXED, subset_size=len(feed), ignored_scope=scope
        )


def _products(graph: Any) -> list[Any]:
    """Convolutions and products with a constant, in the order of the graph."""
    constants = {tensor.name for tensor in graph.initializer}
    return [node for node in graph.node if node.op_type in _PRODUCTS and set(node.input[:2]) & constants]


def _kept_layers(graph: Any) -> list[str]:
    """Names of what stays in higher precision: products of two computed matrices, the first and last layer, and those
    that lead to a softmax or come from its quotient."""
    products = _products(graph)
    if not products:
        raise UserError("the graph has neither a convolution nor a product to quantise")
    makers = {name: node for node in graph.node for name in node.output}
    kept = [node.name for node in graph.node if node.op_type in _PRODUCTS and node not in products]
    kept += [products[0].name, products[-1].name]
    for node in products:
        reader = _only_reader(graph, node)
        while reader is not None and reader.op_type in _PASSES_ON:
            reader = _only_reader(graph, reader)
        maker = makers.get(node.input[0])
        while maker is not None and maker.op_type in ("Reshape", "Transpose"):
            maker = makers.get(maker.input[0])
        if (reader is not None and reader.op_type == "Softmax") or (maker is not None and maker.op_type == "Div"):
            kept.append(node.name)
    return list(dict.fromkeys(kept))


def _only_reader(graph: Any, node: Any) -> Any:
    readers = [other for other in graph.node if node.output[0] in other.input]
    return readers[0] if len(readers) == 1 else None


def _groups(graph: Any, kept: Sequence[str]) -> list[list[str]]:
    """The layers that are quantised, in consecutive groups."""
    left = [node.name for node in _products(graph) if node.name not in kept]
    return [list(group) for group in np.array_split(left, min(_GROUPS, len(left)))] if left else []


def _describe(deployment: Deployment, report: dict[str, Any]) -> None:
    """Enter the new graph into verification.json and, last, into deploy.yaml."""
    file = deployment.folder / VERIFICATION
    content = json.loads(file.read_text(encoding="utf-8"))
    content["files"][FILE] = file_digest(deployment.folder / FILE)
    content["int8"] = report
    with whole_file(file) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    save_deployment(dataclasses.replace(deployment, folder=pathlib.Path(deployment.folder), int8=FILE))
