"""The benchmark of loading a sample: both data sets load it, and give the same arrays."""

import numpy as np
import pytest

from paddle_rt.benchmark import loader
from paddle_rt.errors import InternalError, UserError
from paddle_rt.imaging.read_write import write_image


def test_both_data_sets_load_the_same_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(loader, "SIZE", (64, 128))
    monkeypatch.setattr(loader, "CROP", (64, 32))
    rows = loader.compare_loaders(2, tmp_path / "rendered")
    assert [row["pipeline"] for row in rows] == ["paddleseg", "paddle_rt"] and rows[0]["speedup"] == 1
    assert all(0 < row["reading_ms"] and 0 < row["sample_ms"] for row in rows)
    image = tmp_path / "image.png"
    write_image(image, np.zeros((32, 64, 3), np.uint8))
    with pytest.raises(UserError, match="is 128x64, but the image .* is 64x32"):
        loader.compare_loaders(1, tmp_path / "small", str(image))
    ours = loader._datasets(tmp_path / "rendered")[1]
    monkeypatch.setattr(loader, "_datasets", lambda folder: (ours, [{"img": np.zeros(3), "label": np.zeros(3)}]))
    with pytest.raises(InternalError, match="differ"):
        loader.compare_loaders(1, tmp_path / "rendered")
