"""Token merging: the originals' outputs, and every merging against a slow one that writes its groups of tokens down."""

import importlib.util
import json
from collections.abc import Callable

import numpy as np
import paddle
import pytest

import paddle_rt
from paddle_rt.convert import load_torch
from paddle_rt.errors import UserError
from paddle_rt.models.segformer import Attention, SegFormerPlusPlus
from paddle_rt.models.token_merging import (
    PRESETS,
    STAGES,
    BipartiteMerging,
    GridMerging,
    SequenceMerging,
    keep_all,
    stage_mergings,
)
from paddle_rt.models.token_merging_export import merging_for_export
from tests.helpers import SHARED, randomize, relative_error

GOLDEN = SHARED / "golden"
TINY = dict(num_classes=5, embed_dim=8, depths=(1, 1, 1, 1), head_channels=16)
BSM = dict(r=0.6, sx=2, sy=2)
CHANNELS = 12
SEQUENCES = [((4, 6), 2), ((5, 5), 2), ((7, 9), 5), ((3, 3), 10), ((25, 41), 3), ((4, 4), 1)]

# The merging of one sample and how it is spread back, as matrices: [merged, N] and [N, merged].
Matrices = tuple[np.ndarray, np.ndarray]


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("segformerpp_*.npz")) or [None], ids=lambda p: p and p.stem)
def test_numbers_are_the_originals(path):
    """The original's output for weights that anyone can make again: each preset, batches, sizes that do not divide."""
    if path is None:
        pytest.skip("needs the originals' outputs, ../shared/golden/segformerpp_*.npz")
    spec = importlib.util.spec_from_file_location("weights", GOLDEN / "weights.py")
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    golden = np.load(path)
    meta = json.loads(str(golden["meta"]))
    merging = "downsample" if meta.get("down") else meta["tome_cfg"]
    model = paddle_rt.create_model(f"segformerpp_{meta['variant']}", meta.get("ncls", 19), token_merging=merging)
    load_torch(model, {name: weights.weight(name, tuple(shape)) for name, shape in json.loads(str(golden["keys"]))})
    model.eval()
    with paddle.no_grad():
        images = weights.image(tuple(meta["input_shape"]), meta["input_seed"])
        logits = model.coarse_logits(paddle.to_tensor(images)).numpy()
    assert logits.shape == golden["logits"].shape
    error = relative_error(logits, golden["logits"])
    assert error <= 1e-5, f"relative error {error:.1e}"


