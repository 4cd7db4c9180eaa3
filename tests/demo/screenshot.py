"""Make a picture of the page that shows an example: python -m tests.demo.screenshot EXPORT... PICTURE.png

Needs Gradio and Chromium, as tests/demo/test_browser.py does.
"""

import io
import pathlib
import sys
import tempfile
import time

from PIL import Image

from tests.demo.browser import Browser
from tests.demo.running import running


def main() -> None:
    *exports, picture = sys.argv[1:]
    width = 1250 + 450 * (len(exports) - 1)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = pathlib.Path(name)
        with running(folder / "tmp", "--config", *exports) as (address, _), Browser(folder, width, 920) as browser:
            browser.open(address)
            browser.wait("document.querySelectorAll('#examples img').length", 200)
            for wanted in ("#examples .thumbnail-item:last-of-type", "#examples .gallery-item:nth-of-type(2) button"):
                browser.click(wanted)  # the second time everything is loaded, so that the time is the usual one
                browser.wait("document.querySelector('#result_0 img')?.naturalWidth")
                time.sleep(5)
            image = Image.open(io.BytesIO(browser.screenshot()))
    colours = Image.Quantize.MAXCOVERAGE  # also those of the small boxes of classes
    image.convert("RGB").quantize(256, colours, kmeans=3, dither=Image.Dither.NONE).save(picture, optimize=True)
    print(f"{picture}: {pathlib.Path(picture).stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
