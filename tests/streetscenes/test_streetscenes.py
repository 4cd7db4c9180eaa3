"""StreetScenes: the renderer (no Paddle) and the PaddleSeg dataset over it."""

import dataclasses
import hashlib
import random
from pathlib import Path

import cv2
import numpy as np
import pytest

from paddle_rt.errors import UserError
from paddle_rt.streetscenes.mesh import Thing
from paddle_rt.streetscenes.scenes import Scene, make_scene, render
from tests.helpers import run_python

FRAMES = ((3, 0, 0.0), (3, 0, 1.5), (10_000_007, 0, 0.0), (3, 9, 0.0))


def digest(index: int, seed: int, time: float) -> str:
    image, label = render(make_scene(index, seed), 64, 128, time)
    return hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()


def agreement(a: np.ndarray, b: np.ndarray) -> float:
    return float((a == b).mean())


@pytest.fixture(scope="module")
def frames() -> list[tuple[np.ndarray, np.ndarray]]:
    return [render(make_scene(i), 96, 192) for i in range(60)]


def test_same_frame_in_every_process_and_without_paddle() -> None:
    code = (
        "import sys\n"
        "from tests.streetscenes.test_streetscenes import FRAMES, digest\n"
        "assert not {'paddle', 'paddleseg'} & set(sys.modules), 'the renderer must not import Paddle'\n"
        "print(*[digest(*f) for f in reversed(FRAMES)])\n"
    )
    here = [digest(*frame) for frame in FRAMES]
    assert here == [digest(*frame) for frame in FRAMES]
    assert len(set(here)) == len(FRAMES), "frames that differ in index, seed or time look the same"
    run = run_python("-c", code)
    assert run.returncode == 0, run.stderr
    assert run.stdout.split()[::-1] == here


@pytest.mark.parametrize("height, width", [(1, 1), (17, 33), (64, 128), (101, 67), (33, 500)])
def test_any_size(height: int, width: int) -> None:
    for index in (0, 1):
        image, label = render(make_scene(index), height, width, 0.7)
        assert image.shape == (height, width, 3) and image.dtype == np.uint8
        assert label.shape == (height, width) and label.dtype == np.uint8
        assert label.max() <= 18


def test_another_size_shows_the_same_scene() -> None:
    shares = []
    for index in range(6):
        scene = make_scene(index)
        (big_image, big), (image, small) = render(scene, 384, 768), render(scene, 128, 256)
        shares.append(agreement(big[1::3, 1::3], small))
        shrunk = cv2.resize(big_image, (256, 128), interpolation=cv2.INTER_AREA)
        error = np.abs(shrunk.astype(float) - image).mean()
        assert error < 12, f"scene {index}: mean difference {error:.1f} grey levels"
    assert min(shares) > 0.9, f"label agreement {shares}"


def test_time_moves_camera_and_traffic() -> None:
    for index in range(3):
        scene = make_scene(index)
        start, soon, later = (render(scene, 96, 192, t)[1] for t in (0.0, 0.02, 3.0))
        assert agreement(start, soon) > 0.96, f"scene {index} jumps: {agreement(start, soon):.3f}"
        assert agreement(start, later) < 0.95, f"scene {index} stands still: {agreement(start, later):.3f}"


def _frozen(scene: Scene, things: list[Thing]) -> Scene:
    return dataclasses.replace(
        scene,
        things=things,
        camera=dataclasses.replace(scene.camera, speed=0.0),
        weather=dataclasses.replace(scene.weather, noise=0.0),
    )


def test_textures_stay_where_they_are() -> None:
    scene = make_scene(2)
    still = _frozen(scene, [dataclasses.replace(t, vx=0.0, vz=0.0) for t in scene.things])
    (first, label), (second, label_later) = (render(still, 64, 128, t) for t in (0.0, 5.0))
    assert np.array_equal(first, second) and np.array_equal(label, label_later)
    moving = render(_frozen(scene, scene.things), 64, 128, 5.0)[1]
    assert agreement(label, moving) < 1.0, "no object moves"


def test_an_object_at_its_place_covers_its_pixels() -> None:
    scene = make_scene(0)
    ground = [t for t in scene.things if t.layer < 2]
    truck = next(t for t in scene.things if t.name == "truck")
    ahead = dataclasses.replace(truck, x=0.0, z=12.0, vz=0.0)
    camera = dataclasses.replace(scene.camera, x=0.0, yaw=0.0, pitch=0.0, roll=0.0)
    label = render(dataclasses.replace(scene, things=[*ground, ahead], camera=camera, curve=0.0), 120, 240)[1]
    columns = np.nonzero(label == 14)[1]
    middle = (columns.min() + columns.max()) / 2
    assert abs(middle - 119.5) < 2, f"the truck's middle is at column {middle}"
    width = truck.shadow[1] - truck.shadow[0]
    near = 12.0 + truck.shadow[2]
    expected = camera.focal * 120 * width / near
    assert abs(np.ptp(columns) + 1 - expected) < 3, f"{np.ptp(columns) + 1} columns wide, expected {expected:.1f}"


