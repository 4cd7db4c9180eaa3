"""What the log says where a network learns nothing."""

import numpy as np
import pytest

from paddle_rt.tasks.base import Scores
from paddle_rt.tasks.segmentation.diagnosis import find_faults
from paddle_rt.training.log import loss_faults
from tests.training.run_toy import run
from tests.training.test_loop import options
from tests.training.toy import BrightnessTask

NAMES = ["sky", "road", "car", "pole", "sign", "tree", "bus", "wall"]


def confusion(*rows: list[int]) -> np.ndarray:
    return np.pad(np.array(rows), (0, 8 - len(rows)))


@pytest.mark.parametrize(
    "matrix, words",
    [
        ([[90, 10], [5, 95]], None),
        ([[0, 60], [0, 40]], "100 % of the pixels are predicted as road, which 40 % of them are"),
        ([[5000, 0, 0], [0, 4990, 0], [6, 4, 0]], "1 of 3 classes have recall 0: car (0.1 % of the pixels); for rare"),
        ([[0, 100], [0, 0]], "every labelled pixel is sky"),
        ([[0]], None),
    ],
)
def test_a_confusion_matrix_shows_what_is_wrong(matrix, words):
    found = find_faults(confusion(*matrix), NAMES)
    assert found == [] if words is None else (len(found) == 1 and words in found[0]), found


def test_many_missed_classes_are_one_line():
    matrix = np.zeros((8, 8), int)
    matrix[:, 0], matrix[0, 1] = np.arange(8) + 1, 5
    (line,) = find_faults(matrix, NAMES)
    assert line.startswith("7 of 8 classes have recall 0: wall (19.5 % of the pixels), bus") and "sign" in line
    assert " and 2 more; " in line and "\n" not in line and "road (" not in line


@pytest.mark.parametrize(
    "losses, words",
    [
        ([3.0, 2.5, 2.0, 1.5], None),
        ([3.0, 3.1, 2.9, 3.0], "does not fall: 3.0000 in the first quarter of the run so far, 3.0000 in the last"),
        ([0.0] * 4, "has been 0 from the start"),
        ([3.0] * 3, None),  # too few lines
    ],
)
def test_losses_show_what_is_wrong(losses, words):
    found = loss_faults(losses)
    assert found == [] if words is None else (len(found) == 1 and words in found[0]), found


def test_the_log_tells_it_after_the_first_evaluations_alone(tmp_path, caplog, monkeypatch):
    score = BrightnessTask.evaluate
    monkeypatch.setattr(
        BrightnessTask,
        "evaluate",
        lambda self, *arguments: Scores(score(self, *arguments).values, "Closeness", faults=["all is sky"]),
    )
    monkeypatch.setattr(BrightnessTask, "losses", lambda self, outputs, batch: [outputs[0].sum() * 0.0])
    caplog.set_level("WARNING", logger="paddle_rt")
    run(20, options(tmp_path, save_interval=4, log_iters=1, use_ema=True))
    lines = [text for text in caplog.messages if text.startswith("[CHECK]")]
    assert lines.count("[CHECK] all is sky") == 3 and len(lines) == 6 and "has been 0" in lines[1]
