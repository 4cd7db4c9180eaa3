"""Predict images and write what people look at: overlay, colours and plain labels."""

import pathlib

import numpy as np
import paddle
from paddleseg.transforms import Compose
from paddleseg.utils import logger
from tqdm import tqdm

from paddle_rt import imaging
from paddle_rt.errors import UserError
from paddle_rt.files import output_names
from paddle_rt.tasks.segmentation.tta import TestTime, predict_logits, restore


def predict_image(model: paddle.nn.Layer, image: np.ndarray, transforms: Compose, how: TestTime) -> np.ndarray:
    """Label one image at its own size.

    Args:
        model: A model of PaddleSeg's contract in evaluation mode.
        image: uint8 BGR [H, W, 3].
        transforms: The config's validation transforms.
        how: Scales, flips and sliding window.

    Returns:
        Labels, int64 [H, W].
    """
    sample = transforms({"img": image.astype("float32")})
    with paddle.no_grad():
        logits = predict_logits(model, paddle.to_tensor(sample["img"][np.newaxis]), how)
        return restore(logits, sample["trans_info"]).argmax(axis=1)[0].numpy()


def predict(
    model: paddle.nn.Layer,
    transforms: Compose,
    image_path: str,
    save_dir: str,
    palette: np.ndarray,
    how: TestTime | None = None,
) -> None:
    """Label an image, a folder or a list of images and write three pictures for each.

    Files below save_dir, in the sub-folders that the images lie in: added_prediction/ (image and colours mixed),
    pseudo_color_prediction/*.png (indexed colours, the pixel's value is its class) and label_prediction/*.png (grey,
    the pixel's value is its class).

    Args:
        model: A model of PaddleSeg's contract.
        transforms: The config's validation transforms.
        image_path: An image, a folder (searched to the bottom), or a text file that lists images.
        save_dir: Where the pictures go.
        palette: uint8 RGB [num_classes, 3].
        how: Scales, flips and sliding window.

    Raises:
        UserError: No image was found, or some could not be read; the others have been written by then.
    """
    if len(palette) > 256:
        raise UserError(f"labels are written as bytes: 256 classes at most, got {len(palette)}")
    files, root = imaging.list_images(image_path)
    model.eval()
    rank, ranks = paddle.distributed.get_rank(), paddle.distributed.get_world_size()
    failures, names = [], dict(zip(files, output_names(files, root), strict=True))
    for file in tqdm(files[rank::ranks], desc="predict", unit="img", disable=rank > 0 or None):
        try:
            image = imaging.read_image(file)
        except UserError as error:
            failures.append(str(error))
            continue
        labels = predict_image(model, image, transforms, how or TestTime()).astype(np.uint8)
        name, suffix, folder = names[file], pathlib.Path(file).suffix, pathlib.Path(save_dir)
        imaging.write_image(folder / "added_prediction" / f"{name}{suffix}", imaging.overlay(image, labels, palette))
        imaging.write_label(folder / "pseudo_color_prediction" / f"{name}.png", labels, palette)
        imaging.write_image(folder / "label_prediction" / f"{name}.png", labels)
    logger.info(f"{len(files[rank::ranks]) - len(failures)} images labelled, pictures in {save_dir}")
    if failures:
        raise UserError(f"{len(failures)} of {len(files)} images could not be read: {'; '.join(failures)}")
