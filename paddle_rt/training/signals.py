"""SIGTERM, SIGHUP and Ctrl-C end a run after its current step; a second one ends it at once."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


class Interrupted(Exception):  # noqa: N818  the name says what happened; it is no error
    """A signal ended the run; what it had done is saved.

    Args:
        number: The signal's number.
        iteration: The last iteration that was finished.
        checkpoint: The folder that resumes the run, or None where there is nothing to save yet.
    """

    def __init__(self, number: int, iteration: int, checkpoint: str | None) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} after iteration {iteration}")
        self.number, self.iteration, self.checkpoint = number, iteration, checkpoint

    @property
    def exit_code(self) -> int:
        """The exit code of a process that this signal ended: 143, 129 or 130."""
        return 128 + self.number


class _Abandoned(BaseException):
    """Raised inside work that a signal ends; no `except Exception` may swallow it."""


class Interruption:
    """Which signal has asked the run to stop, if any.

    Attributes:
        number: Number of the first signal, or 0.
    """

    def __init__(self) -> None:
        self.number = 0
        self._abandon = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            os._exit(128 + number)
        self.number = number
        if self._abandon:
            raise _Abandoned

    @contextmanager
    def catch(self) -> Iterator["Interruption"]:
        """Note the signals that arrive while the block runs, in place of what they did before."""
        before = {number: signal.signal(number, self._handle) for number in _SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def attempt(self, work: Callable[[], None]) -> bool:
        """Run `work`, which a signal may end at any place, and return whether it was finished."""
        try:
            self._abandon = True
            if self.number:
                return False
            work()
            self._abandon = False
            return True
        except _Abandoned:
            return False
        finally:
            self._abandon = False
