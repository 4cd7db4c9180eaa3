"""Evaluation of a network on a data set, at the labels' own size."""

import logging
from collections.abc import Callable

import numpy as np
import paddle
from tqdm import tqdm

from paddle_rt.tasks.base import Scores
from paddle_rt.tasks.loader import Loader
from paddle_rt.tasks.segmentation import metrics
from paddle_rt.tasks.segmentation.diagnosis import find_faults
from paddle_rt.tasks.segmentation.tta import Augmentation, predict_logits, restore

logger = logging.getLogger(__name__)


def evaluate(
    network: paddle.nn.Layer,
    dataset: paddle.io.Dataset,
    augmentation: Augmentation | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    seen: Callable[[int, np.ndarray, np.ndarray], None] | None = None,
) -> np.ndarray:
    """Compute the confusion matrix of a network over a data set.

    In several processes each scores its share of the samples, and all get the sum.

    Args:
        network: Returns a list whose first entry is logits. It is left in evaluation mode.
        dataset: Items with img [C, H, W], label [1, h, w] and trans_info; num_classes and ignore_index.
        augmentation: Scales, flips and sliding window; None for whole images as they are.
        batch_size: Images of one size that are run together; images of unequal sizes are run one by one.
        num_workers: Processes that load images.
        seen: Called with the index, the confusion matrix and the predicted labels of each image of this process.

    Returns:
        int64 [C, C]: rows are true classes, columns predicted ones.

    Raises:
        UserError: A label and its image differ in size, or a label is out of range.
    """
    network.eval()
    rank, ranks = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
    share = paddle.io.Subset(dataset, list(range(rank, len(dataset), ranks)))
    loader = Loader(share, batch_size=batch_size, num_workers=num_workers, collate_fn=_as_list)
    confusion = np.zeros([dataset.num_classes] * 2, np.int64)
    index = rank
    hidden = rank > 0 or None  # None: shown on a terminal only
    with paddle.no_grad(), tqdm(total=len(share), desc="evaluate", unit="img", disable=hidden, leave=False) as bar:
        for samples in loader:
            for group in _groups_of_one_shape(samples):
                images = paddle.stack([sample["img"] for sample in group])
                logits = predict_logits(network, images, augmentation or Augmentation()).astype("float32")
                for i, sample in enumerate(group):
                    with paddle.amp.auto_cast(enable=False):  # the caller may run the network in half precision
                        labels = restore(logits[i : i + 1], sample["trans_info"]).argmax(axis=1).numpy()
                    truth = sample["label"].numpy()
                    found = metrics.confusion_matrix(labels, truth, dataset.num_classes, dataset.ignore_index)
                    confusion += found
                    if seen is not None:
                        seen(index, found, labels[0])
                    index += ranks
                    bar.update()
    if ranks > 1:
        total = paddle.to_tensor(confusion)
        paddle.distributed.all_reduce(total)
        confusion = total.numpy()
    return confusion


def summarize(confusion: np.ndarray, images: int, names: list[str], absent: str = "exclude") -> Scores:
    """Turn a confusion matrix into scores, with PaddleSeg's log line and a table of classes.

    Args:
        confusion: What `evaluate` returned.
        images: How many images were scored.
        names: Names of the classes.
        absent: What a class counts that occurs in neither labels nor predictions; see `metrics.ABSENT_CLASS_RULES`.

    Raises:
        UserError: `absent` is unknown, or no pixel was counted.
    """
    result = metrics.scores(confusion, absent)
    values = {name: result[name] for name in ("mIoU", "Acc", "Kappa", "Dice")}
    shown = " ".join(f"{name}: {value:.4f}" for name, value in values.items())
    details = ["[EVAL] Classes:\n" + metrics.table(result, names)]
    absent_names = [name for name, union in zip(names, confusion.sum(0) + confusion.sum(1), strict=True) if union == 0]
    if absent_names:
        rule = {"exclude": "left out of the mean", "zero": "counted as 0", "one": "counted as 1"}[absent]
        details.append(f"[EVAL] Neither in the labels nor predicted, {rule}: {', '.join(absent_names)}")
    columns = {name: result[f"class_{name}"] for name in ("iou", "precision", "recall")}
    classes = [
        {"name": name, **{key: None if np.isnan(column[i]) else float(column[i]) for key, column in columns.items()}}
        for i, name in enumerate(names)
    ]
    report = {"images": images, "absent_class": absent, **values, "classes": classes}
    report["confusion_matrix"] = confusion.tolist()
    curves = {f"IoU/{name}": float(iou) for name, iou in zip(names, result["class_iou"], strict=True)}
    curves = {name: iou for name, iou in curves.items() if not np.isnan(iou)}
    faults = find_faults(confusion, names)
    return Scores(values, "mIoU", f"[EVAL] #Images: {images} {shown}", details, report, curves, faults)


def _as_list(samples: list[dict]) -> list[dict]:
    return samples


def _groups_of_one_shape(samples: list[dict]) -> list[list[dict]]:
    """Return all samples as one batch where they have one shape, else one by one."""
    return [samples] if len({tuple(sample["img"].shape) for sample in samples}) == 1 else [[s] for s in samples]
