"""Layers by the project's kernels against Paddle's own: outputs and gradients, in any size."""

import numpy as np
import paddle
import pytest

import paddle_rt
from paddle_rt.models import cpu_layers, segformer
from paddle_rt.models.cpu_layers import cross_entropy, depthwise_3x3, paddles_layers, resize_bilinear
from paddle_rt.models.layers import to_map, to_tokens
from tests.helpers import relative_error

SIZES = [(1, 1), (1, 2), (2, 1), (1, 7), (7, 1), (2, 2), (3, 5), (6, 9)]
NAMES = ("output", "tokens", "weight", "bias")


def paddles(tokens: paddle.Tensor, size, weight: paddle.Tensor, bias: paddle.Tensor) -> paddle.Tensor:
    channels = weight.shape[0]
    return to_tokens(paddle.nn.functional.conv2d(to_map(tokens, size), weight, bias, padding=1, groups=channels))


def values(batch: int, size: tuple[int, int], channels: int) -> list[np.ndarray]:
    """Tokens, weight, bias, and the gradient of the output."""
    rng, length = np.random.default_rng(0), size[0] * size[1]
    shapes = (batch, length, channels), (channels, 1, 3, 3), (channels,), (batch, length, channels)
    return [rng.standard_normal(shape).astype("float32") for shape in shapes]


def differentiate(function, size, arrays, dtype="float32", wants=(True, True, True)) -> dict[str, np.ndarray]:
    *arguments, gradient = (paddle.to_tensor(array, dtype) for array in arrays)
    for tensor, is_wanted in zip(arguments, wants, strict=True):
        tensor.stop_gradient = not is_wanted
    output = function(arguments[0], size, *arguments[1:])
    output.backward(gradient)
    gradients = [tensor.grad for tensor in arguments]
    found = dict(zip(NAMES, [output, *gradients], strict=True))
    return {name: tensor.numpy() for name, tensor in found.items() if tensor is not None}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("size", SIZES)
def test_depthwise_is_paddles_in_double_precision(size, threads, monkeypatch):
    monkeypatch.setattr(cpu_layers, "paddle_threads", lambda: threads)
    arrays = values(2, size, 5)
    ours = differentiate(depthwise_3x3, size, arrays)
    reference = differentiate(paddles, size, arrays, "float64")
    errors = {name: relative_error(ours[name], reference[name]) for name in NAMES}
    assert max(errors.values()) <= 1e-6, errors


def test_depthwise_has_no_larger_error_than_paddles_on_a_large_map():
    arrays = values(1, (40, 50), 8)
    reference = differentiate(paddles, (40, 50), arrays, "float64")
    ours, theirs = (differentiate(function, (40, 50), arrays) for function in (depthwise_3x3, paddles))
    for name in NAMES:
        error, allowed = (relative_error(result[name], reference[name]) for result in (ours, theirs))
        assert error <= max(allowed, 1e-6), f"{name}: error {error:.1e}, Paddle's {allowed:.1e}"


@pytest.mark.parametrize("wants", [(True, False, False), (False, True, False), (False, False, True)])
def test_only_the_wanted_gradients_are_computed(wants):
    arrays = values(1, (3, 4), 2)
    ours = differentiate(depthwise_3x3, (3, 4), arrays, wants=wants)
    reference = differentiate(paddles, (3, 4), arrays, "float64", wants)
    assert set(ours) == set(reference)
    errors = {name: relative_error(ours[name], reference[name]) for name in ours}
    assert max(errors.values()) <= 1e-6, errors


def test_tokens_need_not_be_contiguous():
    arrays = values(2, (3, 4), 6)
    tokens, weight, bias, _ = (paddle.to_tensor(array) for array in arrays)
    view = paddle.to_tensor(np.concatenate([arrays[0], arrays[0]]).transpose(0, 2, 1).copy()).transpose([0, 2, 1])[2:]
    assert not view.is_contiguous()
    error = relative_error(depthwise_3x3(view, (3, 4), weight, bias).numpy(), paddles(tokens, (3, 4), weight, bias))
    assert error <= 1e-6, f"relative error {error:.1e}"


def test_a_batch_may_be_empty_and_a_broken_number_stays_one():
    tokens, weight, bias, _ = (paddle.to_tensor(array) for array in values(1, (2, 2), 3))
    assert depthwise_3x3(tokens[:0], (2, 2), weight, bias).shape == [0, 4, 3]
    tokens[0, 0, 0] = float("nan")
    assert paddle.isnan(depthwise_3x3(tokens, (2, 2), weight, bias)).any()


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(1, 1), (2, 9), (5, 7), (12, 20), (19, 33), (3, 2)])
@pytest.mark.parametrize("coarse", [(1, 1), (1, 5), (5, 7), (6, 10)])
def test_resizing_is_paddles_in_double_precision(coarse, size, align_corners, monkeypatch):
    monkeypatch.setattr(cpu_layers, "paddle_threads", lambda: 2)
    rng, results = np.random.default_rng(0), {}
    maps, gradient = rng.standard_normal((2, 3, *coarse)), rng.standard_normal((2, 3, *size))

    def paddles_resize(x: paddle.Tensor, size: tuple[int, int], align_corners: bool) -> paddle.Tensor:
        return paddle.nn.functional.interpolate(x, size=size, mode="bilinear", align_corners=align_corners)

    for function, dtype in ((resize_bilinear, "float32"), (paddles_resize, "float64")):
        x = paddle.to_tensor(maps, dtype, stop_gradient=False)
        output = function(x, size, align_corners)
        output.backward(paddle.to_tensor(gradient, dtype))
        results[dtype] = output.numpy(), x.grad.numpy()
    errors = [relative_error(*pair) for pair in zip(results["float32"], results["float64"], strict=True)]
    assert max(errors) <= 1e-6, f"relative errors {errors[0]:.1e} and {errors[1]:.1e}"


