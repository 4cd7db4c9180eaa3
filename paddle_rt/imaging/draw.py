"""Colour labels and blend them with images."""

from collections.abc import Sequence

import cv2
import numpy as np

from paddle_rt.imaging.text import draw_texts


def color_table(palette: np.ndarray) -> np.ndarray:
    """Return the RGB colour of each of the 256 values of a label, black from the palette's end on.

    Shape: palette [N, 3] to [256, 3].
    """
    table = np.zeros((256, 3), np.uint8)
    table[: len(palette)] = palette[:256]
    return table


def colorize(labels: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """Return the image of the labels' colours, uint8 BGR.

    Args:
        labels: Class numbers, uint8.
        palette: RGB colours, uint8; numbers from N on (255, not labelled) become black.

    Shape: labels [H, W] and palette [N, 3] to [H, W, 3].
    """
    return color_table(palette)[:, ::-1][labels]


def as_bgr(image: np.ndarray) -> np.ndarray:
    """Return the colours of a grey or BGR image, or of one of BGR and a fourth channel, uint8 BGR [H, W, 3]."""
    channels = 1 if image.ndim == 2 else image.shape[2]
    return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR) if channels == 1 else np.ascontiguousarray(image[..., :3])


def overlay(image: np.ndarray, labels: np.ndarray, palette: np.ndarray, weight: float = 0.6) -> np.ndarray:
    """Blend an image with the colours of its labels; pixels that are not labelled keep the image's colour.

    Args:
        image: The image, uint8: grey, BGR, or BGR and a fourth channel, which the result does not show.
        labels: Class numbers, uint8.
        palette: RGB colours, uint8.
        weight: Weight of the image in the sum; 0.6 as in PaddleSeg.

    Returns:
        The blended image, uint8 BGR.

    Shape: image [H, W] or [H, W, C], labels [H, W] and palette [N, 3] to [H, W, 3].
    """
    colours = as_bgr(image)
    table = np.ascontiguousarray(color_table(palette)[:, np.newaxis, ::-1])
    painted = cv2.LUT(cv2.merge([labels] * 3), table)  # what `colorize` returns, in a fifth of its time
    mixed = cv2.addWeighted(colours, weight, painted, 1 - weight, 0)
    return cv2.copyTo(colours, (labels >= len(palette)).view(np.uint8), mixed)


def caption(image: np.ndarray, lines: Sequence[str]) -> np.ndarray:
    """Write lines of text into the upper left corner of an image, the first one the largest.

    Args:
        image: The image, uint8 BGR.
        lines: The text; characters that no font of the machine has become question marks.

    Returns:
        The image with the text, uint8 BGR.

    Shape: [H, W, 3] to the same.
    """
    image, top = image.copy(), 2
    for number, line in enumerate(lines):
        size = max(round(image.shape[1] / 25 * (1.0 if number == 0 else 0.7)), 8)
        top += size
        image = draw_texts(image, [(max(size // 4, 2), top - size // 2, line)], size, (255, 255, 255), edge=(0, 0, 0))
        top += size // 4
    return image


_WIDEST = 100  # pixels of a line: OpenCV draws none above 32,767
# BGR of the keypoints of neither side, of the left and of the right one, also told apart by the colour-blind.
_SIDES = ((255, 255, 255), (0, 159, 230), (178, 114, 0))


def body_sides(names: Sequence[str], flip_pairs: Sequence[Sequence[int]] | None) -> list[int]:
    """Return the side of each keypoint: 0 for neither, 1 for left and 2 for right.

    Of two keypoints that swap in a mirror image, the one whose name begins with an L is the left one, or else the
    first.

    Args:
        names: The names of the keypoints.
        flip_pairs: The pairs, or None where they are unknown.
    """
    sides = [0] * len(names)
    for pair in flip_pairs or ():
        left, right = sorted(pair, key=lambda index: not names[index].lower().startswith("l"))
        sides[left], sides[right] = 1, 2
    return sides


def draw_skeletons(
    image: np.ndarray,
    points: np.ndarray,
    scores: np.ndarray,
    bones: Sequence[Sequence[int]],
    sides: Sequence[int],
    threshold: float = 0.3,
) -> np.ndarray:
    """Draw the keypoints of people and the lines between them, the left side orange and the right side blue.

    Args:
        image: uint8 BGR.
        points: x and y of each keypoint in pixels.
        scores: The score of each keypoint.
        bones: Pairs of keypoints that a line connects; it is white where they are of no side or of different sides.
        sides: What `body_sides` returned.
        threshold: Keypoints with a lower score are not drawn, nor their lines.

    Returns:
        The image with the skeletons, uint8 BGR.

    Shape: image [H, W, 3], points [N, K, 2] and scores [N, K] to [H, W, 3].
    """
    image = image.copy()
    limit = 1 << 20  # OpenCV's whole numbers for points overflow far beyond it
    for person, values in zip(np.clip(points, -limit, limit), scores, strict=True):
        shown = values >= threshold
        if not shown.any():
            continue
        width = min(max(round(np.ptp(person[shown], axis=0).max() / 60), 1), _WIDEST)
        places = [tuple(map(int, place)) for place in np.round(person * 16)]  # with 4 bits behind the point
        lines = [bone for bone in bones if shown[list(bone)].all()]
        for border in (2, 0):  # first all dark edges, so that none covers a colour
            for a, b in lines:
                side = sides[a] | sides[b] if {sides[a], sides[b]} != {1, 2} else 0
                colour = (0, 0, 0) if border else _SIDES[side]
                cv2.line(image, places[a], places[b], colour, width + border, cv2.LINE_AA, shift=4)
            for index in np.flatnonzero(shown):
                colour = (0, 0, 0) if border else _SIDES[sides[index]]
                cv2.circle(image, places[index], 16 * (width + 1 + border // 2), colour, -1, cv2.LINE_AA, shift=4)
    return image
