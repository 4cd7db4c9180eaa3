"""A small slice of the fuzzer."""

import pytest

from tests.helpers import run_python


@pytest.mark.slow
def test_a_slice_of_the_fuzzer_breaks_no_promise():
    done = run_python("-m", "tests.fuzz", "--seed", 1, "--number", 40, "--minutes", 1, "--jobs", 1)
    assert done.returncode == 0 and " inputs in " in done.stdout, done.stdout + done.stderr
