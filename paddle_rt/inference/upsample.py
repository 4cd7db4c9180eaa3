"""Labels and confidences at the frame's size from a network's coarse logits, without the full-size logits.

What is computed: bilinear interpolation of the logits [C, h, w] to the network's size, then the first largest class of
each pixel. Positions and weights are those of `paddle.nn.functional.interpolate(mode="bilinear", align_mode=0)`, bit
for bit, so the labels are Paddle's wherever its two best logits differ by more than its own rounding.

Where the frame was padded, the network's pixels beyond it are not computed; that changes no label. Where it was
resized, each frame pixel's centre is carried through the resizes back to the network's grid, and the coarse logits are
interpolated there, ONCE. PaddleSeg interpolates to the network's grid first and from there to the frame: a second
smoothing, or where the frame is smaller a choice, of values that were interpolated already. The two differ near label
boundaries; the single interpolation is the closer one to the logits.
"""

import pickle
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np

from paddle_rt.errors import UserError, unknown
from paddle_rt.inference.engines import cores

# What was done to a frame's size, in order: ("resize" or "padding", height before, width before).
Trail = Sequence[tuple[str, int, int]]
_PIXELS_PER_TASK = 1 << 17  # a task of fewer costs more to hand to a thread than to do


def labels_from_logits(
    logits: np.ndarray,
    size: Sequence[int],
    *,
    align_corners: bool = False,
    trail: Trail = (),
    threads: int | None = None,
) -> np.ndarray:
    """Find each pixel's first largest class after bilinear interpolation.

    Args:
        logits: The network's coarse logits, finite float32 of at most 256 classes.
        size: (height, width) of the network's input, to which the model would have resized its logits.
        align_corners: As in the model's own resize.
        trail: What the preprocessing did to the frame's size, to be undone; padding was at the right and the bottom.
        threads: CPU threads; None for every core.

    Returns:
        Labels at the frame's size.

    Shape: [C, h, w] to uint8 [H, W].

    Raises:
        UserError: An argument is something else, or the logits hold NaN or infinity.
    """
    return _upsample("label_rows", np.uint8, logits, size, align_corners, trail, threads)


def confidence_from_logits(
    logits: np.ndarray,
    size: Sequence[int],
    *,
    align_corners: bool = False,
    trail: Trail = (),
    threads: int | None = None,
) -> np.ndarray:
    """Find the softmax probability of each pixel's largest class after bilinear interpolation, to about 1e-6.

    Every class counts at every pixel here, so it takes two to five times as long as the labels.

    Args:
        logits, size, align_corners, trail, threads: As for `labels_from_logits`.

    Returns:
        Confidences at the frame's size.

    Shape: [C, h, w] to float32 [H, W].

    Raises:
        UserError: As for `labels_from_logits`.
    """
    return _upsample("confidence_rows", np.float32, logits, size, align_corners, trail, threads)


def warmup() -> float:
    """Compile the loops, or load them from numba's cache, before the first frame; return the seconds that it took."""
    start = time.perf_counter()
    logits = np.zeros((1, 1, 1), np.float32)
    labels_from_logits(logits, (1, 1), threads=1)
    confidence_from_logits(logits, (1, 1), threads=1)
    return time.perf_counter() - start