def neighbour_matrices(rows: int, columns: int, cell: tuple[int, int]) -> Matrices:
    """The mean of each cell; back from the cell that "nearest" resizing finds, which counts in float32."""
    down, across = -(-rows // cell[0]), -(-columns // cell[1])
    mean, back = np.zeros([down * across, rows * columns]), np.zeros([rows * columns, down * across])
    for y in range(rows):
        for x in range(columns):
            mean[y // cell[0] * across + x // cell[1], y * columns + x] = 1
            near_y = int(np.float32(y) * (np.float32(down) / np.float32(rows)))
            near_x = int(np.float32(x) * (np.float32(across) / np.float32(columns)))
            back[y * columns + x, near_y * across + near_x] = 1
    return mean / mean.sum(axis=1, keepdims=True), back


def bipartite_matrices(
    tokens: np.ndarray, rows: int, columns: int, cell: tuple[int, int], ratio: float, last_wins: bool = False
) -> Matrices:
    """Groups of tokens [N, C] by hand; a tie goes to the first in the grid, or to the last."""
    corners = [(y, x) for y in range(0, rows - cell[0] + 1, cell[0]) for x in range(0, columns - cell[1] + 1, cell[1])]
    destinations = [y * columns + x for y, x in corners]
    sources = [position for position in range(rows * columns) if position not in destinations]
    away = min(int(rows * columns * ratio), len(sources)) if destinations else 0
    if away == 0:
        return np.eye(rows * columns), np.eye(rows * columns)
    unit = tokens / np.linalg.norm(tokens, axis=1, keepdims=True)
    step = -1 if last_wins else 1
    matches = []  # similarity, source, destination
    for source in sources[::step]:
        best = max(destinations[::step], key=lambda destination: unit[source] @ unit[destination])
        matches.append((unit[source] @ unit[best], source, best))
    matches.sort(key=lambda match: -match[0])
    groups = {destination: [destination] for destination in destinations}
    for _, source, best in matches[:away]:
        groups[best].append(source)
    members = [[source] for _, source, _ in matches[away:]] + list(groups.values())
    mean, back = np.zeros([len(members), rows * columns]), np.zeros([rows * columns, len(members)])
    for row, group in enumerate(members):
        mean[row, group], back[group, row] = 1 / len(group), 1
    return mean, back


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(list(shape)).standard_normal(shape).astype("float32")


def assert_merges_as(merging: Callable, tokens: np.ndarray, size: tuple[int, int], matrices: list[Matrices]) -> None:
    """Values and gradients, there and back: given the matching both ways are linear, so a gradient is a transpose."""
    leaf = paddle.to_tensor(tokens, stop_gradient=False)
    merged, unmerge = merging(leaf, size)
    expected = np.stack([mean @ sample for (mean, _), sample in zip(matrices, tokens, strict=True)])
    assert merged.shape == list(expected.shape)
    values = paddle.to_tensor(noise(*merged.shape), stop_gradient=False)
    spread = unmerge(values)
    spread_expected = np.stack([back @ v for (_, back), v in zip(matrices, values.numpy(), strict=True)])

    at_merged, at_spread = noise(*merged.shape, 1)[..., 0], noise(*tokens.shape, 1)[..., 0]
    ((merged * paddle.to_tensor(at_merged)).sum() + (spread * paddle.to_tensor(at_spread)).sum()).backward()
    gradient = np.stack([mean.T @ g for (mean, _), g in zip(matrices, at_merged, strict=True)])
    spread_gradient = np.stack([back.T @ g for (_, back), g in zip(matrices, at_spread, strict=True)])
    for what, result, reference in (
        ("merged", merged, expected),
        ("unmerged", spread, spread_expected),
        ("gradient through merge", leaf.grad, gradient),
        ("gradient through unmerge", values.grad, spread_gradient),
    ):
        error = relative_error(result.numpy(), reference)
        assert error <= 1e-6, f"{what}: relative error {error:.1e}"


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "size, cell, ratio",
    [
        ((8, 8), (2, 2), 0.6),
        ((8, 12), (4, 4), 0.9),
        ((7, 9), (2, 2), 0.5),
        ((7, 9), (4, 4), 0.8),
        ((6, 10), (3, 2), 0.5),
        ((5, 6), (1, 2), 1.0),
        ((9, 4), (4, 1), 0.3),
        ((9, 7), (2, 3), 1.0),
        ((6, 6), (2, 2), 0.0),
        ((6, 6), (2, 2), 0.01),
        ((5, 4), (1, 1), 0.5),
        ((3, 3), (4, 4), 0.9),
        ((3, 9), (4, 2), 0.9),
        ((1, 12), (1, 3), 0.4),
    ],
)
def test_bipartite_merging(size, cell, ratio, batch):
    tokens = noise(batch, size[0] * size[1], CHANNELS)
    matrices = [bipartite_matrices(sample, *size, cell, ratio) for sample in tokens]
    assert_merges_as(BipartiteMerging(ratio, cell), tokens, size, matrices)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize(
    "size, cell",
    [((8, 8), (2, 2)), ((7, 9), (2, 2)), ((7, 11), (3, 4)), ((5, 6), (1, 2)), ((6, 5), (4, 1)), ((3, 3), (4, 4)),
     ((25, 41), (2, 3)), ((4, 6), (1, 1))],
)  # fmt: skip
def test_neighbour_merging_in_two_dimensions(size, cell, batch):
    tokens = noise(batch, size[0] * size[1], CHANNELS)
    assert_merges_as(GridMerging(cell), tokens, size, batch * [neighbour_matrices(*size, cell)])


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("size, stride", SEQUENCES)
def test_neighbour_merging_in_one_dimension(size, stride, batch):
    tokens = noise(batch, size[0] * size[1], CHANNELS)
    matrices = batch * [neighbour_matrices(1, tokens.shape[1], (1, stride))]
    assert_merges_as(SequenceMerging(stride), tokens, size, matrices)


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7])
def test_ties_go_to_the_first_in_the_grid(ratio):
    """Tokens that are equal, or at right angles, to the bit: what wins a tie decides what is merged with what.

    PyTorch promises no order of equal numbers and keeps it on some machines only; the original's own outputs differ
    between those where tokens are equal. The order of the grid is what a stable sort gives.
    """
    size, cell, kinds = (8, 9), (2, 2), np.random.default_rng(3).integers(0, 4, [2, 72])
    tokens = 2 * np.eye(CHANNELS, dtype="float32")[kinds] * (1 + kinds[..., np.newaxis])
    first = [bipartite_matrices(sample, *size, cell, ratio) for sample in tokens]
    last = [bipartite_matrices(sample, *size, cell, ratio, last_wins=True) for sample in tokens]
    assert_merges_as(BipartiteMerging(ratio, cell), tokens, size, first)
    assert all((one[1] @ one[0] != other[1] @ other[0]).any() for one, other in zip(first, last, strict=True))


