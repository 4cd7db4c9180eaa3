"""The attentions and feed-forward layers of RTFormer's ablations against NumPy, and networks that have them."""

import math

import numpy as np
import onnx
import paddle
import pytest
from paddleseg.models.rtformer import EABlock as PaddleSegEABlock

import paddle_rt
from paddle_rt.benchmark.plan import read_model
from paddle_rt.errors import UserError
from paddle_rt.export.publish import export
from paddle_rt.inference import Segmenter
from paddle_rt.models import rtformer_attention as attention
from paddle_rt.models.rtformer import BlockOptions, EABlock, RTFormer
from paddle_rt.tasks.segmentation.export import SegmentationExport
from tests.helpers import (
    NORMALIZE,
    TENSORRT_OPERATORS,
    call_tool,
    randomize,
    relative_error,
    smooth_image,
    tiny_config,
)

SMALL = dict(num_classes=5, base_channels=8, head_channels=8, spp_channels=8, num_heads=4, cross_size=4)
SIZE = [64, 96]  # height and width of the images of networks with linformer
VARIANTS = {
    "mhsa": dict(low_attention="mhsa", high_attention="mhsa"),
    "mhea": dict(low_attention="mhea", high_attention="mhea", mhea_ratio=0.25),
    "linformer": dict(low_attention="linformer", high_attention="linformer", image_size=SIZE),
    "8+2": dict(high_attention="gfa", high_groups=2),
    "1+1": dict(high_attention="gfa", low_groups=1, high_groups=1),
    "mhsa and cross": dict(low_attention="mhsa"),
    "mlp": dict(feed_forward="mlp"),
}


# Every formula below is written position by position and head by head, without the library's reshaping.
def softmax(x: np.ndarray, axis: int) -> np.ndarray:
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def normalised(layer, x: np.ndarray) -> np.ndarray:
    """BatchNorm of one image [C, h, w] with the running statistics."""
    norm = {name: value.numpy().astype(np.float64)[:, None, None] for name, value in layer.norm.state_dict().items()}
    return (x - norm["_mean"]) / np.sqrt(norm["_variance"] + layer.norm._epsilon) * norm["weight"] + norm["bias"]


def tokens(x: np.ndarray, weight: paddle.Tensor, stride: int = 1) -> np.ndarray:
    """Project every (second) position of [C, h, w]; [N, out]."""
    x = x[:, ::stride, ::stride]
    return x.reshape(len(x), -1).T @ weight.numpy().astype(np.float64)[:, :, 0, 0].T


def heads_of(x: np.ndarray, heads: int) -> list[np.ndarray]:
    return np.split(x, heads, axis=1)


def gfa(layer, x, stride, groups):
    keys, values = layer.k, layer.v
    scores = softmax(tokens(normalised(layer, x), keys, stride), axis=0)  # [N, M]
    scores = np.concatenate([s / (s.sum(axis=1, keepdims=True) + 1e-6) for s in heads_of(scores, groups)], axis=1)
    return scores @ values.numpy()[:, :, 0, 0].T


def mhsa(layer, x, stride, heads):
    x = normalised(layer, x)
    q, k, v = (heads_of(tokens(x, part.weight, stride), heads) for part in (layer.query, layer.key, layer.value))
    d = q[0].shape[1]
    mixed = [softmax(q[i] @ k[i].T / math.sqrt(d), axis=1) @ v[i] for i in range(heads)]
    return np.concatenate(mixed, axis=1) @ layer.output.weight.numpy()[:, :, 0, 0].T


def mhea(layer, x, stride, heads):
    keys, values, mixed = layer.k.numpy(), layer.v.numpy(), []
    for q in heads_of(tokens(normalised(layer, x), layer.query.weight, stride), heads):
        scores = softmax(q @ keys.T, axis=0)  # [N, M]
        mixed.append(scores / (scores.sum(axis=1, keepdims=True) + 1e-9) @ values)
    return np.concatenate(mixed, axis=1) @ layer.output.weight.numpy()[:, :, 0, 0].T


