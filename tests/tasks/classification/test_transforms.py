"""Transforms, operators of batches, and the loss of classification."""

import random

import numpy as np
import paddle
import pytest

from paddle_rt.config import optimizer
from paddle_rt.inference.preprocess import CropImage, NormalizeImage, Preprocess, ResizeImage
from paddle_rt.tasks.classification import baseline
from paddle_rt.tasks.classification.losses import CELoss
from paddle_rt.tasks.classification.metrics import count, summarize
from paddle_rt.tasks.classification.task import ClassificationTask
from paddle_rt.tasks.classification.transforms import (
    _OPERATIONS,
    CutmixOperator,
    MixupOperator,
    RandAugment,
    RandCropImage,
    RandFlipImage,
    RandomErasing,
    apply,
    draw_operator,
)
from tests.helpers import message, smooth_image
from tests.tasks.classification.helpers import content
from tests.tasks.classification.stand_in import StandIn

IMAGE = smooth_image(40, 60)


@pytest.fixture(autouse=True)
def seeds() -> None:
    random.seed(0)
    np.random.seed(0)


def test_images_are_prepared_for_scores_as_a_deployment_prepares_them():
    steps = [{"type": "ResizeImage", "resize_short": 36}, {"type": "CropImage", "size": [30, 24]}]
    deployed, _ = Preprocess([*steps, {"type": "NormalizeImage"}], graph_normalizes=True)(IMAGE)
    assert deployed.shape == (24, 30, 3)
    ours = apply([ResizeImage(36), CropImage([30, 24]), NormalizeImage()], IMAGE)
    expected = ((deployed[..., ::-1] / 255.0 - (0.485, 0.456, 0.406)) / (0.229, 0.224, 0.225)).transpose(2, 0, 1)
    error = np.abs(ours - expected).max()
    assert ours.dtype == np.float32 and error < 1e-6, f"the images differ by {error:.1e}"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: ResizeImage(), "resize_short or size"),
        (lambda: ResizeImage(3, 4), "resize_short or size"),
        (lambda: CropImage(41)(IMAGE), "the image is smaller, 60x40"),
        (lambda: RandCropImage(8, scale=(1.0, 0.5)), "the first number is the smaller one"),
        (lambda: RandomErasing(sl=0.5, sh=0.1), "sl 0.5 is larger than sh 0.1"),
    ],
)
def test_transforms_that_cannot_work_say_so(call, expected):
    assert expected in message(call)


def test_a_random_crop_has_the_size_and_shares_that_were_asked_for():
    ramp = np.stack([np.add(*np.mgrid[:40, :60][::k]) for k in (1, 1, 1)], -1).astype(np.uint8)
    crops = [RandCropImage([10, 8], scale=(0.1, 0.2))(ramp) for _ in range(50)]
    assert {crop.shape for crop in crops} == {(8, 10, 3)}
    spans = [np.ptp(crop) for crop in crops]
    assert max(spans) < 60 < np.ptp(ramp) and len(set(spans)) > 5
    assert RandCropImage(8)(IMAGE[:1, :1]).shape == (8, 8, 3)


def test_flips_happen_half_of_the_time():
    flipped = sum(np.array_equal(RandFlipImage()(IMAGE), IMAGE[:, ::-1]) for _ in range(200))
    assert 70 < flipped < 130


@pytest.mark.parametrize("operation", range(len(_OPERATIONS)))
def test_operations_change_an_image_by_their_strength(operation):
    from PIL import Image

    plain = IMAGE // 2 + 40
    none, full = (np.asarray(_OPERATIONS[operation](Image.fromarray(plain), level, 1)) for level in (0, 1))
    assert full.shape == plain.shape and not np.array_equal(full, plain)
    has_no_strength = operation >= len(_OPERATIONS) - 3  # autocontrast, equalize and invert
    assert np.array_equal(none, full if has_no_strength else plain)


def test_augmentation_follows_from_the_seeds():
    results = []
    for _ in range(2):
        random.seed(5)
        np.random.seed(5)
        steps = [
            RandCropImage(32),
            RandFlipImage(),
            RandAugment(2, 9),
            NormalizeImage(),
            RandomErasing(1.0, mode="pixel"),
        ]
        results.append(apply(steps, IMAGE))
    assert np.array_equal(*results) and results[0].shape == (3, 32, 32)


def test_erasing_fills_a_share_of_the_area():
    erased = np.stack(
        [RandomErasing(1.0, 0.1, 0.2, use_log_aspect=log)(np.ones((40, 60, 3), np.float32)) for log in (0, 1)]
    )
    shares = (erased == 0).mean((1, 2, 3))
    assert (0.08 < shares).all() and (shares < 0.22).all(), shares
    assert RandomErasing(0.0)(np.ones((40, 60, 3), np.float32)).all()