def test_a_near_tie_is_decided_by_the_larger_similarity():
    """Two destinations for one source, a little more like the first or a little more like the second."""
    for more in (0, 1):
        tokens = np.array([[[1, 0], [1, 1], [0, 1], [0, -1]]], dtype="float32")  # the second lies between two
        tokens[0, 1, more] += 1e-3
        merged, _ = BipartiteMerging(0.25, (1, 2))(paddle.to_tensor(tokens), (1, 4))
        expected = np.delete(tokens[0], 1, axis=0)[[2, 0, 1]]
        expected[1 + more] = (tokens[0, 2 * more] + tokens[0, 1]) / 2
        assert np.allclose(merged.numpy()[0], expected, atol=1e-6)


def test_tokens_of_zero_keep_everything_finite():
    """A flat image under fresh weights gives such tokens, whose cosine similarity is not defined."""
    tokens = noise(2, 48, CHANNELS)
    tokens[0], tokens[1, 5:29] = 0, 0
    leaf = paddle.to_tensor(tokens, stop_gradient=False)
    merged, unmerge = BipartiteMerging(0.5, (2, 2))(leaf, (6, 8))
    values = paddle.to_tensor(noise(2, 24, CHANNELS), stop_gradient=False)
    spread = unmerge(values)
    (merged.sum() + spread.sum()).backward()
    assert np.isfinite(merged.numpy()).all() and np.isfinite(spread.numpy()).all()
    parts, sizes = leaf.grad.numpy()[..., 0], values.grad.numpy()[..., 0]
    assert (parts > 0).all() and np.allclose(parts.sum(axis=1), 24), "each token is part of one merged token"
    assert (sizes >= 1).all() and np.allclose(sizes.sum(axis=1), 48), "each token gets one value back"


def softmax(x: np.ndarray) -> np.ndarray:
    x = np.exp(x - x.max(axis=-1, keepdims=True))
    return x / x.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize("reduction", [1, 2])
