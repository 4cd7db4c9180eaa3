"""Score a model on a dataset, at the labels' own size."""

import json
import os

import numpy as np
import paddle
from paddleseg.utils import logger
from tqdm import tqdm

from paddle_rt.files import whole_file
from paddle_rt.tasks.loader import Loader
from paddle_rt.tasks.segmentation import metrics
from paddle_rt.tasks.segmentation.tta import TestTime, predict_logits, restore


def evaluate(
    model: paddle.nn.Layer,
    eval_dataset: paddle.io.Dataset,
    how: TestTime | None = None,
    batch_size: int = 1,
    num_workers: int = 0,
    precision: str = "fp32",
    amp_level: str = "O1",
) -> np.ndarray:
    """Confusion matrix of a model over a dataset; in several processes each scores its share and all get the sum.

    Args:
        model: A model of PaddleSeg's contract. It is left in evaluation mode.
        eval_dataset: Items with img [C, H, W], label [1, h, w] and trans_info; num_classes and ignore_index.
        how: Scales, flips and sliding window.
        batch_size: Images of one size that are run together; images of unequal sizes are run one by one.
        num_workers: Processes that load images.
        precision, amp_level: "fp16" runs under automatic mixed precision on a GPU.

    Returns:
        int64 [C, C]: rows true and columns predicted classes.

    Raises:
        UserError: A label and its image differ in size, or a label is out of range.
    """
    model.eval()
    rank, ranks = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
    mine = paddle.io.Subset(eval_dataset, list(range(rank, len(eval_dataset), ranks)))
    loader = Loader(mine, batch_size=batch_size, num_workers=num_workers, collate_fn=_as_list)
    confusion = np.zeros([eval_dataset.num_classes] * 2, np.int64)
    amp = dict(enable=precision == "fp16", level=amp_level)
    hidden = rank > 0 or None  # None: shown on a terminal only
    with paddle.no_grad(), tqdm(total=len(mine), desc="evaluate", unit="img", disable=hidden, leave=False) as bar:
        for samples in loader:
            for group in _alike(samples):
                with paddle.amp.auto_cast(**amp):
                    logits = predict_logits(model, paddle.stack([s["img"] for s in group]), how or TestTime())
                for i, sample in enumerate(group):
                    one = restore(logits[i : i + 1].astype("float32"), sample["trans_info"])
                    label = sample["label"].numpy()
                    confusion += metrics.confusion_matrix(
                        one.argmax(axis=1).numpy(), label, eval_dataset.num_classes, eval_dataset.ignore_index
                    )
                    bar.update()
    if ranks > 1:
        total = paddle.to_tensor(confusion)
        paddle.distributed.all_reduce(total)
        confusion = total.numpy()
    return confusion


def report(confusion: np.ndarray, images: int, names: list[str], absent: str = "exclude") -> dict:
    """Log the scores in PaddleSeg's words, with a table of classes, and return them."""
    result = metrics.scores(confusion, absent)
    absent_names = [name for name, union in zip(names, confusion.sum(0) + confusion.sum(1), strict=True) if union == 0]
    logger.info(
        f"[EVAL] #Images: {images} mIoU: {result['mIoU']:.4f} Acc: {result['Acc']:.4f} "
        f"Kappa: {result['Kappa']:.4f} Dice: {result['Dice']:.4f}"
    )
    logger.info("[EVAL] Classes:\n" + metrics.table(result, names))
    if absent_names:
        rule = {"exclude": "left out of the mean", "zero": "counted as 0", "one": "counted as 1"}[absent]
        logger.info(f"[EVAL] Neither in the labels nor predicted, {rule}: {', '.join(absent_names)}")
    return result


def write_metrics(
    path: str | os.PathLike, result: dict, confusion: np.ndarray, names: list[str], **about: object
) -> None:
    """Write scores and confusion matrix as JSON, whole or not at all; an absent class has null.

    Args:
        path: The file; its folder is made.
        result: What `report` returned.
        confusion: [C, C].
        names: Names of the classes.
        **about: What was scored: config, checkpoint, number of images and so on.
    """
    columns = ("class_iou", "class_precision", "class_recall")
    classes = [
        {"name": name, **{column[6:]: None if np.isnan(result[column][i]) else result[column][i] for column in columns}}
        for i, name in enumerate(names)
    ]
    numbers = {key: value for key, value in result.items() if key not in columns}
    content = {**about, **numbers, "classes": classes, "confusion_matrix": confusion.tolist()}
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n")


def _as_list(samples: list[dict]) -> list[dict]:
    return samples


def _alike(samples: list[dict]) -> list[list[dict]]:
    """All samples as one batch where they have one shape, else one by one."""
    return [samples] if len({tuple(s["img"].shape) for s in samples}) == 1 else [[s] for s in samples]
