"""Classify image files and write the most likely classes of each to a table."""

import logging
import pathlib

import numpy as np
import paddle
from tqdm import tqdm

from paddle_rt import imaging
from paddle_rt.errors import UserError
from paddle_rt.files import output_names
from paddle_rt.inference.classifier import softmax, top_k
from paddle_rt.inference.media.predictions import PREDICTIONS, open_predictions
from paddle_rt.tasks.classification.transforms import Transform, apply

logger = logging.getLogger(__name__)


def predict(
    network: paddle.nn.Layer, transforms: list[Transform], image_path: str, save_dir: str, names: list[str], k: int
) -> None:
    """Classify an image, a folder or a list of images; log the best classes and write predictions.csv.

    Args:
        network: Returns a list whose first entry is logits [B, C].
        transforms: The config's validation transforms.
        image_path: An image, a folder (searched to the bottom), or a text file that lists images.
        save_dir: Folder of the table.
        names: Names of the classes.
        k: How many classes of each image are written.

    Raises:
        UserError: No image was found, or some could not be read; the table has the others.
    """
    files, root = imaging.list_images(image_path)
    network.eval()
    failures, file = [], pathlib.Path(save_dir) / PREDICTIONS
    with paddle.no_grad(), open_predictions(file) as add:
        for image, name in zip(
            tqdm(files, "predict", unit="img", disable=None), output_names(files, root), strict=True
        ):
            try:
                sample = apply(transforms, imaging.read_image(image))
                logits = network(paddle.to_tensor(sample[np.newaxis]))[0].astype("float32").numpy()[0]
            except UserError as error:
                failures.append(str(error))
                continue
            found = top_k(softmax(logits), names, k)
            add(str(name), found)
            best = zip(found.names, found.scores, strict=True)
            logger.info("%s: %s", image, ", ".join(f"{label} {score:.4f}" for label, score in best))
    logger.info("%d images classified, results in %s", len(files) - len(failures), file)
    if failures:
        raise UserError(f"{len(failures)} of {len(files)} images could not be classified: {'; '.join(failures)}")
