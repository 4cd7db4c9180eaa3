"""What check_data finds in data sets: one fault at a time, and all of them at once."""

import json
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from paddle_rt import parallel
from paddle_rt.analysis import ADVICE, NONSENSE, STOPS, Report, analyse
from paddle_rt.analysis import files as analysis_files
from paddle_rt.analysis.analyse import choose_crop, class_weights
from paddle_rt.analysis.findings import ClassCounts
from paddle_rt.analysis.text import report_lines
from paddle_rt.imaging.label_format import LabelFormat
from tests.helpers import call_tool, refused, smooth_image, written

SIZE = (40, 48)
COLOURS = np.array([(0, 0, 0), (0, 128, 0), (128, 0, 0)], np.uint8)  # RGB, by their number of pixels


def stripes(*values: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.array(values, np.uint8)[np.arange(size[0]) * len(values) // size[0]][:, None].repeat(size[1], axis=1)


class Folder:
    """Pairs of made-up images and labels."""

    def __init__(self, root: Path) -> None:
        self.root, self.pairs = root, []
        (root / "images").mkdir()
        (root / "labels").mkdir()

    def add(self, label: np.ndarray, image: np.ndarray | None = None, suffix: str = ".png") -> tuple[str, str]:
        number = len(self.pairs)
        image = smooth_image(*label.shape[:2], seed=number, cell=8) if image is None else image
        pair = [str(self.root / f"images/{number}{suffix}"), str(self.root / f"labels/{number}.png")]
        cv2.imwrite(pair[0], image)
        cv2.imwrite(pair[1], label)
        self.pairs.append(pair)
        return tuple(pair)


@pytest.fixture
def data(tmp_path: Path) -> Folder:
    return Folder(tmp_path)


def codes(report: Report, level: str | None = None) -> list[str]:
    return [finding.code for finding in report.findings if level in (None, finding.level)]


def test_numbers_of_a_good_data_set(data: Folder) -> None:
    for _ in range(3):
        data.add(stripes(0, 1, 1, 255))
    report = analyse({"train": data.pairs}, LabelFormat(3))
    assert report.passed and codes(report) == ["class_absent"]
    described = json.loads(json.dumps(report.to_json()))
    split = described["splits"]["train"]
    assert [row["pixel_share"] for row in split["classes"]] == [pytest.approx(1 / 3), pytest.approx(2 / 3), 0]
    assert [row["image_share"] for row in split["classes"]] == [1, 1, 0] and split["ignored_share"] == 0.25
    assert [(row["value"], row["class"]) for row in split["values"]] == [(0, 0), (1, 1), (255, 255)]
    assert split["sizes"] == dict.fromkeys(("smallest", "median", "largest"), list(SIZE))
    assert split["modes"] == {"3 channels of 8 bits": 3} and split["label_modes"] == {"1 channel of 8 bits": 3}
    pixels = np.stack([cv2.imread(image)[..., ::-1] for image, _ in data.pairs]).reshape(-1, 3) / 255
    error = np.abs([*(pixels.mean(0) - report.mean), *(pixels.std(0) - report.std)]).max()
    assert error < 1e-4, error
    assert report.class_weights == [1.5, 0.75, 1.0] and report.crop_size == (32, 32)


@pytest.mark.parametrize(
    ("values", "fix"),
    [
        ((0, 255), {"num_classes": 2, "label_map": {0: 0, 255: 1}}),
        ((0, 127, 255), {"num_classes": 3, "label_map": {0: 0, 127: 1, 255: 2}}),
        ((0, 38, 75, 255), {"num_classes": 3, "label_map": {0: 0, 38: 1, 75: 2, 255: 255}}),
        ((0, 1, 2, 255), {}),
        ((1, 3), {}),
    ],
)
def test_values_are_understood_without_a_config(data: Folder, values: tuple, fix: dict) -> None:
    data.add(stripes(*values))
    report = analyse({"data": data.pairs})
    assert report.fix == fix and (codes(report, NONSENSE) != []) == bool(fix)
    assert report.splits["data"].counts.number == 1
    if fix:
        assert analyse({"data": data.pairs}, LabelFormat(**fix)).passed


def test_coloured_masks_are_understood(data: Folder) -> None:
    data.add(COLOURS[stripes(0, 1, 1, 2)][..., ::-1])
    report = analyse({"data": data.pairs})
    assert codes(report, STOPS) == ["coloured_masks"]
    assert report.fix == {"num_classes": 3, "palette": COLOURS.tolist()}
    repaired = analyse({"data": data.pairs}, LabelFormat(**report.fix))
    assert repaired.passed and repaired.splits["data"].counts.pixels[1] == SIZE[0] * SIZE[1] // 2
    assert repaired.fix == {} and codes(analyse({"data": data.pairs}, LabelFormat(3)), STOPS) == ["coloured_masks"]
    (missing,) = analyse({"data": data.pairs}, LabelFormat(2, palette=COLOURS[:2].tolist())).findings
    assert missing.code == "unknown_colours" and "(128, 0, 0) (25 % of the pixels, 1 of 1 label)" in missing.message
    assert missing.fix == {"palette": COLOURS.tolist()}


@pytest.mark.parametrize(
    ("values", "number", "palette"),
    [
        ((0, 2, 1, 255), 3, [0, 1, 2, 255]),
        ((0, 2), 3, [0, 1, 2]),
        ((0, 255), 2, [0, 255]),
        ((255, 9, 0), 2, [0, 9, 255]),
    ],
)
def test_numbers_that_were_saved_as_colours_keep_their_order(data: Folder, values: tuple, number: int, palette: list):
    data.add(stripes(*values, values[-1])[..., None].repeat(3, axis=2))
    assert analyse({"data": data.pairs}).fix == {"num_classes": number, "palette": [[grey] * 3 for grey in palette]}


def test_every_fault_at_once(data: Folder) -> None:
    """All that stops training is named in one run, with what makes it learn nonsense and advice behind it."""
    for _ in range(4):
        data.add(stripes(0, 1, 2))
    data.add(stripes(0, 1, 7))
    data.add(COLOURS[stripes(0, 1)])
    data.add(stripes(0, 1), smooth_image(20, 20))
    for index in (0, 1):
        path = Path(data.add(stripes(0, 1))[index])
        path.write_bytes(path.read_bytes()[:100])
    deep = data.add(stripes(0, 1))
    cv2.imwrite(deep[0], np.zeros((*SIZE, 3), np.uint16))
    pairs = [*data.pairs, [data.add(stripes(0))[0], None]]
    copy = data.add(stripes(0, 3), cv2.imread(pairs[0][0]), ".bmp")
    report = analyse({"train": pairs, "val": [copy]}, LabelFormat(4))
    expected = ["unreadable_image", "unreadable_label", "sizes_differ", "image_without_label", "coloured_masks",
                "unknown_values"]  # fmt: skip
    assert codes(report, STOPS) == expected and codes(report, NONSENSE) == ["images_in_two_splits"]
    assert codes(report, ADVICE) == ["class_absent", "class_in_one_split", "class_in_one_split"], report.findings
    assert [finding.level for finding in report.findings] == sorted(
        (finding.level for finding in report.findings), key=[STOPS, NONSENSE, ADVICE].index
    )
    said = {finding.code: finding for finding in report.findings}
    assert said["unreadable_image"].count == 2 and deep[0] in said["unreadable_image"].files
    assert "is 48x40, but the image" in said["sizes_differ"].message
    assert (
        "1 label is coloured" in said["coloured_masks"].message and "(128, 0, 0)" not in said["coloured_masks"].message
    )
    assert said["coloured_masks"].message.endswith("are (0, 0, 0), (0, 128, 0)")
    lines = report_lines(report)
    (at,) = (number for number, line in enumerate(lines) if line.startswith("  train: 2 images cannot be read: "))
    assert deep[0] in lines[at + 1] and "16 bits a channel" in lines[at + 1], lines
    assert report.splits["train"].to_json(report.class_names)["modes"]["3 channels of 16 bits"] == 1
    assert "7 (" in said["unknown_values"].message and "1 of 8 labels" in said["unknown_values"].message


@pytest.mark.parametrize("labels", [None, LabelFormat(2)])
def test_black_and_white_masks_with_soft_edges(data: Folder, labels: LabelFormat | None) -> None:
    mask = np.zeros((96, 128), np.uint8)
    mask[20:60, 30:90] = 255
    for _ in range(2):
        data.add(cv2.GaussianBlur(mask, (3, 3), 0))
    report = analyse({"train": data.pairs}, labels)
    (finding,) = [one for one in report.findings if one.code == "binary_masks"]
    assert "prepare_data --format binary_masks" in finding.message and not report.fix and not report.passed
    if labels is None:
        assert report.labels.num_classes == 2
        error = abs(report.splits["train"].counts.pixels[1] - 2 * 40 * 60)
        assert error < 100, f"{error} pixels more or less are white"


def test_many_classes_with_an_ignored_label_are_no_masks(data: Folder) -> None:
    data.add(stripes(*[0, 1] * 60, *range(2, 19), *[255] * 40, size=(354, 48)))
    assert codes(analyse({"train": data.pairs}, None)) == []


def test_colours_of_soft_edges_are_told(data: Folder) -> None:
    data.add(cv2.GaussianBlur(COLOURS[stripes(0, 1, 2, size=(300, 48))], (5, 5), 0))
    (finding,) = analyse({"data": data.pairs}).findings[:1]
    assert finding.code == "coloured_masks" and "rarest of these colours are mixed at soft edges" in finding.message


def test_masks_of_0_and_255_among_labels_with_classes(data: Folder) -> None:
    for values in ((0, 1), (0, 1, 255), (0, 255)):
        data.add(stripes(*values))
    report = analyse({"train": data.pairs}, LabelFormat(2))
    assert codes(report) == ["binary_masks"] and report.passed
    assert report.findings[0].files == [data.pairs[2][1]]
    assert report.findings[0].message.startswith("train: 1 label holds 0 and 255 alone")


def test_shares_are_readable(data: Folder) -> None:
    data.add(stripes(0))
    data.add(stripes(*[0] * 9, 1))
    text = "\n".join(report_lines(analyse({"train": data.pairs[:1], "val": data.pairs[1:]}, LabelFormat(2))))
    assert "label values (pixels, labels, class): 0 (100 %, 100 %, 0)" in text and "val: 1 image; sizes" in text


@pytest.mark.parametrize(("change", "is_found"), [("jpeg", True), ("half", True), ("frame", False), ("other", False)])
def test_images_that_stand_in_two_data_sets(data: Folder, change: str, is_found: bool) -> None:
    image = smooth_image(96, 128, cell=16)
    changed = {
        "jpeg": cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 80])[1], cv2.IMREAD_COLOR),
        "half": cv2.resize(image, (64, 48), interpolation=cv2.INTER_AREA),
        "frame": np.roll(image, 4, axis=1),
        "other": smooth_image(96, 128, seed=1, cell=16),
    }[change]
    first, second = (
        data.add(stripes(0, 1, size=(96, 128)), image),
        data.add(stripes(0, 1, size=changed.shape[:2]), changed),
    )
    report = analyse({"train": [first], "val": [second]}, LabelFormat(2))
    assert codes(report) == ["images_in_two_splits"] * is_found
    twice = analyse({"train": [first, second]}, LabelFormat(2))
    assert codes(twice) == ["images_twice"] * is_found and twice.passed


