"""The tool prepare_data: what it writes, how it divides images, and what it refuses."""

import os
import re

import cv2
import numpy as np
import pytest

from paddle_rt.errors import UserError
from paddle_rt.imaging.duplicates import find_duplicates, thumbnail
from paddle_rt.imaging.labels import read_label
from paddle_rt.imaging.lists import read_pairs
from paddle_rt.tasks.segmentation.prepare.splits import SplitRule, by_lists, by_shares, group_keys
from tests.helpers import call_tool, message, refused, written
from tests.tasks.segmentation.prepare import annotations as made

TOOL = "data/prepare_data"
SQUARE = [made.shape("猫", [[10, 10], [29, 29]], "rectangle")]


@pytest.fixture
def labelme(tmp_path):
    """Write ten images with LabelMe's files, three of them from one video."""
    names = [f"{'clip' if i < 3 else 'a'} {i}.png" for i in range(10)]
    for image in made.photos(tmp_path / "in", names):
        made.labelme(image.with_suffix(".json"), SQUARE, image.name)
    return tmp_path


def run(folder, *flags, source="labelme"):
    return call_tool(
        TOOL, "--format", source, "--input", folder / "in", "--output", folder / "out", "--model", "none", *flags
    )


def split_of(folder):
    """Return the names of the images of each split."""
    files = {split: folder / f"out/{split}.txt" for split in ("train", "val", "test")}
    return {split: {os.path.basename(image) for image, _ in read_pairs(file, folder / "out")}
            for split, file in files.items() if file.exists()}  # fmt: skip


def test_what_is_written(labelme, capsys):
    assert run(labelme) == 0
    out = capsys.readouterr().out
    assert "train 8, val 2" in out and re.search(r"background +91\.667 %.*\n猫 +8\.333 %", out)
    splits = split_of(labelme)
    assert {split: len(names) for split, names in splits.items()} == {"train": 8, "val": 2}
    images = [f"images/{'clip' if i < 3 else 'a'}_{i}.png" for i in range(10)]
    labels = [name.replace("images", "labels") for name in images]
    assert written(labelme / "out") == sorted([*images, *labels, "labels.txt", "train.txt", "val.txt"])
    assert (labelme / "out/labels.txt").read_text(encoding="utf-8") == "background\n猫\n"
    for name in ("a 5", "clip 0"):
        copied = labelme / f"out/images/{name.replace(' ', '_')}.png"
        assert copied.read_bytes() == (labelme / f"in/{name}.png").read_bytes()
    labels = read_label(labelme / "out/labels/a_5.png", 2)
    assert labels.sum() == 400 and labels[10:30, 10:30].all()
    assert cv2.imread(str(labelme / "out/labels/a_5.png"))[15, 15].tolist() == [
        0,
        128,
        0,
    ]  # indexed, with VOC's colours
    assert (labelme / "out").stat().st_mode & 0o777 == 0o755


def test_three_splits_a_seed_and_a_group(labelme):
    assert run(labelme, "--split", 0.5, 0.3, 0.2, "--group", "clip|a_[0-9]", "--seed", 3) == 0
    splits = split_of(labelme)
    assert [len(names) for names in splits.values()] == [5, 3, 2]
    assert any({"clip_0.png", "clip_1.png", "clip_2.png"} <= names for names in splits.values())


def test_lists_divide_and_leave_out(labelme):
    (labelme / "t.txt").write_text("a 3.png\na_4\nin/a_5.png some_label.png\n")
    (labelme / "v.txt").write_text("clip_0\n")
    assert run(labelme, "--lists", labelme / "t.txt", labelme / "v.txt") == 1  # "a 3.png" has become a_3
    (labelme / "t.txt").write_text("a_3.png\na_4\nin/a_5.png some_label.png\n")
    assert run(labelme, "--lists", labelme / "t.txt", labelme / "v.txt") == 0
    assert split_of(labelme) == {"train": {"a_3.png", "a_4.png", "a_5.png"}, "val": {"clip_0.png"}}
    assert len(written(labelme / "out/images")) == 4


