"""Images and labels: read, written and drawn with NumPy, OpenCV and Pillow alone."""

from paddle_rt.imaging.draw import body_sides, caption, colorize, draw_skeletons, overlay
from paddle_rt.imaging.labels import check_labels, read_label, write_label
from paddle_rt.imaging.palettes import class_names, palette
from paddle_rt.imaging.read_write import IMAGE_SUFFIXES, decode_image, is_image, list_images, read_image, write_image

__all__ = [
    "IMAGE_SUFFIXES",
    "body_sides",
    "caption",
    "check_labels",
    "class_names",
    "colorize",
    "decode_image",
    "draw_skeletons",
    "is_image",
    "list_images",
    "overlay",
    "palette",
    "read_image",
    "read_label",
    "write_image",
    "write_label",
]
