"""Charts: the confusion matrix with names, and sheets of images."""

import numpy as np
import pytest

from paddle_rt.imaging import class_names, colorize, palette
from paddle_rt.imaging.charts import confusion_chart, contact_sheet


@pytest.mark.parametrize("count", [2, 40, 100])
def test_a_cell_is_the_darker_the_larger_its_share(count):
    confusion = np.diag(np.arange(count))  # the first row is empty
    confusion[1, 0] = 3
    chart = confusion_chart(confusion, [f"class {number}" for number in range(count)])
    cell = {2: 44, 40: 26, 100: 18}[count]
    assert chart.shape[0] > count * cell and chart.dtype == np.uint8
    empty = (chart == (225, 225, 225)).all(axis=2)
    rows = np.flatnonzero(empty.sum(axis=1) > (cell - 2) * count)  # the row that no label holds
    assert len(rows) == cell - 1
    top, left = rows[0], np.flatnonzero(empty[rows[0]])[0]
    colours = [tuple(chart[top + cell * row + 2, left + cell * column + 2]) for row, column in ((1, 0), (1, 1))]
    assert sum(map(int, colours[0])) < sum(map(int, colours[1])) < 3 * 255  # 75 % and 25 %


def test_sheets_hold_images_of_any_proportions():
    images = [np.zeros((100, 200, 3), np.uint8), np.zeros((300, 30, 3), np.uint8)]
    tiles = [(f"{'long name ' * 30}{number}", images) for number in range(3)]
    names, colours = class_names("CamVid", 11), palette("CamVid", 11)
    sheet = contact_sheet(tiles, [], names, colours)
    assert sheet.shape[0] == 2 * (26 + 240 + 8) and sheet.shape[1] > 2 * (2 * 320 + 8)
    assert len(contact_sheet(tiles[:1], [], names, colours)) == 26 + 240 + 8


def test_every_image_and_every_colour_is_on_a_sheet():
    names, colours = class_names("CamVid", 11), palette("CamVid", 11)
    image = np.random.default_rng(0).integers(0, 255, (60, 320, 3)).astype(np.uint8)
    labels = colorize(np.arange(12, dtype=np.uint8).repeat(20)[None].repeat(45, 0), colours)
    sheet = contact_sheet([("input, truth", [image, labels])], range(11), names, colours)
    assert np.array_equal(sheet[26:86, :320], image) and len(sheet) > 26 + 60 + 8  # the legend is taller
    headed = contact_sheet([("a", [image, labels])], range(11), names, colours, heads=("image", "labels"))
    assert np.array_equal(headed[52:112, :320], image) and all(
        (headed[:26, at : at + 100] < 128).any() for at in (0, 320)
    )
    legend = sheet[:, 2 * 320 + 8 :]
    for name, colour in zip(names, colours, strict=True):
        assert (legend == colour[::-1]).all(axis=-1).any(), f"{name} is not in the legend"
    some = contact_sheet([("input", [image])], [3], names, colours)[:, 320 + 8 :]
    found = [number for number in range(1, 11) if (some == colours[number, ::-1]).all(axis=-1).any()]
    assert found == [3], found  # but for class 0, whose grey is that of the frames around the colours