@pytest.mark.parametrize("sides", ["queries", "keys", "both"])
def test_attention_merges_keys_behind_their_reduction_and_queries_around_it(sides, reduction):
    """The formula, head by head, with the merging as matrices."""
    size, cell, ratio, heads, width = (9, 14), (2, 2), 0.6, 3, 4
    merging = BipartiteMerging(ratio, cell)
    mergings = (keep_all if sides == "keys" else merging, keep_all if sides == "queries" else merging)
    attention = Attention(heads * width, heads, reduction, mergings)
    randomize(attention)
    tokens = noise(2, size[0] * size[1], heads * width)
    with paddle.no_grad():
        result = attention(paddle.to_tensor(tokens), size).numpy()
    for sample, found in zip(tokens, result, strict=True):
        context, context_size = sample, size
        if reduction > 1:
            grid = paddle.to_tensor(sample.T.reshape([1, heads * width, *size]))
            context_size = (size[0] // reduction, size[1] // reduction)
            context = attention.norm(attention.sr(grid).flatten(2).transpose([0, 2, 1])).numpy()[0]
        mean, back = bipartite_matrices(sample, *size, cell, 0 if sides == "keys" else ratio)
        kept, _ = bipartite_matrices(context, *context_size, cell, 0 if sides == "queries" else ratio)
        q = (mean @ sample) @ attention.q.weight.numpy() + attention.q.bias.numpy()
        k, v = np.split((kept @ context) @ attention.kv.weight.numpy() + attention.kv.bias.numpy(), 2, axis=1)
        parts = [slice(i * width, (i + 1) * width) for i in range(heads)]
        mixed = [softmax(q[:, part] @ k[:, part].T / width**0.5) @ v[:, part] for part in parts]
        expected = back @ (np.hstack(mixed) @ attention.proj.weight.numpy() + attention.proj.bias.numpy())
        error = relative_error(found, expected)
        assert error <= 1e-5, f"relative error {error:.1e}"


def network(token_merging) -> SegFormerPlusPlus:
    """A small network in eval mode, with the same values whatever it merges."""
    model = SegFormerPlusPlus(token_merging=token_merging, **TINY)
    randomize(model)
    model.eval()
    return model


def logits(model: SegFormerPlusPlus, images: np.ndarray) -> np.ndarray:
    with paddle.no_grad():
        return model(paddle.to_tensor(images))[0].numpy()


def test_each_preset_has_an_effect_of_its_own_on_one_checkpoint(tmp_path):
    images = noise(1, 3, 160, 128)
    plain = network(None)
    outputs = {None: logits(plain, images)}
    file = tmp_path / "model.pdparams"
    paddle.save(plain.state_dict(), str(file))
    for preset in PRESETS:
        arguments = {**TINY, "token_merging": preset}
        model = paddle_rt.create_model("segformerpp_b0", checkpoint=file, **arguments)
        model.eval()
        for other, output in outputs.items():
            difference = relative_error(logits(model, images), output)
            assert difference > 1e-3, f"{preset} gives what {other} gives, but for {difference:.1e}"
        outputs[preset] = logits(model, images)


@pytest.mark.parametrize("every, matchings", [(1, [4, 4]), (2, [2, 2]), (3, [2, 2]), (9, [1, 1])])
def test_blocks_share_the_matches_of_the_first(every, matchings, monkeypatch):
    """Counted for queries and for keys; two blocks with the same weights and tokens would match alike."""
    side, found = dict(mode="bsm", **BSM), []
    settings = {f"{name}_{key}": value for name in ("q", "kv") for key, value in side.items()}
    model = SegFormerPlusPlus(
        token_merging=[settings, {}, {}, {}], matching_every=every, **{**TINY, "depths": (4, 1, 1, 1)}
    )
    randomize(model)
    model.eval()
    match = BipartiteMerging._match

    def counted(self: BipartiteMerging, tokens: paddle.Tensor, *rest: object) -> paddle.Tensor:
        found.append(tokens.shape[1])
        return match(self, tokens, *rest)

    monkeypatch.setattr(BipartiteMerging, "_match", counted)
    images = noise(1, 3, 128, 128)
    output = logits(model, images)
    assert [found.count(32 * 32), found.count(4 * 4)] == matchings and len(found) == sum(matchings)
    monkeypatch.setattr(BipartiteMerging, "__call__", unshared(BipartiteMerging.__call__))
    difference = relative_error(output, logits(model, images))
    assert (difference > 1e-3) == (every > 1), f"sharing moves the logits by {difference:.1e}"


def unshared(merge: Callable) -> Callable:
    return lambda self, tokens, size, matches: merge(self, tokens, size)


@pytest.mark.parametrize("preset", PRESETS)
def test_training_with_a_preset_reaches_every_parameter(preset):
    model = SegFormerPlusPlus(token_merging=preset, drop_path_rate=0.0, **TINY)
    randomize(model)
    model.train()
    output = model(paddle.to_tensor(noise(2, 3, 130, 162)))[0]
    (output * paddle.to_tensor(noise(*output.shape))).sum().backward()
    gradients = {n: p.grad.numpy() for n, p in model.named_parameters() if not p.stop_gradient}
    assert all(np.isfinite(gradient).all() for gradient in gradients.values())
    without = [name for name, gradient in gradients.items() if not gradient.any()]
    assert not without, f"no gradient: {without}"


MERGINGS = [GridMerging((2, 3)), SequenceMerging(4), BipartiteMerging(0.6, (2, 2)), BipartiteMerging(1.0, (2, 2))]


def test_mergings_for_export_give_the_same_numbers():
    for merging in (*MERGINGS, keep_all):
        tokens = paddle.to_tensor(noise(2, 7 * 9, CHANNELS))
        merged, unmerge = merging(tokens, (7, 9))
        graph_merged, graph_unmerge = merging_for_export(merging)(tokens, (7, 9))
        values = paddle.to_tensor(noise(*merged.shape))
        errors = (
            relative_error(graph_merged.numpy(), merged.numpy()),
            relative_error(graph_unmerge(values).numpy(), unmerge(values).numpy()),
        )
        print(f"{type(merging).__name__}: relative errors {errors[0]:.1e} and {errors[1]:.1e}")
        assert errors[0] <= 1e-6 and errors[1] == 0, errors


@pytest.mark.parametrize("token_merging", [*PRESETS, [dict(q_mode="n1d", q_s=3), {}, dict(kv_mode="n1d", kv_s=2), {}]])
def test_a_merging_network_for_export_gives_the_same_numbers(token_merging):
    model = SegFormerPlusPlus(token_merging=token_merging, matching_every=2, **{**TINY, "depths": (3, 1, 2, 1)})
    randomize(model)
    model.eval()
    images = noise(1, 3, 128, 160)
    error = relative_error(logits(model.for_export(), images), logits(model, images))
    print(f"relative error {error:.1e}")
    assert error <= 1e-5, f"relative error {error:.1e}"


@pytest.mark.parametrize("full_graph", [True, False])
@pytest.mark.parametrize("merging", [*MERGINGS, *map(merging_for_export, MERGINGS)])
@pytest.mark.slow
def test_traced_it_is_the_same(merging, full_graph):
    """By both of Paddle's ways to trace, one of which rewrites the code."""

    def there_and_back(tokens: paddle.Tensor) -> paddle.Tensor:
        merged, unmerge = merging(tokens, (7, 8))
        return unmerge(merged * 2)

    tokens = paddle.to_tensor(noise(2, 56, CHANNELS))
    traced = paddle.jit.to_static(there_and_back, full_graph=full_graph)(tokens)
    error = relative_error(traced.numpy(), there_and_back(tokens).numpy())
    assert error <= 1e-6, f"relative error {error:.1e}"


def test_downsampling_sees_every_second_row_and_column():
    images = noise(2, 3, 131, 96)
    with paddle.no_grad():
        halved = network(None).coarse_logits(paddle.to_tensor(images[:, :, :130:2, ::2])).numpy()
        assert np.array_equal(network("downsample").coarse_logits(paddle.to_tensor(images)).numpy(), halved)
    assert logits(network("downsample"), images).shape == (2, 5, 131, 96)


@pytest.mark.parametrize("side", ["q", "kv"])
@pytest.mark.parametrize("settings", [dict(mode="bsm", **BSM), dict(mode="n1d", s=2), dict(mode="n2d", s=(2, 1))])
def test_a_list_merges_in_the_stages_that_it_names(side, settings):
    images = noise(1, 3, 128, 128)
    seen = {"none": logits(network(None), images)}
    for stage in range(STAGES):
        merging = [{} for _ in range(STAGES)]
        merging[stage] = {f"{side}_{key}": value for key, value in settings.items()}
        output = logits(network(merging), images)
        for name, other in seen.items():
            assert relative_error(output, other) > 1e-5, f"stage {stage + 1} gives what {name} gives"
        seen[f"stage {stage + 1}"] = output


def test_a_list_is_what_its_preset_is():
    """As a config file brings it, with lists for pairs; one number stands for a square cell."""
    images = noise(1, 3, 128, 128)
    for preset in ("bsm_hq", "n2d_2x2"):
        assert np.array_equal(logits(network(json.loads(json.dumps(PRESETS[preset]))), images),
                              logits(network(preset), images))  # fmt: skip
    assert np.array_equal(logits(network([dict(q_mode="n2d", q_s=2)] * 4), images), logits(network("n2d_2x2"), images))
    nothing = [dict(q_mode=None, kv_mode=None), {}, dict(kv_mode=None), {}]
    assert np.array_equal(logits(network(nothing), images), logits(network(None), images))


FIRST = [
    (dict(q_mode="n3d", q_s=2), "unknown q_mode 'n3d', did you mean 'n2d'"),
    (dict(kv_mode="BSM"), "unknown kv_mode 'BSM'"),
    (dict(q_mod="bsm"), "unknown token_merging key in stage 1 'q_mod', did you mean 'q_mode'"),
    (dict(kv_mode="bsm", kv_ratio=0.5, kv_sx=2, kv_sy=2), "unknown token_merging key in stage 1 'kv_ratio'"),
    *((dict(q_mode="bsm", q_r=ratio, q_sx=2, q_sy=2), "stage 1: q_r must be a number from 0 to 1, got")
      for ratio in (-0.1, 1.1, float("nan"), "0.5", True)),
    (dict(kv_mode="bsm", kv_sx=2, kv_sy=2), "stage 1: kv_mode 'bsm' needs kv_r; it needs kv_r, kv_sx, kv_sy"),
    (dict(kv_mode="bsm", kv_r=0.5, kv_sy=2), "kv_mode 'bsm' needs kv_sx"),
    (dict(q_mode="bsm", q_r=0.5, q_sx=2, q_sy=None), "q_mode 'bsm' needs q_sy"),
    (dict(q_mode="n2d"), "q_mode 'n2d' needs q_s"),
    (dict(q_mode="n1d", q_sx=2), "q_mode 'n1d' needs q_s"),
    (dict(q_mode="bsm", q_r=0.5, q_sx=0, q_sy=2), "q_sx must be a whole number of at least 1, got 0"),
    (dict(q_mode="bsm", q_r=0.5, q_sx=2, q_sy=2.0), "q_sy must be a whole number of at least 1, got 2.0"),
    (dict(q_mode="n2d", q_s=(2, 0)), "q_s must be a whole number of at least 1, got 0"),
    (dict(q_mode="n2d", q_s=(2, 2, 2)), r"q_s must be a number or a pair \(rows, columns\)"),
    (dict(kv_mode="n1d", kv_s=(2, 2)), "kv_s must be a whole number"),
    (dict(q_r=0.5), "stage 1: q_r has no effect with q_mode None; leave it out"),
    (dict(q_mode="n2d", q_s=2, q_r=0.5), "q_r has no effect with q_mode 'n2d'"),
    (dict(q_mode="bsm", kv_mode="n2d", kv_s=2, kv_sx=2, q_r=0.5, q_sx=2, q_sy=2), "kv_sx has no effect"),
    ("bsm", "stage 1 must be a dictionary, got 'bsm'"),
]  # fmt: skip


@pytest.mark.parametrize(
    "token_merging, message",
    [
        *(([settings, {}, {}, {}], message) for settings, message in FIRST),
        ([{}, {}, {}, dict(q_mode="bsm")], "stage 4: q_mode 'bsm' needs q_r"),
        ("bsm_hd", "unknown token_merging 'bsm_hd', did you mean 'bsm_hq'"),
        ([{}, {}, {}], "must be a preset or 4 dictionaries, one for each stage"),
        (dict(q_mode="n2d", q_s=2), "must be a preset or 4 dictionaries, one for each stage"),
        (2, "must be a preset or 4 dictionaries, one for each stage"),
    ],
)
def test_what_cannot_be_merged_is_refused(token_merging, message):
    with pytest.raises(UserError, match=message):
        stage_mergings(token_merging)


@pytest.mark.parametrize("merging", [GridMerging((2, 2)), SequenceMerging(2), BipartiteMerging(0.5, (2, 2))])
def test_a_size_that_is_left_open_is_refused(merging):
    """The matching is laid out when a graph is traced."""
    with pytest.raises(ValueError, match="fixed height and width"):
        merging(paddle.to_tensor(noise(1, 24, CHANNELS)), [paddle.to_tensor(4), paddle.to_tensor(6)])