def _upsample(
    kernel: str,
    dtype: type,
    logits: np.ndarray,
    size: Sequence[int],
    align_corners: bool,
    trail: Trail,
    threads: int | None,
) -> np.ndarray:
    _check(logits, size, trail, threads)
    rows, columns = (
        _axis(logits.shape[1 + i], [step[1 + i] for step in trail] + [size[i]], [step[0] for step in trail],
              align_corners)
        for i in (0, 1)
    )  # fmt: skip
    out = np.empty((rows[0].size, columns[0].size), dtype)
    kernels = _kernels()
    # Another layout or a read-only array would be another type to numba, to be compiled for anew.
    arguments = (np.require(logits, requirements=["C", "A", "W"]), kernels.Axis(*rows), kernels.Axis(*columns))
    run = getattr(kernels, kernel)
    _compile(run, (*arguments, 0, 0, out))
    threads = threads or cores()
    tasks = max(1, min(2 * threads, out.shape[0], out.size // _PIXELS_PER_TASK))
    edges = [out.shape[0] * task // tasks for task in range(tasks + 1)]
    if min(threads, tasks) == 1:
        strange = run(*arguments, 0, out.shape[0], out)
    else:
        with ThreadPoolExecutor(min(threads, tasks)) as pool:
            strange = sum(pool.map(lambda top, end: run(*arguments, top, end, out), edges[:-1], edges[1:]))
    if strange:
        raise UserError("the logits hold NaN or infinity, so they have no largest class; check the network's weights")
    return out


def _compile(run: Callable, arguments: tuple) -> None:
    """Call a loop with no rows to do, which compiles it, or loads it from numba's cache, where that is still to do."""
    try:
        run(*arguments)
    except (OSError, EOFError, pickle.PickleError) as error:
        raise UserError(
            f"numba's cache in {run.stats.cache_path} cannot be read or written ({error}); delete it, or set "
            "NUMBA_CACHE_DIR to another folder"
        ) from error


def _axis(
    coarse: int, lengths: Sequence[int], kinds: Sequence[str], align_corners: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Place the frame's pixels among the coarse values of one axis.

    Args:
        coarse: Number of coarse values.
        lengths: The frame's length, that after each step, and so the network's length last.
        kinds: The steps between them, "resize" or "padding".

    Returns:
        The fields of `upsample_kernels.Axis`.
    """
    places = np.arange(lengths[0], dtype=np.float64)
    for kind, before, after in zip(kinds, lengths[:-1], lengths[1:], strict=True):
        if kind == "resize":
            places = np.clip((places + 0.5) * (after / before) - 0.5, 0, after - 1)
    # Without a resize the places are whole, and single precision gives the very weights that Paddle uses.
    real = np.float64 if "resize" in kinds else np.float32
    cell, weight = _locate(places, real, coarse, lengths[-1], align_corners)
    edge = np.searchsorted(cell, np.arange(coarse + 1)).astype(np.int64)
    return cell, weight, edge


def _locate(
    places: np.ndarray, real: type, coarse: int, length: int, align_corners: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Find the coarse value before each place of a grid of `length` and the weight of the next one.

    Source: paddle/phi/kernels/cpu/interpolate_kernel.cc, where the value is found in double precision, the weight in
    single, and a grid of one pixel lies on the first value.
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


def _check(logits: np.ndarray, size: Sequence[int], trail: Trail, threads: int | None) -> None:
    if not isinstance(logits, np.ndarray) or logits.dtype != np.float32 or logits.ndim != 3 or 0 in logits.shape:
        got = f"{logits.dtype} {list(logits.shape)}" if isinstance(logits, np.ndarray) else type(logits).__name__
        raise UserError(f"logits must be float32 [C, h, w] and not empty, got {got}")
    if logits.shape[0] > 256:
        raise UserError(f"labels are uint8, so there can be 256 classes at most, got {logits.shape[0]}")
    if threads is not None and threads < 1:
        raise UserError(f"threads must be at least 1, got {threads}")
    sizes = [*(tuple(step[1:]) for step in trail), tuple(size)]
    for pair in sizes:
        if len(pair) != 2 or not all(isinstance(n, int | np.integer) and n >= 1 for n in pair):
            raise UserError(f"a size must be (height, width), whole numbers of at least 1, got {pair}")
    for (kind, *before), after in zip(trail, sizes[1:], strict=True):
        if kind not in ("resize", "padding"):
            raise unknown("step of the trail", kind, ("resize", "padding"))
        if kind == "padding" and (before[0] > after[0] or before[1] > after[1]):
            raise UserError(f"padding cannot turn {tuple(before)} into the smaller {after}; size or trail is wrong")


def _kernels() -> ModuleType:
    try:
        from paddle_rt.inference import upsample_kernels  # here, since importing numba takes a third of a second
    except ImportError as error:
        raise UserError(f"labels from coarse logits need numba ({error}); pip install numba") from error
    return upsample_kernels
