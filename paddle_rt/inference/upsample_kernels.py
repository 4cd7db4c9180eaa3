"""The compiled kernels behind `upsample`: labels and confidences, one row of cells after the other.

A cell is the square between four neighbouring coarse logits; the cells of the last row and of the last column have no
height or no width. Inside a cell every class is a weighted mean of its four corners, so a class that is the first
largest at all four corners wins everywhere in the cell. Only the other cells, called open, are computed, and only for
the classes that can win in one of them.

The loops are written so that LLVM vectorises them: views are taken before the loop, strides are 1, and `max` and a
single selection replace branches. Every kernel releases the GIL and writes rows of its own, so that ordinary threads
can run it in parallel. Numba's own threads are not used: two callers at the same time in its "workqueue" layer kill
the process, and its OpenMP layer does not survive a fork.
"""

from typing import NamedTuple

import numpy as np

from paddle_rt.compiled import compiled

# A fused multiply-add rounds once instead of twice. Whatever else fast-math allows would change labels.
_compiled = compiled(fastmath={"contract"})
_INFINITY = np.float32(np.inf)
_LARGEST = np.float32(np.finfo(np.float32).max)
# Logits are multiplied by 1/4, which is exact, so that no difference of two of them overflows.
_QUARTER = np.float32(0.25)
_LOG2E_4 = np.float32(4 / np.log(2))
# The minimax polynomial of degree 5 for 2 ** f, f from 0 to 1, lowest power first: accurate to 2e-7, exactly 1 at 0.
_POWERS = (1, 0.693151295, 0.240164444, 0.0557999127, 0.00901703071, 0.00186713005)
_C0, _C1, _C2, _C3, _C4, _C5 = (np.float32(value) for value in _POWERS)
# The columns that are interpolated together, so that most of them are already available to the next row of cells.
_GRAIN = 128


class Axis(NamedTuple):
    """The places of the pixels of one axis among n coarse values.

    Args:
        cell: int32 [pixels], the index of the coarse value at or before each pixel, from 0 to n - 1, never decreasing.
        weight: float32 [pixels], the weight of the next coarse value, from 0 to 1.
        edge: int64 [n + 1], the first pixel of each cell, and at the end the number of pixels.
    """

    cell: np.ndarray
    weight: np.ndarray
    edge: np.ndarray


@_compiled
def _load(logits: np.ndarray, y: int, row: np.ndarray, first: np.ndarray) -> int:
    """Copy one coarse row of every class, its last value twice, and find the first largest class of each column.

    Returns the number of values that are not finite.

    Shape: logits [C, h, w]; row [C, w + 1]; first [w + 1].
    """
    classes, width = logits.shape[0], logits.shape[2]
    best = logits[0, y].copy()
    first[:] = 0
    not_finite = 0
    for c in range(classes):
        source, target = logits[c, y], row[c]
        for x in range(width):
            value, held, name = source[x], best[x], first[x]
            not_finite += not abs(value) <= _LARGEST
            target[x] = value * _QUARTER
            best[x] = max(held, value)
            first[x] = c if value > held else name
        target[width] = target[width - 1]
    first[width] = first[width - 1]
    return not_finite


@_compiled
def _mark_open(above: np.ndarray, below: np.ndarray, opened: np.ndarray) -> int:
    """Mark the cells whose corners differ in their first largest class; return their number."""
    count = 0
    for x in range(opened.size):
        name = above[x]
        same = (name == above[x + 1]) & (name == below[x]) & (name == below[x + 1])
        opened[x] = not same
        count += not same
    return count


@_compiled
def _find_bound(above: np.ndarray, below: np.ndarray, opened: np.ndarray, bound: np.ndarray) -> None:
    """Find the value that a class must reach at a corner to win in a cell; infinity in cells that are not open.

    It is the maximum over the classes of their smallest corner, since the class with that maximum is nowhere below it.
    """
    bound[:] = -_INFINITY
    for c in range(above.shape[0]):
        a, b = above[c], below[c]
        for x in range(bound.size):
            bound[x] = max(bound[x], min(min(a[x], a[x + 1]), min(b[x], b[x + 1])))
    for x in range(bound.size):
        bound[x] = bound[x] if opened[x] else _INFINITY


@_compiled
def _reaches(a: np.ndarray, b: np.ndarray, x: int, bound: np.ndarray) -> bool:
    return max(max(a[x], a[x + 1]), max(b[x], b[x + 1])) >= bound[x]


@_compiled
def _span(a: np.ndarray, b: np.ndarray, bound: np.ndarray) -> tuple[int, int]:
    """Find the first and one past the last cell in which a class can win, from its rows above and below."""
    count = 0
    for x in range(bound.size):
        count += _reaches(a, b, x, bound)
    if count == 0:
        return 0, 0
    first, last = 0, bound.size - 1
    while not _reaches(a, b, first, bound):
        first += 1
    while not _reaches(a, b, last, bound):
        last -= 1
    return first, last + 1


