"""Numbers that are not finite end a run with one line before they do harm."""

import re

import numpy as np
import paddle
import pytest

from paddle_rt.training.finite import MOST_SKIPPED, FiniteCheck, norm
from tests.helpers import message, run_python, tiny_config
from tests.training.toy import BrightnessNetwork


def with_gradients(value: float, may_skip: bool) -> tuple[FiniteCheck, BrightnessNetwork]:
    network = BrightnessNetwork()
    for parameter in network.parameters():
        parameter.grad = paddle.full(parameter.shape, value)
    return FiniteCheck(network, may_skip), network


def set_gradients(network: BrightnessNetwork, value: float) -> None:
    for parameter in network.parameters():
        parameter.grad = paddle.full(parameter.shape, value)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
def test_norm(dtype):
    """Squares beyond the largest number in half precision are no error."""
    arrays = [np.linspace(-300, 500, 40).reshape(4, 10), np.full([3], 1000.0)]
    expected = np.sqrt(sum((array**2).sum() for array in arrays))
    found = norm([paddle.to_tensor(array).astype(dtype) for array in arrays])
    error = abs(found - expected) / expected
    print(f"{dtype}: {error:.1e}")
    assert error < (1e-6 if dtype in ("float32", "float64") else 1e-2)
    assert not np.isfinite(norm([paddle.to_tensor([1.0, float("nan")]).astype(dtype)]))


def test_gradients_end_a_run():
    check, network = with_gradients(1.0, may_skip=False)
    assert np.isfinite(check.gradients(1))
    set_gradients(network, float("inf"))
    assert "the norm of the gradients is inf at iteration 2" in message(check.gradients, 2)


def test_skipped_steps_are_no_error_but_endless_skipping_is():
    check, network = with_gradients(1.0, may_skip=True)
    for _ in range(3):
        set_gradients(network, float("nan"))
        for iteration in range(MOST_SKIPPED):
            check.gradients(iteration)
        set_gradients(network, 1.0)
        check.gradients(MOST_SKIPPED)
    check.loss(float("nan"), 5)
    set_gradients(network, float("nan"))
    for iteration in range(MOST_SKIPPED):
        check.gradients(iteration)
    assert f"the gradients of {MOST_SKIPPED + 1} steps in a row are not finite" in message(check.gradients, 9)


@pytest.mark.parametrize("name", ["head.weight", "norm._variance"])
@pytest.mark.parametrize("may_skip", [False, True])
def test_weights_and_statistics_are_named(name, may_skip):
    check, network = with_gradients(1.0, may_skip)
    check.weights(1)
    value = network.state_dict()[name]
    value.set_value(paddle.full_like(value, float("nan")))
    assert f"{name} is not finite at iteration 2" in message(check.weights, 2)


def run(check: FiniteCheck, network: BrightnessNetwork, images: paddle.Tensor) -> None:
    with check.forward(images, 3):
        network(images)


def test_layers_of_a_compiled_network():
    check, network = with_gradients(1.0, may_skip=False)
    paddle.jit.to_static(network)
    network.conv.weight.set_value(paddle.full_like(network.conv.weight, 1e18))
    check.weights(2)
    network.conv.weight.set_value(paddle.full_like(network.conv.weight, 1e36))
    assert "the output of conv is not finite at iteration 3" in message(
        run, check, network, paddle.rand([2, 3, 8, 8]) * 1e3
    )


def test_images_and_outputs_of_layers():
    check, network = with_gradients(1.0, may_skip=False)
    images = paddle.rand([2, 3, 8, 8])
    run(check, network, images)
    assert "the images of iteration 3 hold numbers" in message(run, check, network, images / 0.0)
    network.conv.weight.set_value(paddle.full_like(network.conv.weight, 1e18))
    check.weights(2)
    run(check, network, images)
    network.conv.weight.set_value(paddle.full_like(network.conv.weight, 1e36))
    assert "the output of conv is not finite at iteration 3" in message(run, check, network, images * 1e3)
    assert not network.conv._forward_post_hooks


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["paddle_rt", "paddleseg"])
def test_both_loops_end_before_memory_is_corrupted(loop, tmp_path):
    """The loss is finite while what an adaptive max pooling takes is not."""
    config = tiny_config(tmp_path)
    flags = ["-c", config, "--device", "cpu", "--save_dir", tmp_path / "out", "--seed", 1, "--learning_rate", 1e9]
    done = run_python("tools/train.py", *flags, "--loop", loop)
    assert done.returncode == 1 and re.search(r"^error: .* at iteration 2: try a lower", done.stderr, re.M), done.stderr