def test_every_class_occurs(frames: list[tuple[np.ndarray, np.ndarray]]) -> None:
    counts = np.stack([np.bincount(label.ravel(), minlength=19) for _, label in frames])
    scenes = (counts > 8).mean(0)
    assert scenes.min() >= 0.05, f"share of scenes with each class: {np.round(scenes, 2)}"
    share = counts.sum(0) / counts.sum()
    assert 0.2 < share[0] < 0.4 and share[[2, 8, 10]].min() > 0.05, f"share of pixels: {np.round(share, 3)}"


def test_neither_colour_nor_place_gives_the_class_away(frames: list[tuple[np.ndarray, np.ndarray]]) -> None:
    known, asked = frames[:45], frames[45:]
    height, width = asked[0][1].shape
    by_colour, by_place = np.zeros((512, 19)), np.zeros((height * width, 19))
    for image, label in known:
        np.add.at(by_colour, (_colour(image), label.ravel()), 1)
        by_place[np.arange(height * width), label.ravel()] += 1
    truth = np.concatenate([label.ravel() for _, label in asked])
    colour = np.concatenate([by_colour.argmax(1)[_colour(image)] for image, _ in asked])
    place = np.tile(by_place.argmax(1), len(asked))
    for name, guess in (("colour", colour), ("place", place)):
        score = _miou(guess, truth)
        assert score < 0.22, f"mIoU of a predictor that knows only the {name}: {score:.3f}"


