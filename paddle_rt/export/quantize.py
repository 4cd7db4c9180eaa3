"""int8: post-training quantisation of an export, calibrated and judged on samples of a data set.

NNCF puts quantisers around convolutions and products with constant weights and corrects their biases. Everything else
stays in higher precision, and so do the layers whose quantisation was measured to change the most labels: the first and
the last convolution, and those beside the softmax of an attention.
"""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from paddle_rt.errors import UserError
from paddle_rt.files import whole_file
from paddle_rt.inference import load, load_deployment
from paddle_rt.inference.deployment import VERIFICATION, Deployment, file_digest, save_deployment
from paddle_rt.inference.engines import switch_off_telemetry
from paddle_rt.inference.predictor import Predictor
from paddle_rt.tasks.export import ExportSpec

FILE = "model_int8.onnx"
MAX_DROP = 0.005  # of the score
_PRODUCTS = ("Conv", "Gemm", "MatMul")
_PASSES_ON = ("Reshape", "Transpose", "Mul", "Add", "Div", "Squeeze", "Unsqueeze")
Sample = tuple[np.ndarray, Any]  # a frame and its truth, or None


@dataclasses.dataclass(frozen=True)
class Judgement:
    """What a quantised graph changes.

    Args:
        agreement: The share of results that stay those of single precision.
        drop: By how much the score falls; None where there are no truths.
        scores: The scores before and after, by name and precision; none where there are no truths.
        results: The results.
    """

    agreement: float
    drop: float | None
    scores: dict[str, float]
    results: list[Any]


Attempt = Callable[[Sequence[str]], Judgement]  # from layers to keep in higher precision


def quantize(
    export_dir: str | os.PathLike,
    calibration: Sequence[np.ndarray],
    samples: Sequence[Sample],
    spec: ExportSpec,
    max_drop: float = MAX_DROP,
    agreement: float = 0.0,
    groups: int = 8,
) -> dict[str, Any]:
    """Add model_int8.onnx to an export, or nothing at all.

    Args:
        export_dir: A finished export with an ONNX graph and the output that the spec quantises.
        calibration: Frames, uint8 BGR [H, W, 3], from which the ranges of the activations are determined.
        samples: Frames on which the result is judged, preferably not those of `calibration`, and their truths, which
            are all None where no score is wanted.
        spec: The task's part of the export, which compares and scores results.
        max_drop: By how much the score of the samples may fall. Where it falls by more, groups of layers return to
            higher precision, the one that gains most first; nothing is written if half of all layers do not suffice.
        agreement: The share of results that must also stay those of the graph in single precision.
        groups: The number of groups that the layers are divided into.

    Returns:
        The entry "int8" of verification.json: agreement, score before and after, counts, layers in higher precision.

    Raises:
        UserError: The export has no such graph, nncf is missing, or too many results change.
    """
    if not calibration or not samples:
        raise UserError("int8 needs frames to calibrate with and samples to judge by; the data set is empty")
    _check_shares({"agreement to reach": agreement, "drop of the score": max_drop})
    nncf, onnx = _packages()
    deployment, predictor = _load_source(export_dir, spec)
    before = _predict(spec, predictor, samples)
    feed = [_network_input(predictor, frame) for frame in calibration]
    graph = onnx.load(str(deployment.folder / deployment.onnx)).graph
    kept = _kept_layers(graph)
    backend = "onnxruntime" if deployment.target == "gpu" else "openvino"
    with tempfile.TemporaryDirectory(dir=deployment.folder, prefix=".int8.") as scratch:
        trial = _trial(deployment, pathlib.Path(scratch))

        def attempt(layers: Sequence[str]) -> Judgement:
            model = onnx.load(str(trial.folder / trial.onnx))
            onnx.save(_quantized(nncf, model, feed, layers, deployment.target), str(trial.folder / FILE))
            _record(trial, {})
            after = _predict(spec, load(trial.folder, backend, "int8"), samples)
            return _judge(spec, before, after, [truth for _, truth in samples], deployment)

        excess = functools.partial(_excess, max_drop, agreement)
        kept, found = _keep_more(attempt, kept, _groups(graph, kept, groups), excess)
        if excess(found) > 0:
            raise _changes_too_much(found, max_drop, agreement)
        report = {
            spec.agreement_key: found.agreement, "differences": spec.differences(before, found.results), **found.scores,
            "images": len(samples), "calibration_images": len(calibration), "higher_precision": kept,
            "nncf": nncf.__version__,
        }  # fmt: skip
        os.replace(trial.folder / FILE, deployment.folder / FILE)
    _record(dataclasses.replace(deployment, int8=FILE), report)
    return report


