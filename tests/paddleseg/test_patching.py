"""A patched copy: parts of a function's source exchanged, and the function itself as it was."""

import pytest

from paddle_rt.paddleseg.patching import patched
from tests.helpers import run_python


def area_of(width: int, height: int) -> int:
    if width > 0:
        return width + height
    return 0


def twice(value: int) -> int:
    return 2 * value


def test_a_copy_is_patched_and_the_original_is_not():
    exchanges = {"width+height": "double(width * height)", "return 0": "width = -1\nreturn width"}
    copy = patched(area_of, exchanges, double=twice)
    assert (copy(2, 3), copy(0, 3)) == (12, -1)
    assert (area_of(2, 3), area_of(0, 3)) == (5, 0) and "double" not in globals()


def test_a_function_without_the_searched_code_is_refused():
    with pytest.raises(LookupError, match=r"area_of has no code \['width - height'\]"):
        patched(area_of, {"width + height": "width * height", "width - height": "0"})


def test_tracebacks_show_the_patched_source():
    copy = patched(area_of, {"width + height": "width / 0"})
    with pytest.raises(ZeroDivisionError) as raised:
        copy(1, 1)
    assert "return width / 0" in str(raised.traceback[-1].statement)


def test_import_has_no_side_effects():
    code = "import sys, paddle_rt.paddleseg; print({'paddle', 'paddleseg', 'cv2'} & set(sys.modules))"
    done = run_python("-c", code)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr
