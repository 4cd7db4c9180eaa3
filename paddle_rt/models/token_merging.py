"""Token merging: attention over fewer queries, keys and values.

A merging takes tokens [B, N, C] that lie on a grid of height x width = N and gives fewer of them, together with a
function that spreads whatever was computed for those back over all N. It has no parameters, so one checkpoint serves
every choice.

Source: Kienzle et al., SegFormer++: Efficient Token-Merging Strategies for High-Resolution Semantic Segmentation, MIPR
2024, arXiv 2405.14467; the matching is that of Bolya and Hoffman, Token Merging for Fast Stable Diffusion, CVPRW 2023,
arXiv 2303.17604 (`tomesd`), without its randomness.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle

from paddle_rt.errors import UserError, unknown

# What a preset does in each of the four stages, in the original's keys. The original ships these twice; its
# MMSegmentation configs are followed, since the other table names modes that its own code does not know.
PRESETS: dict[str, list[dict[str, Any]]] = {
    "bsm_hq": [dict(kv_mode="bsm", kv_r=0.6, kv_sx=2, kv_sy=2)] * 2 + [dict(q_mode="bsm", q_r=0.8, q_sx=4, q_sy=4)] * 2,
    "bsm_fast": [dict(kv_mode="bsm", kv_r=0.9, kv_sx=4, kv_sy=4)] * 2
    + [dict(q_mode="bsm", q_r=0.9, q_sx=4, q_sy=4)] * 2,
    "n2d_2x2": [dict(q_mode="n2d", q_s=(2, 2))] * 4,
    "downsample": [{}] * 4,  # nothing is merged: the encoder sees every second row and column of the image
}
STAGES = 4

# Tokens, the size of their grid and the matches of blocks before, to merged tokens and what spreads them back.
Merging = Callable[..., tuple[paddle.Tensor, Callable[[paddle.Tensor], paddle.Tensor]]]


def keep_all(tokens: paddle.Tensor, size: Sequence[int], matches: dict | None = None) -> tuple[paddle.Tensor, Callable]:
    """The merging that merges nothing."""
    return tokens, _identity


class GridMerging:
    """Neighbour merging in two dimensions: the mean of each cell of the grid; spread back to the nearest tokens.

    At the lower and right edge a cell may hold fewer tokens.

    Args:
        cell: Rows and columns of a cell.

    Source: SegFormer++, "n2d".
    """

    def __init__(self, cell: Sequence[int]) -> None:
        self.cell = tuple(cell)

    def __call__(
        self, tokens: paddle.Tensor, size: Sequence[int], matches: dict | None = None
    ) -> tuple[paddle.Tensor, Callable]:
        rows, columns = _fixed(size)
        channels = tokens.shape[2]
        weights, nearest = _grid(rows, columns, self.cell)
        cell_rows, cell_columns, _ = weights.shape
        grid = tokens.reshape([-1, rows, columns, channels])
        # Zeros by concatenation: oneDNN's Pad takes the axes of four dimensions for others.
        for axis, missing in (1, cell_rows * self.cell[0] - rows), (2, cell_columns * self.cell[1] - columns):
            if missing:
                border = [_batch(grid), *grid.shape[1:]]
                border[axis] = missing
                grid = paddle.concat([grid, paddle.zeros(border, grid.dtype)], axis=axis)
        # Two sums over one axis each: engines have a fast kernel for them, and for fewer than 6 dimensions only.
        grid = grid.reshape([-1, self.cell[0], cell_columns * self.cell[1] * channels]).sum(axis=1)
        grid = grid.reshape([-1, self.cell[1], channels]).sum(axis=1)
        grid = grid.reshape([-1, cell_rows, cell_columns, channels]) * paddle.to_tensor(weights)
        merged = grid.reshape([-1, cell_rows * cell_columns, channels])
        return merged, lambda values: values.index_select(paddle.to_tensor(nearest), axis=1)


class SequenceMerging:
    """Neighbour merging in one dimension: as `GridMerging`, with the tokens in one long row.

    Args:
        stride: Tokens in a cell.

    Source: SegFormer++, "n1d".
    """

    def __init__(self, stride: int) -> None:
        self._row = GridMerging((1, stride))

    def __call__(
        self, tokens: paddle.Tensor, size: Sequence[int], matches: dict | None = None
    ) -> tuple[paddle.Tensor, Callable]:
        rows, columns = _fixed(size)
        return self._row(tokens, (1, rows * columns))


class BipartiteMerging:
    """Bipartite soft matching: the tokens that are most like one of a few fixed tokens are averaged into it.

    The top left token of each whole cell is a destination, every other token a source. Each source is matched with the
    destination of the largest cosine similarity, and the sources that are most similar to theirs become part of it: a
    destination turns into the mean of itself and its sources. What is left are the unmatched sources, most similar
    first, and then the destinations. The choice carries no gradient; the mean and the spreading back do.

    A grid without a whole cell has no destination and stays as it is. A call finds its own matches, or takes those
    that `matches` holds for this object, and leaves them there.

    Args:
        ratio: Part of all tokens to merge away, at most all sources.
        cell: Rows and columns of a cell.

    Source: SegFormer++, "bsm"; `tomesd.merge.bipartite_soft_matching_random2d` with no_rand=True.
    """

    def __init__(self, ratio: float, cell: Sequence[int]) -> None:
        self.ratio = ratio
        self.cell = tuple(cell)

    def __call__(
        self, tokens: paddle.Tensor, size: Sequence[int], matches: dict | None = None
    ) -> tuple[paddle.Tensor, Callable]:
        rows, columns = _fixed(size)
        destinations, sources = _bipartition(rows, columns, self.cell)
        away = min(int(rows * columns * self.ratio), len(sources))
        if away == 0 or len(destinations) == 0:
            return keep_all(tokens, size)
        left = len(sources) - away
        matches = {} if matches is None else matches
        if self not in matches:
            with paddle.no_grad():
                matches[self] = _places(tokens, destinations, sources, left)
        place, unmerged = matches[self]
        means = _means if paddle.in_dynamic_mode() else _means_by_product
        merged = means(tokens, _plus(place, -left), len(destinations))
        if left:
            merged = paddle.concat([_take(tokens, unmerged), merged], axis=1)
        return merged, lambda values: _take(values, place)


def _means(tokens: paddle.Tensor, group: paddle.Tensor, number: int) -> paddle.Tensor:
    """Means of the tokens [B, N, C] of each group 0, 1, ...; those of a negative one are left out. [B, number, C]."""
    batch, channels = tokens.shape[0], tokens.shape[2]
    row = _flat_index(paddle.where(group < 0, paddle.full_like(group, number), group), number + 1).unsqueeze(1)
    counts = paddle.zeros([batch * (number + 1), 1], tokens.dtype)
    counts = paddle.scatter_nd_add(counts, row, paddle.ones_like(row, dtype=tokens.dtype)).clip(min=1)
    sums = paddle.zeros([batch * (number + 1), channels], tokens.dtype)
    sums = paddle.scatter_nd_add(sums, row, tokens.reshape([-1, channels]))
    return (sums / counts).reshape([batch, number + 1, channels])[:, :number]


def _means_by_product(tokens: paddle.Tensor, group: paddle.Tensor, number: int) -> paddle.Tensor:
    """The same as a matrix product, for graphs: ONNX Runtime adds to one row from several threads at once and loses
    some of it, and TensorRT has no scatter that adds."""
    numbers = paddle.arange(number, dtype="int64").reshape([1, number, 1])
    members = (group.unsqueeze(1) == numbers).astype(tokens.dtype)  # [B, number, N]
    return paddle.matmul(members, tokens) / members.sum(axis=2, keepdim=True)


def stage_mergings(token_merging: str | Sequence[dict[str, Any]] | None) -> list[tuple[Merging, Merging]]:
    """What merges the queries and what merges the keys and values in each of the four stages.

    Args:
        token_merging: None, a name of `PRESETS`, or four dictionaries, one a stage, with the original's keys: q_mode
            and kv_mode (None, "bsm", "n1d" or "n2d"); for bsm the ratios q_r, kv_r and the cells q_sx, q_sy, kv_sx,
            kv_sy; for n1d the number and for n2d the pair (rows, columns) q_s, kv_s.

    Raises:
        UserError: A preset, key or mode is unknown, or a number is missing, out of range or without effect.
    """
    if token_merging is None:
        return [(keep_all, keep_all)] * STAGES
    if isinstance(token_merging, str):
        if token_merging not in PRESETS:
            raise unknown("token_merging", token_merging, PRESETS)
        token_merging = PRESETS[token_merging]
    if not isinstance(token_merging, Sequence) or len(token_merging) != STAGES:
        raise UserError(f"token_merging must be a preset or {STAGES} dictionaries, one a stage, got {token_merging!r}")
    return [_stage(number, settings) for number, settings in enumerate(token_merging, 1)]


# By mode, the keys behind "q_" or "kv_" that it needs.
_KEYS = {"bsm": ("r", "sx", "sy"), "n1d": ("s",), "n2d": ("s",)}


def _stage(number: int, settings: dict[str, Any]) -> tuple[Merging, Merging]:
    valid = [f"{side}_{key}" for side in ("q", "kv") for key in ("mode", "r", "sx", "sy", "s")]
    if not isinstance(settings, dict):
        raise UserError(f"token_merging: stage {number} must be a dictionary, got {settings!r}")
    for key in settings:
        if key not in valid:
            raise unknown(f"token_merging key in stage {number}", key, valid)
    queries, keys_and_values = (_side(f"token_merging: stage {number}", side, settings) for side in ("q", "kv"))
    return queries, keys_and_values


def _side(where: str, side: str, settings: dict[str, Any]) -> Merging:
    mode = settings.get(f"{side}_mode")
    if mode is not None and mode not in _KEYS:
        raise unknown(f"{side}_mode", mode, _KEYS)
    needed = [f"{side}_{key}" for key in _KEYS.get(mode, ())]
    for key in needed:
        if settings.get(key) is None:
            raise UserError(f"{where}: {side}_mode {mode!r} needs {key}; it needs {', '.join(needed)}")
    for key in settings:
        if key.startswith(f"{side}_") and key not in (*needed, f"{side}_mode"):
            raise UserError(f"{where}: {key} has no effect with {side}_mode {mode!r}; leave it out")
    values = [settings[key] for key in needed]
    if mode == "bsm":
        ratio, columns, rows = values
        if isinstance(ratio, bool) or not isinstance(ratio, int | float) or not 0 <= ratio <= 1:
            raise UserError(f"{where}: {side}_r must be a number from 0 to 1, got {ratio!r}")
        return BipartiteMerging(ratio, [_count(where, f"{side}_sy", rows), _count(where, f"{side}_sx", columns)])
    if mode == "n1d":
        return SequenceMerging(_count(where, needed[0], values[0]))
    if mode == "n2d":
        pair = values[0] if isinstance(values[0], list | tuple) else [values[0]] * 2
        if len(pair) != 2:
            raise UserError(f"{where}: {needed[0]} must be a number or a pair (rows, columns), got {values[0]!r}")
        return GridMerging([_count(where, needed[0], value) for value in pair])
    return keep_all


def _count(where: str, key: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(f"{where}: {key} must hold whole numbers of at least 1, got {value!r}")
    return value


def _places(
    tokens: paddle.Tensor, destinations: np.ndarray, sources: np.ndarray, left: int
) -> tuple[paddle.Tensor, paddle.Tensor | None]:
    """For each token its row in the merged sequence, [B, N], and the positions of its first rows, [B, left].

    First come the `left` sources that stay alone, most similar first, then the destinations.
    """
    unit = tokens / (tokens * tokens).sum(axis=2, keepdim=True).sqrt()
    unit_destinations = unit.index_select(paddle.to_tensor(destinations), axis=1)
    # One column a token: engines search along columns much faster than along rows.
    scores = paddle.matmul(unit_destinations, unit, transpose_y=True)  # [B, destinations, N]
    best, nearest, total = scores.max(axis=1), scores.argmax(axis=1), len(destinations)  # [B, N]
    nearest = _plus(nearest.index_select(paddle.to_tensor(sources), axis=1), left)  # [B, sources]
    unmerged = None
    if left:
        similarity = best.index_select(paddle.to_tensor(sources), axis=1)
        least = paddle.argsort(similarity, axis=1, stable=True)[:, :left]  # of the sources, least similar first
        rows = paddle.arange(left - 1, -1, -1, dtype="int64")
        nearest = paddle.put_along_axis(nearest, least, rows.unsqueeze(0).expand([_batch(tokens), left]), axis=1)
        unmerged = paddle.to_tensor(sources).index_select(least.index_select(rows, axis=1).flatten(), axis=0)
        unmerged = unmerged.reshape([-1, left])
    own = paddle.arange(left, left + total, dtype="int64").unsqueeze(0).expand([_batch(tokens), total])
    grid = np.argsort(np.concatenate([sources, destinations]))
    return paddle.concat([nearest, own], axis=1).index_select(paddle.to_tensor(grid), axis=1), unmerged


def _take(tokens: paddle.Tensor, index: paddle.Tensor) -> paddle.Tensor:
    """Rows `index` [B, n] of each sample of tokens [B, N, C], as one gather of whole rows."""
    count, channels = tokens.shape[1:]
    rows = paddle.gather(tokens.reshape([-1, channels]), _flat_index(index, count), axis=0)
    return rows.reshape([-1, index.shape[1], channels])


def _flat_index(index: paddle.Tensor, count: int) -> paddle.Tensor:
    """Positions [B, n] in samples of `count` rows as positions [B n] in the rows of all samples."""
    starts = paddle.arange(_batch(index), dtype="int64").unsqueeze(1) * paddle.full([1], count, "int64")
    return (index + starts).flatten()


def _plus(index: paddle.Tensor, number: int) -> paddle.Tensor:
    """`index` + `number`, the latter as a tensor: plain numbers become a conversion to floating point and back, which
    changes positions above 256 where an engine computes in bf16."""
    return index + paddle.full([1], number, "int64")


def _batch(x: paddle.Tensor) -> int | paddle.Tensor:
    return x.shape[0] if x.shape[0] > 0 else paddle.shape(x)[0]


def _fixed(size: Sequence[int]) -> tuple[int, int]:
    if not all(isinstance(length, int) for length in size):
        raise ValueError("token merging needs images of a fixed height and width; give the size to export for")
    return tuple(size)


@functools.lru_cache(maxsize=64)
def _bipartition(rows: int, columns: int, cell: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the destinations in the order of the grid and of the sources in the opposite order.

    Where two sources are equally similar the original merges the first of them. The least similar ones are sought here,
    so the last ones have to come first.
    """
    position = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
    whole = position[: rows // cell[0] * cell[0], : columns // cell[1] * cell[1]]
    destinations = whole[:: cell[0], :: cell[1]].ravel()
    return destinations, np.setdiff1d(position, destinations)[::-1].copy()


@functools.lru_cache(maxsize=64)
def _grid(rows: int, columns: int, cell: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """One over the tokens of each cell, [cell rows, cell columns, 1], and each token's nearest cell, [rows columns]."""
    counts, nearest = [], []
    for length, stride in zip((rows, columns), cell, strict=True):
        cells = -(-length // stride)
        counts.append(np.minimum(stride, length - stride * np.arange(cells)))
        # As "nearest" resizing counts, in float32: not the token's own cell where the last cell is smaller.
        scale = np.float32(cells) / np.float32(length)
        nearest.append(np.minimum((np.arange(length, dtype=np.float32) * scale).astype(np.int64), cells - 1))
    weights = 1 / np.multiply.outer(*counts)[..., np.newaxis]
    return weights.astype(np.float32), np.add.outer(nearest[0] * len(counts[1]), nearest[1]).ravel()


def _identity(x: paddle.Tensor) -> paddle.Tensor:
    return x
