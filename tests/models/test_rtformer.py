"""RTFormer against PaddleSeg's, and what ours does differently."""

import itertools

import numpy as np
import paddle
import pytest
from paddleseg.models.rtformer import RTFormer as PaddleSegRTFormer

import paddle_rt
from paddle_rt.checkpoint import load
from paddle_rt.errors import UserError
from paddle_rt.models.layers import DropPath
from paddle_rt.models.layers_export import GatheredMaxPool2D
from paddle_rt.models.rtformer import INTENDED_BN_MOMENTUM, RTFormer
from paddle_rt.registry import ENTRIES
from tests.helpers import TINY, randomize, relative_error

SMALL = dict(num_classes=5, base_channels=16, head_channels=16, spp_channels=16, drop_path_rate=0.0)
CASES = [  # cross_size, num_heads, in_channels, size, batch
    (12, 8, 3, (97, 131), 2),
    (12, 1, 4, (64, 96), 1),
    (12, 2, 1, (96, 96), 2),
    (12, 4, 3, (50, 75), 1),
    (8, 4, 3, (64, 128), 1),
    (8, 2, 3, (65, 33), 2),
    (8, 8, 4, (75, 50), 1),
    (8, 1, 1, (96, 64), 2),
]
OTHERS = [  # arguments away from their defaults
    dict(layer_nums=[1, 1, 1, 1]),
    dict(layer_nums=[3, 4, 6, 3]),
    dict(spp_channels=40),
    dict(head_channels=20),
    dict(use_aux_head=False),
    dict(base_channels=24),
]


@pytest.fixture
def float64():
    paddle.set_default_dtype("float64")
    yield
    paddle.set_default_dtype("float32")


def pair(**arguments):
    arguments = {**SMALL, **arguments}
    theirs, ours = PaddleSegRTFormer(**arguments), RTFormer(**arguments)
    randomize(theirs)
    load(ours, {name: value.numpy() for name, value in theirs.state_dict().items()})
    return theirs, ours


