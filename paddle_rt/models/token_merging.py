"""Token merging: attention over fewer queries, keys and values.

A merging takes tokens [B, N, C] on a grid of height x width = N. It returns fewer tokens, and a function that assigns
to each of the N tokens the value that was computed for the token it was merged into. It has no parameters, so one
checkpoint serves every choice.

Source: Kienzle et al., SegFormer++: Efficient Token-Merging Strategies for High-Resolution Semantic Segmentation, MIPR
2024, arXiv 2405.14467; the matching is that of Bolya and Hoffman, Token Merging for Fast Stable Diffusion, CVPRW 2023,
arXiv 2303.17604 (`tomesd`), without its randomness.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
import paddle.nn.functional as F

from paddle_rt.errors import UserError, unknown
from paddle_rt.kinds import check_count

# The settings of each preset in the four stages, with the original's keys. The original has two tables of them; these
# are from its MMSegmentation configs, since the other table names modes that its own code does not know.
PRESETS: dict[str, list[dict[str, Any]]] = {
    "bsm_hq": [dict(kv_mode="bsm", kv_r=0.6, kv_sx=2, kv_sy=2)] * 2 + [dict(q_mode="bsm", q_r=0.8, q_sx=4, q_sy=4)] * 2,
    "bsm_fast": [dict(kv_mode="bsm", kv_r=0.9, kv_sx=4, kv_sy=4)] * 2
    + [dict(q_mode="bsm", q_r=0.9, q_sx=4, q_sy=4)] * 2,
    "n2d_2x2": [dict(q_mode="n2d", q_s=(2, 2))] * 4,
    "downsample": [{}] * 4,  # nothing is merged: the encoder sees every second row and column of the image
}
STAGES = 4

# Takes tokens, the size of their grid and, optionally, the matches found before. Returns the merged tokens and the
# function that spreads values of merged tokens over all tokens.
Merging = Callable[..., tuple[paddle.Tensor, Callable[[paddle.Tensor], paddle.Tensor]]]


def keep_all(tokens: paddle.Tensor, size: Sequence[int], matches: dict | None = None) -> tuple[paddle.Tensor, Callable]:
    """Merge nothing."""
    return tokens, _identity


class GridMerging:
    """Neighbour merging in two dimensions: each cell of the grid is averaged to one token.

    Values are spread back by nearest-neighbour resizing. Cells at the lower and right border may hold fewer tokens.

    Args:
        cell: Numbers of rows and of columns in a cell.

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
        grid = self._pad(grid, cell_rows * self.cell[0] - rows, cell_columns * self.cell[1] - columns)
        # Sums over the rows and then over the columns of each cell. Paddle reduces one of three axes fastest.
        grid = grid.reshape([-1, self.cell[0], cell_columns * self.cell[1] * channels]).sum(axis=1)
        grid = grid.reshape([-1, self.cell[1], channels]).sum(axis=1)
        grid = grid.reshape([-1, cell_rows, cell_columns, channels]) * paddle.to_tensor(weights)
        merged = grid.reshape([-1, cell_rows * cell_columns, channels])
        return merged, lambda values: values.index_select(paddle.to_tensor(nearest), axis=1)

    def _pad(self, grid: paddle.Tensor, rows: int, columns: int) -> paddle.Tensor:
        """Append rows and columns of zeros to a grid [B, rows, columns, C]."""
        return F.pad(grid, [0, columns, 0, rows], data_format="NHWC") if rows or columns else grid


class SequenceMerging:
    """Neighbour merging in one dimension: as `GridMerging`, with all tokens in one row.

    Args:
        stride: Number of tokens in a cell.

    Source: SegFormer++, "n1d". No preset uses this mode; it is here because the original has it.
    """

    def __init__(self, stride: int) -> None:
        self.row = GridMerging((1, stride))

    def __call__(
        self, tokens: paddle.Tensor, size: Sequence[int], matches: dict | None = None
    ) -> tuple[paddle.Tensor, Callable]:
        rows, columns = _fixed(size)
        return self.row(tokens, (1, rows * columns))