def _colour(image: np.ndarray) -> np.ndarray:
    return (image // 32).reshape(-1, 3) @ np.array((64, 8, 1))


def _miou(guess: np.ndarray, truth: np.ndarray) -> float:
    matrix = np.bincount(truth.astype(int) * 19 + guess, minlength=361).reshape(19, 19)
    hit = np.diag(matrix)
    return float((hit / np.maximum(matrix.sum(0) + matrix.sum(1) - hit, 1)).mean())


def test_impossible_scenes_and_sizes() -> None:
    with pytest.raises(UserError, match="-1"):
        make_scene(-1)
    for height, width, time in ((0, 8, 0.0), (8, -1, 0.0), (8, 8, -0.5)):
        with pytest.raises(UserError, match="cannot render"):
            render(make_scene(0), height, width, time)


@pytest.fixture
def street() -> type:
    return pytest.importorskip("paddle_rt.tasks.segmentation.street_dataset").StreetScenes


@pytest.mark.parametrize("mode", ["train", "val"])
def test_items_are_those_of_paddleseg(street: type, mode: str, tmp_path: Path) -> None:
    """The frames, written as files, give the same items through PaddleSeg's own Dataset."""
    from paddleseg import transforms as T
    from paddleseg.datasets import Dataset

    def steps() -> list:
        return [T.Resize(target_size=(80, 48)), T.Normalize()]

    ours = street(steps(), mode=mode, num_samples=2, height=64, width=128, edge=True)
    lines = []
    for i, index in enumerate(ours.file_list):
        image, label = render(make_scene(index), 64, 128)
        cv2.imwrite(str(tmp_path / f"{i}.png"), image)
        cv2.imwrite(str(tmp_path / f"{i}_label.png"), label)
        lines.append(f"{i}.png {i}_label.png\n")
    (tmp_path / "list.txt").write_text("".join(lines))
    path = str(tmp_path / "list.txt")
    theirs = Dataset(
        mode=mode,
        dataset_root=str(tmp_path),
        transforms=steps(),
        num_classes=19,
        train_path=path,
        val_path=path,
        edge=True,
    )
    assert len(ours) == len(theirs) == 2
    for a, b in zip((ours[0], ours[1]), (theirs[0], theirs[1]), strict=True):
        assert a.keys() == b.keys() and a["trans_info"] == b["trans_info"] and a["gt_fields"] == b["gt_fields"]
        for key in a.keys() - {"trans_info", "gt_fields"}:
            assert a[key].dtype == b[key].dtype and a[key].shape == b[key].shape, key
            difference = np.abs(a[key].astype(float) - b[key]).max()
            assert difference == 0, f"{key} differs by {difference}"


def test_training_crops_and_batches(street: type) -> None:
    import paddle
    from paddleseg import transforms as T

    steps = [
        T.ResizeStepScaling(0.5, 2.0, 0.25),
        T.RandomPaddingCrop(crop_size=(96, 64)),
        T.RandomHorizontalFlip(),
        T.RandomDistort(),
        T.Normalize(),
    ]
    data = street(steps, num_samples=4, height=64, width=128)
    batch = next(iter(paddle.io.DataLoader(data, batch_size=4)))
    assert batch["img"].shape == [4, 3, 64, 96] and batch["label"].shape == [4, 64, 96]
    labels = np.unique(batch["label"].numpy())
    assert set(labels.tolist()) <= {*range(19), 255}, labels


def test_modes_are_disjoint_and_known_to_configs(street: type) -> None:
    from paddle_rt.tasks.segmentation.datasets import dataset_catalogue

    assert dataset_catalogue()["StreetScenes"] is street
    assert (street.NUM_CLASSES, street.IMG_CHANNELS, street.IGNORE_INDEX) == (19, 3, 255)
    sets = {mode: street([], mode=mode) for mode in ("train", "val", "test")}
    assert {mode: len(data) for mode, data in sets.items()} == {"train": 2000, "val": 200, "test": 200}
    assert len(set().union(*(data.file_list for data in sets.values()))) == 2400
    small = street([], mode="test", num_samples=2, height=32, width=64)
    assert small[0]["label"].shape == (1, 32, 64)
    small.file_list *= 3  # PaddleSeg's --repeats
    assert len(small) == 6 and np.array_equal(small[5]["img"], small[1]["img"])


def test_clips_are_frames_of_one_drive(street: type) -> None:
    """Every frame and label is the renderer's at its time; something moves; the last label is the item's."""
    data = street([], mode="val", num_samples=2, height=48, width=96, frames=3, fps=5.0)
    images, labels = data.clip(1)
    scene = make_scene(data.file_list[1])
    for k in range(3):
        image, label = render(scene, 48, 96, k / 5)
        assert np.array_equal(images[k], image) and np.array_equal(labels[k], label)
    assert 0.5 < agreement(labels[0], labels[2]) < 1
    item = data[1]
    assert item["img"].shape == (9, 48, 96) and np.array_equal(item["label"][0], labels[2])
    for k in range(3):
        assert np.array_equal(item["img"][3 * k : 3 * k + 3], images[k, ..., ::-1].transpose(2, 0, 1))
    assert np.array_equal(street([], mode="val", num_samples=2, height=48, width=96)[1]["img"], item["img"][:3])


def test_frames_of_a_clip_are_transformed_alike() -> None:
    """One draw for all: a clip of one picture stays one, and each frame is what the picture alone gives."""
    T = pytest.importorskip("paddleseg.transforms")
    from paddle_rt.paddleseg.components import components
    from paddle_rt.tasks.segmentation.clips import transform_clip

    crop = components("transforms")["RandomPaddingCrop"](crop_size=(96, 64), category_max_ratio=0.5)
    steps = T.Compose(
        [
            T.ResizeStepScaling(0.5, 2.0, 0.25),
            crop,
            T.RandomHorizontalFlip(),
            T.RandomDistort(),
            T.RandomRotation(),
            T.Normalize(),
        ]
    )
    image, label = render(make_scene(0), 64, 128)
    for seed in range(5):
        random.seed(seed), np.random.seed(seed)
        data = {"trans_info": [], "label": label, "gt_fields": ["label"]}
        clip = transform_clip(steps, 3 * [image.astype(np.float32)], data)
        random.seed(seed), np.random.seed(seed)
        alone = steps({**data, "trans_info": [], "img": image.astype(np.float32)})
        assert np.array_equal(clip["img"], np.concatenate(3 * [alone["img"]]))
        assert np.array_equal(clip["label"], alone["label"]) and data["label"] is label
        assert np.array_equal(label, render(make_scene(0), 64, 128)[1])


def test_cache_is_bounded_and_changes_nothing(street: type) -> None:
    kept = street([], num_samples=6, height=256, width=512, cache_mb=1)
    drawn = street([], num_samples=6, height=256, width=512, cache_mb=0)
    first = [kept[i]["img"] for i in range(4)]
    first[0][:] = 0  # what a caller does to an item must not reach the cache
    assert len(kept._clips) == 2 and not drawn._clips
    assert np.array_equal(kept[0]["img"], drawn[0]["img"]) and np.array_equal(kept[3]["img"], first[3])


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"mode": "trian"}, "did you mean 'train'"),
        ({"num_samples": 0}, "num_samples must be .*, got 0"),
        ({"num_samples": 20_000_000}, "num_samples"),
        ({"height": 4}, "height must be .*, got 4"),
        ({"width": 51.2}, "width must be .*, got 51.2"),
        ({"seed": -1}, "seed must be .*, got -1"),
        ({"cache_mb": -1}, "cache_mb must be .*, got -1"),
        ({"transforms": None}, "transforms must be a list, got None"),
        ({"frames": 0}, "frames must be .*, got 0"),
        ({"fps": 0}, "fps must be .*, got 0"),
        ({"frames": 102}, "102 frames at 10.0 a second leave the street"),
    ],
)
def test_bad_arguments(street: type, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        street(**{"transforms": [], **arguments})
    with pytest.raises(TypeError):
        street([], dataset_root="data")