@_compiled
def _stretch(row: np.ndarray, cell: np.ndarray, weight: np.ndarray, wide: np.ndarray) -> None:
    """Interpolate one class along a coarse row."""
    for p in range(wide.size):
        left = row[cell[p]]
        wide[p] = left + weight[p] * (row[cell[p] + 1] - left)


@_compiled
def _compete(above: np.ndarray, below: np.ndarray, weight: float, c: int, best: np.ndarray, out: np.ndarray) -> None:
    """Compare class c with the best class so far along a row of pixels; among equal values the first class stays."""
    for p in range(out.size):
        value = above[p] + weight * (below[p] - above[p])
        held, name = best[p], out[p]
        best[p] = max(held, value)
        out[p] = c if value > held else name


@_compiled
def _contenders(
    rows: np.ndarray, above: int, below: int, columns: Axis, bound: np.ndarray, wide: np.ndarray, done: np.ndarray,
    found: np.ndarray,
) -> int:  # fmt: skip
    """List the classes that can win in a row of cells, and interpolate them along its two coarse rows.

    Args:
        rows: [2, C, w + 1], the coarse rows `above` and `below`, the even one at index 0, the odd one at index 1.
        above: The index of the coarse row above the cells.
        below: The index of the coarse row below the cells.
        columns: The places of the pixels in a row.
        bound: [w], what `_find_bound` found.
        wide: [2, C, pixels], the interpolated rows, which are filled where they are needed.
        done: [2, C, 3], the coarse row that `wide` holds, its first pixel, and one past its last pixel.
        found: [C, 3], filled with the class, its first pixel, and one past its last pixel.

    Returns:
        The number of classes that were found.
    """
    number = 0
    for c in range(rows.shape[1]):
        start, stop = _span(rows[above & 1, c], rows[below & 1, c], bound)
        p, q = columns.edge[start], columns.edge[stop]
        if p == q:
            continue
        found[number, 0], found[number, 1], found[number, 2] = c, p, q
        number += 1
        for y in (above, below):
            state = done[y & 1, c]
            if state[0] != y or state[1] > p or state[2] < q:
                p_wide = p // _GRAIN * _GRAIN
                q_wide = min((q // _GRAIN + 1) * _GRAIN, columns.cell.size)
                part = slice(p_wide, q_wide)
                _stretch(rows[y & 1, c], columns.cell[part], columns.weight[part], wide[y & 1, c, part])
                state[0], state[1], state[2] = y, p_wide, q_wide
    return number


@_compiled
def label_rows(logits: np.ndarray, lines: Axis, columns: Axis, top: int, end: int, labels: np.ndarray) -> int:
    """Label the pixel rows from top to end - 1.

    Returns the number of values among the logits that are not finite.

    Shape: logits float32 [C, h, w]; labels uint8 [H, W].
    """
    classes, height, width = logits.shape
    size = columns.cell.size
    rows, firsts = np.empty((2, classes, width + 1), np.float32), np.empty((2, width + 1), np.int32)
    held = np.full(2, -1, np.int64)
    wide, done = np.empty((2, classes, size), np.float32), np.full((2, classes, 3), -1, np.int64)
    opened, bound = np.empty(width, np.uint8), np.empty(width, np.float32)
    fill, ceiling, best = np.empty(size, np.uint8), np.zeros(size, np.float32), np.empty(size, np.float32)
    found = np.empty((classes, 3), np.int64)
    not_finite = 0
    while top < end:
        above = np.int64(lines.cell[top])
        below = min(above + 1, height - 1)
        i, j = above & 1, below & 1  # even coarse rows are kept at index 0, odd ones at index 1
        for y in (above, below):
            if held[y & 1] != y:
                not_finite += _load(logits, y, rows[y & 1], firsts[y & 1])
                held[y & 1] = y
        number = 0
        name = firsts[i]
        for p in range(size):
            fill[p] = name[columns.cell[p]]
        if _mark_open(firsts[i], firsts[j], opened) > 0:
            _find_bound(rows[i], rows[j], opened, bound)
            for p in range(size):
                ceiling[p] = -_INFINITY if opened[columns.cell[p]] else _INFINITY
            number = _contenders(rows, above, below, columns, bound, wide, done, found)
        stop = min(lines.edge[above + 1], end)
        for line in range(top, stop):
            out = labels[line]
            for p in range(size):
                out[p], best[p] = fill[p], ceiling[p]
            for k in range(number):
                c, p, q = found[k]
                _compete(wide[i, c, p:q], wide[j, c, p:q], lines.weight[line], c, best[p:q], out[p:q])
        top = stop
    return not_finite


@_compiled
def _interpolate(above: np.ndarray, below: np.ndarray, weight: float, best: np.ndarray, out: np.ndarray) -> None:
    for p in range(out.size):
        value = above[p] + weight * (below[p] - above[p])
        out[p] = value
        best[p] = max(best[p], value)


@_compiled
def _add_exponential(
    value: np.ndarray, best: np.ndarray, part: np.ndarray, bits: np.ndarray, power: np.ndarray, total: np.ndarray
) -> None:
    """Add exp(4 * (value - best)) to total, computed as a power of 2: a polynomial for its fraction times its exponent.

    Args:
        value: float32 [pixels], the logits of a class, times 1/4.
        best: float32 [pixels], the largest logits, times 1/4.
        part: float32 [pixels], memory for the polynomial.
        bits: int32 [pixels], memory for the exponent.
        power: float32 [pixels], a view of the memory of `bits`.
        total: float32 [pixels], the sum.
    """
    for p in range(total.size):
        exponent = max((value[p] - best[p]) * _LOG2E_4, np.float32(-126))
        whole = np.floor(exponent)
        f = exponent - whole
        part[p] = _C0 + f * (_C1 + f * (_C2 + f * (_C3 + f * (_C4 + f * _C5))))
        bits[p] = (np.int32(whole) + np.int32(127)) << np.int32(23)
    for p in range(total.size):
        total[p] += part[p] * power[p]


@_compiled
def confidence_rows(logits: np.ndarray, lines: Axis, columns: Axis, top: int, end: int, confidence: np.ndarray) -> int:
    """Find the largest softmax probability in the pixel rows from top to end - 1.

    Returns the number of values among the logits that are not finite.

    Shape: logits float32 [C, h, w]; confidence float32 [H, W].
    """
    classes, height, width = logits.shape
    size = columns.cell.size
    row, first = np.empty((classes, width + 1), np.float32), np.empty(width + 1, np.int32)
    wide, held = np.empty((2, classes, size), np.float32), np.full(2, -1, np.int64)
    values, best, part = np.empty((classes, size), np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    bits = np.empty(size, np.int32)
    power = bits.view(np.float32)
    not_finite = 0
    for line in range(top, end):
        above = np.int64(lines.cell[line])
        below = min(above + 1, height - 1)
        for y in (above, below):
            if held[y & 1] != y:
                not_finite += _load(logits, y, row, first)
                held[y & 1] = y
                for c in range(classes):
                    _stretch(row[c], columns.cell, columns.weight, wide[y & 1, c])
        best[:] = -_INFINITY
        for c in range(classes):
            _interpolate(wide[above & 1, c], wide[below & 1, c], lines.weight[line], best, values[c])
        total = confidence[line]
        total[:] = 0
        for c in range(classes):
            _add_exponential(values[c], best, part, bits, power, total)
        for p in range(size):
            total[p] = np.float32(1) / total[p]
    return not_finite


@_compiled
def add_rows(
    logits: np.ndarray, lines: Axis, columns: Axis, top: int, end: int, row: int, left: int, total: np.ndarray
) -> int:
    """Add the interpolated logits of the pixel rows from top to end - 1 to the rows of `total` from `row` on.

    Returns 0: the sum shows whether all logits are finite.

    Shape: logits float32 [C, h, w]; total float32 [C, rows, W], of which the columns from `left` on are changed.
    """
    classes, height, width = logits.shape
    size = columns.cell.size
    blend = np.empty(width + 1, np.float32)
    for c in range(classes):
        for line in range(top, end):
            above = np.int64(lines.cell[line])
            a, b, weight = logits[c, above], logits[c, min(above + 1, height - 1)], lines.weight[line]
            for x in range(width):
                blend[x] = a[x] + weight * (b[x] - a[x])
            blend[width] = blend[width - 1]
            out = total[c, row + line - top, left : left + size]
            for p in range(size):
                value = blend[columns.cell[p]]
                out[p] += value + columns.weight[p] * (blend[columns.cell[p] + 1] - value)
    return 0


@_compiled
def best_rows(values: np.ndarray, labels: np.ndarray) -> int:
    """Find the first largest class of each pixel; return the number of values that are not finite.

    Shape: values float32 [C, rows, W]; labels uint8 [rows, W].
    """
    classes, height, width = values.shape
    best = np.empty(width, np.float32)
    not_finite = 0
    for y in range(height):
        best[:] = -_INFINITY
        out = labels[y]
        out[:] = 0
        for c in range(classes):
            source = values[c, y]
            for x in range(width):
                value, held, name = source[x], best[x], out[x]
                not_finite += not abs(value) <= _LARGEST
                best[x] = max(held, value)
                out[x] = c if value > held else name
    return not_finite