def run(model, images: np.ndarray, mode: str) -> tuple[list[np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Outputs, gradients of a fixed linear function of them, and the BatchNorm statistics afterwards."""
    getattr(model, mode)()
    outputs = model(paddle.to_tensor(images))
    weight = np.random.default_rng(2).standard_normal(outputs[0].shape).astype(images.dtype)
    sum((output * paddle.to_tensor(weight)).sum() for output in outputs).backward()
    gradients = {name: p.grad.numpy() for name, p in model.named_parameters() if p.grad is not None}
    statistics = {n: v.numpy() for n, v in model.state_dict().items() if n.endswith(("_mean", "_variance"))}
    return [output.numpy() for output in outputs], gradients, statistics


def worst(ours: dict, theirs: dict) -> tuple[float, str]:
    """Largest error of an entry relative to its own norm, or to a millionth of all where its true value is zero."""
    assert list(ours) == list(theirs)
    scale = np.sqrt(sum(np.linalg.norm(value) ** 2 for value in theirs.values()))
    errors = {
        name: np.linalg.norm(ours[name] - value) / max(np.linalg.norm(value), 1e-6 * scale)
        for name, value in theirs.items()
    }
    return max((error, name) for name, error in errors.items())


def assert_equal_in_float64(images: np.ndarray, mode: str, **arguments) -> None:
    """Outputs, every gradient and every statistic of both models agree."""
    theirs, ours = pair(in_channels=images.shape[1], **arguments)
    reference, result = run(theirs, images, mode), run(ours, images, mode)
    heads = 2 if mode == "train" and arguments.get("use_aux_head", True) else 1
    assert len(result[0]) == len(reference[0]) == heads
    output_error = max(map(relative_error, result[0], reference[0]))
    gradient_error, name = worst(result[1], reference[1])
    statistics_error, _ = worst(result[2], reference[2])
    print(f"outputs {output_error:.1e}, gradients {gradient_error:.1e} ({name}), statistics {statistics_error:.1e}")
    assert output_error < 1e-12, f"outputs: relative error {output_error:.1e}"
    # Ten times the worst seen here and with other seeds: the gradient of a bias before a BatchNorm or far from the
    # loss is a sum over all pixels that nearly cancels, so that its rounding is large beside it.
    assert gradient_error < 4e-9, f"gradient of {name}: relative error {gradient_error:.1e}"
    assert statistics_error < 1e-12, f"statistics: relative error {statistics_error:.1e}"


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("injection", itertools.product([True, False], repeat=2), ids=str)
def test_numbers_are_paddlesegs_in_double_precision(injection, case, mode, float64, rng):
    """In float64, where rounding hides nothing."""
    cross_size, num_heads, in_channels, size, batch = case
    images = rng.standard_normal([batch, in_channels, *size])
    assert_equal_in_float64(images, mode, use_injection=list(injection), cross_size=cross_size, num_heads=num_heads)


@pytest.mark.parametrize(
    "arguments, mode",
    [*itertools.product(OTHERS, ["eval", "train"]), (dict(drop_rate=0.1), "eval")],
    ids=str,
)
@pytest.mark.parametrize("injection", [[True, True], [True, False]], ids=["slim", "base"])
def test_numbers_of_other_shapes_are_paddlesegs_in_double_precision(injection, arguments, mode, float64, rng):
    assert_equal_in_float64(rng.standard_normal([2, 3, 65, 96]), mode, use_injection=injection, **arguments)


@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_numbers_are_paddlesegs_to_float32_rounding(case, mode, rng):
    """Outputs to 1e-5. Gradients to 1e-5, or else as near to the truth (PaddleSeg's model in float64) as PaddleSeg's
    own float32 gradients are: a ReLU whose input rounds to the other side of zero changes a gradient by far more.
    1e-3 is the cap in any case: the worst here is 1e-4, PaddleSeg's own distance to the truth reaches 1e-3, and without
    a cap a case where that distance is large would let any equally large fault of ours pass."""
    cross_size, num_heads, in_channels, size, batch = case
    arguments = dict(cross_size=cross_size, num_heads=num_heads, in_channels=in_channels)
    images = rng.standard_normal([batch, in_channels, *size])
    paddle.set_default_dtype("float64")
    try:
        exact = run(pair(**arguments)[0], images, mode)
    finally:
        paddle.set_default_dtype("float32")
    reference, result = (run(model, images.astype("float32"), mode) for model in pair(**arguments))
    output_error = max(map(relative_error, result[0], reference[0]))
    truth, theirs, ours = (np.concatenate([g.ravel() for g in r[1].values()]) for r in (exact, reference, result))
    gradient_error, own, paddlesegs = (relative_error(*two) for two in ((ours, theirs), (ours, truth), (theirs, truth)))
    print(f"outputs {output_error:.1e}, gradients {gradient_error:.1e} (to the truth {own:.1e} and {paddlesegs:.1e})")
    assert output_error < 1e-5, f"outputs: relative error {output_error:.1e}"
    assert gradient_error < 1e-3 and (gradient_error < 1e-5 or own < 2 * paddlesegs), (
        f"gradients: {gradient_error:.1e} from PaddleSeg's, {own:.1e} from the truth, PaddleSeg's {paddlesegs:.1e}"
    )


NAMED = [name for name, entry in ENTRIES.items() if entry.class_name == "RTFormer"]
STRUCTURES = {
    **{name: ENTRIES[name].arguments for name in NAMED},
    "deep": dict(layer_nums=[3, 4, 6, 3], base_channels=16, use_injection=[False, True]),
    "shallow_without_aux_head": dict(layer_nums=[1, 1, 1, 1], base_channels=24, use_aux_head=False),
    "other_widths": dict(base_channels=8, spp_channels=40, head_channels=20, in_channels=4, num_heads=2, lr_mult=3.0),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_names_shapes_order_and_learning_rates_are_paddlesegs(name):
    theirs = PaddleSegRTFormer(num_classes=19, **STRUCTURES[name])
    ours = paddle_rt.create_model(name) if name in NAMED else RTFormer(19, **STRUCTURES[name])

    def shapes(model):
        return [(key, list(value.shape)) for key, value in model.state_dict().items()]

    def rates(model):
        return {key: value.optimize_attr["learning_rate"] for key, value in model.named_parameters()}

    assert shapes(ours) == shapes(theirs)
    assert rates(ours) == rates(theirs)


def test_weights_start_with_paddlesegs_spread():
    theirs, ours = PaddleSegRTFormer(num_classes=19), RTFormer(num_classes=19)
    for (name, a), (_, b) in zip(ours.state_dict().items(), theirs.state_dict().items(), strict=True):
        if a.size >= 10000:
            ratio = float(a.std() / b.std())
            assert 0.9 < ratio < 1.1, f"{name}: standard deviation is {ratio:.2f} of PaddleSeg's"
        elif a.ndim == 1:
            assert np.array_equal(a.numpy(), b.numpy()), f"{name} starts with other numbers"


@pytest.mark.parametrize("height, width", [(16, 32), (12, 24), (7, 50), (1, 1), (13, 25)])
@pytest.mark.parametrize("windows", [12, 8])
def test_pooling_of_an_exported_graph_is_paddles(height, width, windows, rng):
    x = paddle.to_tensor(rng.standard_normal([2, 3, height, width]).astype("float32"))
    reference = paddle.nn.AdaptiveMaxPool2D(windows)(x).numpy()
    assert np.array_equal(GatheredMaxPool2D(windows)(x).numpy(), reference)
    for shape in ([2, 3, height, width], [None, 3, None, None]):
        spec = [paddle.static.InputSpec(shape, "float32")]
        graph = paddle.jit.to_static(GatheredMaxPool2D(windows), input_spec=spec, full_graph=True)
        graph.eval()
        result = graph(x).numpy()
        assert np.array_equal(result, reference), f"{shape}: largest difference {np.abs(result - reference).max()}"


@pytest.mark.parametrize("momentum, mean", [(0.1, 9.0), (INTENDED_BN_MOMENTUM, 1.0)])
def test_batch_norm_momentum_is_the_releases_unless_asked(momentum, mean):
    """One batch of mean 10 moves a running mean of 0 to 9 with the release's number, to 1 with the intended one."""
    model = RTFormer(5, **TINY) if momentum == 0.1 else RTFormer(5, **TINY, bn_momentum=momentum)
    norms = [layer for layer in model.sublayers() if isinstance(layer, paddle.nn.BatchNorm2D)]
    for norm in norms:
        norm(paddle.full([2, norm._mean.shape[0], 4, 4], 10.0))
        assert np.allclose(norm._mean.numpy(), mean), f"running mean {norm._mean.numpy()[0]}"


def test_drop_path_drops_what_paddleseg_drops():
    from paddleseg.models.backbones.transformer_utils import DropPath as PaddleSegDropPath

    x = paddle.rand([64, 2, 3, 3])
    results = []
    for layer in (DropPath(0.3), PaddleSegDropPath(0.3)):
        paddle.seed(5)
        results.append(layer(x).numpy())
    assert 0 < (results[0] == 0).mean() < 1
    assert np.array_equal(results[0] == 0, results[1] == 0)
    error = relative_error(*results)
    assert error < 1e-7, f"relative error {error:.1e}"


def test_drop_path_changes_training_only():
    model = RTFormer(5, **TINY, drop_path_rate=0.5)
    x = paddle.rand([2, 3, 64, 64])
    assert not np.array_equal(model(x)[0].numpy(), model(x)[0].numpy())
    model.eval()
    assert np.array_equal(model(x)[0].numpy(), model(x)[0].numpy())


@pytest.mark.parametrize(
    "arguments, message",
    [
        (dict(use_injection=[True]), "use_injection must be two booleans"),
        (dict(layer_nums=[2, 2]), "layer_nums must be four whole numbers"),
        (dict(layer_nums=[2, 0, 2, 2]), r"layer_nums must be four whole numbers from 1 to 1000, got \[2, 0, 2, 2\]"),
        (dict(lr_mult="x"), "lr_mult must be"),
        (dict(bn_momentum=5), "bn_momentum must be"),
        (dict(drop_rate=2.0), "drop_rate must be"),
        (dict(head_channels=0), "head_channels must be"),
        (dict(use_injection=True), "use_injection must be two booleans"),
        (dict(num_heads=7), "num_heads.* must divide the number of learned keys, 256, got 7"),
        (dict(num_heads=True), "num_heads must be a whole number"),
        (dict(use_aux_head=1), "use_aux_head must be True or False"),
        (dict(cross_size=0), "cross_size must be a whole number from 1 to 1024, got 0"),
        (dict(num_classes=0), "num_classes must be a whole number from 1 to 65536, got 0"),
        (dict(drop_path_rate=1.0), "drop_path_rate must be"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        paddle_rt.create_model("rtformer_slim", **arguments)


def test_weights_of_another_task_start_the_trunk(tmp_path):
    """Pretrained weights bring the trunk; a head for other classes stays as it was drawn."""
    source, target = RTFormer(5, **TINY), RTFormer(7, **TINY)
    state = {k: v.numpy() for k, v in source.state_dict().items()}
    paddle.save({**state, "classifier.weight": np.zeros([3], "float32")}, str(tmp_path / "w.pdparams"))
    head = target.seghead.conv2.weight.numpy()
    target = RTFormer(7, **TINY, pretrained=str(tmp_path / "w.pdparams"))
    assert np.array_equal(target.layer5.attn_l.k.numpy(), source.layer5.attn_l.k.numpy())
    assert list(target.seghead.conv2.weight.shape) == list(head.shape)
    del state["layer4.attn_l.k"]
    paddle.save(state, str(tmp_path / "w.pdparams"))
    with pytest.raises(UserError, match="layer4.attn_l.k"):
        RTFormer(7, **TINY, pretrained=str(tmp_path / "w.pdparams"))
