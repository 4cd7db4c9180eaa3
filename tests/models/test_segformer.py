"""SegFormer++ without merging: PaddleSeg's SegFormer by name and number; the fuse convolution as the papers have it."""

import functools
import types

import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from paddle.nn.initializer import Constant, set_global_initializer
from paddleseg.models import SegFormer
from paddleseg.models.backbones import mix_transformer

import paddle_rt
from paddle_rt.errors import UserError
from paddle_rt.models import segformer
from paddle_rt.models.segformer import SegFormerPlusPlus
from paddle_rt.registry import ENTRIES
from tests.helpers import randomize, relative_error

CLASSES = 5
NAMED = [name for name, entry in ENTRIES.items() if entry.class_name == "SegFormerPlusPlus"]
TINY = dict(num_classes=CLASSES, embed_dim=8, depths=(1, 1, 1, 1), head_channels=16, drop_path_rate=0.0)
Step = tuple[np.ndarray, dict[str, np.ndarray], dict[str, np.ndarray]]


@pytest.fixture
def uninitialised(monkeypatch):
    """Networks of constants, in a fraction of the time: their values are set afterwards."""
    monkeypatch.setattr(segformer, "_initialize", lambda layer: None)
    monkeypatch.setattr(mix_transformer, "trunc_normal_", lambda weight: None)
    nothing = types.SimpleNamespace(Normal=lambda *settings: lambda weight: None)
    monkeypatch.setattr(mix_transformer, "paddle_init", nothing)
    set_global_initializer(Constant(0.0))
    yield
    set_global_initializer(None)


@pytest.fixture
def float64():
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


def pair(name: str) -> tuple[SegFormer, SegFormerPlusPlus]:
    """PaddleSeg's network and ours with the same values, and the assertion that they have the same parameters."""
    backbone = getattr(mix_transformer, f"MixVisionTransformer_{name[-2:].upper()}")()
    theirs = SegFormer(CLASSES, backbone, 256 if name[-2:] in ("b0", "b1") else 768)
    return share_values(theirs, paddle_rt.create_model(name, CLASSES, head="mlp"))


def narrow_pair(depths: tuple[int, ...]) -> tuple[SegFormer, SegFormerPlusPlus]:
    """The same for a narrow network of these depths."""
    backbone = mix_transformer.MixVisionTransformer(
        embed_dims=[8, 16, 40, 64], num_heads=[1, 2, 5, 8], mlp_ratios=[4] * 4, qkv_bias=True, depths=list(depths),
        norm_layer=functools.partial(paddle.nn.LayerNorm, epsilon=1e-6), drop_path_rate=0.1,
    )  # fmt: skip
    ours = SegFormerPlusPlus(CLASSES, 8, depths, head="mlp", head_channels=16)
    return share_values(SegFormer(CLASSES, backbone, 16), ours)


def share_values(theirs: SegFormer, ours: SegFormerPlusPlus) -> tuple[SegFormer, SegFormerPlusPlus]:
    values, own = theirs.state_dict(), ours.state_dict()
    assert {n: v.shape for n, v in own.items()} == {n: v.shape for n, v in values.items()}
    pool = np.random.default_rng(0).standard_normal(65537)  # a prime length: no two rows are alike
    for key, value in values.items():
        new = np.resize(pool, value.shape)
        if key.endswith("_variance"):
            new = abs(new) + 0.5
        elif new.ndim == 1:
            new = 0.1 * new + key.endswith("weight")
        else:
            new *= np.prod(new.shape[1:]) ** -0.5
        value.set_value(new.astype(value.numpy().dtype))
        own[key].set_value(value)
    return theirs, ours


def noise(*shape: int) -> paddle.Tensor:
    values = np.random.default_rng(list(shape)).standard_normal(shape)
    return paddle.to_tensor(values.astype(paddle.get_default_dtype()))


def train_step(model, images: paddle.Tensor, forward) -> Step:
    """Logits, gradients of a fixed linear function of them, and the BatchNorm statistics afterwards."""
    model.clear_gradients()
    output = forward(images)
    output = output[0] if isinstance(output, list) else output
    (output * noise(*output.shape)).sum().backward()
    gradients = {n: p.grad.numpy().copy() for n, p in model.named_parameters() if not p.stop_gradient}
    statistics = {n: v.numpy().copy() for n, v in model.state_dict().items() if n.endswith(("_mean", "_variance"))}
    return output.numpy(), gradients, statistics


def worst(result: dict[str, np.ndarray], reference: dict[str, np.ndarray]) -> tuple[float, str]:
    """Largest error of an entry relative to its own norm, or to a millionth of all where its true value is zero.

    A bias in front of a BatchNorm in training is such an entry.
    """
    assert set(result) == set(reference)
    least = 1e-6 * np.sqrt(sum(np.linalg.norm(value) ** 2 for value in reference.values()))
    return max(
        (float(np.linalg.norm(result[n] - value) / max(np.linalg.norm(value), least)), n)
        for n, value in reference.items()
    )