@pytest.mark.parametrize("operator", [MixupOperator(0.8), CutmixOperator(1.0)])
def test_a_batch_is_mixed_by_the_share_that_is_told(operator):
    images = np.stack([np.full((3, 20, 30), value, np.float32) for value in range(4)])
    order, rng = np.array([2, 3, 1, 0]), np.random.default_rng(3)
    for _ in range(20):
        mixed, share = operator(images, order, rng)
        expected = share * np.arange(4) + (1 - share) * order
        error = np.abs(mixed.mean((1, 2, 3)) - expected).max()
        assert 0 <= share <= 1 and error < 1e-5, f"the means differ by {error:.1e}"
    assert np.array_equal(images[:, 0, 0, 0], np.arange(4)), "the images themselves were changed"


def test_operators_are_drawn_by_their_share():
    operators, rng = [MixupOperator(prob=0.2), CutmixOperator(prob=0.5)], np.random.default_rng(0)
    drawn = [draw_operator(operators, rng) for _ in range(2000)]
    shares = [np.mean([item is wanted for item in drawn]) for wanted in (*operators, None)]
    assert np.abs(np.subtract(shares, (0.2, 0.5, 0.3))).max() < 0.04, shares


def test_a_batch_follows_from_its_items_and_its_loss_from_both_classes():
    task = ClassificationTask({**content(), "model": {"num_classes": 5}})
    rng = np.random.default_rng(0)
    items = [{"img": rng.random((3, 4, 4)), "label": np.int64(n), "draw": np.int64(7 + n)} for n in range(4)]
    for draw in range(20):
        items[0]["draw"] = np.int64(draw)
        batch, again = task.collate(items), task.collate(items)
        assert all(np.array_equal(batch[key], again[key]) for key in batch)
        logits = rng.standard_normal((4, 5)).astype(np.float32)
        share = batch.get("share", np.ones(4))[:, None]
        truths = share * np.eye(5)[batch["label"]] + (1 - share) * np.eye(5)[batch.get("label_2", batch["label"])]
        truths = 0.9 * truths + 0.1 / 5
        expected = -(truths * (logits - np.log(np.exp(logits).sum(1, keepdims=True)))).sum(1).mean()
        tensors = {key: paddle.to_tensor(value) for key, value in batch.items()}
        (loss,) = task.losses([paddle.to_tensor(logits)], tensors)
        assert abs(float(loss) - expected) < 1e-5, f"the loss is off by {abs(float(loss) - expected):.1e}"


def test_the_loss_equals_paddle_s():
    logits, labels = paddle.randn([6, 4]), paddle.to_tensor([0, 1, 2, 3, 3, 0])
    truths = paddle.nn.functional.one_hot(labels, 4)
    error = abs(float(CELoss()(logits, truths) - paddle.nn.functional.cross_entropy(logits, labels)))
    assert error < 1e-6, f"the losses differ by {error:.1e}"


def test_scores_of_a_known_confusion():
    logits = np.array([[5, 4, 3, 2, 1, 0], [0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]], np.float32)
    confusion, hits = count(logits, np.array([0, 0, 1]))
    scores = summarize(confusion, hits, list("abcdef"))
    assert scores.values == {"top1": pytest.approx(1 / 3), "top5": pytest.approx(2 / 3)} and scores.best == 1 / 3
    assert scores.report["classes"][0] == {"name": "a", "images": 2, "top1": 0.5, "precision": 0.5}
    assert scores.report["classes"][2]["top1"] is None
    assert "a as f 1, b as a 1" in scores.details[1]


def test_colours_alone_are_learned_where_they_tell_the_class():
    class Colours:
        num_classes = 3
        labels = np.arange(30) % 3

        def __len__(self) -> int:
            return 30

        def frame(self, index: int) -> np.ndarray:
            noise = np.random.default_rng(index).integers(0, 120, (8, 8, 3)).astype(np.uint8)
            noise[..., index % 3] += 130
            return noise

    assert baseline.score(Colours(), Colours()) == 1.0


def test_norms_and_biases_do_not_decay():
    paddle.seed(0)
    network = StandIn(3)
    section = {"type": "AdamW", "weight_decay": 0.5, "one_dim_param_no_weight_decay": True}
    optimizer.check_optimizer(section)
    built = optimizer.build_optimizer(section, network, paddle.optimizer.lr.StepDecay(0.1, 10))
    before = {name: value.numpy() for name, value in network.named_parameters()}
    for parameter in network.parameters():
        parameter.grad = paddle.zeros_like(parameter)
    built.step()
    for name, value in network.named_parameters():
        error = np.abs(value.numpy() - before[name] * (0.95 if before[name].ndim > 1 else 1.0)).max()
        assert error < 1e-6, f"{name} is off by {error:.1e}"


def test_half_a_cosine_ends_with_the_run():
    section = {"type": "CosineAnnealingDecay", "learning_rate": 0.1, "eta_min": 0.01}
    section |= {"warmup_iters": 10, "warmup_start_lr": 0.0}
    optimizer.check_schedule(section, 110)
    schedule, rates = optimizer.build_schedule(section, 110), []
    for _ in range(111):
        rates.append(schedule.get_lr())
        schedule.step()
    expected = [0.01 * n if n < 10 else 0.01 + 0.045 * (1 + np.cos(np.pi * (n - 10) / 100)) for n in range(111)]
    error = np.abs(np.subtract(rates, expected)).max()
    assert error < 1e-6, f"the rates differ by {error:.1e}"
