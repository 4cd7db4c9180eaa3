"""Labels and confidences at the frame's size from a network's coarse logits, without the full-size logits.

The logits [C, h, w] are interpolated bilinearly to the network's size, and each pixel takes the first of its largest
classes. Positions and weights are those of `paddle.nn.functional.interpolate(mode="bilinear", align_mode=0)`, bit for
bit, so the labels are Paddle's wherever its two largest logits differ by more than its own rounding.

Where the frame was padded, pixels outside the frame are not computed, which changes no label. Where it was resized, the
centre of each pixel of the frame is mapped through the resizes to the network's grid, and the coarse logits are
interpolated there, ONCE. PaddleSeg interpolates to the network's grid first and from there to the frame, which smooths
(or, for a smaller frame, samples) values that were interpolated already. The two methods differ near label boundaries;
the single interpolation is closer to the logits.
"""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np

from paddle_rt.compiled import call_kernel
from paddle_rt.errors import UserError, unknown
from paddle_rt.inference.engines import cores
from paddle_rt.inference.preprocess import ResizeSteps
from paddle_rt.kinds import check_count

_PIXELS_PER_TASK = 1 << 17  # for fewer pixels, handing the task to a thread costs more than the task itself


def labels_from_logits(
    logits: np.ndarray,
    size: Sequence[int],
    *,
    align_corners: bool = False,
    resize_steps: ResizeSteps = (),
    threads: int | None = None,
) -> np.ndarray:
    """Find each pixel's first largest class after bilinear interpolation.

    Args:
        logits: The network's coarse logits, finite float32 of at most 256 classes.
        size: (height, width) of the network's input, to which the network would have resized its logits.
        align_corners: Whether the network's own resize aligns the corners.
        resize_steps: The changes of the frame's size by the preprocessing, which are undone; padding is at the right
            and at the bottom.
        threads: CPU threads; None for every core.

    Returns:
        Labels at the frame's size.

    Shape: [C, h, w] to uint8 [H, W].

    Raises:
        UserError: An argument has another type, shape or range, or the logits contain NaN or infinity.
    """
    places = _places(logits, size, align_corners, resize_steps)
    return _run_kernel("label_rows", np.uint8, logits, places, threads)


def confidence_from_logits(
    logits: np.ndarray,
    size: Sequence[int],
    *,
    align_corners: bool = False,
    resize_steps: ResizeSteps = (),
    threads: int | None = None,
) -> np.ndarray:
    """Find the softmax probability of each pixel's largest class after bilinear interpolation, to about 1e-6.

    Every class is computed at every pixel here, so this takes two to five times as long as the labels.

    Args:
        logits: As for `labels_from_logits`.
        size: As for `labels_from_logits`.
        align_corners: As for `labels_from_logits`.
        resize_steps: As for `labels_from_logits`.
        threads: As for `labels_from_logits`.

    Returns:
        Confidences at the frame's size.

    Shape: [C, h, w] to float32 [H, W].

    Raises:
        UserError: As for `labels_from_logits`.
    """
    places = _places(logits, size, align_corners, resize_steps)
    return _run_kernel("confidence_rows", np.float32, logits, places, threads)


def warmup() -> float:
    """Compile the kernels, or load them from Numba's cache, before the first frame; return the seconds this took."""
    start = time.perf_counter()
    logits = np.zeros((1, 1, 1), np.float32)
    labels_from_logits(logits, (1, 1), threads=1)
    confidence_from_logits(logits, (1, 1), threads=1)
    return time.perf_counter() - start


_Places = tuple[np.ndarray, np.ndarray, np.ndarray]  # the fields of `upsample_kernels.Axis`


def _places(
    logits: np.ndarray, size: Sequence[int], align_corners: bool, resize_steps: ResizeSteps
) -> tuple[_Places, _Places]:
    """Place the frame's rows and its columns among the coarse values."""
    _check(logits, size, resize_steps)
    kinds = [step[0] for step in resize_steps]
    lengths = ([step[1 + i] for step in resize_steps] + [size[i]] for i in (0, 1))
    rows, columns = (
        place_pixels(coarse, axis, kinds, align_corners) for coarse, axis in zip(logits.shape[1:], lengths, strict=True)
    )
    return rows, columns