def test_labels_from_which_nothing_can_be_learned(data: Folder) -> None:
    for values, code in (((255,), "nothing_labelled"), ((0, 255), "binary_masks"), ((1,), "one_class")):
        found = analyse({"train": [data.add(stripes(*values))]}, LabelFormat(2))
        assert codes(found) == [code] and not found.passed
    found = analyse({"train": [data.add(stripes(0, 1, 255, 255, 255))]}, LabelFormat(2))
    assert codes(found) == ["much_ignored"] and found.passed


@pytest.mark.slow
def test_processes_find_the_same(data: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        data.add(stripes(0, number))
    alone = analyse({"train": data.pairs}, LabelFormat(3), num_workers=1).to_json()
    monkeypatch.setattr(parallel, "FEWEST", 1)
    assert analyse({"train": data.pairs}, LabelFormat(3), num_workers=2).to_json() == alone


def test_weights_and_crops() -> None:
    counts = ClassCounts(Counter(), Counter(), 0, 2, 4, 255)
    for pixels in ({0: 60, 1: 20, 3: 20, 255: 50}, {0: 90, 1: 10, 255: 0}):
        counts.add(pixels)
    assert class_weights(counts) == [round(0.2 / 0.75, 4), round(0.2 / 0.15, 4), 1.0, 1.0]  # 3 is in one of two labels
    assert choose_crop([(1024, 2048)] * 9 + [(50, 50)]) == (512, 1024)
    assert choose_crop([(360, 480)]) == (352, 480) and choose_crop([(20, 70)]) == (32, 64)


def test_the_tool_writes_a_report(data: Folder, capsys: pytest.CaptureFixture) -> None:
    for _ in range(3):
        data.add(stripes(0, 1, 2))
    flags = ("--images", data.root / "images", "--labels", data.root / "labels", "--output", data.root / "out")
    assert call_tool("check_data", *flags) == 0
    out = capsys.readouterr().out
    assert (
        "crop_size that fits (height, width): [32, 32]" in out and "by what the labels hold there are 3 classes" in out
    )
    assert written(data.root / "out") == ["classes.png", "contact_sheet.png", "report.json"]
    assert json.loads((data.root / "out/report.json").read_text())["passed"] is True
    sheet = cv2.imread(str(data.root / "out/contact_sheet.png"))
    assert sheet.shape[0] == 26 + 26 + 240 + 8 and sheet.shape[1] > 3 * (2 * 320 + 8), sheet.shape  # and the legend
    data.add(stripes(0, 9))
    (data.root / "images/2.png").unlink()
    assert call_tool("check_data", *flags, "--num_classes", 3) == 1
    out, error = capsys.readouterr()
    assert "1 label has no image of the same name" in out and "values that no class has: 9" in out
    assert error.splitlines() == ["error: 2 faults with which training would fail or learn nonsense; see above"]


def test_names_that_differ_in_their_suffix_alone(data: Folder, capsys: pytest.CaptureFixture) -> None:
    for number in range(2):
        data.add(stripes(0, number))
    (data.root / "images/0.jpg").write_bytes(cv2.imencode(".jpg", smooth_image(*SIZE))[1].tobytes())
    assert call_tool("check_data", "--images", data.root / "images", "--labels", data.root / "labels") == 1
    out = capsys.readouterr().out
    assert "1 file differs from another one in its suffix alone" in out and "train" not in out, "the rest is looked at"
    assert "data: 2 images; sizes" in out


def test_folders_of_data_sets_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for split in ("val", "train"):
        (tmp_path / split).mkdir()
        folder = Folder(tmp_path / split)
        folder.add(stripes(0, 1), smooth_image(*SIZE, seed=3, cell=8))
        for kind in ("images", "labels"):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / split / kind).rename(tmp_path / kind / split)
    assert call_tool("check_data", "--images", tmp_path / "images", "--labels", tmp_path / "labels") == 1
    assert "val: 1 image is in train too, as the same file or saved again" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "said", "code"),
    [
        ([], "give either --config, or --images and --labels", 2),
        (["--images", "images"], "give either --config, or --images and --labels", 2),
        (["-c", "x.yml", "--images", "images", "--labels", "labels"], "give either --config", 2),
        (["--images", "gone", "--labels", "labels"], "no folder gone", 1),
        (["--images", "images", "--labels", "labels"], "no images .* in folder images", 1),
        (["--images", "images", "--labels", "labels", "--output", "a_file/out"], "a_file is no folder", 2),
        (["--images", "images", "--labels", "labels", "--num_classes", "0"], "expected a whole number from 1", 2),
        (["-c", "x.yml"], "no config file at x.yml", 1),
    ],
)
def test_wrong_flags_are_refused(
    data: Folder, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, flags: list, said: str, code: int
) -> None:
    monkeypatch.chdir(data.root)
    (data.root / "a_file").touch()
    before = written(data.root)
    result = call_tool("check_data", *flags)
    refused((result, *capsys.readouterr()), said, code)
    assert written(data.root) == before


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.bmp", "a.jpg", "a.webp"])
def test_the_depth_of_a_file_is_not_taken_from_its_size(tmp_path, name):
    """Pillow describes the data of a file with its size, offset and row length, in which 16 may stand."""
    for dtype in (np.uint8, np.uint16) if name in ("a.png", "a.tif") else (np.uint8,):
        cv2.imwrite(str(tmp_path / name), np.zeros((160, 160, 3), dtype))
        assert analysis_files._mode(str(tmp_path / name)) == f"3 channels of {8 * np.dtype(dtype).itemsize} bits"