def _excess(max_drop: float, agreement: float, found: Judgement) -> float:
    """Return by how much a change exceeds what is allowed."""
    return max(agreement - found.agreement, 0.0) + max((found.drop or 0.0) - max_drop, 0.0)


def _check_shares(shares: dict[str, float]) -> None:
    for name, share in shares.items():
        if not 0 <= share <= 1:
            raise UserError(f"the {name} is a share from 0 to 1, got {share}")


def _changes_too_much(found: Judgement, max_drop: float, agreement: float) -> UserError:
    scores = "".join(f", {name} {value:.4f}" for name, value in found.scores.items())
    lost = "" if found.drop is None else f"; the score falls by {found.drop:.4f}, {max_drop} were allowed{scores}"
    return UserError(
        f"int8 changes too much: {found.agreement:.4f} of the results agree with fp32, {agreement} were asked for"
        f"{lost}; nothing was written; calibrate with more images or allow more"
    )


def _load_source(export_dir: str | os.PathLike, spec: ExportSpec) -> tuple[Deployment, Predictor]:
    """Load the export that is quantised, and its predictor in single precision."""
    deployment = load_deployment(export_dir)
    if deployment.output_op != spec.int8_output or not deployment.onnx or deployment.state_shape:
        raise UserError(
            f"int8 needs an ONNX graph of images, not of video, with the output {spec.int8_output}; export it to "
            f"{export_dir} with --output_op {spec.int8_output}"
        )
    return deployment, load(export_dir)  # the predictor checks that the graph is the verified one


def _predict(spec: ExportSpec, predictor: Predictor, samples: Sequence[Sample]) -> list[Any]:
    return [spec.predict(predictor, frame) for frame, _ in tqdm(samples, "results", leave=False, disable=None)]


def _judge(
    spec: ExportSpec, before: list[Any], after: list[Any], truths: Sequence[Any], deployment: Deployment
) -> Judgement:
    """Compare the results of int8 with those of single precision, and score both where there are truths."""
    share = spec.agreement(before, after)
    if any(truth is None for truth in truths):
        return Judgement(share, None, {}, after)
    (name, single), (_, quantised) = (spec.score(results, truths, deployment) for results in (before, after))
    return Judgement(share, single - quantised, {f"{name}_fp32": single, f"{name}_int8": quantised}, after)


def _network_input(predictor: Predictor, frame: np.ndarray) -> np.ndarray:
    """Return the graph's input for a frame, repeated for each image of its batch."""
    predictor.begin([frame])
    image = predictor.prepare(frame).image
    return np.repeat(image[np.newaxis], predictor.deployment.input_shape[0] or 1, axis=0)


def _trial(deployment: Deployment, folder: pathlib.Path) -> Deployment:
    """Make an export in another folder that a predictor can load as soon as its int8 graph is there."""
    for name in (deployment.onnx, VERIFICATION):
        shutil.copy(deployment.folder / name, folder / name)
    return dataclasses.replace(deployment, folder=folder, model=None, params=None, mnn=None, fp16=None, int8=FILE)


def _record(deployment: Deployment, report: dict[str, Any]) -> None:
    """Enter the int8 graph into verification.json and, last, into deploy.yaml."""
    file = deployment.folder / VERIFICATION
    content = json.loads(file.read_text(encoding="utf-8"))
    content["files"][FILE] = file_digest(deployment.folder / FILE)
    content["int8"] = report
    with whole_file(file) as part:
        part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    save_deployment(deployment)


def _keep_more(
    attempt: Attempt, kept: list[str], groups: list[list[str]], excess: Callable[[Judgement], float]
) -> tuple[list[str], Judgement]:
    """Keep more layers in higher precision until int8 changes no more than is allowed, or half of the groups are kept.

    Args:
        attempt: Quantises all layers but some, and says what that changes.
        kept: The layers that stay in higher precision in any case.
        groups: The others.
        excess: By how much a change exceeds what is allowed.

    Returns:
        The layers in higher precision, and what int8 then changes.
    """
    found = attempt(kept)
    least = len(groups) // 2
    while excess(found) > 0 and len(groups) > least:
        tried = [attempt(kept + group) for group in tqdm(groups, "layers to keep", leave=False, disable=None)]
        ranks = [(excess(other), -other.agreement) for other in tried]
        kept = kept + groups.pop(ranks.index(min(ranks)))
        found = attempt(kept)  # whose graph is the one that is published
    return kept, found


