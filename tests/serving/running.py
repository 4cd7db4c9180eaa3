"""A service that runs in a thread, tiny exports for it, and the client that asks it."""

import contextlib
import dataclasses
import http.client
import json
import pathlib
import signal
import socket
import threading
import time

import cv2
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from paddle_rt.inference.deployment import VERIFICATION, Deployment, file_digest, save_deployment
from paddle_rt.listening import bind

HEIGHT, WIDTH = 64, 96
NAMES = ["blue", "green", "red"]


def write_export(folder: pathlib.Path, **changes: object) -> pathlib.Path:
    """Write an export for segmentation whose coarse logits are the mean colours of 4x4 pixels."""
    nodes = [
        helper.make_node("Cast", ["frame"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["float"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("AveragePool", ["planes"], ["means"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Mul", ["means", "scale"], ["y"]),
    ]
    frames = helper.make_tensor_value_info("frame", TensorProto.UINT8, [1, HEIGHT, WIDTH, 3])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, HEIGHT // 4, WIDTH // 4])
    graph = helper.make_graph(nodes, "g", [frames], [result], [numpy_helper.from_array(np.float32(1 / 255), "scale")])
    folder.mkdir()
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    (folder / VERIFICATION).write_text(json.dumps({"files": {"model.onnx": file_digest(folder / "model.onnx")}}))
    transforms = [{"type": "Normalize"}]
    deployment = Deployment(folder, transforms, [1, 3, HEIGHT, WIDTH], "coarse", "segmentation", "uint8", "float32")
    fields = {"onnx": "model.onnx", "num_classes": 3, "class_names": NAMES, **changes}
    save_deployment(dataclasses.replace(deployment, **fields))
    return folder


def png(image: np.ndarray) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


@contextlib.contextmanager
def serving(predictor, **limits: float):
    """Serve in a thread; yield the service, which has its `port` and `server`."""
    from paddle_rt.serving.server import Server
    from paddle_rt.serving.service import Limits, Service

    service = Service(predictor, "onnxruntime fp32 cpu", Limits(**limits))
    listener = bind("127.0.0.1", 0)
    server, service.port = Server(service), listener.getsockname()[1]
    service.server, service.thread = server, threading.Thread(target=server.run, args=([listener],))
    service.thread.start()
    try:
        wait_until(lambda: server.started)
        yield service
    finally:
        if service.thread.is_alive():
            server.handle_exit(signal.SIGTERM, None)
        service.thread.join(20)
        assert not service.thread.is_alive(), "the server does not end"
        service.close()


def wait_until(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "this takes too long"
        time.sleep(0.005)


def ask(port: int, path: str, body=None, headers: dict | None = None, method: str | None = None):
    """Return status, headers and content of an answer; a body makes the request a POST."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def error(answer) -> str:
    """Return the line of an answer that is an error."""
    status, _, content = answer
    text = json.loads(content)
    assert status >= 400 and list(text) == ["error"] and "\n" not in text["error"], answer
    return text["error"]


def form(*files: tuple[str, bytes], **fields: str) -> tuple[bytes, dict[str, str]]:
    """Return the body and the headers of a form."""
    parts = [f'name="{name}"\r\n\r\n{text}'.encode() for name, text in fields.items()]
    parts += [f'name="images"; filename="{name}"\r\n\r\n'.encode() + data for name, data in files]
    body = b"".join(b"--b\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--b--\r\n"
    return body, {"Content-Type": "multipart/form-data; boundary=b"}


def connect(port: int, data: bytes, receives: int = 0) -> socket.socket:
    """Return a connection over which something has been sent; `receives` is the size of its buffer for answers."""
    connection = socket.socket()
    connection.settimeout(30)
    if receives:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receives)
    connection.connect(("127.0.0.1", port))
    connection.sendall(data)
    return connection


def head(length: int, more: str = "") -> bytes:
    """Return the head of a request for /predict."""
    return f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n{more}\r\n".encode()


def status_of(connection: socket.socket) -> int:
    """Return the status of the answer on a connection, or 0 where it ended without."""
    data = b""
    with contextlib.suppress(ConnectionError):
        while b"\r\n" not in data and (more := connection.recv(4096)):
            data += more
    return int(data.split()[1]) if data else 0