@pytest.mark.parametrize("name", NAMED)
def test_names_shapes_and_outputs_are_paddlesegs(name, uninitialised):
    images = noise(1, 3, 32, 64)
    theirs, ours = pair(name)
    theirs.eval(), ours.eval()
    with paddle.no_grad():
        error = relative_error(ours(images)[0].numpy(), theirs(images)[0].numpy())
    assert error <= 1e-5, f"relative error {error:.1e}"


@pytest.mark.parametrize("name", NAMED)
def test_a_training_step_is_paddlesegs(name, uninitialised, float64):
    """With every random choice: one seed drops the same paths and the same channels in both networks.

    In float64, where no rounding turns a ReLU on or off. The three deepest networks are narrow ones of their depths.
    """
    images, results = noise(2, 3, 32, 64), []
    deep = name in ("segformerpp_b3", "segformerpp_b4", "segformerpp_b5")
    for model in narrow_pair(ENTRIES[name].arguments["depths"]) if deep else pair(name):
        model.train()
        paddle.seed(1)
        results.append(train_step(model, images, model.forward))
    theirs, ours = results
    error = relative_error(ours[0], theirs[0])
    assert error <= 1e-9, f"output: relative error {error:.1e}"
    for what, result, reference in zip(("gradient", "statistic"), ours[1:], theirs[1:], strict=True):
        error, key = worst(result, reference)
        assert error <= 1e-9, f"{what} of {key}: relative error {error:.1e}"


def original_logits(model: SegFormerPlusPlus, images: paddle.Tensor) -> paddle.Tensor:
    """The head as the originals write it: every level at the first one's size, concatenated, convolved, normalised."""
    features, levels = model.backbone(images), []
    for number, feature in enumerate(features, 1):
        level = getattr(model, f"linear_c{number}")
        if isinstance(level, segformer.LinearLevel):
            mapped = level.proj(feature.transpose([0, 2, 3, 1])).transpose([0, 3, 1, 2])
        else:
            mapped = F.relu(level._batch_norm(level._conv(feature)))
        levels.append(F.interpolate(mapped, features[0].shape[2:], mode="bilinear", align_corners=False))
    if isinstance(model.linear_c1, segformer.LinearLevel):
        levels.reverse()  # NVlabs concatenates the deepest level first, MMSegmentation the finest
    fuse = model.linear_fuse
    return model.linear_pred(model.dropout(F.relu(fuse._batch_norm(fuse._conv(paddle.concat(levels, axis=1))))))


def fused_and_original(head: str, mode: str, size: tuple[int, int]) -> tuple[dict[str, np.ndarray], Step, Step]:
    """Values before, and what `train_step` gives, by our formulation and by the original's."""
    model = SegFormerPlusPlus(head=head, **TINY)
    randomize(model)
    getattr(model, mode)()
    values = {name: value.numpy().copy() for name, value in model.state_dict().items()}
    results = []
    for logits in (SegFormerPlusPlus.coarse_logits, original_logits):
        model.set_state_dict(values)
        paddle.seed(1)
        results.append(train_step(model, noise(2, 3, *size), functools.partial(logits, model)))
    return values, *results


@pytest.mark.parametrize("size", [(64, 96), (65, 99)])
@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("head", ["mlp", "conv"])
def test_fusing_before_enlarging_is_exact(head, mode, size, float64):
    """Outputs, every gradient and the running statistics, in float64, where no rounding turns a ReLU on or off."""
    values, fused, original = fused_and_original(head, mode, size)
    error = relative_error(fused[0], original[0])
    assert error <= 1e-10, f"output: relative error {error:.1e}"
    for what, result, reference in zip(("gradient", "statistic"), fused[1:], original[1:], strict=True):
        error, name = worst(result, reference)
        assert error <= 1e-9, f"{what} of {name}: relative error {error:.1e}"
    moved = any((fused[2][name] != values[name]).any() for name in fused[2])
    assert moved == (mode == "train"), "running statistics move while training and only then"


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("head", ["mlp", "conv"])
def test_fusing_before_enlarging_keeps_the_numbers_in_float32(head, mode):
    _, fused, original = fused_and_original(head, mode, (65, 99))
    errors = relative_error(fused[0], original[0]), *worst(fused[2], original[2])
    assert max(errors[:2]) <= 1e-5, f"relative error of the output {errors[0]:.1e}, of {errors[2]} {errors[1]:.1e}"


def test_weights_of_paddlesegs_encoder_start_ours(tmp_path):
    """With PaddleSeg's names, with or without the classifier of the pretraining; never in part."""
    settings = dict(embed_dims=[8, 16, 40, 64], num_heads=[1, 2, 5, 8], depths=[1, 1, 1, 1], qkv_bias=True)
    encoder = mix_transformer.MixVisionTransformer(**settings)
    randomize(encoder)
    state = {name: value.numpy() for name, value in encoder.state_dict().items()}
    file = str(tmp_path / "mit.pdparams")
    for extra in ({}, {"head.weight": np.zeros([64, 9], "float32"), "head.bias": np.zeros([9], "float32")}):
        paddle.save({**state, **extra}, file)
        for head in ("mlp", "conv"):
            model = SegFormerPlusPlus(head=head, pretrained=file, **TINY)
            loaded = {name: value.numpy() for name, value in model.backbone.state_dict().items()}
            assert set(loaded) == set(state) and all(np.array_equal(loaded[name], state[name]) for name in state)

    del state["block3.0.attn.sr.weight"]
    paddle.save(state, file)
    with pytest.raises(UserError, match="backbone.block3.0.attn.sr.weight"):
        SegFormerPlusPlus(pretrained=file, **TINY)