LOGITS = [(1, (2, 3), 1), (2, (1, 1), 5), (19, (5, 37), 3), (4, (3, 9), 90)]


@pytest.mark.parametrize(("classes", "size", "spread"), LOGITS)
def test_cross_entropy_is_that_of_double_precision(classes, size, spread, monkeypatch):
    """NumPy is the reference, since Paddle cuts the loss of a pixel off at 64."""
    monkeypatch.setattr(cpu_layers, "paddle_threads", lambda: 2)
    rng = np.random.default_rng(0)
    logits = (spread * rng.standard_normal((2, classes, *size))).astype("float32")
    labels, weight = rng.integers(0, classes, (2, *size)), rng.standard_normal((2, *size)).astype("float32")
    mask = rng.random(labels.shape) < 0.8
    x = paddle.to_tensor(logits, stop_gradient=False)
    loss = cross_entropy(x, paddle.to_tensor(np.where(mask, labels, 255)), 255)
    loss.backward(paddle.to_tensor(weight))
    exact = logits.astype("float64")
    total = np.log(np.exp(exact - exact.max(1, keepdims=True)).sum(1)) + exact.max(1)
    expected = (total - np.take_along_axis(exact, labels[:, None], 1)[:, 0]) * mask
    is_label = np.moveaxis(np.eye(classes)[labels], -1, 1)
    gradient = (np.exp(exact - total[:, None]) - is_label) * (weight * mask)[:, None]
    for name, ours, reference in (("loss", loss, expected), ("gradient", x.grad, gradient)):
        error = relative_error(ours.numpy(), reference)
        assert error <= 1e-6, f"{name}: relative error {error:.1e}"


@pytest.mark.parametrize("broken", [np.nan, np.inf])
@pytest.mark.parametrize("place", [0, 2])
def test_a_broken_logit_breaks_the_loss_and_the_gradient(broken, place):
    logits = np.zeros((1, 3, 2, 2), np.float32)
    logits[0, place, 0, 0] = broken
    x = paddle.to_tensor(logits, stop_gradient=False)
    loss = cross_entropy(x, paddle.ones([1, 2, 2], "int64"), 255)
    loss.sum().backward()
    assert not np.isfinite(loss.numpy()[0, 0, 0]) and np.isfinite(loss.numpy()[0, 1]).all()
    assert not np.isfinite(x.grad.numpy()[0, :, 0, 0]).all()


def test_a_label_that_is_no_class_is_refused():
    with pytest.raises(ValueError, match="label 3 is none of the 3 classes"):
        cross_entropy(paddle.zeros([1, 3, 2, 2]), paddle.full([1, 2, 2], 3, "int64"), 255)


def test_a_training_step_of_segformer_is_that_with_paddles_layers(monkeypatch):
    network = paddle_rt.create_model("segformerpp_b0", num_classes=3, embed_dim=8, head_channels=16, drop_path_rate=0.0)
    network.train()
    network.dropout.eval()
    images = paddle.to_tensor(np.random.default_rng(0).standard_normal((2, 3, 40, 56)).astype("float32"))

    def gradients() -> dict[str, np.ndarray]:
        return {n: p.grad.numpy().copy() for n, p in network.named_parameters() if not p.stop_gradient}

    def step() -> dict[str, np.ndarray]:
        network.clear_gradients()
        logits = network(images)[0]
        (logits * paddle.to_tensor(np.random.default_rng(1).standard_normal(logits.shape), "float32")).sum().backward()
        return {"logits": logits.numpy(), **gradients()}

    calls = []
    monkeypatch.setattr(segformer, "depthwise_3x3", lambda *arguments: calls.append(1) or depthwise_3x3(*arguments))
    ours = step()
    assert len(calls) == 8
    with paddle.no_grad():
        network(images)
    assert len(calls) == 8, "Paddle's operators evaluate"
    with paddles_layers():
        reference = step()
    assert len(calls) == 8
    norm = np.sqrt(sum(np.linalg.norm(value) ** 2 for value in reference.values()))
    errors = {n: np.linalg.norm(ours[n] - value) / norm for n, value in reference.items()}
    assert max(errors.values()) <= 1e-5, max(errors.items(), key=lambda item: item[1])
