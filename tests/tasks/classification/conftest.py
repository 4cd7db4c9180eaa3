"""Fixtures of the tests of classification."""

import pytest

from paddle_rt import registry
from paddle_rt.registry import Entry, register_model


@pytest.fixture(autouse=True)
def stand_in(monkeypatch) -> None:
    """Make the stand-in network known as a model type, for these tests alone."""
    monkeypatch.setattr(registry, "ENTRIES", dict(registry.ENTRIES))
    entry = Entry("tests.tasks.classification.stand_in", "StandIn", "only", {}, task="classification")
    register_model("stand_in", entry)
