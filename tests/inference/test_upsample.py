"""Labels from coarse logits: equal to Paddle's interpolation and argmax but for ties within float32 rounding."""

import sys
import threading

import hypothesis.extra.numpy as hnp
import numpy as np
import paddle
import paddle.nn.functional as F
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from paddle_rt.errors import UserError
from paddle_rt.inference import upsample, upsample_kernels
from paddle_rt.inference.upsample import confidence_from_logits, labels_from_logits
from tests.helpers import run_python

# Two sums of four float32 products and two nested interpolations: each is off by a few units of the largest corner.
ROUNDING = 8 * np.finfo(np.float32).eps
TINY = 1e-37  # below it float32 itself is coarser than that


def by_paddle(logits: np.ndarray, size: tuple[int, int], align_corners: bool) -> np.ndarray:
    tensor = paddle.to_tensor(logits[np.newaxis])
    return F.interpolate(tensor, list(size), mode="bilinear", align_corners=align_corners)[0].numpy()


def places(
    length: int, resize_steps: list[tuple[str, int]], network: int, coarse: int, align_corners: bool
) -> list[float]:
    """Each pixel's place among the coarse values, one at a time: the definition of the composed map."""
    found = []
    sizes = [n for _, n in resize_steps] + [network]
    for pixel in range(length):
        at = float(pixel)
        for (kind, before), after in zip(resize_steps, sizes[1:], strict=True):
            if kind == "resize":
                at = min(max((at + 0.5) * after / before - 0.5, 0.0), after - 1.0)
        if network == 1:
            at = 0.0
        elif align_corners:
            at = at * (coarse - 1) / (network - 1)
        else:
            at = (at + 0.5) * coarse / network - 0.5
        found.append(min(max(at, 0.0), coarse - 1.0))
    return found


def by_numpy(logits: np.ndarray, at_y: list[float], at_x: list[float]) -> np.ndarray:
    """Bilinear interpolation in double precision, as a product with two matrices of hat functions."""
    rows, columns = (
        np.maximum(0, 1 - np.abs(np.array(at)[:, None] - np.arange(n)))
        for at, n in zip((at_y, at_x), logits.shape[1:], strict=True)
    )
    return rows @ logits.astype(np.float64) @ columns.T


def corner_sizes(logits: np.ndarray, at_y: list[float], at_x: list[float]) -> np.ndarray:
    """The largest magnitude among the coarse values around each pixel, which float32 rounding is relative to."""
    sizes = np.abs(logits.astype(np.float64)).max(axis=0)
    for axis, at in enumerate((at_y, at_x)):
        last = sizes.shape[axis] - 1
        around = [np.clip(np.floor(np.array(at) + shift), 0, last).astype(int) for shift in (-1e-4, 1e-4, 1 + 1e-4)]
        sizes = np.maximum.reduce([np.take(sizes, indices, axis=axis) for indices in around])
    return sizes


def count_differences(labels: np.ndarray, values: np.ndarray, largest: np.ndarray) -> int:
    """Count the pixels where labels are not the first largest of values, and check that these are near ties."""
    assert labels.dtype == np.uint8 and labels.shape == values.shape[1:]
    taken = np.take_along_axis(values, labels[np.newaxis].astype(np.int64), axis=0)[0]
    gap = values.max(axis=0).astype(np.float64) - taken
    wrong = gap > ROUNDING * largest + TINY
    share = (gap / (ROUNDING * largest + TINY)).max()
    assert not wrong.any(), f"{wrong.sum()} of {wrong.size} labels are wrong, by up to {share:.3g} times the rounding"
    return int((values.argmax(axis=0) != labels).sum())


def compare_with_paddle(logits: np.ndarray, size: tuple[int, int], align_corners: bool) -> int:
    labels = labels_from_logits(logits, size, align_corners=align_corners)
    at_y, at_x = (places(size[i], [], size[i], logits.shape[1 + i], align_corners) for i in (0, 1))
    return count_differences(labels, by_paddle(logits, size, align_corners), corner_sizes(logits, at_y, at_x))


