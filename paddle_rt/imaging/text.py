"""Text in images, in any script for which the machine has a font.

OpenCV's letters are ASCII alone. Pillow brings a font of ASCII letters, which looks the same on every machine; what it
lacks comes from the fonts of the system.
"""

import functools
import logging
from collections.abc import Sequence

import numpy as np
from PIL import ImageFont
from PIL.Image import fromarray
from PIL.ImageDraw import Draw

# Files of fonts with many scripts, as Linux, macOS and Windows name them; Pillow searches the folders of the system.
_FONTS = (
    "DejaVuSans.ttf", "NotoSansCJK-Regular.ttc", "NotoSansSC-Regular.otf", "SourceHanSansCN-Regular.otf",
    "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "PingFang.ttc", "Arial Unicode.ttf",
    "msyh.ttc", "malgun.ttf", "YuGothR.ttc", "arial.ttf",
)  # fmt: skip
_NO_CHARACTER = "\uffff"
_log = logging.getLogger(__name__)


@functools.lru_cache(maxsize=4096)
def drawable_name(name: str, number: int) -> str:
    """Return the name of a class, or "class NUMBER" where the machine has no font for it, which is logged once."""
    if _font_of(name, 10)[1] == " ".join(name.split()):
        return name
    _log.warning(
        f"no font of this machine has all characters of {name!r}, so images show class {number}; install one, such as "
        "Noto Sans CJK"
    )
    return f"class {number}"


def text_width(text: str, size: int) -> int:
    """Return the width of a text in pixels."""
    font, shown = _font_of(text, size)
    return int(np.ceil(font.getlength(shown)))


def draw_texts(
    image: np.ndarray,
    texts: Sequence[tuple[int, int, str]],
    size: int,
    colour: Sequence[int] = (0, 0, 0),
    anchor: str = "lm",
    edge: Sequence[int] | None = None,
) -> np.ndarray:
    """Write texts into an image.

    Args:
        image: The image, uint8 BGR.
        texts: x and y of each text, and the text; characters that no font has become question marks.
        size: The height of the letters in pixels.
        colour: Their colour, BGR.
        anchor: What x and y are of a text, in Pillow's letters: "lm" for its left end and the middle of its height.
        edge: The colour of a line around the letters, BGR; None for no line.

    Returns:
        The image with the texts, uint8 BGR.

    Shape: [H, W, 3] to the same.
    """
    drawn = fromarray(image)
    draw = Draw(drawn)
    for x, y, text in texts:
        font, shown = _font_of(text, size)
        width = 0 if edge is None else max(size // 12, 1)
        draw.text((x, y), shown, tuple(colour), font, anchor, stroke_width=width, stroke_fill=edge and tuple(edge))
    return np.array(drawn)


@functools.lru_cache(maxsize=4096)
def _font_of(text: str, size: int) -> tuple[ImageFont.FreeTypeFont, str]:
    """Return the first font that has all characters of a text, and the text that it can write."""
    line = " ".join(text.split())
    best = None
    for font in _fonts(size):
        shown = "".join(char if _has(font, char) else "?" for char in line)
        if shown == line:
            return font, line
        if best is None or shown.count("?") < best[1].count("?"):
            best = font, shown
    return best


@functools.lru_cache(maxsize=64)
def _fonts(size: int) -> list[ImageFont.FreeTypeFont]:
    fonts = [ImageFont.load_default(size)]
    for name in _FONTS:
        try:
            fonts.append(ImageFont.truetype(name, size))
        except OSError:  # the machine does not have it
            continue
    return fonts


@functools.lru_cache(maxsize=65536)
def _has(font: ImageFont.FreeTypeFont, char: str) -> bool:
    return char == " " or bytes(font.getmask(char)) != bytes(font.getmask(_NO_CHARACTER))
