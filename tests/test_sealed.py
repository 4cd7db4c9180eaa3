"""No tool opens a connection or writes into the user's home unasked."""

import json
import os

import cv2
import pytest

from tests.helpers import run_python, smooth_image, tiny_config

# Runs tools one after the other and prints the connections that they tried. Without pytest, in which NNCF is silent.
CODE = """
import json, runpy, sys
tried = []
def watch(event, arguments):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.sendmsg"):
        tried.append(f"{event} {arguments}")
sys.addaudithook(watch)
for tool, *arguments in json.loads(sys.argv[1]):
    sys.argv = [tool, *arguments]
    try:
        runpy.run_path(f"tools/{tool}.py" if tool != "infer" else "deploy/python/infer.py", run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"{tool} ended with {end.code}"
import openvino, nncf, time
time.sleep(1)
print("TRIED", json.dumps(tried))
"""


@pytest.mark.slow
def test_every_tool_works_without_network_and_home(tmp_path):
    home, export = tmp_path / "home", str(tmp_path / "export")
    home.mkdir(mode=0o500)
    scenes = {
        "type": "StreetScenes",
        "num_samples": 4,
        "height": 32,
        "width": 64,
        "transforms": [{"type": "Normalize"}],
    }
    data = {"train_dataset": {**scenes, "mode": "train"}, "val_dataset": {**scenes, "mode": "val"}}
    config, device, run = tiny_config(tmp_path, batch_size=2, **data), ["--device", "cpu"], str(tmp_path / "run")
    images, weights = str(tmp_path / "image.png"), f"{run}/iter_1"
    cv2.imwrite(images, smooth_image(32, 64))
    lines = [
        ["train", "-c", config, *device, "--iters", "1", "--do_eval", "--use_vdl", "--save_dir", run],
        ["val", "-c", config, *device, "--model_path", weights],
        ["predict", "-c", config, *device, "--model_path", weights, "--image_path", images, "--save_dir", run],
        ["compare", "-c", config, *device, "--model_path", weights, "--input_size", "32", "64", "--images", "1"],
        ["export", "-c", config, "--model_path", weights, "--input_size", "32", "64", "--save_dir", export],
        ["quantize", "-c", config, "--export_dir", export, "--images", "2", "--agreement", "0"],
        *(
            ["infer", "--config", export, "--image_path", images, "--backend", backend, "--save_dir", run]
            for backend in ("openvino", "onnxruntime", "paddle")
        ),
    ]
    names = ("SEG_HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "MPLCONFIGDIR", "NUMBA_CACHE_DIR")
    done = run_python("-c", CODE, json.dumps(lines), HOME=str(home), **dict.fromkeys(names))
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.rpartition("TRIED ")[2]) == []
    assert os.listdir(home) == []
