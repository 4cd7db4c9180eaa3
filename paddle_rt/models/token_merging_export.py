"""The mergings of token_merging.py with operators that every inference engine computes correctly.

They compute the same numbers and allow graphs with an open batch size. What they avoid:

| operator | reason |
| --- | --- |
| scatter with addition | ONNX Runtime adds from several threads at once and loses some of it; TensorRT has none |
| padding of four dimensions | oneDNN pads other axes |
| index + number | is converted to floating point and back, which changes positions above 256 in bf16 |
"""

import numpy as np
import paddle

from paddle_rt.models.token_merging import BipartiteMerging, GridMerging, Merging, SequenceMerging

# For each token its place in the merged sequence, [B, N], and the positions of the unmerged sources, [B, unmerged].
_Match = tuple[paddle.Tensor, paddle.Tensor | None]


def merging_for_export(merging: Merging) -> Merging:
    """Return the merging that a graph has in place of another."""
    if isinstance(merging, BipartiteMerging):
        return _BipartiteMerging(merging.ratio, merging.cell)
    if isinstance(merging, GridMerging):
        return _GridMerging(merging.cell)
    if isinstance(merging, SequenceMerging):
        return _SequenceMerging(merging.row.cell[1])
    return merging


class _GridMerging(GridMerging):
    def _pad(self, grid: paddle.Tensor, rows: int, columns: int) -> paddle.Tensor:
        for axis, missing in (1, rows), (2, columns):
            if missing:
                border = [_batch_size(grid), *grid.shape[1:]]
                border[axis] = missing
                grid = paddle.concat([grid, paddle.zeros(border, grid.dtype)], axis=axis)
        return grid


class _SequenceMerging(SequenceMerging):
    def __init__(self, stride: int) -> None:
        self.row = _GridMerging((1, stride))


class _BipartiteMerging(BipartiteMerging):
    def _match(self, tokens: paddle.Tensor, destinations: np.ndarray, sources: np.ndarray, unmerged: int) -> _Match:
        unit = tokens / (tokens * tokens).sum(axis=2, keepdim=True).sqrt()
        unit_destinations = unit.index_select(paddle.to_tensor(destinations), axis=1)
        # One column for each token: engines search along columns much faster than along rows.
        scores = paddle.matmul(unit_destinations, unit, transpose_y=True)  # [B, destinations, N]
        best, nearest, total = scores.max(axis=1), scores.argmax(axis=1), len(destinations)  # [B, N]
        place = _add(nearest.index_select(paddle.to_tensor(sources), axis=1), unmerged)  # [B, sources]
        unmerged_sources = None
        if unmerged:
            similarity = best.index_select(paddle.to_tensor(sources), axis=1)
            least_similar = paddle.argsort(similarity, axis=1, stable=True)[:, :unmerged]
            rows = paddle.arange(unmerged - 1, -1, -1, dtype="int64")
            first_places = rows.unsqueeze(0).expand([_batch_size(tokens), unmerged])
            place = paddle.put_along_axis(place, least_similar, first_places, axis=1)
            most_similar_first = least_similar.index_select(rows, axis=1).flatten()
            unmerged_sources = paddle.to_tensor(sources).index_select(most_similar_first, axis=0)
            unmerged_sources = unmerged_sources.reshape([-1, unmerged])
        own_places = paddle.arange(unmerged, unmerged + total, dtype="int64").unsqueeze(0)
        own_places = own_places.expand([_batch_size(tokens), total])
        order_of_grid = paddle.to_tensor(np.argsort(np.concatenate([sources, destinations])))
        return paddle.concat([place, own_places], axis=1).index_select(order_of_grid, axis=1), unmerged_sources

    def _merge(self, tokens: paddle.Tensor, match: _Match, length: int) -> paddle.Tensor:
        place, unmerged_sources = match
        unmerged = 0 if unmerged_sources is None else unmerged_sources.shape[1]
        rows = paddle.arange(unmerged, length, dtype="int64").reshape([1, length - unmerged, 1])
        members = (place.unsqueeze(1) == rows).astype(tokens.dtype)  # [B, destinations, N]
        merged = paddle.matmul(members, tokens) / members.sum(axis=2, keepdim=True)
        if unmerged_sources is None:
            return merged
        return paddle.concat([_take(tokens, unmerged_sources), merged], axis=1)

    def _spread(self, values: paddle.Tensor, match: _Match) -> paddle.Tensor:
        return _take(values, match[0])


def _take(tokens: paddle.Tensor, index: paddle.Tensor) -> paddle.Tensor:
    """Gather the rows `index` [B, n] of each sample of tokens [B, N, C]."""
    length, channels = tokens.shape[1:]
    starts = paddle.arange(_batch_size(index), dtype="int64").unsqueeze(1) * paddle.full([1], length, "int64")
    rows = paddle.gather(tokens.reshape([-1, channels]), (index + starts).flatten(), axis=0)
    return rows.reshape([-1, index.shape[1], channels])


def _add(index: paddle.Tensor, number: int) -> paddle.Tensor:
    return index + paddle.full([1], number, "int64")


def _batch_size(x: paddle.Tensor) -> int | paddle.Tensor:
    return x.shape[0] if x.shape[0] > 0 else paddle.shape(x)[0]
