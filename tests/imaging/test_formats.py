"""Images of 1, 3 and 4 channels of 8 bits are read; others are refused, whatever the format."""

import struct
from pathlib import Path

import cv2
import numpy as np
import pytest

from paddle_rt.imaging import read_image
from tests.helpers import message


def noise(*shape: int, dtype: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, shape).astype(dtype)


def tiff(channels: int) -> bytes:
    """Return an uncompressed TIFF of 8x6 pixels with any number of channels, which OpenCV does not write."""
    depths, extra = (
        struct.pack(f"<{channels}H", *[8] * channels),
        struct.pack(f"<{max(channels - 3, 1)}H", *[0] * max(channels - 3, 1)),
    )
    start = 8 + 2 + 12 * 10 + 4
    pixels = start + len(depths) + len(extra)
    entries = [
        (256, 3, 1, 8), (257, 3, 1, 6), (258, 3, channels, start), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, pixels),
        (277, 3, 1, channels), (278, 3, 1, 6), (279, 4, 1, 48 * channels), (338, 3, channels - 3, start + len(depths)),
    ]  # fmt: skip
    header = (
        b"II*\0" + struct.pack("<IH", 8, 10) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    )
    return header + depths + extra + noise(48 * channels).tobytes()


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_channels(tmp_path: Path, suffix: str) -> None:
    file, image = tmp_path / f"a{suffix}", noise(8, 6, 4)
    cv2.imwrite(str(file), image)
    assert np.array_equal(read_image(file, 4), image)
    assert read_image(file).shape == (8, 6, 3) and read_image(file, 1).shape == (8, 6)
    cv2.imwrite(str(file), image[..., :3])
    assert "has 3 channels, expected 4" in message(read_image, file, 4)


@pytest.mark.parametrize(
    ("name", "image", "said"),
    [
        ("a.png", noise(8, 6, 3, dtype=np.uint16), "has 16 bits a channel, expected 8"),
        ("a.tiff", noise(8, 6, 3, dtype=np.uint16), "has 16 bits a channel, expected 8"),
        ("a.tif", noise(8, 6, dtype=np.float32), "has 32 bits a channel, expected 8"),
        ("a.hdr", noise(8, 6, 3, dtype=np.float32), "has 32 bits a channel, expected 8"),
    ],
)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_other_depths_are_refused(tmp_path: Path, name: str, image: np.ndarray, said: str, channels: int) -> None:
    cv2.imwrite(str(tmp_path / name), image)
    assert said in message(read_image, tmp_path / name, channels)


def test_more_channels_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff(5))
    assert "has 5 channels, expected 1, 3 or 4" in message(read_image, tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(tiff(4)[:60])
    assert "a.tif" in message(read_image, tmp_path / "a.tif")
