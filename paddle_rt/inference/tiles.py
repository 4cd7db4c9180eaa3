"""Segmentation of images larger than the network's input: tiles that overlap, and the mean of their logits.

The tiles, the mean and the way back to the image's size are those of `predict --is_slide`. That tool holds the logits
of the whole image, though, 76 bytes a pixel for 19 classes. Here only the outputs of those rows of tiles are held that
the next pixels need, and the mean is computed a few rows of pixels at a time.
"""

import functools
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from paddle_rt.compiled import call_kernel
from paddle_rt.errors import UserError
from paddle_rt.inference.engines import cores
from paddle_rt.inference.predictor import MOST_PIXELS, Prepared
from paddle_rt.inference.preprocess import Preprocess, ResizeSteps
from paddle_rt.inference.segmenter import LABEL_OPS, Labels, Segmenter
from paddle_rt.inference.upsample import kernels, place_pixels
from paddle_rt.kinds import check_count

_VALUES_PER_TASK = 1 << 22  # logits that a task computes at once: 16 MiB
_SMALLEST = np.finfo(np.float32).tiny


class TiledSegmenter:
    """Label images of any size with an exported network for images, tile by tile.

    Tiles lie on a grid; the last ones of a row and of a column are moved inside the image. Where tiles overlap, their
    logits are averaged. Transforms that change the size are applied to the whole image before it is cut, and undone
    afterwards.

    Args:
        segmenter: The export with its engine. Its graph has to give logits or probabilities.
        tile: (height, width) of a tile; that of the graph where it is fixed. An image that is smaller than the tile of
            a fixed graph is extended by its mirror image; a graph with open sizes takes it as it is.
        overlap: Pixels that neighbouring tiles have in common; None for an eighth of the tile's shorter side.
        track: Called with the places of an image's tiles, gives them back one by one; for a progress bar.

    Raises:
        UserError: The graph is one for video, gives labels or takes tiles of another size, or a number is out of range.

    Example:
        label_map = TiledSegmenter(Segmenter("output/inference_model"), (1024, 1024), 128)(image)  # uint8 [H, W]
    """

    def __init__(
        self,
        segmenter: Segmenter,
        tile: Sequence[int],
        overlap: int | None = None,
        track: Callable[[Sequence], Iterable] = iter,
    ) -> None:
        deployment = segmenter.deployment
        if not isinstance(segmenter, Segmenter):
            raise UserError(f"{deployment.folder} is an export for video, whose state belongs to whole frames")
        if deployment.output_op in LABEL_OPS:
            raise UserError(
                f"the graph in {deployment.folder} gives labels, which cannot be averaged where tiles overlap; export "
                "it with --output_op coarse"
            )
        fixed = deployment.input_shape[2:]
        if any(length not in (None, side) for length, side in zip(fixed, tile, strict=True)):
            raise UserError(
                f"the graph in {deployment.folder} takes images of {fixed[0]} x {fixed[1]} (height x width), so tiles "
                f"of {tile[0]} x {tile[1]} do not fit; give its size, or export it with open sizes"
            )
        if tile[0] * tile[1] > MOST_PIXELS:
            raise UserError(f"a tile of {tile[0]} x {tile[1]} is too large; {MOST_PIXELS} pixels are the most")
        self.overlap = min(tile) // 8 if overlap is None else overlap
        check_count("the overlap of tiles", self.overlap, 0, min(tile) - 1)
        self.segmenter, self.tile, self._track = segmenter, tuple(tile), track
        self._fixed = fixed
        # Where no step changes the size, all of them give the same on a tile as on the image, and need less memory.
        whole = Preprocess(deployment.transforms, (None, None), deployment.takes_frames)
        self._whole = whole if whole.changes_size else None
        self._channels_first = self._whole is not None and not deployment.takes_frames

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Label one image.

        Args:
            frame: uint8 BGR, or with the channels of the network.

        Returns:
            The class of each pixel, uint8.

        Shape: [H, W, 3] to [H, W].

        Raises:
            UserError: The argument is not a frame, or the network gives what is no number.
        """
        return self._run(frame, wants_confidence=False)[0]

    def predict(self, frame: np.ndarray) -> Labels:
        """Label one image, as a call does, and compute the confidence of each label, that of the mean logits."""
        return Labels(*self._run(frame, wants_confidence=True))

    def _run(self, frame: np.ndarray, wants_confidence: bool) -> tuple[np.ndarray, np.ndarray | None]:
        segmenter = self.segmenter
        segmenter.begin([frame])
        with segmenter.timed("preprocess"):
            image, steps = (frame, ()) if self._whole is None else self._whole(frame)
        size = image.shape[1:] if self._channels_first else image.shape[:2]
        tile = tuple(map(min, self.tile, size))
        network = self._input_size(tile)
        stride = [side - self.overlap for side in self.tile]
        mean = _Mean(size, tile, stride, network, steps, segmenter.deployment.align_corners)
        labels = np.empty(frame.shape[:2], np.uint8)
        confidence = np.empty(labels.shape, np.float32) if wants_confidence else None
        done, held = 0, []
        for top, left in self._track([(top, left) for top in mean.tops for left in mean.lefts]):
            place = (slice(top, top + tile[0]), slice(left, left + tile[1]))
            held.append(_Tile(top, left, self._logits(image[:, *place] if self._channels_first else image[place])))
            if left == mean.lefts[-1]:
                complete = mean.complete_rows(top)
                with segmenter.timed("labels"):
                    self._label_rows(mean, held, range(done, complete), labels, confidence)
                done = complete
                held = [item for item in held if item.top + tile[0] > mean.first_needed(done)]
        return labels, confidence

    def _input_size(self, tile: Sequence[int]) -> tuple[int, ...]:
        """Return the size of the network's input for a tile, which differs for a small image and a fixed graph."""
        return tuple(fixed or length for fixed, length in zip(self._fixed, tile, strict=True))

    def _logits(self, part: np.ndarray) -> np.ndarray:
        """Run the network on a part of the image; return its logits, coarse ones or those of each pixel."""
        segmenter = self.segmenter
        with segmenter.timed("preprocess"):
            size = self._input_size(part.shape[1:] if self._channels_first else part.shape[:2])
            part = np.ascontiguousarray(_extend(part, size, self._channels_first))
        prepared = segmenter.prepare(part) if self._whole is None else Prepared(segmenter.as_fed(part), size, ())
        output = segmenter.run_prepared([prepared])[0]
        segmenter.check_output(output, prepared.size)
        if segmenter.deployment.output_op == "softmax":  # its logarithm differs from logits by a number for each pixel
            return np.log(np.maximum(output, _SMALLEST))
        return np.array(output, np.float32, order="C")  # a copy, since engines use their memory again

    def _label_rows(
        self,
        mean: "_Mean",
        held: Sequence["_Tile"],
        rows: range,
        labels: np.ndarray,
        confidence: np.ndarray | None,
    ) -> None:
        """Label rows of pixels, some at a time, in several threads."""
        step = max(_VALUES_PER_TASK // (held[0].logits.shape[0] * labels.shape[1]), 1)

        def label(first: int) -> int:
            part = slice(first, min(first + step, rows.stop))
            values = mean.rows(held, part.start, part.stop)
            not_finite = call_kernel(kernels().best_rows, values, labels[part])
            if confidence is not None:
                values -= values.max(axis=0)
                confidence[part] = 1 / np.exp(values, out=values).sum(axis=0)
            return not_finite

        with ThreadPoolExecutor(self.segmenter.threads or cores()) as pool:
            if sum(pool.map(label, rows[::step])):
                raise UserError(
                    "the logits contain NaN or infinity, so no class is largest; check the network's weights"
                )


class _Tile(NamedTuple):
    """The logits [C, h, w] of a tile, and its first row and column in the image."""

    top: int
    left: int
    logits: np.ndarray


class _Mean:
    """The mean of the tiles' logits at the size of the frame, computed a few rows at a time.

    Args:
        size: (height, width) of the image that is cut.
        tile: (height, width) of a tile, at most those of the image.
        stride: From the first row, and column, of a tile to that of the next.
        network: (height, width) of the network's input, of which a tile is the upper left part.
        steps: The changes of the frame's size before it was cut.
        align_corners: Whether the network's last resize aligns the corners.

    Attributes:
        tops: The first row of each row of tiles.
        lefts: The first column of each column of tiles.
    """

    def __init__(
        self,
        size: Sequence[int],
        tile: Sequence[int],
        stride: Sequence[int],
        network: Sequence[int],
        steps: ResizeSteps,
        align_corners: bool,
    ) -> None:
        self.tops, self.lefts = map(tile_starts, size, tile, stride)
        self._counts = [_covering(*axis) for axis in zip(size, tile, (self.tops, self.lefts), strict=True)]
        self._size, self._tile, self._network, self._align_corners = size, tile, network, align_corners
        sizes = [*(step[1:] for step in steps), size]
        self._heights = [height for height, _ in sizes]
        self._undo = [  # of each step, where the rows and the columns before it lie among those after it
            [_undone(step[0], *lengths) for lengths in zip(before, after, strict=True)]
            for step, before, after in zip(steps, sizes[:-1], sizes[1:], strict=True)
        ]

    def complete_rows(self, top: int) -> int:
        """Return how many rows of the frame are complete with the row of tiles whose first row is `top`."""
        complete = min((other for other in self.tops if other > top), default=self._size[0])
        for (lines, _), height in reversed(list(zip(self._undo, self._heights[1:], strict=True))):
            complete = int(np.searchsorted(np.minimum(lines.cell + 1, height - 1), complete))
        return complete

    def first_needed(self, row: int) -> int:
        """Return the first row of the image that is cut that the rows of the frame from `row` on need."""
        for lines, _ in self._undo:
            row = int(lines.cell[row]) if row < lines.cell.size else self._size[0]
        return row

    def rows(self, held: Sequence[_Tile], start: int, stop: int, level: int = 0) -> np.ndarray:
        """Return the mean logits of rows of pixels of the frame, or of the image after `level` steps: [C, rows, W]."""
        if level == len(self._undo):
            return self._mean_rows(held, start, stop)
        lines, columns = self._undo[level]
        first, last = int(lines.cell[start]), min(int(lines.cell[stop - 1]) + 1, self._heights[level + 1] - 1)
        inner = self.rows(held, first, last + 1, level + 1)
        total = np.zeros((inner.shape[0], stop - start, columns.cell.size), np.float32)
        part = lines._replace(cell=lines.cell[start:stop] - np.int32(first), weight=lines.weight[start:stop])
        call_kernel(kernels().add_rows, inner, part, columns, 0, stop - start, 0, 0, total)
        return total

    def _mean_rows(self, held: Sequence[_Tile], start: int, stop: int) -> np.ndarray:
        total = np.zeros((held[0].logits.shape[0], stop - start, self._size[1]), np.float32)
        for top, left, logits in held:
            first, last = max(start, top), min(stop, top + self._tile[0])
            if first >= last:
                continue
            lengths = zip(logits.shape[1:], self._network, self._tile, strict=True)
            lines, columns = (_places(*axis, self._align_corners) for axis in lengths)
            place = (first - top, last - top, first - start, left)
            call_kernel(kernels().add_rows, logits, lines, columns, *place, total)
        total /= self._counts[0][start:stop, np.newaxis] * self._counts[1]
        return total


def tile_starts(length: int, tile: int, stride: int) -> list[int]:
    """Return where the tiles of one axis begin: `stride` apart, the last one moved so that it ends with the image."""
    steps = -(-(length - tile) // stride) + 1
    return [min(step * stride, length - tile) for step in range(steps)]


def _covering(length: int, tile: int, starts: Sequence[int]) -> np.ndarray:
    """Return the number of tiles over each pixel of an axis, float32."""
    places = np.arange(length)
    return sum((start <= places) & (places < start + tile) for start in starts).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _places(coarse: int, network: int, tile: int, align_corners: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place the pixels of a tile among the coarse logits of one axis."""
    cell, weight, edge = place_pixels(coarse, [network], [], align_corners)
    return kernels().Axis(cell[:tile], weight[:tile], edge)


def _undone(kind: str, before: int, after: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place the pixels of one axis before a step among those after it."""
    if kind == "padding":
        return kernels().Axis(np.arange(before, dtype=np.int32), np.zeros(before, np.float32), np.zeros(1, np.int64))
    return kernels().Axis(*place_pixels(after, [before], [], align_corners=False))


def _extend(part: np.ndarray, size: Sequence[int], channels_first: bool) -> np.ndarray:
    """Extend an image at the right and at the bottom by its mirror image."""
    height, width = part.shape[1:] if channels_first else part.shape[:2]
    if (height, width) == tuple(size):
        return part
    margins = [(0, size[0] - height), (0, size[1] - width)]
    others = [(0, 0)] * (part.ndim - 2)
    return np.pad(part, others + margins if channels_first else margins + others, "symmetric")