class BipartiteMerging:
    """Bipartite soft matching: tokens are averaged with the most similar one of a few fixed tokens.

    The top left token of each complete cell is a destination, every other token a source. Each source is matched with
    the destination of the largest cosine similarity, and the sources that are most similar to their destinations are
    merged: each destination becomes the mean of itself and its sources. The result consists of the unmerged sources,
    most similar first, and of the destinations. The choice has no gradient; the means and the spreading back have.

    A grid without a complete cell has no destination and is not changed.

    Args:
        ratio: Share of all tokens to merge into others; at most all sources are merged.
        cell: Numbers of rows and of columns in a cell.

    A call with a dictionary `matches` uses the matches that an earlier call of this object stored there. If there are
    none, it finds its own and stores them.

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
        merged_away = min(int(rows * columns * self.ratio), len(sources))
        if merged_away == 0 or len(destinations) == 0:
            return keep_all(tokens, size)
        matches = {} if matches is None else matches
        if self not in matches:
            with paddle.no_grad():
                matches[self] = self._match(tokens, destinations, sources, len(sources) - merged_away)
        match = matches[self]
        return self._merge(tokens, match, rows * columns - merged_away), lambda values: self._spread(values, match)

    def _match(
        self, tokens: paddle.Tensor, destinations: np.ndarray, sources: np.ndarray, unmerged: int
    ) -> paddle.Tensor:
        """Return the place of each token in the merged sequence, [B, N].

        Args:
            tokens: [B, N, C].
            destinations: Positions of the destinations among the tokens.
            sources: Positions of the sources.
            unmerged: Number of sources that are not merged.
        """
        batch, total = tokens.shape[0], len(destinations)
        unit = tokens / (tokens * tokens).sum(axis=2, keepdim=True).sqrt()
        scores = paddle.matmul(unit.index_select(paddle.to_tensor(destinations), axis=1), unit, transpose_y=True)
        similarity = scores.max(axis=1).index_select(paddle.to_tensor(sources), axis=1)  # [B, sources]
        place = scores.argmax(axis=1).index_select(paddle.to_tensor(sources), axis=1) + unmerged
        if unmerged:
            least_similar = paddle.argsort(similarity, axis=1, stable=True)[:, :unmerged].flip(axis=1)
            first_places = paddle.arange(unmerged).expand([batch, unmerged])
            place = paddle.put_along_axis(place, least_similar, first_places, axis=1)
        own_places = paddle.arange(unmerged, unmerged + total).expand([batch, total])
        order_of_grid = np.argsort(np.concatenate([sources, destinations]))
        return paddle.concat([place, own_places], axis=1).index_select(paddle.to_tensor(order_of_grid), axis=1)

    def _merge(self, tokens: paddle.Tensor, place: paddle.Tensor, length: int) -> paddle.Tensor:
        """Average all tokens [B, N, C] that have the same place. Shape: [B, length, C]."""
        batch, _, channels = tokens.shape
        row = _flat_index(place, length).unsqueeze(1)
        counts = paddle.zeros([batch * length, 1], tokens.dtype)
        counts = paddle.scatter_nd_add(counts, row, paddle.ones_like(row, dtype=tokens.dtype))
        sums = paddle.zeros([batch * length, channels], tokens.dtype)
        sums = paddle.scatter_nd_add(sums, row, tokens.reshape([-1, channels]))
        return (sums / counts).reshape([batch, length, channels])

    def _spread(self, values: paddle.Tensor, place: paddle.Tensor) -> paddle.Tensor:
        """Assign to each token the value at its place. Shape: [B, length, C] to [B, N, C]."""
        _, length, channels = values.shape
        rows = paddle.gather(values.reshape([-1, channels]), _flat_index(place, length), axis=0)
        return rows.reshape([-1, place.shape[1], channels])


def _flat_index(index: paddle.Tensor, length: int) -> paddle.Tensor:
    """Turn positions [B, n] in samples of `length` rows into positions [B n] in the rows of all samples."""
    return (index + paddle.arange(index.shape[0]).unsqueeze(1) * length).flatten()


def stage_mergings(token_merging: str | Sequence[dict[str, Any]] | None) -> list[tuple[Merging, Merging]]:
    """Build the mergings of the four stages.

    Args:
        token_merging: None, a name of `PRESETS`, or one dictionary for each of the four stages, with the original's
            keys: q_mode and kv_mode (None, "bsm", "n1d" or "n2d"); for bsm the ratios q_r and kv_r and the cells q_sx,
            q_sy, kv_sx and kv_sy; for n1d the number of tokens and for n2d the pair (rows, columns) q_s and kv_s.

    Returns:
        For each stage the merging of the queries, and the merging of the keys and values.

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
        raise UserError(
            f"token_merging must be a preset or {STAGES} dictionaries, one for each stage, got {token_merging!r}"
        )
    return [_stage(number, settings) for number, settings in enumerate(token_merging, 1)]


# For each mode the keys that it needs, without their prefix "q_" or "kv_".
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
        check_count(f"{where}: {side}_sx", columns)
        check_count(f"{where}: {side}_sy", rows)
        return BipartiteMerging(ratio, (rows, columns))
    if mode == "n1d":
        check_count(f"{where}: {needed[0]}", values[0])
        return SequenceMerging(values[0])
    if mode == "n2d":
        pair = values[0] if isinstance(values[0], list | tuple) else [values[0]] * 2
        if len(pair) != 2:
            raise UserError(f"{where}: {needed[0]} must be a number or a pair (rows, columns), got {values[0]!r}")
        for value in pair:
            check_count(f"{where}: {needed[0]}", value)
        return GridMerging(pair)
    return keep_all


def _fixed(size: Sequence[int]) -> tuple[int, int]:
    if not all(isinstance(length, int) for length in size):
        raise ValueError("token merging needs a fixed height and width: the cells are laid out when a graph is traced")
    return tuple(size)


@functools.lru_cache(maxsize=64)
def _bipartition(rows: int, columns: int, cell: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of the destinations, in the order of the grid, and of the sources, in reverse order.

    Of two equally similar sources the original merges the one that comes first in the grid. Since a stable sort selects
    the least similar sources here, those that come last in the grid have to come first.
    """
    position = np.arange(rows * columns, dtype=np.int64).reshape(rows, columns)
    whole = position[: rows // cell[0] * cell[0], : columns // cell[1] * cell[1]]
    destinations = whole[:: cell[0], :: cell[1]].ravel()
    return destinations, np.setdiff1d(position, destinations)[::-1].copy()


@functools.lru_cache(maxsize=64)
def _grid(rows: int, columns: int, cell: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Return 1 / (tokens in the cell) for each cell, [cell rows, cell columns, 1], and the cell of each token, [N]."""
    counts, nearest = [], []
    for length, stride in zip((rows, columns), cell, strict=True):
        cells = -(-length // stride)
        counts.append(np.minimum(stride, length - stride * np.arange(cells)))
        # Nearest-neighbour resizing in float32: not always the token's own cell where the last cell is smaller.
        scale = np.float32(cells) / np.float32(length)
        nearest.append(np.minimum((np.arange(length, dtype=np.float32) * scale).astype(np.int64), cells - 1))
    weights = 1 / np.multiply.outer(*counts)[..., np.newaxis]
    return weights.astype(np.float32), np.add.outer(nearest[0] * len(counts[1]), nearest[1]).ravel()


def _identity(x: paddle.Tensor) -> paddle.Tensor:
    return x
