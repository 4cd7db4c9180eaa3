"""Clips from the data set through training and scoring: windows, equal draws, CamVid's frames, steadiness of labels."""

import copy
import json
import random
from pathlib import Path

import cv2
import numpy as np
import paddle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paddle_rt.config import build_network, build_task, load_config, trained_network
from paddle_rt.errors import UserError
from paddle_rt.models import fanet
from paddle_rt.models.base import Network
from paddle_rt.streetscenes.scenes import SERIES, make_scene
from paddle_rt.tasks.segmentation import metrics
from paddle_rt.tasks.segmentation.evaluate import evaluate
from paddle_rt.tasks.segmentation.street_dataset import StreetScenes
from paddle_rt.tasks.segmentation.video_scores import require_same_data, score_videos, summarize
from tests.helpers import NORMALIZE_HALF, ROOT, call_tool, message, tiny_config

SIZE = {"height": 64, "width": 96}


def video_config(folder: Path, window: int, **changes: object) -> str:
    """FANet-18 on tiny street scenes, whose clips of any length end at one time."""
    scenes = {"type": "StreetScenes", "num_samples": 2, **SIZE, "frames": window, "end": 0.3}
    train = [{"type": "RandomHorizontalFlip"}, {"type": "RandomDistort"}, NORMALIZE_HALF]
    (folder / str(window)).mkdir(exist_ok=True)
    content = {
        "batch_size": 2,
        "iters": 1,
        "train_dataset": {**scenes, "mode": "train", "transforms": train},
        "val_dataset": {**scenes, "mode": "val", "transforms": [NORMALIZE_HALF]},
        "optimizer": {"type": "SGD", "momentum": 0.9},
        "lr_scheduler": {"type": "PolynomialDecay", "learning_rate": 1e-3, "end_lr": 1e-3, "power": 1.0},
        "loss": {"types": [{"type": "CrossEntropyLoss"}], "coef": [1, 0.5, 0.5]},
        "model": {"type": "FANet", "temporal_window": window},
        **changes,
    }
    return tiny_config(folder / str(window), **content)


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """One iteration with a window of two, then a second that goes on from it, through the command line."""
    folder = tmp_path_factory.mktemp("clips")
    config, seen = video_config(folder, 2), []
    video_config(folder, 1)
    original = fanet._last_frames

    def record(images: paddle.Tensor, channels: int, window: int) -> tuple[paddle.Tensor, int]:
        frames, length = original(images, channels, window)
        seen.append((images.shape, frames.shape, length))
        return frames, length

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fanet, "_last_frames", record)
        flags = ["-c", config, "--save_dir", folder / "run", "--seed", 0, "--device", "cpu"]
        assert call_tool("train", *flags) == 0
        assert call_tool("train", *flags, "--iters", 2, "--resume_model", folder / "run/iter_1") == 0
    assert seen[0] == ([2, 6, 64, 96], [4, 3, 64, 96], 2), "two clips of two frames, laid into the channels"
    return folder


def test_clips_train_and_resume_from_the_command_line(trained):
    before, after = (paddle.load(str(trained / "run" / name / "model.pdparams")) for name in ("iter_1", "iter_2"))
    moved = [name for name in after if not np.array_equal(before[name].numpy(), after[name].numpy())]
    assert {"ffm_8.qkv.conv.weight", "resnet.layer1.0.conv1.weight"} <= set(moved)


def test_the_loss_of_the_last_label_reaches_earlier_frames(tmp_path):
    config = load_config(video_config(tmp_path, 2))
    task, model = build_task(config), build_network(config)
    data = task.build_data("train")
    images = paddle.to_tensor(np.stack([data[0]["img"], data[1]["img"]]), stop_gradient=False)
    labels = paddle.to_tensor(np.stack([data[0]["label"], data[1]["label"]]).astype("int64"))
    model.train()
    sum(task.losses(model(images), {"label": labels})).backward()
    reached = images.grad.reshape([2, 2, -1]).abs().max(axis=2).numpy()  # [B, frames]
    assert np.isfinite(reached).all() and (reached > 0).all(), f"largest gradients {reached}"