def _run_kernel(
    kernel: str, dtype: type, logits: np.ndarray, places: tuple[_Places, _Places], threads: int | None
) -> np.ndarray:
    """Run a kernel on all rows of the frame, in several threads where that pays."""
    if threads is not None:
        check_count("threads", threads)
    rows, columns = places
    out = np.empty((rows[0].size, columns[0].size), dtype)
    module = kernels()
    # For Numba another layout or a read-only array is another type, for which it would compile again.
    arguments = (np.require(logits, requirements=["C", "A", "W"]), module.Axis(*rows), module.Axis(*columns))
    run = {"label_rows": module.label_rows, "confidence_rows": module.confidence_rows}[kernel]
    call_kernel(run, *arguments, 0, 0, out)  # compiles it, or loads it from Numba's cache
    threads = threads or cores()
    tasks = max(1, min(2 * threads, out.shape[0], out.size // _PIXELS_PER_TASK))
    edges = [out.shape[0] * task // tasks for task in range(tasks + 1)]
    if min(threads, tasks) == 1:
        not_finite = run(*arguments, 0, out.shape[0], out)
    else:
        with ThreadPoolExecutor(min(threads, tasks)) as pool:
            not_finite = sum(pool.map(lambda top, end: run(*arguments, top, end, out), edges[:-1], edges[1:]))
    if not_finite:
        raise UserError("the logits contain NaN or infinity, so no class is largest; check the network's weights")
    return out


def place_pixels(coarse: int, lengths: Sequence[int], kinds: Sequence[str], align_corners: bool) -> _Places:
    """Place the frame's pixels among the coarse values of one axis.

    Args:
        coarse: The number of coarse values.
        lengths: The frame's length and its length after each step; the last one is the network's.
        kinds: The kind of each step, "resize" or "padding".
        align_corners: Whether the network's own resize aligns the corners.

    Returns:
        The fields of `upsample_kernels.Axis`.
    """
    places = np.arange(lengths[0], dtype=np.float64)
    for kind, before, after in zip(kinds, lengths[:-1], lengths[1:], strict=True):
        if kind == "resize":
            places = np.clip((places + 0.5) * (after / before) - 0.5, 0, after - 1)
    # Without a resize the places are integers, and single precision gives exactly the weights that Paddle uses.
    real = np.float64 if "resize" in kinds else np.float32
    cell, weight = _locate(places, real, coarse, lengths[-1], align_corners)
    edge = np.searchsorted(cell, np.arange(coarse + 1)).astype(np.int64)
    return cell, weight, edge


def _locate(
    places: np.ndarray, real: type, coarse: int, length: int, align_corners: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Find the coarse value before each place of a grid of `length`, and the weight of the value after it.

    Source: paddle/phi/kernels/cpu/interpolate_kernel.cc, which finds the value in double precision and the weight in
    single precision, and puts a grid of one pixel on the first value.
    """
    shorten = 1 if align_corners else 0
    ratio = real(coarse - shorten) / real(length - shorten) if length > 1 else real(0)
    if align_corners:
        position = exact = places.astype(real) * ratio
    else:
        position = np.maximum((places.astype(real) + real(0.5)) * ratio - real(0.5), 0)
        exact = np.maximum((places + 0.5) * np.float64(ratio) - 0.5, 0)
    cell = np.minimum(exact.astype(np.int32), coarse - 1)
    return cell, np.clip(position - cell, 0, 1).astype(np.float32)


def _check(logits: np.ndarray, size: Sequence[int], resize_steps: ResizeSteps) -> None:
    if not isinstance(logits, np.ndarray) or logits.dtype != np.float32 or logits.ndim != 3 or 0 in logits.shape:
        got = f"{logits.dtype} {list(logits.shape)}" if isinstance(logits, np.ndarray) else type(logits).__name__
        raise UserError(f"logits must be float32 [C, h, w] and not empty, got {got}")
    if logits.shape[0] > 256:
        raise UserError(f"labels are uint8, so there can be at most 256 classes, got {logits.shape[0]}")
    sizes = [*(tuple(step[1:]) for step in resize_steps), tuple(size)]
    for pair in sizes:
        if len(pair) != 2 or not all(isinstance(n, int | np.integer) and n >= 1 for n in pair):
            raise UserError(f"a size must be (height, width), whole numbers of at least 1, got {pair}")
    for (kind, *before), after in zip(resize_steps, sizes[1:], strict=True):
        if kind not in ("resize", "padding"):
            raise unknown("resize step", kind, ("resize", "padding"))
        if kind == "padding" and (before[0] > after[0] or before[1] > after[1]):
            raise UserError(
                f"padding cannot turn {tuple(before)} into the smaller {after}; check size and resize_steps"
            )


def kernels() -> ModuleType:
    """Import the kernels.

    Raises:
        UserError: Numba is missing.
    """
    try:
        from paddle_rt.inference import upsample_kernels  # here, since importing numba takes a third of a second
    except ImportError as error:
        raise UserError(f"labels from coarse logits need numba ({error}): pip install numba") from error
    return upsample_kernels
