"""A bounded cache for data sets that render their images."""

from collections.abc import Callable
from typing import Any


class FirstResults(dict):
    """The first results of a slow function, by its argument; later ones are made anew each time.

    A cache that drops the oldest would find nothing in epochs that are longer than it.

    Args:
        room: How many results are kept.
    """

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room

    def result(self, key: int, make: Callable[[int], Any]) -> Any:
        """Return what is kept for a key, or else make it."""
        if key in self:
            return self[key]
        value = make(key)
        if len(self) < self.room:
            self[key] = value
        return value