def test_windows_of_all_lengths_see_one_last_frame_and_one_draw(tmp_path):
    """So that networks that differ in their window alone are trained alike."""
    items = {}
    for window in (1, 2, 4):
        data = build_task(load_config(video_config(tmp_path, window))).build_data("train")
        random.seed(0), np.random.seed(0)
        items[window] = [data[0], data[1]]
    for short, long in ((1, 2), (1, 4), (2, 4)):
        for a, b in zip(items[short], items[long], strict=True):
            assert b["img"].shape == (3 * long, 64, 96) and np.array_equal(a["label"], b["label"])
            difference = np.abs(a["img"] - b["img"][-3 * short :]).max()
            assert difference == 0, f"the last frames of {short} and {long} differ by {difference}"


@pytest.mark.parametrize("window", [2, 4])
def test_shipped_configs_differ_in_nothing_but_the_window(window):
    name = "configs/quick_start/fanet18_streetscenes_256x128"
    image, video = (copy.deepcopy(load_config(str(ROOT / f"{name}{end}.yml")).values) for end in ("", f"_t{window}"))
    assert video["model"].pop("temporal_window") == window
    assert all(video[part].pop("frames") == window for part in ("train_dataset", "val_dataset"))
    assert video == image


def test_val_scores_the_last_frame_of_clips(trained, tmp_path, monkeypatch):
    config, weights = str(trained / "2/config.yml"), str(trained / "run/iter_2")
    assert (
        call_tool("val", "-c", config, "--model_path", weights, "--device", "cpu", "--output", tmp_path / "m.json") == 0
    )
    content = json.loads((tmp_path / "m.json").read_text())
    parsed = load_config(config)
    model, data = trained_network(parsed, weights), build_task(parsed).build_data("val")
    confusion = evaluate(model, data, batch_size=2)
    assert content["images"] == 2 and np.array_equal(content["confusion_matrix"], confusion)
    alone = np.zeros_like(confusion)
    for i in range(2):
        images, labels = data.clip(i)
        clip = paddle.to_tensor(((images[..., ::-1].transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25).astype("float32"))
        with paddle.no_grad():
            alone += metrics.confusion_matrix(model(clip.unsqueeze(0))[0].argmax(1)[0].numpy(), labels[-1], 19)
    moved = np.abs(alone - confusion).sum() / 2
    assert moved <= 2, f"{moved} pixels differ from clips [B, T, 3, H, W] that were made by hand"


def test_video_metrics_against_whole_clips(trained, tmp_path, monkeypatch):
    """Streams of two windows against the clip that ends with each frame, at once, and plain loops."""
    configs, weights = [str(trained / f"{window}/config.yml") for window in (1, 2)], str(trained / "run/iter_2")
    flags = ["--videos", 1, "--frames", 4, "--device", "cpu", "--output", tmp_path / "m.json"]
    assert call_tool("video_metrics", "-c", *configs, "--model_path", weights, weights, *flags) == 0
    content = json.loads((tmp_path / "m.json").read_text())
    data = build_task(load_config(configs[0])).build_data("val")
    images, labels = map(np.stack, zip(*data.video(0, 4), strict=True))
    frames = paddle.to_tensor(((images[..., ::-1].transpose(0, 3, 1, 2) / 255 - 0.5) / 0.25).astype("float32"))
    assert [run["config"] for run in content["runs"]] == configs and content["videos"] == 1
    assert content["runs"][0]["relative_fps"] == 1 and content["runs"][1]["relative_fps"] > 0
    for window, run in zip((1, 2), content["runs"], strict=True):
        model = trained_network(load_config(configs[window - 1]), weights)
        model.eval()
        with paddle.no_grad():
            guesses = [model(frames[: t + 1].unsqueeze(0))[0].argmax(1)[0].numpy() for t in range(4)]
        confusion = metrics.confusion_matrix(np.stack(guesses), labels, 19)
        error = abs(run["mIoU"] - metrics.scores(confusion)["mIoU"])
        assert error < 1e-3, f"window {window}: mIoU differs by {error:.1e}"
        error = abs(run["flicker"] - share_by_loop(guesses, labels))
        assert error < 1e-3, f"window {window}: flicker differs by {error:.1e}"
        assert len(run["mIoU_by_frame"]) == 4 and run["flicker_by_video"] == [run["flicker"]]


def share_by_loop(predictions: list[np.ndarray], labels: np.ndarray, ignore_index: int = 255) -> float:
    changed = steady = 0
    for t in range(1, len(labels)):
        for y, x in np.ndindex(labels[t].shape):
            if labels[t][y, x] == labels[t - 1][y, x] != ignore_index:
                steady += 1
                changed += predictions[t][y, x] != predictions[t - 1][y, x]
    return changed / steady


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 5))
def test_flicker_is_a_loop_over_pixels(seed, frames):
    rng = np.random.default_rng(seed)
    predictions, labels = rng.integers(0, 3, [frames, 4, 5]), rng.choice([0, 1, 255], [frames, 4, 5])
    pairs = [metrics.flicker(predictions[t - 1 : t + 1], labels[t - 1 : t + 1]) for t in range(1, frames)]
    changed, steady = np.sum(pairs, axis=0)
    if steady:
        error = abs(changed / steady - share_by_loop(predictions, labels))
        assert error < 1e-12, f"differs by {error}"


