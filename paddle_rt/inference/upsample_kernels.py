"""The compiled loops behind `upsample`: labels and confidences, one row of cells after the other.

A cell is the square between four neighbouring coarse logits; the last row and the last column are cells folded to a
line. Inside a cell every class is a mean of its four corners, so a class that is the first largest at all four wins
everywhere in it. Only the other cells, called open, are computed, and only for classes that can win in one of them.

Loops are written so that LLVM makes vector instructions of them: views cut before the loop, unit stride, `max` and one
selection in place of branches. Every function releases the GIL and writes rows of its own, so that plain threads run
them side by side. Numba's own threads are not used: two callers that meet in its "workqueue" layer end the process,
and its OpenMP layer does not survive a fork.
"""

from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np

# A fused multiply-add rounds once in place of twice; nothing else that fast-math allows could leave the labels alone.
_OPTIONS = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}
_INFINITY = np.float32(np.inf)
_LARGEST = np.float32(np.finfo(np.float32).max)
# Logits are read times 1/4, an exact step, so that no difference of two of them overflows.
_QUARTER = np.float32(0.25)
_LOG2E_4 = np.float32(4 / np.log(2))
# 2 ** f for f in 0..1 to 2e-7, exactly 1 at 0: the minimax polynomial of degree 5, lowest power first.
_POWERS = (1, 0.693151295, 0.240164444, 0.0557999127, 0.00901703071, 0.00186713005)
_C0, _C1, _C2, _C3, _C4, _C5 = (np.float32(value) for value in _POWERS)
# Columns that are interpolated along a row at once, so that the next row of cells finds most of them done.
_GRAIN = 128


class Axis(NamedTuple):
    """Where the pixels of one axis lie among n coarse values.

    Args:
        cell: int32 [pixels], the coarse value at or before each pixel, from 0 to n - 1, never decreasing.
        weight: float32 [pixels], how far each pixel is on its way to the next value, from 0 to 1.
        edge: int64 [n + 1], the first pixel of each cell, and the number of pixels.
    """

    cell: np.ndarray
    weight: np.ndarray
    edge: np.ndarray


def _compiled(function: Callable) -> Callable:
    """Compile at the first call and keep the machine code on disk where numba finds a place for it.

    That is $NUMBA_CACHE_DIR, else __pycache__ beside this file, else the user's cache folder. Where none can be
    written every process compiles anew.
    """
    try:
        return numba.njit(cache=True, **_OPTIONS)(function)
    except RuntimeError:
        return numba.njit(**_OPTIONS)(function)


@_compiled
def _load(logits: np.ndarray, y: int, row: np.ndarray, first: np.ndarray) -> int:
    """Copy one coarse row of every class, the last value twice, and find each column's first largest class.

    Returns the number of values that are not finite.

    Shape: logits [C, h, w]; row [C, w + 1]; first [w + 1].
    """
    classes, width = logits.shape[0], logits.shape[2]
    best = logits[0, y].copy()
    first[:] = 0
    strange = 0
    for c in range(classes):
        source, target = logits[c, y], row[c]
        for x in range(width):
            value, held, name = source[x], best[x], first[x]
            strange += not abs(value) <= _LARGEST
            target[x] = value * _QUARTER
            best[x] = max(held, value)
            first[x] = c if value > held else name
        target[width] = target[width - 1]
    first[width] = first[width - 1]
    return strange


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
    """Find what a class must reach at a corner to win anywhere in a cell; infinity in cells that are not open.

    It is the largest over the classes of their smallest corner: that class is nowhere below it.
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
    """Find the first cell and the last plus one in which a class can win, from its rows above and below."""
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
    """Let class c challenge the best so far along a row of pixels. Equal is not enough: the first largest stays."""
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
        rows: [2, C, w + 1], the coarse rows `above` and `below`, an even one at 0, an odd one at 1.
        wide: [2, C, pixels], filled where needed.
        done: [2, C, 3], the coarse row that wide holds, and its first pixel and last plus one.
        found: [C, 3], filled with the class, its first pixel and its last plus one.

    Returns:
        The number of classes.
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

    Returns the number of values that are not finite among the logits read.

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
    strange = 0
    while top < end:
        above = np.int64(lines.cell[top])
        below = min(above + 1, height - 1)
        i, j = above & 1, below & 1  # an even coarse row is kept at 0, an odd one at 1
        for y in (above, below):
            if held[y & 1] != y:
                strange += _load(logits, y, rows[y & 1], firsts[y & 1])
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
    return strange


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
    """Add exp(4 * (value - best)), as a polynomial for the fraction of the power of 2 and its exponent bits.

    Args:
        part: float32, room for the former.
        bits: int32, room for the latter.
        power: float32, the same memory as bits.
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

    Returns the number of values that are not finite among the logits read.

    Shape: logits float32 [C, h, w]; confidence float32 [H, W].
    """
    classes, height, width = logits.shape
    size = columns.cell.size
    row, first = np.empty((classes, width + 1), np.float32), np.empty(width + 1, np.int32)
    wide, held = np.empty((2, classes, size), np.float32), np.full(2, -1, np.int64)
    values, best, part = np.empty((classes, size), np.float32), np.empty(size, np.float32), np.empty(size, np.float32)
    bits = np.empty(size, np.int32)
    power = bits.view(np.float32)
    strange = 0
    for line in range(top, end):
        above = np.int64(lines.cell[line])
        below = min(above + 1, height - 1)
        for y in (above, below):
            if held[y & 1] != y:
                strange += _load(logits, y, row, first)
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
    return strange
