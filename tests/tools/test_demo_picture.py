"""The picture of `make demo`."""

import runpy

import numpy as np

from paddle_rt import imaging
from tests.helpers import ROOT


def test_every_image_and_every_colour_is_shown() -> None:
    demo = runpy.run_path(str(ROOT / "tools/demo_picture.py"))
    colours, names = imaging.palette("CamVid", 11), imaging.class_names("CamVid", 11)
    labels = np.arange(12, dtype=np.uint8).repeat(20)[None].repeat(60, 0)
    labels[labels == 11] = 255
    entries = demo["legend_entries"]([labels], names, colours)
    assert [name for name, _ in entries] == names
    image = np.random.default_rng(0).integers(0, 255, (60, 240, 3)).astype(np.uint8)
    drawn = demo["side_by_side"]([("input", image), ("truth", imaging.colorize(labels, colours))])
    strip = demo["legend"](entries, drawn.shape[1])
    for colour in colours:
        assert (strip == colour[::-1]).all(axis=-1).any(), f"colour {colour} is not in the legend"
    assert drawn.shape[0] > 60 and (image == drawn[28:88, 6:246]).all()