def test_flicker_by_hand():
    """Of six pixels, one changes in truth, one is ignored; of the four that are left one changes in prediction."""
    labels = np.array([[0, 1, 2, 2], [255, 1, 1, 255]]), np.array([[0, 1, 2, 1], [255, 1, 1, 0]])
    predictions = np.array([[0, 2, 2, 2], [0, 1, 1, 0]]), np.array([[0, 2, 1, 1], [1, 1, 1, 1]])
    assert metrics.flicker(predictions, labels) == (1, 5)
    with pytest.raises(UserError, match="must have one size"):
        metrics.flicker(predictions, (labels[0], labels[1][:1]))


class Flat(Network):
    """Predicts one class everywhere: always steady."""

    output_stride = 4

    def coarse_logits(self, images: paddle.Tensor) -> paddle.Tensor:
        return paddle.nn.functional.one_hot(paddle.zeros([1, 4, 4], "int64"), 19).transpose([0, 3, 1, 2])


def test_a_network_without_a_state_labels_single_frames(tmp_path):
    data = build_task(load_config(video_config(tmp_path, 1))).build_data("val")
    (row,) = summarize(score_videos([Flat()], data, 1, 3))
    assert row["flicker"] == 0 and 0 < row["mIoU"] < 0.1


@pytest.mark.parametrize("videos, frames", [(3, 2), (1, 1), (0, 2)])
def test_videos_that_are_not_there(tmp_path, videos, frames):
    data = build_task(load_config(video_config(tmp_path, 1))).build_data("val")
    with pytest.raises(UserError, match=f"{videos} videos of {frames} frames: give at most 2 videos"):
        score_videos([Flat()], data, videos, frames)


def test_what_has_no_videos_and_what_does_not_compare(tmp_path):
    with pytest.raises(UserError, match="ConcatDataset has no videos with a label for every frame; StreetScenes has"):
        score_videos([Flat()], paddle.io.ConcatDataset([[0]]), 1, 2)
    configs = [load_config(video_config(tmp_path, 1)), load_config(video_config(tmp_path, 2))]
    require_same_data([config.values for config in configs])
    configs[1].values["val_dataset"]["height"] = 32
    with pytest.raises(UserError, match="differ in val_dataset.height: 64 and 32"):
        require_same_data([config.values for config in configs])
    data = build_task(configs[0]).build_data("val")
    with pytest.raises(UserError, match="102 frames at 10.0 a second leave the street"):
        data.video(0, 102)


@pytest.mark.parametrize("opts, message", [
    (["model.type=RTFormer"], "train_dataset.frames is 2, but RTFormer takes single images"),
    (["train_dataset.frames=1"], "temporal_window is 2, but train_dataset gives 1 frame at a time; set train_dataset."),
    (["model.temporal_window=3"], "temporal_window is 3, but train_dataset gives 2 frames at a time"),
    (["train_dataset.end=0.05"], "end is 0.05; 2 frames at 10.0 a second end at 0.1 s or later"),
    (["train_dataset.end=11"], "end is 11; .* after 10 s the street ends"),
    (["train_dataset.end=True"], "train_dataset.end must be null or a number of at least 0, got True"),
])  # fmt: skip
def test_clips_that_do_not_fit_are_refused(tmp_path, opts, message):
    path = video_config(tmp_path, 2)
    if opts == ["model.type=RTFormer"]:
        path = video_config(tmp_path, 2, model={"type": "RTFormer"})
        opts = None
    with pytest.raises(UserError, match=message):
        build_task(load_config(path, opts)).build_data("train")


