"""No tool opens a connection or writes into the user's home unasked."""

import contextlib
import json
import socket
import threading

import cv2
import pytest

from tests.helpers import run_python, smooth_image, tiny_config
from tests.tasks.pose.helpers import write_config

# Runs tools one after the other and prints the connections that Python tried, and how many the kernel has seen, where
# it permits a network of one's own. Without pytest, in which NNCF is silent.
CODE = """
import json, runpy, sys, time
from tests import sealed
is_sealed = sealed.seal()
tried = []
events = ("connect", "getaddrinfo", "gethostbyname", "sendto", "sendmsg")
sys.addaudithook(lambda event, arguments: event in {f"socket.{e}" for e in events} and tried.append(str(arguments)))
for tool, *arguments in json.loads(sys.argv[1]):
    sys.argv = [tool, *arguments]
    try:
        runpy.run_path(f"tools/{tool}.py" if tool != "infer" else "deploy/python/infer.py", run_name="__main__")
    except SystemExit as end:
        assert not end.code, f"{tool} ended with {end.code}"
time.sleep(1)
print("TRIED", json.dumps([tried, sealed.attempts() if is_sealed else None]))
"""


@pytest.fixture
def proxy():
    """A listening socket in the place of a proxy, to which libraries in C++ turn too, and who turned to it."""
    callers = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def listen():
            with contextlib.suppress(OSError):  # the socket is closed at the end
                while True:
                    callers.append(server.accept()[0].recv(200))

        threading.Thread(target=listen, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}", callers
        server.shutdown(socket.SHUT_RDWR)


@pytest.mark.slow
def test_every_tool_works_without_network_and_home(tmp_path, proxy):
    home, export = tmp_path / "home", str(tmp_path / "export")
    home.mkdir()
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
    (tmp_path / "pose").mkdir()
    pose, people, poses = write_config(tmp_path / "pose", iters=1), f"{run}/pose", str(tmp_path / "poses")
    boxes = ["--image_path", images]  # the whole image is the box
    lines += [
        ["train", "-c", pose, *device, "--do_eval", "--save_dir", people],
        ["val", "-c", pose, *device, "--model_path", f"{people}/iter_1"],
        ["predict", "-c", pose, *device, "--model_path", f"{people}/iter_1", *boxes, "--save_dir", people],
        ["export", "-c", pose, "--model_path", f"{people}/iter_1", "--save_dir", poses],
        *(
            ["infer", "--config", poses, *boxes, "--backend", backend, "--save_dir", people]
            for backend in ("openvino", "onnxruntime", "paddle")
        ),
    ]
    names = (
        "SEG_HOME",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "MPLCONFIGDIR",
        "NUMBA_CACHE_DIR",
        "ORT_DISABLE_TELEMETRY",
    )
    address, callers = proxy
    variables = {**dict.fromkeys(names), **dict.fromkeys(("http_proxy", "https_proxy", "HTTPS_PROXY"), address)}
    done = run_python("-c", CODE, json.dumps(lines), HOME=str(home), **variables)
    assert done.returncode == 0, done.stderr[-3000:]
    by_python, by_anything = json.loads(done.stdout.rpartition("TRIED ")[2])
    assert by_python == [] and by_anything in (0, None)
    assert callers == []
    assert [str(path.relative_to(home)) for path in home.rglob("*")] == []


# Connects as a library in C++ does, of which Python knows nothing: by TCP, by UDP, and to a port of this machine.
FOREIGN = """
import ctypes, socket, struct, sys
from tests import sealed
if not sealed.seal():
    sys.exit("not permitted")
libc = ctypes.CDLL(None)
print(sealed.attempts())
for host, kind in (("192.0.2.1", 1), ("192.0.2.1", 2), ("127.0.0.1", 1), ("127.0.0.1", 2)):
    address = struct.pack("=H", 2) + struct.pack("!H", 80) + socket.inet_aton(host) + bytes(8)
    opened = libc.socket(2, kind, 0)
    if kind == 1:
        libc.connect(opened, address, 16)
    else:
        libc.sendto(opened, b"x", 1, 0, address, 16)
    print(sealed.attempts())
"""


def test_the_seal_sees_what_code_outside_of_python_tries():
    done = run_python("-c", FOREIGN)
    if done.stderr == "not permitted\n":
        pytest.skip("this system permits no network namespace of one's own")
    assert done.stdout.split() == ["0", "1", "2", "3", "4"], done.stdout + done.stderr
