"""The tool `paddle-rt demo` in a process of its own."""

import contextlib
import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

from tests.helpers import ROOT

# Prints, when the tool has ended, where Python tried to connect to and which names it looked up.
CODE = """
import json, runpy, socket, sys
tried, events = [], {"socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"}

def watch(event, arguments):
    if event in events:
        tried.append(str(arguments[isinstance(arguments[0], socket.socket)]))

sys.addaudithook(watch)
sys.argv = ["demo", *sys.argv[1:]]
try:
    runpy.run_path("tools/demo.py", run_name="__main__")
finally:
    print("TRIED", json.dumps(tried))
"""


@contextlib.contextmanager
def running(folder: pathlib.Path, *arguments: object) -> Iterator[tuple[str, list[str]]]:
    """Run the tool on a free port until the block ends; yield its address.

    Args:
        folder: Its temporary files are made below it.
        arguments: Its flags.

    Yields:
        The address, and a list that has, after the block, what else stdout and stderr had, and where Python tried to
        connect to.
    """
    folder.mkdir()
    line = [sys.executable, "-u", "-c", CODE, *map(str, arguments), "--port", "0", "--threads", "1"]
    process = subprocess.Popen(
        line, cwd=ROOT, env={**os.environ, "TMPDIR": str(folder)}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )  # fmt: skip
    rest: list[str] = []
    try:
        for text in process.stdout:
            if text.startswith("the page is at "):
                break
            rest.append(text)
        else:
            raise AssertionError(f"the tool ended: {''.join(rest)}")
        yield text.split()[4].rstrip(";"), rest
        process.terminate()
        rest += process.communicate(timeout=60)[0].splitlines(keepends=True)
        assert process.returncode == 0, rest
    finally:
        process.kill()
        process.wait()


def tried(rest: list[str]) -> list[str]:
    """Return where Python tried to connect to, and which names it looked up; takes it out of the list."""
    (line,) = [text for text in rest if text.startswith("TRIED ")]
    rest.remove(line)
    return json.loads(line.removeprefix("TRIED "))