def test_two_inputs_are_train_and_val_and_leaks_are_told(tmp_path, capsys):
    for split, seeds in (("t", (1, 2)), ("v", (3, 2))):
        (tmp_path / split).mkdir()
        for seed in seeds:
            cv2.imwrite(str(tmp_path / f"{split}/{seed}.jpg"), made.photo(seed), [cv2.IMWRITE_JPEG_QUALITY, 60 + seed])
            made.labelme(tmp_path / f"{split}/{seed}.json", SQUARE, f"{seed}.jpg")
    line = [
        "--format",
        "labelme",
        "--model",
        "none",
        "--output",
        tmp_path / "out",
        "--input",
        tmp_path / "t",
        tmp_path / "v",
    ]
    assert call_tool(TOOL, *line) == 1
    assert read_pairs(tmp_path / "out/val.txt", tmp_path / "out")[0][0].endswith("out/images/v/2.jpg")
    out, err = capsys.readouterr()
    assert "copies of an image in another split, so that scores say little: 1, such as" in out
    assert "1 image is in train_dataset too" in out
    assert "is written, but training on it would fail or learn nonsense" in err


def test_copies_stay_together(tmp_path):
    """Half of the images are there once more: as JPEG, and larger."""
    (tmp_path / "in").mkdir()
    for seed in range(8):
        photo = cv2.GaussianBlur(made.photo(seed), (5, 5), 0)
        cv2.imwrite(str(tmp_path / f"in/{seed}.png"), photo)
        cv2.imwrite(str(tmp_path / f"in/{seed}b.jpg"), photo, [cv2.IMWRITE_JPEG_QUALITY, 40 + 5 * seed])
        for name in (f"{seed}.png", f"{seed}b.jpg"):
            made.labelme(tmp_path / f"in/{name[:-4]}.json", SQUARE, name)
    assert run(tmp_path, "--split", 0.5, 0.5) == 0
    splits = split_of(tmp_path)
    assert {len(names) for names in splits.values()} == {8}
    for names in splits.values():
        assert {name[0] for name in names if "b" in name} == {name[0] for name in names if "b" not in name}


def test_duplicates_among_many(rng):
    photos = [cv2.resize(rng.integers(0, 256, (5, 5, 3), np.uint8), (64, 48), interpolation=cv2.INTER_CUBIC)
              for _ in range(300)]  # fmt: skip
    again = [cv2.imdecode(cv2.imencode(".jpg", cv2.resize(photo, (128, 96)), [cv2.IMWRITE_JPEG_QUALITY, 50])[1], 1)
             for photo in photos[:100]]  # fmt: skip
    moved = photos[0].copy()
    moved[10:25, 10:25] = 255 - moved[10:25, 10:25]  # the same camera, another object
    groups = find_duplicates([thumbnail(photo) for photo in [*photos, *again, moved]])
    assert groups.tolist() == [*range(300), *range(100), 400]
    assert find_duplicates([np.zeros(256, np.uint8)] * 3).tolist() == [0, 1, 2]  # black frames are no copies
    assert find_duplicates([thumbnail(photos[0])] * 2000).tolist() == [0] * 2000  # many that are all alike
    assert find_duplicates([]).tolist() == []


def test_rare_classes_are_in_every_split(rng):
    classes = np.zeros((100, 4), bool)
    classes[:, 0] = True
    classes[rng.permutation(100)[:10], 1] = True
    classes[rng.permutation(100)[:5], 2] = True
    classes[rng.permutation(100)[:2], 3] = True
    chosen = np.array(by_shares(range(100), classes, SplitRule((0.6, 0.2, 0.2))))
    counts = {split: classes[chosen == split].sum(0).tolist() for split in ("train", "val", "test")}
    assert [sum(chosen == split) for split in counts] == [60, 20, 20]
    assert [counts[split][1] for split in counts] == [6, 2, 2] and [counts[split][2] for split in counts] == [3, 1, 1]
    assert counts["train"][3] >= 1


@pytest.mark.parametrize("number", [2, 3, 7])
def test_no_split_stays_empty(number):
    chosen = by_shares(range(number), np.ones((number, 1), bool), SplitRule((0.98, 0.02)))
    assert set(chosen) == {"train", "val"}
    assert "too few for 2 splits" in message(by_shares, [0] * number, np.ones((number, 1), bool), SplitRule())