def linformer(layer, x, stride, heads):
    x, e, f = normalised(layer, x), layer.key_tokens.numpy(), layer.value_tokens.numpy()
    q, k, v = (heads_of(tokens(x, part.weight, stride), heads) for part in (layer.query, layer.key, layer.value))
    d = q[0].shape[1]
    mixed = [softmax(q[i] @ (e.T @ k[i]).T / math.sqrt(d), axis=1) @ (f.T @ v[i]) for i in range(heads)]
    return np.concatenate(mixed, axis=1) @ layer.output.weight.numpy()[:, :, 0, 0].T


@pytest.mark.parametrize(("width", "stride"), [(16, 1), (8, 2)], ids=["equal widths", "stride 2"])
@pytest.mark.parametrize(
    ("formula", "name", "part"),
    [(gfa, "gfa", 4), (gfa, "gfa", 1), (mhsa, "mhsa", 4), (mhea, "mhea", 2), (linformer, "linformer", 8)],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_attentions_equal_their_formulas_in_numpy(formula, name, part, width, stride, rng):
    """On an odd size, 5x7 at the output."""
    place = attention.Setting(width, 16, 8, part, 24, part, 0.5, 4, image_size=[5 * 8 - 3, 7 * 8])
    layer = attention.ATTENTIONS[name](place)
    randomize(layer)
    layer.eval()
    x = rng.standard_normal([2, width, 5 * stride - stride + 1, 7 * stride])
    result = layer(paddle.to_tensor(x.astype("float32"))).numpy()
    expected = np.stack([formula(layer, image, stride, part).T.reshape(16, 5, 7) for image in x])
    error = relative_error(result, expected)
    print(f"relative error {error:.1e}")
    assert result.shape == (2, 16, 5, 7) and error < 1e-5, f"relative error {error:.1e}"


def test_cross_attention_equals_its_formula_in_numpy(rng):
    layer = attention.CrossAttention(6, 3)
    randomize(layer)
    layer.eval()
    x, kv = rng.standard_normal([6, 5, 7]), rng.standard_normal([12, 3, 3])
    result = layer(*(paddle.to_tensor(value[None].astype("float32")) for value in (x, kv))).numpy()[0]
    q, k, v = (value.reshape(6, -1).T for value in (normalised(layer, x), kv[:6], kv[6:]))
    expected = (softmax(q @ k.T / 3, axis=1) @ v).T.reshape(6, 5, 7)
    error = relative_error(result, expected)
    assert error < 1e-5, f"relative error {error:.1e}"


def test_the_mlp_equals_its_formula_in_numpy(rng):
    layer = attention.MixFFN(3, 0.0)
    randomize(layer)
    layer.eval()
    x = rng.standard_normal([3, 5, 7])
    first, second = (part.weight.numpy()[:, :, 0, 0] for part in (layer.linear1, layer.linear2))
    inner = np.einsum("oc,chw->ohw", first, normalised(layer, x)) + layer.linear1.bias.numpy()[:, None, None]
    padded, kernel = np.pad(inner, ((0, 0), (1, 1), (1, 1))), layer.depthwise.weight.numpy()[:, 0]
    inner = sum(kernel[:, i, j, None, None] * padded[:, i : i + 5, j : j + 7] for i in range(3) for j in range(3))
    inner += layer.depthwise.bias.numpy()[:, None, None]
    inner *= 0.5 * (1 + np.vectorize(math.erf)(inner / math.sqrt(2)))
    expected = np.einsum("oc,chw->ohw", second, inner) + layer.linear2.bias.numpy()[:, None, None]
    error = relative_error(layer(paddle.to_tensor(x[None].astype("float32"))).numpy()[0], expected)
    assert inner.shape[0] == 12 and error < 1e-5, f"relative error {error:.1e}"


def test_two_times_gfa_is_the_block_that_paddleseg_never_builds(rng):
    """With the one number of groups that PaddleSeg's block has for both branches."""
    options = BlockOptions(4, 0.0, 0.0, 4, "gfa", "gfa", 1.0, None, 4, "conv", None)
    ours = EABlock(16, 32, 64, True, options)
    theirs = PaddleSegEABlock([16, 32], [16, 64], num_heads=4, use_cross_kv=False, cross_size=4)
    randomize(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.set_state_dict(theirs.state_dict())
    ours.eval(), theirs.eval()
    high, low = (paddle.to_tensor(rng.standard_normal(s).astype("float32")) for s in ([2, 16, 24, 32], [2, 32, 12, 16]))
    errors = [relative_error(*pair) for pair in zip(ours(high, low), theirs([high, low]), strict=True)]
    assert max(errors) < 1e-5, f"relative errors {errors}"


def test_the_tables_and_the_annotations_have_the_same_names():
    low, high, feed_forward = (
        kind.__args__ for kind in (attention.LowAttention, attention.HighAttention, attention.FeedForward)
    )
    assert sorted(high) == sorted(attention.ATTENTIONS) == sorted([*low, "cross"])
    assert sorted(feed_forward) == sorted(attention.FEED_FORWARDS)


@pytest.mark.parametrize("name", VARIANTS)
def test_variants_train_and_take_images_of_any_size(name, rng):
    """Every parameter gets a finite gradient, and a few steps lower the loss."""
    paddle.seed(0)
    network = RTFormer(**SMALL, drop_path_rate=0.0, **VARIANTS[name])
    images = paddle.to_tensor(rng.standard_normal([2, 3, *SIZE]).astype("float32"))
    labels = paddle.to_tensor(rng.integers(0, 5, [2, *SIZE]))
    optimizer = paddle.optimizer.AdamW(2e-3, parameters=network.parameters())
    losses = []
    for _ in range(4):
        loss = sum(paddle.nn.functional.cross_entropy(logits, labels, axis=1) for logits in network(images))
        loss.backward()
        gradients = {n: p.grad for n, p in network.named_parameters() if not p.stop_gradient}
        broken = [n for n, grad in gradients.items() if grad is None or not np.isfinite(grad.numpy()).all()]
        assert not broken, f"no finite gradient: {broken}"
        optimizer.step(), optimizer.clear_grad()
        losses.append(float(loss))
    assert losses[-1] < losses[0], f"losses {losses}"

    network.eval()
    sizes = [[63, 90], SIZE] if network.needs_fixed_size else [[65, 97], [32, 33], [47, 31]]
    with paddle.no_grad():
        for size in sizes:
            batch = paddle.to_tensor(rng.standard_normal([2, 3, *size]).astype("float32"))
            together = network(batch)[0].numpy()
            error = relative_error(together, np.concatenate([network(batch[i : i + 1])[0].numpy() for i in range(2)]))
            assert list(together.shape) == [2, 5, *size] and error < 1e-5, f"{size}: relative error {error:.1e}"
    assert network.needs_fixed_size == (name == "linformer")


OPEN = [None, 3, None, None]  # batch, height and width
FIXED = [1, 3, *SIZE]
EXPORTS = [
    pytest.param(FIXED, dict(low_attention="mhsa", high_attention="mhea", feed_forward="mlp"), id="mhsa+mhea"),
    pytest.param(FIXED, dict(low_attention="linformer", high_attention="gfa", image_size=SIZE), id="linformer+gfa"),
    pytest.param(OPEN, dict(low_attention="mhea", high_attention="mhsa"), id="mhea+mhsa", marks=pytest.mark.slow),
    pytest.param(FIXED, dict(high_attention="linformer", image_size=SIZE), id="linformer", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("shape", "arguments"), EXPORTS)
def test_variants_are_exported_and_run_in_every_engine(shape, arguments, tmp_path):
    network = RTFormer(**SMALL, **arguments)
    randomize(network)
    network.eval()
    report = export(network, tmp_path / "e", SegmentationExport([NORMALIZE]), shape)
    assert {row["engine"] for row in report["comparisons"]} == {
        "Paddle Inference, plain", "Paddle Inference, oneDNN", "ONNX Runtime", "OpenVINO"
    }  # fmt: skip
    worst = max(row["relative_error"] for row in report["comparisons"])
    assert worst < 1e-4, f"worst relative error {worst:.1e}"
    operators = {node.op_type for node in onnx.load(str(tmp_path / "e/model.onnx")).graph.node}
    assert operators <= TENSORRT_OPERATORS, f"not in TensorRT's list: {operators - TENSORRT_OPERATORS}"
    assert Segmenter(tmp_path / "e", "onnxruntime", threads=1)(smooth_image(*SIZE)).shape == tuple(SIZE)


def test_linformer_takes_images_of_one_size_only(tmp_path):
    network = RTFormer(**SMALL, **VARIANTS["linformer"])
    with pytest.raises(UserError, match="built for images of 64x96, whose map is 2x3 here, got a map of 3x4"):
        network(paddle.zeros([1, 3, 65, 97]))
    with pytest.raises(UserError, match="needs a fixed height and width"):
        export(network, tmp_path / "e", SegmentationExport([NORMALIZE]))
    with pytest.raises(UserError, match="built for images of 64x96"):
        export(network, tmp_path / "e", SegmentationExport([NORMALIZE]), [1, 3, 128, 96])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(low_attention="mhsaa"), "low_attention must be 'gfa' or 'mhsa' or 'mhea' or 'linformer', got 'mhsaa'"),
        (dict(low_attention="cross"), "low_attention must be 'gfa' or 'mhsa'"),
        (dict(high_attention=None), "high_attention must be 'cross' or 'gfa'"),
        (dict(feed_forward="mix"), "feed_forward must be 'conv' or 'mlp', got 'mix'"),
        (dict(low_groups=7), r"groups \(low_groups.*\) must divide the number of learned keys, 256, got 7"),
        (dict(high_attention="gfa", high_groups=5), r"high_groups\) must divide .* keys, 144, got 5"),
        (dict(low_attention="mhsa", num_heads=6, low_groups=8), "num_heads must divide the width of an attention, 256"),
        (dict(high_attention="mhea", mhea_ratio=0.3), "mhea_ratio must make a whole number .* width 64, got 0.3"),
        (dict(high_attention="mhea", mhea_ratio=0), "mhea_ratio must be a number above 0"),
        (dict(high_attention="linformer"), r"give it as image_size: \[height, width\]"),
        (dict(high_attention="linformer", image_size=[64]), "image_size must be null or a list of 2 items"),
        (dict(high_groups=0), "high_groups must be a whole number"),
    ],
)  # fmt: skip
def test_arguments_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(UserError, match=message) as caught:
        paddle_rt.create_model("rtformer_slim", **arguments)
    assert "\n" not in str(caught.value)