@pytest.fixture
def camvid(tmp_path) -> Path:
    """Two labelled images of one video, the first at its beginning, and the frames before the second."""
    for folder in ("images", "labels", "video"):
        (tmp_path / folder).mkdir()
    lines = []
    for number in (10, 13):
        name = f"0016E5_{number:05d}.png"
        cv2.imwrite(str(tmp_path / "images" / name), np.full((4, 6, 3), number, np.uint8))
        cv2.imwrite(str(tmp_path / "labels" / name), np.full((4, 6), 3, np.uint8))
        lines.append(f"images/{name} labels/{name}\n")
    for mode in ("train", "val"):
        (tmp_path / f"{mode}.txt").write_text("".join(lines))
    for number in (11, 12):
        cv2.imwrite(str(tmp_path / "video" / f"0016E5_{number:05d}.png"), np.full((4, 6, 3), number, np.uint8))
    return tmp_path


@pytest.mark.parametrize("mode", ["train", "val"])
def test_camvid_gives_the_frames_before_the_labelled_one(camvid, mode):
    from paddle_rt.tasks.segmentation.camvid import CamVid

    data = CamVid([], str(camvid), mode, frames=3, video_root=str(camvid / "video"))
    first, second = data[0], data[1]
    assert [int(frame[0, 0]) for frame in second["img"][::3]] == [11, 12, 13]
    assert [int(frame[0, 0]) for frame in first["img"][::3]] == [10, 10, 10], "the beginning stands in for its past"
    assert second["img"].shape == (9, 4, 6)
    assert second["label"].shape == ((4, 6) if mode == "train" else (1, 4, 6)) and (second["label"] == 3).all()


def test_camvid_frames_that_are_missing_or_do_not_fit(camvid):
    from paddle_rt.tasks.segmentation.camvid import CamVid

    video = str(camvid / "video")

    def refused(match: str, **arguments: object) -> None:
        with pytest.raises(UserError, match=match):
            CamVid([], str(camvid), **arguments)

    refused("frames must be a whole number of at least 1, got 0", frames=0, video_root=video)
    refused("both frames, above 1, and video_root; got 3 and None", frames=3)
    refused("both frames, above 1, and video_root; got 1 and", video_root=video)
    refused("no folder .*nowhere; video_root holds the frames", frames=2, video_root=str(camvid / "nowhere"))
    refused("lacks 0016E5_00010.png, a frame before .*0016E5_00013.png; clips of 4", frames=4, video_root=video)
    cv2.imwrite(str(camvid / "video/0016E5_00012.png"), np.zeros((5, 6, 3), np.uint8))
    data = CamVid([], str(camvid), frames=2, video_root=video)
    with pytest.raises(UserError, match="is 6x4, but the image .*0016E5_00012.png is 6x5"):
        data[1]


def test_noise_of_the_sensor_is_scaled_and_new_in_each_frame():
    dataset = {factor: StreetScenes([], "val", 1, 128, 192, frames=2, noise=factor) for factor in (0, 1, 4)}
    clips = {factor: data.clip(0) for factor, data in dataset.items()}
    clean = clips[0][0].astype(float)
    inside = (clean > 60).all(0) & (clean < 195).all(0)  # where nothing is clipped at 0 or 255
    assert inside.mean() > 0.2
    residues = {factor: (clips[factor][0] - clean)[:, inside] for factor in (1, 4)}
    expected = make_scene(SERIES["val"][0]).weather.noise
    for factor, residue in residues.items():
        found = np.sqrt(np.square(residue).mean() - 1 / 6)  # both were rounded, each with a variance of 1/12
        print(f"noise of factor {factor}: {found:.3f}, expected {factor * expected:.3f}")
        assert abs(found / (factor * expected) - 1) < 0.03
        assert np.array_equal(clips[factor][1], clips[0][1])
    correlation = np.corrcoef(residues[4])[0, 1]
    print(f"correlation of the noise of two frames: {correlation:.4f}")
    assert abs(correlation) < 0.02
    for image, (frame, _) in zip(clips[4][0], dataset[4].video(0, 2), strict=True):
        assert np.array_equal(image, frame)
    assert "noise is -1" in message(StreetScenes, [], noise=-1)
