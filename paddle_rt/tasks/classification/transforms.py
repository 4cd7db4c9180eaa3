"""Transforms of single images and of batches, with the names and arguments of PaddleClas.

An image is uint8 RGB [H, W, 3] until NormalizeImage makes float32 of it. All random numbers come from `random` and
`numpy.random`, or from the generator of a batch, which the training loop seeds.

Source: PaddleClas ppcls/data/preprocess.
"""

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from paddle_rt.components import Catalogue
from paddle_rt.errors import UserError
from paddle_rt.inference.preprocess import INTERPOLATIONS_OF_PADDLECLAS, TRANSFORMS, Normalize, Size, as_size

Transform = Callable[[np.ndarray], np.ndarray]
_GREY = (128, 128, 128)


def apply(transforms: Sequence[Transform], frame: np.ndarray) -> np.ndarray:
    """Transform an image.

    Args:
        transforms: What is done, in this order.
        frame: uint8 BGR.

    Returns:
        float32 RGB.

    Shape: [H, W, 3] to [3, h, w].

    Raises:
        UserError: A transform does not fit the image.
    """
    image = cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
    for transform in transforms:
        if isinstance(transform, Normalize):
            image = image.astype(np.float32)
        try:
            image = transform(image)
        except cv2.error as error:
            name, (height, width) = type(transform).__name__, image.shape[:2]
            raise UserError(f"the transform {name} does not fit an image of {width}x{height}") from error
    return np.ascontiguousarray(image.transpose(2, 0, 1), np.float32)


