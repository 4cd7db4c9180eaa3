"""Charts: the confusion matrix with names, and sheets of images."""

import numpy as np
import pytest

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
    panel = np.full((2000, 50, 3), 7, np.uint8)
    plain, sheet = contact_sheet(tiles), contact_sheet(tiles, panel)
    assert plain.shape[1] == 2 * (2 * 320 + 8) and np.array_equal(sheet[:, : plain.shape[1]], plain)
    assert (sheet[:, plain.shape[1] :] == 7).all()
    assert contact_sheet(tiles[:1]).shape == (26 + 240 + 8, 2 * 320 + 8, 3)
