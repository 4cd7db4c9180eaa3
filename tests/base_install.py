"""Label an image where only the base installation and one engine's extra are installed: base_install.py EXPORT

`make test-install` runs this in an environment of its own. It is no test of pytest, which is not installed there.
"""

import importlib.util
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

import paddle_rt
from paddle_rt.imaging import read_label, write_image
from paddle_rt.inference import load
from paddle_rt.weights import FOLDER


def main() -> None:
    for package in ("paddle", "paddleseg", "onnx", "visualdl", "matplotlib"):
        assert importlib.util.find_spec(package) is None, f"{package} is installed, though the base does not need it"
    assert "site-packages" in paddle_rt.__file__, f"paddle_rt comes from {paddle_rt.__file__}, not from an installation"
    source = pathlib.Path(__file__).resolve().parents[1] / "paddle_rt/weights"
    for kind in ("safetensors", "yml"):
        installed, expected = (
            {file.name: file.stat().st_size for file in place.glob(f"*.{kind}")} for place in (FOLDER, source)
        )
        assert installed == expected, f"trained weights of the installation: {installed}, of the source: {expected}"

    export, command = sys.argv[1], pathlib.Path(sys.executable).with_name("paddle-rt")
    image = np.random.default_rng(0).integers(0, 256, (90, 160, 3), np.uint8)
    labels = load(export)(image)
    assert labels.dtype == np.uint8 and labels.shape == (90, 160) and labels.max() < 19, (labels.dtype, labels.shape)

    with tempfile.TemporaryDirectory() as folder:
        write_image(f"{folder}/image.png", image)
        line = [command, "infer", "--config", export, "--image_path", f"{folder}/image.png", "--save_dir", folder]
        subprocess.run(line, check=True)
        file = next(pathlib.Path(folder).rglob("pseudo_color_prediction/image.png"))
        assert np.array_equal(read_label(file, 19), labels), "paddle-rt infer gives other labels than the Segmenter"

    refused = subprocess.run([command, "convert", "--model", "x", "--input", "x", "--output", "x"], capture_output=True)
    assert refused.returncode == 1 and b"pip install paddlepaddle" in refused.stderr, refused.stderr.decode()
    print("the base installation labels an image without Paddle")


if __name__ == "__main__":
    main()
