"""Evaluation of a network that classifies images."""

import numpy as np
import paddle
from tqdm import tqdm

from paddle_rt.tasks.classification.datasets import ClassifiedImages
from paddle_rt.tasks.classification.metrics import count
from paddle_rt.tasks.loader import Loader


def evaluate(
    network: paddle.nn.Layer, dataset: ClassifiedImages, batch_size: int = 32, num_workers: int = 0
) -> tuple[np.ndarray, int]:
    """Count the images of a data set by true and predicted class, and the hits among the five most likely classes.

    In several processes each scores its share of the images, and all get the sum.

    Args:
        network: Returns a list whose first entry is logits [B, C]. It is left in evaluation mode.
        dataset: Items with "img" and "label".
        batch_size: Images that run together.
        num_workers: Processes that load images.

    Returns:
        What `metrics.count` returns, for all images.

    Raises:
        UserError: An image cannot be read, or images of one batch differ in size.
    """
    network.eval()
    rank, ranks = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
    share = paddle.io.Subset(dataset, list(range(rank, len(dataset), ranks)))
    loader = Loader(share, batch_size=batch_size, num_workers=num_workers)
    totals = np.zeros(dataset.num_classes**2 + 1, np.int64)
    hidden = rank > 0 or None  # None: shown on a terminal only
    with paddle.no_grad(), tqdm(total=len(share), desc="evaluate", unit="img", disable=hidden, leave=False) as bar:
        for batch in loader:
            logits = network(batch["img"])[0].astype("float32").numpy()
            confusion, hits = count(logits, batch["label"].numpy())
            totals += np.append(confusion.ravel(), hits)
            bar.update(len(logits))
    if ranks > 1:
        total = paddle.to_tensor(totals)
        paddle.distributed.all_reduce(total)
        totals = total.numpy()
    return totals[:-1].reshape(dataset.num_classes, -1), int(totals[-1])
