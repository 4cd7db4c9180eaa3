"""Label image files and write the results as images: overlay, colours and plain labels."""

import logging
import pathlib

import numpy as np
import paddle
import paddle.nn.functional as F
from tqdm import tqdm

from paddle_rt import imaging
from paddle_rt.errors import UserError
from paddle_rt.files import output_names
from paddle_rt.imaging.label_files import open_label_files
from paddle_rt.imaging.view import View
from paddle_rt.tasks.segmentation.transforms import Compose
from paddle_rt.tasks.segmentation.tta import Augmentation, predict_logits, restore

logger = logging.getLogger(__name__)


def image_logits(
    network: paddle.nn.Layer, image: np.ndarray, transforms: Compose, augmentation: Augmentation
) -> paddle.Tensor:
    """Compute the logits of one image at its own size.

    Args:
        network: In evaluation mode; returns a list whose first entry is logits.
        image: uint8, with the channels of the transforms.
        transforms: The config's validation transforms.
        augmentation: Scales, flips and sliding window.

    Shape: [H, W] or [H, W, C] to [1, num_classes, H, W].
    """
    sample = transforms({"img": image})
    with paddle.no_grad():
        logits = predict_logits(network, paddle.to_tensor(sample["img"][np.newaxis]), augmentation)
        return restore(logits, sample["trans_info"])


def predict(
    network: paddle.nn.Layer,
    transforms: Compose,
    image_path: str,
    save_dir: str,
    view: View,
    augmentation: Augmentation | None = None,
) -> None:
    """Label an image, a folder or a list of images and write three images for each, and what else the view asks for.

    Files below save_dir, in the sub-folders that the images lie in: added_prediction/ (image and colours mixed),
    pseudo_color_prediction/*.png (indexed colours, the value of a pixel is its class) and label_prediction/*.png
    (grey, the value of a pixel is its class).

    Args:
        network: Returns a list whose first entry is logits.
        transforms: The config's validation transforms.
        image_path: An image, a folder (searched to the bottom), or a text file that lists images.
        save_dir: Folder of the results.
        view: How labels are drawn, and what else is written; see `imaging.label_files`.
        augmentation: Scales, flips and sliding window; None for whole images as they are.

    Raises:
        UserError: No image was found, COCO's one file is asked for from several processes, or some images could not
            be read or their results not be written; the others have been written by then.
    """
    if len(view.palette) > 256:
        raise UserError(f"labels are written as bytes: 256 classes at most, got {len(view.palette)}")
    files, root = imaging.list_images(image_path)
    network.eval()
    rank, ranks = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
    if ranks > 1 and "coco" in view.polygons:
        raise UserError("--polygons coco is one file, which one process writes; start predict in one process")
    failures, names = [], dict(zip(files, output_names(files, root), strict=True))
    with open_label_files(save_dir, view) as add:
        for file in tqdm(files[rank::ranks], desc="predict", unit="img", disable=rank > 0 or None):
            try:
                image = imaging.read_image(file, transforms.img_channels)
                logits = image_logits(network, image, transforms, augmentation or Augmentation())
                labels = logits.argmax(axis=1)[0].numpy().astype(np.uint8)
                confidence = F.softmax(logits, axis=1).max(axis=1)[0].numpy() if view.confidence else None
                _write(pathlib.Path(save_dir), names[file], pathlib.Path(file).suffix, image, labels, view)
                add(file, names[file], labels, confidence)
            except UserError as error:
                failures.append(str(error))
    labelled = len(files[rank::ranks]) - len(failures)
    logger.info("%d %s labelled, results in %s", labelled, "image" if labelled == 1 else "images", save_dir)
    if failures:
        more = f"; and {len(failures) - 10} more" if len(failures) > 10 else ""
        text = "; ".join(failures[:10]) + more
        raise UserError(f"{len(failures)} of {len(files)} images could not be labelled: {text}")


def _write(
    folder: pathlib.Path, name: pathlib.Path, suffix: str, image: np.ndarray, labels: np.ndarray, view: View
) -> None:
    imaging.write_image(folder / "added_prediction" / f"{name}{suffix}", view.draw(image, labels))
    imaging.write_label(folder / "pseudo_color_prediction" / f"{name}.png", labels, view.palette)
    imaging.write_image(folder / "label_prediction" / f"{name}.png", labels)