def test_weights_of_a_whole_network_start_another(tmp_path):
    """The head goes along where it fits: the same kind, and its last layer only for as many classes."""
    source = SegFormerPlusPlus(head="mlp", **TINY)
    file = str(tmp_path / "model.pdparams")
    paddle.save(source.state_dict(), file)
    given = {name: value.numpy() for name, value in source.state_dict().items()}
    for head, classes in (("mlp", CLASSES), ("mlp", 3), ("conv", CLASSES)):
        model = SegFormerPlusPlus(head=head, pretrained=file, **{**TINY, "num_classes": classes})
        taken = {n for n, v in model.state_dict().items() if n in given and np.array_equal(v.numpy(), given[n])}
        weights = {n for n in given if n.startswith("backbone.") and n.endswith("weight")}
        assert weights <= taken, "the encoder is taken whole"
        assert ("linear_c2.proj.weight" in taken) == (head == "mlp")
        assert ("linear_pred.weight" in taken) == (classes == CLASSES)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(head="mpl"), "unknown head 'mpl', did you mean 'mlp'"),
        (dict(head=None), "head must be a text, got None"),
        (dict(head_channels=0), "head_channels must be null or a whole number from 1 to 65536, got 0"),
        (dict(head_channels=2.5), "head_channels must be null or a whole number"),
        (dict(num_classes=0), "num_classes must be a whole number"),
        (dict(num_classes=True), "num_classes must be a whole number"),
        (dict(in_channels=0), "in_channels must be a whole number"),
        (dict(embed_dim=-8), "embed_dim must be a whole number"),
        (dict(depths=(2, 2, 2)), r"depths must be four whole numbers from 1 to 1000, got \(2, 2, 2\)"),
        (dict(depths=2), "depths must be four whole numbers from 1 to 1000, got 2"),
        (dict(depths=(2, 2, 0, 2)), r"depths must be four whole numbers from 1 to 1000, got \(2, 2, 0, 2\)"),
        (
            dict(num_heads=(1, 2, 5, 8, 8)),
            r"num_heads must be four whole numbers from 1 to 1000, got \(1, 2, 5, 8, 8\)",
        ),
        (dict(num_heads=(1, 2, 5, "8")), r"num_heads must be four whole numbers from 1 to 1000, got \(1, 2, 5, '8'\)"),
        (dict(drop_path_rate=1.0), "drop_path_rate must be a number of at least 0 and below 1"),
        (dict(drop_path_rate=-0.1), "drop_path_rate must be a number of at least 0 and below 1"),
        (dict(matching_every=0), "matching_every must be a whole number"),
        (dict(token_merging="bsm"), "unknown token_merging 'bsm', did you mean 'bsm_"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        SegFormerPlusPlus(**{**TINY, **arguments})


def test_the_last_blocks_drop_most():
    """Stochastic depth grows linearly over all blocks of all stages."""
    model = SegFormerPlusPlus(**{**TINY, "depths": (1, 2, 1, 1), "drop_path_rate": 0.2})
    rates = [layer.drop_path.rate for layer in model.sublayers() if isinstance(layer, segformer.Block)]
    assert np.allclose(rates, [0.0, 0.05, 0.1, 0.15, 0.2])


@pytest.mark.parametrize("head", ["mlp", "conv"])
def test_a_traced_head_is_the_same(head):
    """By the way to trace that rewrites the code, which `paddle.jit.save` takes."""
    model = SegFormerPlusPlus(head=head, **TINY)
    model.eval()
    with paddle.no_grad():
        features = model.backbone(noise(1, 3, 33, 64))
        traced = paddle.jit.to_static(model._fuse, full_graph=True)(features)
        error = relative_error(traced.numpy(), model._fuse(features).numpy())
    assert error <= 1e-5, f"relative error {error:.1e}"


@pytest.mark.parametrize("token_merging, least", [(None, 29), ("downsample", 58)])
def test_images_too_small_for_keys_are_refused(token_merging, least):
    """Paddle makes empty maps of them, and attention to nothing, without a word."""
    model = SegFormerPlusPlus(token_merging=token_merging, **TINY)
    assert model(noise(1, 3, least, least))[0].shape == [1, CLASSES, least, least]
    for size in ((least - 1, 96), (96, least - 1)):
        with pytest.raises(UserError, match=rf"images of at least {least} x {least}, got \[{size[0]}, {size[1]}\]"):
            model(noise(1, 3, *size))