def smooth_logits(classes: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Random logits that vary slowly, with about an eighth of the cells on a label boundary."""
    coarse = np.random.default_rng(seed).normal(0, 6, (classes, height // 8 + 2, width // 8 + 2)).astype(np.float32)
    return by_paddle(coarse, (height, width), True)


sides = st.integers(1, 12)
sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))
shapes = st.tuples(st.integers(1, 6), sides, sides)
few_values = st.sampled_from([float(np.float32(value)) for value in (-1, 0, -0.0, 1, 2, 0.1, 1 / 3)])
any_value = st.floats(-1e4, 1e4, width=32)
any_size = st.floats(-(2.0**126), 2.0**126, width=32)  # Paddle's own sums overflow soon after


@settings(max_examples=300, deadline=None)
@given(
    logits=st.one_of(*(hnp.arrays(np.float32, shapes, elements=kind) for kind in (few_values, any_value, any_size))),
    size=sizes,
    align_corners=st.booleans(),
)
@example(np.zeros((3, 1, 1), np.float32), (17, 1), False)
@example(np.arange(2 * 4 * 4, dtype=np.float32).reshape(2, 4, 4) % 5, (1, 1), False)
def test_equals_paddle(logits: np.ndarray, size: tuple[int, int], align_corners: bool) -> None:
    compare_with_paddle(logits, size, align_corners)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), classes=st.integers(1, 256), shape=st.tuples(sides, sides), size=sizes,
       align_corners=st.booleans())  # fmt: skip
def test_equals_paddle_for_any_number_of_classes(
    seed: int, classes: int, shape: tuple[int, int], size: tuple[int, int], align_corners: bool
) -> None:
    logits = np.random.default_rng(seed).normal(0, 5, (classes, *shape)).astype(np.float32)
    different = compare_with_paddle(logits, size, align_corners)
    assert different <= 1, f"{different} of {size[0] * size[1]} labels differ from Paddle's, though only by rounding"


@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize(
    ("shape", "size"),
    [((64, 128), (512, 1024)), ((45, 60), (360, 480)), ((64, 96), (500, 333)), ((100, 140), (33, 71)), ((9, 7), (9, 7)),
     ((33, 65), (1025, 513)), ((2, 300), (700, 2)), ((1, 37), (50, 299))],
)  # fmt: skip
def test_smooth_logits(shape: tuple[int, int], size: tuple[int, int], align_corners: bool) -> None:
    logits = smooth_logits(19, *shape)
    different = compare_with_paddle(logits, size, align_corners)
    pixels = size[0] * size[1]
    assert different <= 1 + 1e-5 * pixels, f"{different} of {pixels} labels differ from Paddle's, by rounding"


def test_ties_take_the_first() -> None:
    logits = np.zeros((5, 6, 7), np.float32)
    assert (labels_from_logits(logits, (48, 50)) == 0).all()
    logits[[2, 4]] = 3
    assert (labels_from_logits(logits, (48, 50)) == 2).all()
    logits[2, 3, 3] = 2  # class 4 leads around this one value and shares the rest
    labels = labels_from_logits(logits, (48, 56))
    assert set(np.unique(labels)) == {2, 4} and (labels == 4).sum() == 16 * 16

    logits = smooth_logits(3, 20, 30)
    logits[1] = logits[0]
    assert 1 not in labels_from_logits(logits, (160, 240)), "a class equal to an earlier one won"


def test_huge_values() -> None:
    largest = np.finfo(np.float32).max
    logits = np.random.default_rng(0).choice([-largest, 0, largest], (4, 5, 6)).astype(np.float32)
    at = places(40, [], 40, 5, False), places(47, [], 47, 6, False)
    count_differences(labels_from_logits(logits, (40, 47)), by_numpy(logits, *at), corner_sizes(logits, *at))
    assert np.isfinite(confidence_from_logits(logits, (40, 47))).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("function", [labels_from_logits, confidence_from_logits])
def test_refuses_what_is_not_finite(value: float, function: object) -> None:
    for place in np.ndindex(2, 3, 3):
        logits = np.zeros((2, 3, 3), np.float32)
        logits[place] = value
        with pytest.raises(UserError, match="NaN or infinity"):
            function(logits, (24, 25))


@st.composite
def size_changes(draw: st.DrawFn) -> tuple[list[tuple[str, int, int]], tuple[int, int]]:
    """A frame's size, up to three steps on it, and the network's size after them."""
    size, resize_steps = draw(sizes), []
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["resize", "padding"]))
        resize_steps.append((kind, *size))
        size = draw(sizes) if kind == "resize" else tuple(n + draw(st.integers(0, 9)) for n in size)
    return resize_steps, size


@settings(max_examples=200, deadline=None)
@given(logits=hnp.arrays(np.float32, shapes, elements=any_value), steps=size_changes(), align_corners=st.booleans())
def test_resize_steps_are_the_composed_map(logits: np.ndarray, steps: tuple, align_corners: bool) -> None:
    resize_steps, size = steps
    frame = resize_steps[0][1:] if resize_steps else size
    at_y, at_x = (
        places(frame[i], [(kind, pair[i]) for kind, *pair in resize_steps], size[i], logits.shape[1 + i], align_corners)
        for i in (0, 1)
    )
    labels = labels_from_logits(logits, size, align_corners=align_corners, resize_steps=resize_steps)
    if any(kind == "resize" for kind, *_ in resize_steps):
        values = by_numpy(logits, at_y, at_x)
    else:
        values = by_paddle(logits, size, align_corners)[:, : frame[0], : frame[1]]
    count_differences(labels, values, corner_sizes(logits, at_y, at_x))


@pytest.mark.parametrize("align_corners", [False, True])
def test_padding_is_cropped(align_corners: bool) -> None:
    logits = smooth_logits(7, 30, 40)
    resize_steps = [("padding", 201, 300)]
    labels = labels_from_logits(logits, (240, 320), align_corners=align_corners, resize_steps=resize_steps)
    whole = labels_from_logits(logits, (240, 320), align_corners=align_corners)
    assert np.array_equal(labels, whole[:201, :300]), f"{(labels != whole[:201, :300]).sum()} labels differ"


def test_resized_frame_is_close_to_two_steps() -> None:
    logits = smooth_logits(7, 32, 64)
    two = by_paddle(by_paddle(logits, (256, 512), False), (360, 480), False).argmax(axis=0)
    one = labels_from_logits(logits, (256, 512), resize_steps=[("resize", 360, 480)])
    share = (one == two).mean()
    assert share > 0.999, f"one interpolation agrees with two on {share:.5f} of the pixels"


@settings(max_examples=60, deadline=None)
@given(
    logits=hnp.arrays(np.float32, shapes, elements=st.floats(-30, 30, width=32)),
    size=sizes,
    align_corners=st.booleans(),
)
def test_confidence_is_the_softmax_of_the_largest(
    logits: np.ndarray, size: tuple[int, int], align_corners: bool
) -> None:
    values = by_paddle(logits, size, align_corners).astype(np.float64)
    wanted = 1 / np.exp(values - values.max(axis=0)).sum(axis=0)
    confidence = confidence_from_logits(logits, size, align_corners=align_corners)
    assert confidence.dtype == np.float32 and confidence.shape == size
    error = np.abs(confidence - wanted).max()
    assert error < 1e-5, f"confidence is off by {error:.3g}"  # 30 * float32 rounding, and the exponential's 2e-7


def test_threads_change_nothing() -> None:
    logits = smooth_logits(19, 64, 128)
    for function in (labels_from_logits, confidence_from_logits):
        alone = function(logits, (771, 1025), threads=1)
        for threads in (2, 3, 8, None):
            assert np.array_equal(function(logits, (771, 1025), threads=threads), alone), f"{threads} threads differ"


def test_callers_side_by_side() -> None:
    inputs = [smooth_logits(9, 40, 60, seed) for seed in range(4)]
    wanted = [labels_from_logits(logits, (640, 960), threads=1) for logits in inputs]
    wrong = []

    def work(number: int) -> None:
        for _ in range(5):
            if not np.array_equal(labels_from_logits(inputs[number], (640, 960), threads=2), wanted[number]):
                wrong.append(number)

    callers = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong, f"wrong labels in the threads {sorted(set(wrong))}"


def test_input_may_be_a_view_and_stays_as_it_is() -> None:
    logits = smooth_logits(4, 20, 30)
    view = np.asfortranarray(logits)[:, ::-1]
    copy = view.copy()
    labels = labels_from_logits(view, (90, 91))
    assert np.array_equal(labels, labels_from_logits(copy, (90, 91)))
    assert np.array_equal(view, copy)
    copy.setflags(write=False)
    assert np.array_equal(labels, labels_from_logits(copy, (90, 91)))
    unaligned = np.frombuffer(b"0" + copy.tobytes(), np.uint8)[1:].view(np.float32).reshape(copy.shape)
    assert np.array_equal(labels, labels_from_logits(unaligned, (90, 91)))
    assert len(upsample_kernels.label_rows.signatures) == 1, "a layout was compiled for anew"


ONE = np.zeros((1, 2, 2), np.float32)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"logits": ONE.astype(np.float64)}, "float32"),
        ({"logits": ONE[0]}, r"\[2, 2\]"),
        ({"logits": ONE.tolist()}, "list"),
        ({"logits": np.zeros((3, 0, 2), np.float32)}, "not empty"),
        ({"logits": np.zeros((257, 1, 1), np.float32)}, "256 classes"),
        ({"size": (4, 0)}, r"\(4, 0\)"),
        ({"size": (4, 4, 1)}, "height, width"),
        ({"size": (4.0, 4)}, "whole"),
        ({"threads": 0}, "threads"),
        ({"resize_steps": [("resizing", 4, 4)]}, "'resize'"),
        ({"resize_steps": [("resize", 4)]}, "height, width"),
        ({"resize_steps": [("padding", 9, 4)]}, "padding"),
    ],
)
def test_wrong_arguments(arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        labels_from_logits(**{"logits": ONE, "size": (8, 8), **arguments})


def _python(code: str, **environment: str) -> str:
    run = run_python("-c", code, **environment)
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


REPORT = """
from paddle_rt.inference import upsample, upsample_kernels
seconds = upsample.warmup()
from paddle_rt.inference import upsample_kernels
stats = upsample_kernels.label_rows.stats
print(seconds > 0, sum(stats.cache_hits.values()), stats.cache_path)
"""


def test_machine_code_is_kept(tmp_path: object) -> None:
    first = _python(REPORT, NUMBA_CACHE_DIR=str(tmp_path)).split()
    second = _python(REPORT, NUMBA_CACHE_DIR=str(tmp_path)).split()
    assert first[:2] == ["True", "0"] and second[:2] == ["True", "1"], f"{first} then {second}"
    assert second[2].startswith(str(tmp_path))


def test_works_where_nothing_can_be_written(tmp_path: object) -> None:
    (tmp_path / "file").write_text("in the way of a folder")
    only = {"NUMBA_CACHE_LOCATOR_CLASSES": "UserProvidedCacheLocator", "NUMBA_CACHE_DIR": str(tmp_path / "file" / "x")}
    assert _python(REPORT, **only).split() == ["True", "0", "None"]


@pytest.mark.slow
def test_damaged_cache_is_named(tmp_path: object) -> None:
    _python(REPORT, NUMBA_CACHE_DIR=str(tmp_path))
    for file in tmp_path.rglob("*.nbi"):
        file.write_bytes(file.read_bytes()[:20])
    code = "from paddle_rt.errors import UserError\ntry:\n    " + REPORT.strip().replace("\n", "\n    ")
    answer = _python(code + "\nexcept UserError as error:\n    print(error)", NUMBA_CACHE_DIR=str(tmp_path))
    assert str(tmp_path) in answer and "NUMBA_CACHE_DIR" in answer


def test_import_loads_neither_numba_nor_paddle() -> None:
    code = "import sys, paddle_rt.inference.upsample\nprint([m for m in ('numba', 'paddle') if m in sys.modules])"
    assert _python(code) == "[]"


def test_lacking_numba_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("numba", "paddle_rt.inference.upsample_kernels"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delattr("paddle_rt.inference.upsample_kernels", raising=False)
    with pytest.raises(UserError, match="pip install numba"):
        upsample.warmup()
