"""One test for every model of `list_models()`: a new model is tested without new test code."""

import numpy as np
import paddle
import pytest

import paddle_rt
from paddle_rt import registry
from paddle_rt.checkpoint import atomic_save
from paddle_rt.errors import UserError
from paddle_rt.models.base import Network
from tests.helpers import relative_error

CLASSES = 7
# Deeper variants of a network repeat its blocks: what holds for the others is tested for them by the slow tests.
DEEPER = (
    *("fanet34", "segformerpp_b2", "segformerpp_b3", "segformerpp_b4", "segformerpp_b5"),
    *("segformerpp_b1_pose", "segformerpp_b5_pose"),
)
# Their encoders are those of the segmentation networks, and their heads those of the other pose networks.
REPEATED = ("segformerpp_b2_pose", "segformerpp_b3_pose", "segformerpp_b4_pose")


def params(names: list[str]) -> list:
    marks = {name: pytest.mark.slow for name in DEEPER}
    return [pytest.param(name, marks=marks.get(name, ())) for name in names if name not in REPEATED]


def images(batch: int, height: int, width: int) -> paddle.Tensor:
    rng = np.random.default_rng([batch, height, width])
    return paddle.to_tensor(rng.standard_normal([batch, 3, height, width]).astype("float32"))


@pytest.fixture(scope="module", params=params(paddle_rt.list_models()))
def name(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def model(name):
    paddle.seed(0)
    return paddle_rt.create_model(name, num_classes=CLASSES)


@pytest.fixture(scope="module", params=params(paddle_rt.list_models(task="segmentation")))
def dense_model(request):
    """A network with a logit for each pixel and class."""
    paddle.seed(0)
    return paddle_rt.create_model(request.param, num_classes=CLASSES)


@pytest.mark.parametrize("batch, height, width", [(1, 64, 96), (2, 65, 97), (1, 32, 33), (2, 47, 31)])
def test_logits_have_the_size_of_the_image(dense_model, batch, height, width):
    dense_model.eval()
    with paddle.no_grad():
        logits = dense_model(images(batch, height, width))
        coarse = dense_model.coarse_logits(images(batch, height, width))
    assert [list(x.shape) for x in logits] == [[batch, CLASSES, height, width]]
    assert list(coarse.shape[:2]) == [batch, CLASSES] and coarse.shape[2] < height
    assert np.isfinite(logits[0].numpy()).all()


def test_logits_are_the_resized_coarse_logits(dense_model):
    model = dense_model
    model.eval()
    with paddle.no_grad():
        coarse = model.coarse_logits(images(2, 65, 97))
        full = paddle.nn.functional.interpolate(coarse, [65, 97], mode="bilinear", align_corners=model.align_corners)
        error = relative_error(full.numpy(), model(images(2, 65, 97))[0].numpy())
    assert error == 0.0, f"relative error {error:.1e}"


@pytest.mark.parametrize("height, width", [(64, 96), (65, 97), (47, 31)])
def test_the_output_stride_is_that_of_the_coarse_logits(dense_model, height, width):
    assert isinstance(dense_model, Network)
    dense_model.eval()
    with paddle.no_grad():
        coarse = dense_model.coarse_logits(images(1, height, width))
    assert list(coarse.shape[2:]) == [-(-length // dense_model.output_stride) for length in (height, width)]


def test_for_export_gives_the_same_numbers_and_leaves_the_network_alone(model):
    model.train()
    network, batch = model.for_export(), images(2, 65, 97)
    assert model.training and not any(layer.training for layer in [network, *network.sublayers()])
    assert all(layer.training for layer in model.sublayers())
    own = {id(parameter) for parameter in model.parameters()}
    assert all(id(parameter) in own for parameter in network.parameters()), "parameters are shared, not copied"
    model.eval()
    for name in ("output_stride", "align_corners", "needs_fixed_size", "near_ties", "temporal_window"):
        assert getattr(network, name) == getattr(model, name), name
    with paddle.no_grad():
        error = relative_error(network(batch)[0].numpy(), model(batch)[0].numpy())
    assert error <= 1e-6, f"relative error {error:.1e}"


def test_for_export_gives_the_same_coarse_logits(dense_model):
    dense_model.eval()
    with paddle.no_grad():
        pair = [network.coarse_logits(images(2, 65, 97)).numpy() for network in (dense_model.for_export(), dense_model)]
    error = relative_error(*pair)
    assert error <= 1e-6, f"relative error {error:.1e}"


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


def test_a_config_may_name_the_variant(name):
    entry = registry.find_entry(name)
    section = {"type": entry.class_name, "variant": entry.variant, entry.outputs: CLASSES}
    network_class, arguments = registry.network_of(section)
    assert network_class is entry.network_class() and arguments == {**entry.arguments, entry.outputs: CLASSES}
    key, value = next(iter(entry.arguments.items()))
    assert registry.network_of({**section, key: 1})[1] == {**arguments, key: 1} != arguments, "explicit ones win"
    assert registry.network_of({"type": entry.class_name, key: value})[1] == {key: value}, "PaddleSeg's style"
    assert name in paddle_rt.list_models(task=entry.task) and name not in paddle_rt.list_models(task="none")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"type": "RTFormer", "variant": "slimm"}, "unknown variant of RTFormer 'slimm', did you mean 'slim'"),
        ({"type": "RTFormer", "variant": None}, "unknown variant of RTFormer 'None'"),
        ({"type": "FANet", "variant": 19}, "unknown variant of FANet '19'"),
        ({"type": "RTFormr"}, "unknown model type 'RTFormr', did you mean 'RTFormer'"),
        ({"variant": "slim"}, "unknown model type None"),
        ({"type": "FANet", "variant": 18, "cross_size": 8}, "unknown argument of FANet 'cross_size'"),
    ],
)
def test_sections_that_describe_no_network_are_refused(section, message):
    with pytest.raises(UserError, match=message):
        registry.network_of(section)


@pytest.mark.parametrize(
    "name", {entry.class_name: name for name, entry in reversed(registry.ENTRIES.items())}.values()
)
@pytest.mark.slow
def test_a_traced_training_step_is_the_eager_one(name):
    """As `to_static_training` runs it; one variant of each class."""
    outputs = []
    for wrap in (lambda forward: forward, paddle.jit.to_static):
        paddle.seed(5)
        network = paddle_rt.create_model(name, num_classes=CLASSES)
        paddle.seed(6)
        outputs.append([output.numpy() for output in wrap(network.forward)(images(2, 64, 96))])
    error = max(relative_error(*pair) for pair in zip(*outputs, strict=True))
    assert error <= 1e-5, f"relative error {error:.1e}"


def test_unknown_names_name_the_nearest():
    with pytest.raises(UserError, match="did you mean 'rtformer_slim'"):
        paddle_rt.create_model("rtformer_slm")
    with pytest.raises(UserError, match="did you mean 'cross_size'"):
        paddle_rt.create_model("rtformer_slim", cros_size=8)
