"""One test for every model of `list_models()`: a new model is tested without new test code."""

import numpy as np
import paddle
import pytest

import paddle_rt
from paddle_rt.checkpoint import atomic_save
from paddle_rt.errors import UserError
from tests.helpers import relative_error

CLASSES = 7
MODELS = paddle_rt.list_models()


def images(batch: int, height: int, width: int) -> paddle.Tensor:
    rng = np.random.default_rng([batch, height, width])
    return paddle.to_tensor(rng.standard_normal([batch, 3, height, width]).astype("float32"))


@pytest.fixture(scope="module", params=MODELS)
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name):
    paddle.seed(0)
    return paddle_rt.create_model(name, num_classes=CLASSES)


@pytest.mark.parametrize("batch, height, width", [(1, 64, 96), (2, 65, 97), (1, 32, 33), (2, 47, 31)])
def test_logits_have_the_size_of_the_image(model, batch, height, width):
    model.eval()
    with paddle.no_grad():
        logits = model(images(batch, height, width))
        coarse = model.coarse_logits(images(batch, height, width))
    assert [list(x.shape) for x in logits] == [[batch, CLASSES, height, width]]
    assert list(coarse.shape[:2]) == [batch, CLASSES] and coarse.shape[2] < height
    assert np.isfinite(logits[0].numpy()).all()


def test_logits_are_the_resized_coarse_logits(model):
    model.eval()
    with paddle.no_grad():
        coarse = model.coarse_logits(images(2, 65, 97))
        full = paddle.nn.functional.interpolate(
            coarse, [65, 97], mode="bilinear", align_corners=model.coarse_align_corners
        )
        error = relative_error(full.numpy(), model(images(2, 65, 97))[0].numpy())
    assert error == 0.0, f"relative error {error:.1e}"


def test_every_parameter_gets_a_finite_gradient(model):
    model.train()
    outputs = model(images(2, 65, 97))
    weight = paddle.to_tensor(np.random.default_rng(1).standard_normal(outputs[0].shape).astype("float32"))
    sum((output * weight).sum() for output in outputs).backward()
    gradients = {n: p.grad for n, p in model.named_parameters() if not p.stop_gradient}
    without = [n for n, g in gradients.items() if g is None]
    broken = [n for n, g in gradients.items() if g is not None and not np.isfinite(g.numpy()).all()]
    model.clear_gradients()
    assert not without and not broken, f"no gradient: {without}, not finite: {broken}"


def test_a_batch_gives_what_its_images_give(model):
    model.eval()
    batch = images(2, 64, 96)
    with paddle.no_grad():
        together = model(batch)[0].numpy()
        alone = np.concatenate([model(batch[i : i + 1])[0].numpy() for i in range(2)])
    error = relative_error(together, alone)
    assert error < 1e-5, f"relative error {error:.1e}"


def test_saved_and_loaded_it_is_the_same(model, name, tmp_path):
    atomic_save(model.state_dict(), tmp_path / "model.pdparams")
    again = paddle_rt.create_model(name, num_classes=CLASSES, checkpoint=tmp_path / "model.pdparams")
    model.eval(), again.eval()
    with paddle.no_grad():
        error = relative_error(again(images(1, 64, 96))[0].numpy(), model(images(1, 64, 96))[0].numpy())
    assert error == 0.0, f"relative error {error:.1e}"


def test_one_seed_gives_one_model(name):
    def build_and_run() -> tuple[np.ndarray, np.ndarray]:
        paddle.seed(3)
        model = paddle_rt.create_model(name, num_classes=CLASSES)
        trained = model(images(2, 64, 96))[0].numpy()
        model.eval()
        return trained, model(images(2, 64, 96))[0].numpy()

    for first, second in zip(build_and_run(), build_and_run(), strict=True):
        assert np.array_equal(first, second), f"largest difference {np.abs(first - second).max()}"


def test_unknown_names_name_the_nearest():
    with pytest.raises(UserError, match="did you mean 'rtformer_slim'"):
        paddle_rt.create_model("rtformer_slm")
    with pytest.raises(UserError, match="did you mean 'cross_size'"):
        paddle_rt.create_model("rtformer_slim", cros_size=8)
