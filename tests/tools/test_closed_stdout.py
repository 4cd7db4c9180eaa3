"""A pipe that nobody reads any more: the work goes on without its log."""

import os
import sys

import pytest

from paddle_rt.cli.run import run_tool


@pytest.mark.parametrize("stderr_too", [False, True])
def test_the_log_is_given_up_and_the_work_goes_on(stderr_too, monkeypatch, capfd):
    import logging

    reader, writer = os.pipe()
    os.close(reader)
    done = []
    with os.fdopen(writer, "w") as pipe, monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        if stderr_too:
            patch.setattr(sys, "stderr", pipe)

        def main() -> None:
            for number in range(3):
                logging.getLogger("paddle_rt").info("line %d", number)
                done.append(number)

        run_tool(main)
    assert done == [0, 1, 2]
    lines = capfd.readouterr().err.splitlines()
    assert lines == ([] if stderr_too else ["warning: stdout is closed; the tool goes on without its log"])
