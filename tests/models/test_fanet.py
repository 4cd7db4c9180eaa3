"""FANet against the numbers of the original, and what only video has: windows, streams, their state."""

import json
import sys

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest

import paddle_rt
from paddle_rt.errors import UserError
from paddle_rt.models.fanet import KEYS, FANet, FastAttention
from tests.helpers import SHARED, randomize, relative_error

GOLDEN = SHARED / "golden"
CLASSES = 5


def network(window: int = 1, depth: int = 18) -> FANet:
    paddle.seed(0)
    model = FANet(CLASSES, depth, window)
    randomize(model)
    model.eval()
    return model


def video(frames: int, batch: int = 1, size: tuple[int, int] = (65, 97)) -> paddle.Tensor:
    rng = np.random.default_rng([frames, batch, *size])
    return paddle.to_tensor(rng.standard_normal([batch, frames, 3, *size]).astype("float32"))


def stream(model: FANet, frames: paddle.Tensor) -> list[np.ndarray]:
    state, outputs = None, []
    with paddle.no_grad():
        for t in range(frames.shape[1]):
            coarse, state = model.stream_step(frames[:, t], state)
            outputs.append(coarse.numpy())
    return outputs


@pytest.mark.skipif(not (GOLDEN / "fanet18.npz").is_file(), reason="needs ../shared/golden/fanet18.npz")
def test_numbers_are_the_originals(monkeypatch):
    """The original's own output for weights that anyone can make again, through the converter."""
    convert = pytest.importorskip("paddle_rt.convert")
    monkeypatch.syspath_prepend(GOLDEN)
    from weights import image, weight

    monkeypatch.delitem(sys.modules, "weights")
    golden = np.load(GOLDEN / "fanet18.npz")
    meta = json.loads(str(golden["meta"]))
    state = {}
    for name, shape in json.loads(str(golden["keys"])):
        state[name] = weight(name, tuple(shape))
        if len(shape) == 1 and name.endswith(".weight"):
            state[name][::7] *= -1
    model = paddle_rt.create_model("fanet18", num_classes=19)
    convert.load_torch(model, state)
    model.eval()
    with paddle.no_grad():
        logits = model(paddle.to_tensor(image(tuple(meta["input_shape"]), meta["input_seed"])))[0].numpy()
    error = relative_error(logits[:, :, ::4, ::4], golden["logits_every_4th"])
    assert error < 1e-5, f"relative error {error:.1e}"


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_attention_is_the_papers_formula(mode, rng):
    """Three convolutions, q (k^T v), then the fourth: written out, against one convolution and another order."""
    channels, height, width = 48, 7, 9
    module = FastAttention(channels)
    randomize(module)
    getattr(module, mode)()
    x = paddle.to_tensor(rng.standard_normal([2, channels, height, width]).astype("float32"))
    parts = {"q": slice(0, KEYS), "k": slice(KEYS, 2 * KEYS), "v": slice(2 * KEYS, None)}

    def convolve(part: str) -> paddle.Tensor:
        conv, bn, rows = module.qkv.conv, module.qkv.bn, parts[part]
        values = [value[rows] for value in (bn._mean, bn._variance, bn.weight, bn.bias)]
        return F.batch_norm(F.conv2d(x, conv.weight[rows]), *values, training=mode == "train").flatten(2)

    q, k = (convolve(part) / paddle.linalg.norm(convolve(part), axis=1, keepdim=True) for part in "qk")
    v = F.leaky_relu(convolve("v"), 0.01)
    y = paddle.matmul(q.transpose([0, 2, 1]), paddle.matmul(k, v.transpose([0, 2, 1])))  # [B, h w, C]
    y = y.transpose([0, 2, 1]).reshape([2, channels, height, width])
    with paddle.no_grad():
        expected = module.latlayer3(y) + x
        error = relative_error(module(*module.read(x)).numpy(), expected.numpy())
    assert error < 1e-5, f"relative error {error:.1e}"


def test_the_map_that_is_handed_up_grows_by_two(rng):
    """The padded 1x1 convolution: a border that holds what BatchNorm makes of zero."""
    module = FastAttention(8)
    randomize(module)
    module.eval()
    up = module.up(paddle.to_tensor(rng.standard_normal([1, 8, 3, 4]).astype("float32")))
    zero = module.up.normalise(paddle.zeros([1, 4, 1, 1])).numpy()
    assert up.shape == [1, 4, 5, 6]
    assert np.array_equal(up.numpy()[:, :, :1, :1], zero)


@pytest.mark.parametrize("depth", [101, 152])
def test_depths_without_a_name_run(depth):
    model = network(depth=depth)
    with paddle.no_grad():
        assert model(video(1, size=(64, 64))[:, 0])[0].shape == [1, CLASSES, 64, 64]