def test_the_benchmark_takes_a_list_as_an_argument():
    model = read_model("rtformer_slim:low_attention=linformer,image_size=[64,96]")
    assert model.arguments == {"low_attention": "linformer", "image_size": SIZE}


@pytest.mark.slow
def test_a_variant_trains_by_a_config_and_resumes(tmp_path):
    """An interrupted run ends with the weights of one that was not."""
    config = tiny_config(tmp_path, iters=4)
    opts = ["model.high_attention=mhea", "model.low_attention=linformer", "model.image_size=[64,128]",
            "model.feed_forward=mlp", "model.mhea_ratio=0.5", "model.drop_path_rate=0.1"]  # fmt: skip
    flags = ("--config", config, "--save_interval", "2", "--seed", "0", "--num_workers", "0", "--device", "cpu")
    assert call_tool("train", *flags, "--save_dir", tmp_path / "whole", "--opts", *opts) in (0, None)
    resume = ("--resume_model", tmp_path / "whole/iter_2")
    assert call_tool("train", *flags, "--save_dir", tmp_path / "again", *resume, "--opts", *opts) in (0, None)
    whole, again = (paddle.load(str(tmp_path / f"{name}/iter_4/model.pdparams")) for name in ("whole", "again"))
    different = [name for name in whole if not np.array_equal(whole[name].numpy(), again[name].numpy())]
    assert list(whole) == list(again) and not different, f"other values of {different}"
