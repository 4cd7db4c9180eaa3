"""`paddle-rt serve` as a process, with hostile clients beside a good one, and its benchmark."""

import contextlib
import io
import json
import os
import pathlib
import signal
import statistics
import subprocess
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")

from paddle_rt.inference import Segmenter
from tests.helpers import run_python, smooth_image
from tests.serving.running import ask, connect, form, head, png, status_of, wait_until, write_export

PROGRAM = "from paddle_rt.cli import main; main()"
# Tells of whatever Python sends by itself, for which the tests look on stderr.
WATCHED = f"""import sys
events = ("socket.connect", "socket.sendto", "socket.sendmsg")
sys.addaudithook(lambda event, arguments: event in events and print(event, arguments, file=sys.stderr))
{PROGRAM}
"""
TELEMETRY = {"FASTAPI_OTEL_AUTO_CONFIGURE": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"}
IMAGE = smooth_image(96, 128, cell=32)
FILE = png(IMAGE)
SECONDS = 3  # within which a request has to arrive


@pytest.fixture
def process(request, tmp_path):
    """The service, where the environment asks for telemetry; a parameter is its time limit."""
    limit = getattr(request, "param", 30)
    flags = ["--port", 0, "--backend", "onnxruntime", "--threads", 1, "--timeout", limit, "--max_mb", 1]
    line = [sys.executable, "-c", WATCHED, "serve", "--config", write_export(tmp_path / "e"), *flags]
    environment = os.environ | TELEMETRY
    with subprocess.Popen([*map(str, line)], stdout=-1, stderr=-1, text=True, env=environment) as started:
        try:
            started.port = int(started.stdout.readline().partition(";")[0].rpartition(":")[2])
            yield started
        finally:
            started.kill()


def slow_body(port: int) -> None:
    with connect(port, head(900_000)) as connection:
        for _ in range(30):
            connection.sendall(b"x" * 100)
            time.sleep(0.2)


def slow_head(port: int) -> None:
    with connect(port, b"POST /predict HTTP/1.1\r\n") as connection:
        for number in range(30):
            connection.sendall(b"X-%d: x\r\n" % number)
            time.sleep(0.2)


def huge_body(port: int) -> None:
    chunked = head(0).replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
    with connect(port, chunked + b"%x\r\n" % 10**12) as connection:
        for _ in range(10_000):
            connection.sendall(bytes(100_000))
            time.sleep(0.05)


def broken_image(port: int) -> None:
    assert ask(port, "/predict", FILE[: len(FILE) // 2])[0] == 422


def half_closed(port: int) -> None:
    with connect(port, head(len(FILE)) + FILE) as connection:
        connection.shutdown(1)
        status_of(connection)


def no_http(port: int) -> None:
    with connect(port, b"\x16\x03\x01" + bytes(500) + b"\r\n\r\n") as connection:
        status_of(connection)


def never_reads(port: int) -> None:
    with connect(port, b"GET /docs HTTP/1.1\r\nHost: x\r\n\r\n" * 50, receives=4096):
        time.sleep(5)


HOSTILE = (slow_body, slow_head, huge_body, broken_image, half_closed, no_http, never_reads)


def answers(port: int, number: int, labels: np.ndarray) -> list[float]:
    """Ask for labels, which must be right, and return the seconds of each answer."""
    seconds = []
    for _ in range(number):
        start = time.perf_counter()
        status, _, content = ask(port, "/predict", FILE)
        seconds.append(time.perf_counter() - start)
        assert status == 200 and np.array_equal(np.array(Image.open(io.BytesIO(content))), labels), content[:200]
    return seconds


def memory(pid: int) -> int:
    """Return the most kilobytes that a process has held."""
    lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


@pytest.mark.slow
@pytest.mark.parametrize("process", [SECONDS], indirect=True)
def test_hostile_clients_cost_a_good_one_little(process, tmp_path):
    labels = Segmenter(tmp_path / "e", "onnxruntime", threads=1)(IMAGE)
    answers(process.port, 5, labels)
    quiet, before, ended = answers(process.port, 40, labels), memory(process.pid), threading.Event()

    def attack(hostile) -> None:
        while not ended.is_set():
            with contextlib.suppress(OSError):  # most of them are ended by the service
                hostile(process.port)
            time.sleep(0.5)

    threads = [threading.Thread(target=attack, args=(HOSTILE[number % len(HOSTILE)],)) for number in range(50)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1)
        under_attack = answers(process.port, 40, labels)
        time.sleep(SECONDS)
        under_attack += answers(process.port, 40, labels)
    finally:
        ended.set()
        for thread in threads:
            thread.join(30)
    median, usual, late = statistics.median(under_attack), statistics.median(quiet), np.percentile(under_attack, 90)
    text = f"{1e3 * usual:.0f} ms alone, {1e3 * median:.0f} ms under attack, 90 % below {1e3 * late:.0f} ms"
    grown = memory(process.pid) - before
    print(f"{text}; {grown // 1024} MB more memory")
    assert median < 5 * usual + 0.05 and late < 10 * usual + 0.5, text
    assert grown < 100 * 1024, f"the service has grown by {grown // 1024} MB"
    wait_until(lambda: b"paddle_rt_uploads 0.0" in ask(process.port, "/metrics")[2])


@pytest.mark.slow
def test_sigterm_ends_it_when_all_is_answered(process):
    answered = []
    batch = form(*[("a.png", png(np.zeros((1000, 1500, 3), np.uint8)))] * 60)
    thread = threading.Thread(target=lambda: answered.append(ask(process.port, "/predict/batch", *batch)))
    thread.start()
    wait_until(lambda: b"paddle_rt_busy 1.0" in ask(process.port, "/metrics")[2])
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=20)
    thread.join(5)
    assert process.returncode == 0 and err == "" and "all that was queued is answered" in out, (out, err)
    status, _, content = answered[0]
    assert status == 200 and len(zipfile.ZipFile(io.BytesIO(content)).namelist()) == 60


@pytest.mark.slow
def test_a_port_that_is_taken_and_the_benchmark(process, tmp_path):
    done = run_python("-c", PROGRAM, "serve", "--config", tmp_path / "e", "--port", process.port)
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "is taken by another program" in done.stderr
    flags = ["--backend", "onnxruntime", "--threads", 1, "--size", 64, 96, "--clients", 1, 3, "--runs", 1]
    flags += ["--seconds", 0.5, "--output", tmp_path / "b.json", "--markdown", tmp_path / "b.md"]
    done = run_python("-c", PROGRAM, "benchmark_serve", "--config", tmp_path / "e", *flags)
    assert done.returncode == 0, done.stderr
    rows = json.loads((tmp_path / "b.json").read_text())
    assert [row["clients"] for row in rows] == [1, 1, 1, 3] and all(row["same"] == 1 for row in rows)
    assert all(row["p50_ms"] <= row["p99_ms"] and row["rate"] > 0 for row in rows) and rows[0]["share"] == 1
    assert (tmp_path / "b.md").read_text().startswith("| pipeline | clients |")