@pytest.mark.parametrize("window", [1, 2, 4])
def test_a_stream_gives_what_its_clips_give(window):
    """Each frame of a stream against the clip that ends with it, computed at once, and against the whole past."""
    model, frames = network(window), video(6, batch=2, size=(33, 65))
    streamed = stream(model, frames)
    for t, coarse in enumerate(streamed):
        with paddle.no_grad():
            clip = model.coarse_logits(frames[:, max(0, t - window + 1) : t + 1]).numpy()
            past = model.coarse_logits(frames[:, : t + 1]).numpy()
            alone = model.coarse_logits(frames[:, t]).numpy()
        error = max(relative_error(coarse, clip), relative_error(coarse, past))
        assert error < 1e-5, f"frame {t}: relative error {error:.1e}"
        assert (relative_error(coarse, alone) > 0.01) == (window > 1 and t > 0), "the window has no effect"


@pytest.mark.parametrize("window", [2, 4])
def test_a_step_for_export_gives_the_same_numbers(window):
    model, frames = network(window), video(3)
    exported = model.for_export()
    state = exported_state = paddle.zeros(model.state_shape())
    assert exported.state_shape() == model.state_shape()
    with paddle.no_grad():
        for t in range(3):
            coarse, state = model.coarse_step(frames[:, t], state)
            exported_coarse, exported_state = exported.coarse_step(frames[:, t], exported_state)
            error = relative_error(exported_coarse.numpy(), coarse.numpy())
            print(f"frame {t}: relative error {error:.1e}")
            assert error <= 1e-6 and np.array_equal(exported_state.numpy(), state.numpy())


def test_a_window_of_one_is_the_network_for_images():
    frames, image = video(3), video(1)
    model = network()
    with paddle.no_grad():
        expected = model(image[:, 0])[0].numpy()
        assert np.array_equal(model(image)[0].numpy(), expected)
        assert np.array_equal(model(paddle.concat([frames, image], axis=1))[0].numpy(), expected)
        assert np.array_equal(network(4)(image[:, 0])[0].numpy(), expected), "a video's first frame"


def test_a_long_stream_does_not_drift():
    """After many frames the state is that of the last ones alone, to the bit."""
    model, frames = network(3), video(40, size=(33, 40))
    assert np.array_equal(stream(model, frames)[-1], stream(model, frames[:, -3:])[-1])


def test_clips_may_lie_in_the_channels():
    """As image transforms and evaluation want them, which know images only."""
    model, frames = network(2), video(2, batch=2)
    with paddle.no_grad():
        assert np.array_equal(model(frames.flatten(1, 2))[0].numpy(), model(frames)[0].numpy())


def test_training_on_clips_reaches_earlier_frames():
    paddle.seed(0)
    model, frames = FANet(CLASSES, temporal_window=3), video(4, batch=2)
    frames.stop_gradient = False
    outputs = model(frames)
    assert [x.shape for x in outputs] == 3 * [[2, CLASSES, 65, 97]]
    sum(x.square().mean() for x in outputs).backward()
    reached = frames.grad.abs().sum(axis=[0, 2, 3, 4]).numpy()
    assert reached[0] == 0 and (reached[1:] > 0).all(), f"gradient by frame {reached}"
    for name, parameter in model.named_parameters():
        assert parameter.stop_gradient or parameter.grad is not None and np.isfinite(parameter.grad.numpy()).all(), name


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(temporal_window=0), "temporal_window must be a whole number from 1 to 1000, got 0"),
        (dict(temporal_window=1.5), "temporal_window must be a whole number"),
        (dict(temporal_window=True), "temporal_window must be a whole number"),
        (dict(num_classes=0), "num_classes must be a whole number"),
        (dict(depth=19), "unknown depth of ResNet 19"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        paddle_rt.create_model("fanet18", **arguments)


def test_a_state_of_something_else_is_refused():
    model, frames = network(2), video(1)[:, 0]
    with paddle.no_grad():
        _, state = model.stream_step(frames)
        with pytest.raises(UserError, match=r"state is of 1 videos of \[65, 97\].*frame of 1 of \[64, 97\]"):
            model.stream_step(frames[:, :, :64], state)
        with pytest.raises(UserError, match="frame of 2 of"):
            model.stream_step(paddle.concat([frames, frames]), state)
        for other in (network(2), network(3)):
            with pytest.raises(UserError, match="comes from another FANet"):
                other.stream_step(frames, state)
    model.train()
    with pytest.raises(UserError, match=r"call eval\(\) first"):
        model.stream_step(frames)
    with pytest.raises(UserError, match="FANet takes"):
        model(paddle.zeros([1, 4, 32, 32]))


def test_weights_of_a_classifier_start_the_trunk(tmp_path):
    """torchvision's and paddle.vision's ResNet: no prefix, a classifier, no shortcut where they have no stride."""
    trunk = network().resnet.state_dict()
    state = {k: v.numpy() for k, v in trunk.items() if not k.startswith("layer1.0.downsample")}
    paddle.save({**state, "fc.weight": np.zeros([3], "float32")}, str(tmp_path / "w.pdparams"))
    model = FANet(3, pretrained=str(tmp_path / "w.pdparams"))
    assert np.array_equal(model.resnet.layer4[1].conv2.weight.numpy(), trunk["layer4.1.conv2.weight"].numpy())
    del state["layer2.0.conv1.weight"]
    paddle.save(state, str(tmp_path / "w.pdparams"))
    with pytest.raises(UserError, match="resnet.layer2.0.conv1.weight"):
        FANet(3, pretrained=str(tmp_path / "w.pdparams"))
