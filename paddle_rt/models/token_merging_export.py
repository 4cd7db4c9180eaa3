"""The mergings of token_merging.py with operators that every inference engine computes correctly.

They compute the same numbers and allow graphs with an open batch size. What they avoid, the last two for GPUs only:

| operator | reason |
| --- | --- |
| scatter with addition | ONNX Runtime adds from several threads at once and loses some of it; TensorRT has none |
| padding of four dimensions | oneDNN pads other axes |
| index + number | is converted to floating point and back, which changes positions above 256 in bf16 |
| sort | TensorRT sorts by TopK, of fewer than 3840 entries |
| put_along_axis | Paddle has no converter to TensorRT |
"""

import numpy as np
import paddle

from paddle_rt.models.token_merging import BipartiteMerging, GridMerging, Merging, SequenceMerging

SORT_LIMIT = 3839  # the largest K of TensorRT's TopK

# For each token its place in the merged sequence, [B, N], and the positions of the unmerged sources, [B, unmerged].
_Match = tuple[paddle.Tensor, paddle.Tensor | None]


class TooManyEntries(ValueError):
    """Token merging would select more entries than TensorRT's TopK takes."""

    def __init__(self, entries: int) -> None:
        super().__init__(f"token merging selects {entries} tokens in a stage, TensorRT's TopK {SORT_LIMIT} at most")
        self.scale = (SORT_LIMIT / entries) ** 0.5  # of the height and width that it would take


def merging_for_export(merging: Merging, target: str = "cpu") -> Merging:
    """Return the merging that a graph for a target, "cpu" or "gpu", has in place of another."""
    if isinstance(merging, BipartiteMerging):
        exported = _BipartiteMergingForGPU if target == "gpu" else _BipartiteMerging
        return exported(merging.ratio, merging.cell)
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
            least_similar = self._least(similarity, unmerged)
            rows = paddle.arange(unmerged - 1, -1, -1, dtype="int64")
            place = self._put(place, least_similar, rows)
            most_similar_first = least_similar.index_select(rows, axis=1).flatten()
            unmerged_sources = paddle.to_tensor(sources).index_select(most_similar_first, axis=0)
            unmerged_sources = unmerged_sources.reshape([-1, unmerged])
        own_places = paddle.arange(unmerged, unmerged + total, dtype="int64").unsqueeze(0)
        own_places = own_places.expand([_batch_size(tokens), total])
        order_of_grid = paddle.to_tensor(np.argsort(np.concatenate([sources, destinations])))
        return paddle.concat([place, own_places], axis=1).index_select(order_of_grid, axis=1), unmerged_sources

    def _least(self, values: paddle.Tensor, number: int) -> paddle.Tensor:
        """Return the positions of the smallest values [B, n], the smallest first, [B, number]."""
        return paddle.argsort(values, axis=1, stable=True)[:, :number]

    def _put(self, place: paddle.Tensor, positions: paddle.Tensor, rows: paddle.Tensor) -> paddle.Tensor:
        """Replace the entries at `positions` [B, m] of place [B, n] by `rows` [m]."""
        rows = rows.unsqueeze(0).expand([_batch_size(place), rows.shape[0]])
        return paddle.put_along_axis(place, positions, rows, axis=1)

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


class _BipartiteMergingForGPU(_BipartiteMerging):
    """Equal similarities are selected in the order of the engine: no sort of TensorRT's is stable."""

    def _least(self, values: paddle.Tensor, number: int) -> paddle.Tensor:
        if number > SORT_LIMIT:
            raise TooManyEntries(number)
        return paddle.topk(values, number, axis=1, largest=False)[1]

    def _put(self, place: paddle.Tensor, positions: paddle.Tensor, rows: paddle.Tensor) -> paddle.Tensor:
        entries = paddle.arange(place.shape[1], dtype="int64").reshape([1, 1, -1])
        found = (positions.unsqueeze(2) == entries).astype("float32")  # [B, m, n], which half precision holds too
        row = rows.index_select(found.argmax(axis=1).flatten(), axis=0).reshape([-1, place.shape[1]])
        return paddle.where(found.max(axis=1) > paddle.full([1], 0.5), row, place)


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