@dataclass(frozen=True)
class RandCropImage:
    """Cut a random part out and resize it ("random resized crop").

    Args:
        size: The size of the result, one number or [width, height].
        scale: The least and the greatest share of the image's area that is cut out.
        ratio: The least and the greatest ratio of the width of the part to its height, drawn on a logarithmic scale.
        interpolation: How the part is resized.

    Source: Szegedy et al., Going Deeper with Convolutions, arXiv 1409.4842, with the numbers that are usual since.
    """

    size: int | Size = 224
    scale: Sequence[float] = (0.08, 1.0)
    ratio: Sequence[float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        for name, (low, high) in (("scale", self.scale), ("ratio", self.ratio)):
            if low > high:
                raise UserError(f"RandCropImage: {name} is {[low, high]}; the first number is the smaller one")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        height, width = image.shape[:2]
        area = height * width * random.uniform(*self.scale)
        ratio = math.exp(random.uniform(*(math.log(value) for value in self.ratio)))
        # A part that is longer than the image is cut to it, so that one draw is always enough.
        w = min(max(round(math.sqrt(area * ratio)), 1), width)
        h = min(max(round(math.sqrt(area / ratio)), 1), height)
        top, left = random.randint(0, height - h), random.randint(0, width - w)
        part = image[top : top + h, left : left + w]
        return cv2.resize(
            part, tuple(as_size(self.size)), interpolation=INTERPOLATIONS_OF_PADDLECLAS[self.interpolation]
        )


@dataclass(frozen=True)
class RandFlipImage:
    """Mirror one image in two: 1 swaps left and right, 0 top and bottom, -1 both."""

    flip_code: int = 1

    def __call__(self, image: np.ndarray) -> np.ndarray:
        return cv2.flip(image, self.flip_code) if random.random() < 0.5 else image


@dataclass(frozen=True)
class RandAugment:
    """Apply some operations that are drawn at random, with one strength for all.

    Strengths grow with the magnitude for every operation. In PaddleClas those of "posterize" and "solarize" shrink.

    Args:
        num_layers: How many operations are applied one after the other.
        magnitude: The strength, 0 to 10.

    Source: Cubuk et al., RandAugment, arXiv 1909.13719; the ranges are those of PaddleClas.
    """

    num_layers: int = 2
    magnitude: float = 5

    def __call__(self, image: np.ndarray) -> np.ndarray:
        level = self.magnitude / 10
        result = Image.fromarray(image)
        for _ in range(self.num_layers):
            operation, sign = random.choice(_OPERATIONS), random.choice((-1, 1))
            result = operation(result, level, sign)
        return np.asarray(result)


def _affine(a: float, b: float, c: float, d: float) -> Callable[[Image.Image, float, int], Image.Image]:
    """Return a shear (a, c) and a shift (b, d), of width and height, at full strength."""

    def apply_to(image: Image.Image, level: float, sign: int) -> Image.Image:
        x, y = sign * level * b * image.width, sign * level * d * image.height
        matrix = (1, sign * level * a, x, sign * level * c, 1, y)
        return image.transform(image.size, Image.AFFINE, matrix, Image.BICUBIC, fillcolor=_GREY)

    return apply_to


def _rotate(image: Image.Image, level: float, sign: int) -> Image.Image:
    return image.rotate(30 * level * sign, Image.BILINEAR, fillcolor=_GREY)


def _enhance(enhancer: Callable) -> Callable[[Image.Image, float, int], Image.Image]:
    return lambda image, level, sign: enhancer(image).enhance(1 + 0.9 * level * sign)


_OPERATIONS: tuple[Callable[[Image.Image, float, int], Image.Image], ...] = (
    _affine(0.3, 0, 0, 0),
    _affine(0, 0, 0.3, 0),
    _affine(0, 150 / 331, 0, 0),
    _affine(0, 0, 0, 150 / 331),
    _rotate,
    _enhance(ImageEnhance.Color),
    _enhance(ImageEnhance.Contrast),
    _enhance(ImageEnhance.Sharpness),
    _enhance(ImageEnhance.Brightness),
    lambda image, level, sign: ImageOps.posterize(image, 8 - round(4 * level)),
    lambda image, level, sign: ImageOps.solarize(image, 256 - round(256 * level)),
    lambda image, level, sign: ImageOps.autocontrast(image),
    lambda image, level, sign: ImageOps.equalize(image),
    lambda image, level, sign: ImageOps.invert(image),
)


@dataclass(frozen=True)
class RandomErasing:
    """Fill a random rectangle; stands behind NormalizeImage.

    Args:
        EPSILON: The share of images in which a rectangle is filled.
        sl: The least share of the area.
        sh: The greatest share of the area.
        r1: The least ratio of the sides; the greatest is 1 / r1.
        attempt: How often a rectangle is drawn until one fits.
        use_log_aspect: Draw the ratio on a logarithmic scale.
        mode: "const" fills it with `mean`, "rand" with one normal random colour, "pixel" with one for each pixel.
        mean: The colour of "const".

    Source: Zhong et al., Random Erasing Data Augmentation, arXiv 1708.04896.
    """

    EPSILON: float = 0.5
    sl: float = 0.02
    sh: float = 0.4
    r1: float = 0.3
    attempt: int = 100
    use_log_aspect: bool = False
    mode: str = "const"
    mean: Sequence[float] = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        if self.sl > self.sh:
            raise UserError(f"RandomErasing: sl {self.sl} is larger than sh {self.sh}")

    def __call__(self, image: np.ndarray) -> np.ndarray:
        if random.random() >= self.EPSILON:
            return image
        height, width = image.shape[:2]
        low, high = (self.r1, 1 / self.r1) if not self.use_log_aspect else (math.log(self.r1), -math.log(self.r1))
        for _ in range(self.attempt):
            area, ratio = random.uniform(self.sl, self.sh) * height * width, random.uniform(low, high)
            ratio = math.exp(ratio) if self.use_log_aspect else ratio
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if 0 < h < height and 0 < w < width:
                top, left = random.randint(0, height - h), random.randint(0, width - w)
                image = image.copy()
                image[top : top + h, left : left + w] = self._fill(h, w)
                break
        return image

    def _fill(self, height: int, width: int) -> np.ndarray:
        if self.mode == "const":
            return np.array(self.mean)
        return np.random.normal(size=(height, width, 3) if self.mode == "pixel" else 3)


FOR_TRAINING: Catalogue = {cls.__name__: cls for cls in (RandCropImage, RandFlipImage, RandAugment, RandomErasing)}
FOR_SCORES: Catalogue = TRANSFORMS


@dataclass(frozen=True)
class MixupOperator:
    """Blend every image of a batch with another one, and their classes alike.

    Args:
        alpha: Both parameters of the beta distribution from which the share is drawn, one for the batch.
        prob: The share of the batches that are treated so.

    Source: Zhang et al., mixup, arXiv 1710.09412.
    """

    alpha: float = 1.0
    prob: float = 1.0

    def __call__(self, images: np.ndarray, order: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """Blend images with those in another order.

        Returns:
            The images, and the share that each kept.

        Shape: [B, C, H, W] to the same.
        """
        share = float(rng.beta(self.alpha, self.alpha))
        return (images * np.float32(share) + images[order] * np.float32(1 - share)), share


@dataclass(frozen=True)
class CutmixOperator:
    """Put a rectangle of another image into every image of a batch, and mix their classes by area.

    Args:
        alpha: Both parameters of the beta distribution from which the share is drawn, one for the batch.
        prob: The share of the batches that are treated so.

    Source: Yun et al., CutMix, arXiv 1905.04899.
    """

    alpha: float = 0.2
    prob: float = 1.0

    def __call__(self, images: np.ndarray, order: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, float]:
        """Fill a rectangle with the images in another order; see `MixupOperator`."""
        height, width = images.shape[2:]
        side = math.sqrt(1 - rng.beta(self.alpha, self.alpha))
        rows, columns = (_span(length, side, rng) for length in (height, width))
        images = images.copy()
        images[..., rows, columns] = images[order][..., rows, columns]
        covered = (rows.stop - rows.start) * (columns.stop - columns.start)
        return images, 1 - covered / (height * width)


def _span(length: int, share: float, rng: np.random.Generator) -> slice:
    """Return a share of a length around a random middle, as far as it lies inside."""
    middle, half = int(rng.integers(length)), int(length * share) // 2
    return slice(max(middle - half, 0), min(middle + half, length))


BATCH_OPERATORS: Catalogue = {cls.__name__: cls for cls in (MixupOperator, CutmixOperator)}
BatchOperator = MixupOperator | CutmixOperator


def draw_operator(operators: Sequence[BatchOperator], rng: np.random.Generator) -> BatchOperator | None:
    """Draw one of the operators by their `prob`, or none, as PaddleClas's OpSampler does."""
    drawn = rng.random()
    for operator in operators:
        if drawn < operator.prob:
            return operator
        drawn -= operator.prob
    return None