def _packages() -> tuple[Any, Any]:
    switch_off_telemetry()
    try:
        with contextlib.redirect_stdout(None):  # nncf prints a greeting
            import nncf
            import onnx
    except ImportError as error:
        raise UserError(f"int8 needs the packages nncf and onnx ({error}): pip install nncf onnx") from error
    # Not by nncf.set_log_level, which also changes the handlers that others have put onto this logger.
    logging.getLogger("nncf").setLevel(logging.ERROR)
    return nncf, onnx


def _quantized(nncf: Any, model: Any, feed: Sequence[np.ndarray], kept: Sequence[str], target: str) -> Any:
    preset = nncf.QuantizationPreset
    name = model.graph.input[0].name
    others = {node.op_type for node in model.graph.node} - set(_PRODUCTS)
    scope = nncf.IgnoredScope(names=list(kept), types=sorted(others), validate=False)
    dataset = nncf.Dataset(feed, lambda images: {name: images})
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):  # nncf prints progress bars
        model = nncf.quantize(
            model,
            dataset,
            preset=preset.PERFORMANCE if target == "gpu" else preset.MIXED,  # zero points of 0, or of any value
            subset_size=len(feed),
            ignored_scope=scope,
        )
    if target == "gpu":
        _sign_activations(model.graph)
    return model


def _sign_activations(graph: Any) -> None:
    """Make int8 of the uint8 activations of a graph whose zero points are 0: TensorRT quantises to int8 alone."""
    from onnx import numpy_helper

    constants = {tensor.name: tensor for tensor in graph.initializer}
    quantisers = [node.input[1:3] for node in graph.node if node.op_type in ("QuantizeLinear", "DequantizeLinear")]
    for scale, zero in {tuple(names) for names in quantisers}:
        if constants[zero].data_type == constants[zero].UINT8:
            steps = numpy_helper.to_array(constants[scale]) * np.float32(255 / 127)
            zeros = np.zeros(numpy_helper.to_array(constants[zero]).shape, np.int8)
            constants[scale].CopyFrom(numpy_helper.from_array(steps, scale))
            constants[zero].CopyFrom(numpy_helper.from_array(zeros, zero))
    del graph.value_info[:]  # the types before


def _products(graph: Any) -> list[Any]:
    """Return the convolutions and the products with a constant, in the order of the graph."""
    constants = {tensor.name for tensor in graph.initializer}
    return [node for node in graph.node if node.op_type in _PRODUCTS and set(node.input[:2]) & constants]


def _kept_layers(graph: Any) -> list[str]:
    """Return the names of the layers that stay in higher precision.

    These are the products of two computed matrices, the first and the last layer, and those whose result leads to a
    softmax or whose input comes from the division of one. Products of what a Concat has put together, as merged tokens
    are, stay too: OpenVINO joins their zero points along the tokens and then cannot load the graph.
    """
    products = _products(graph)
    if not products:
        raise UserError("the graph has neither a convolution nor a product to quantise")
    producers = {name: node for node in graph.node for name in node.output}
    kept = [node.name for node in graph.node if node.op_type in _PRODUCTS and node not in products]
    kept += [products[0].name, products[-1].name]
    for node in products:
        reader = _only_reader(graph, node)
        while reader is not None and reader.op_type in _PASSES_ON:
            reader = _only_reader(graph, reader)
        producer = producers.get(node.input[0])
        while producer is not None and producer.op_type in ("Reshape", "Transpose"):
            producer = producers.get(producer.input[0])
        source = "" if producer is None else producer.op_type
        of_tokens = source == "Concat" and node.op_type != "Conv"  # images are put together along their channels
        if source == "Div" or of_tokens or (reader is not None and reader.op_type == "Softmax"):
            kept.append(node.name)
    return list(dict.fromkeys(kept))


def _only_reader(graph: Any, node: Any) -> Any:
    readers = [other for other in graph.node if node.output[0] in other.input]
    return readers[0] if len(readers) == 1 else None


def _groups(graph: Any, kept: Sequence[str], number: int) -> list[list[str]]:
    """Divide the layers that are quantised into consecutive groups."""
    rest = [node.name for node in _products(graph) if node.name not in kept]
    return [list(group) for group in np.array_split(rest, min(number, len(rest)))] if rest else []