def test_keys_of_groups_and_lines_of_lists(tmp_path):
    assert group_keys(["a_1_x", "b_1_y"], "_([0-9])") == ["1", "1"]
    assert group_keys(["a_1_x", "b_1_y"], "^[ab]") == ["a", "b"]
    assert "finds nothing in 1 names of images, such as b" in message(group_keys, ["a", "b"], "a")
    (tmp_path / "t.txt").write_text("b/x.jpg\n")
    (tmp_path / "v.txt").write_text("x\n")
    assert by_lists(["a/x", "b/x"], [tmp_path / "t.txt"]) == [None, "train"]
    assert "may be any of 2 images" in message(by_lists, ["a/x", "b/x"], [tmp_path / "v.txt"])
    assert "is in the list of train too" in message(by_lists, ["b/x"], [tmp_path / "t.txt", tmp_path / "v.txt"])


FLAGS = {
    "split": (["--split", 0.5, 0.4], "--split takes two or three shares that add up to 1.*0.5 0.4", 2),
    "one share": (["--split", 1], "--split", 2),
    "group": (["--group", "("], "--group is no regular expression", 2),
    "lists": (["--lists", "a", "b", "c", "d"], "--lists takes files for train, val, test", 2),
    "format": (["--format", "cocoo"], "did you mean 'coco'", 2),
    "palette": (["--palette", "p.txt"], "--palette is for --format color_masks", 2),
    "classes": (["--classes", "Katze"], "does not list a class of the annotations: unknown class '猫'", 1),
    "list": (["--lists", "gone.txt"], "no list of images at gone.txt", 1),
    "input": (["--input", "gone"], "--input: no folder gone", 1),
}


@pytest.mark.parametrize("name", FLAGS)
def test_refused(labelme, capsys, name):
    flags, expected, code = FLAGS[name]
    result = run(labelme, *flags)
    refused((result, *capsys.readouterr()), expected, code)
    assert sorted(path.name for path in labelme.iterdir()) == ["in"]


@pytest.mark.parametrize("fault", ["image", "annotation", "output"])
def test_whole_or_not_at_all(labelme, capsys, fault):
    if fault == "output":
        (labelme / "out").mkdir()
        (labelme / "out/mine.txt").write_text("keep")
    elif fault == "image":
        (labelme / "in/a 9.png").write_bytes((labelme / "in/a 9.png").read_bytes()[:-30])
    else:
        made.labelme(labelme / "in/a 9.json", SQUARE, "a 9.png", imageWidth=81)
    expected = {
        "image": "a 9.png is cut off",
        "annotation": "a 9.json was drawn on",
        "output": "is not an empty folder",
    }
    refused((run(labelme), *capsys.readouterr()), expected[fault])
    assert {path.name for path in labelme.iterdir()} == ({"in", "out"} if fault == "output" else {"in"})


@pytest.mark.slow
def test_processes_give_what_one_process_gives(labelme, monkeypatch):
    from paddle_rt import parallel

    assert run(labelme) == 0
    (labelme / "out").rename(labelme / "one")
    monkeypatch.setattr(parallel, "FEWEST", 1)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert run(labelme) == 0
    assert written(labelme / "one") == written(labelme / "out")
    assert all((labelme / "one" / name).read_bytes() == (labelme / "out" / name).read_bytes()
               for name in written(labelme / "out"))  # fmt: skip
    (labelme / "in/a 9.json").write_text("{}")
    with pytest.raises(UserError, match="a 9.json has no 'shapes'"):
        list(parallel.map_on_all_cores(_read, [labelme / "in/a 9.json"] * 3, "read"))


def _read(path):
    from paddle_rt.tasks.segmentation.prepare.samples import read_json

    return read_json(path, ["shapes"], "a file")


def test_an_image_is_annotated_once(labelme, capsys):
    """Two files that lead to one image would be two images with labels that contradict each other."""
    made.labelme(labelme / "in/copy of a 5.json", [], "a 5.png")
    refused((run(labelme), *capsys.readouterr()), "1 image is annotated more than once, such as .*/a 5.png")
    assert not (labelme / "out").exists()


def test_links_to_folders_are_followed_but_not_in_a_circle(labelme):
    (labelme / "in").rename(labelme / "elsewhere")
    (labelme / "in").mkdir()
    (labelme / "in/linked").symlink_to(labelme / "elsewhere")
    (labelme / "elsewhere/circle").symlink_to(labelme / "in")
    assert run(labelme) == 0 and sum(map(len, split_of(labelme).values())) == 10
