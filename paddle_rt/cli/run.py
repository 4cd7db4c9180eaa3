"""Run a tool's `main`: log lines, errors on one line, exit codes."""

import contextlib
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn, TextIO

from paddle_rt.errors import InternalError, UserError
from paddle_rt.stderr import separate_python

# Warnings of Paddle that say nothing to the user of a tool.
_NOISE = (
    "When training, we now always track global mean and variance",
    "\nNon compatible API",
    "There are some unused values",
    "Dy2Static : A context manager decorator is used",
)

# What to install for a package that a tool imports and the base installation does not have.
_INSTALL = {
    "paddle": "pip install paddlepaddle==3.2.2, or paddlepaddle-gpu==3.2.2 on a machine with an NVIDIA GPU",
    "paddleseg": "pip install 'paddle_rt[train]'",
    "visualdl": "pip install 'paddle_rt[train]'",
    "matplotlib": "pip install 'paddle_rt[train]'",
    "gradio": "pip install 'paddle_rt[demo]'",
    "MNN": "pip install 'paddle_rt[mnn]'",
    "onnx": "pip install 'paddle_rt[export]'",
    "paddle2onnx": "pip install 'paddle_rt[export]'",
    "pycocotools": "pip install 'paddle_rt[pose]'",
    "nncf": "pip install 'paddle_rt[int8]'",
    "onnxruntime": "pip install 'paddle_rt[onnxruntime]'",
    "openvino": "pip install 'paddle_rt[openvino]'",
    **dict.fromkeys(
        ("fastapi", "starlette", "uvicorn", "h11", "python_multipart", "prometheus_client"),
        "pip install 'paddle_rt[serve]'",
    ),
}


def run_tool(main: Callable[[], None]) -> None:
    """Run a command line's `main`, and turn a user's mistake into one line on stderr and a non-zero exit code.

    Exit codes: 1 for a mistake in the input, a failing file system or engine, or a missing package; 2 for wrong flags;
    130 for Ctrl-C. Any other exception is a fault of this project and keeps its traceback.

    A tool works without stdout and stderr too: what it would write to a stream that is closed is lost.

    Args:
        main: The function to run.
    """
    for message in _NOISE:
        warnings.filterwarnings("ignore", message)
    _open_standard_streams()
    try:
        with _log_on_stdout():
            main()
        sys.stdout.flush()
    except BrokenPipeError:
        _discard(sys.stdout)
        sys.exit(1)
    except UserError as error:
        _end(str(error), error.exit_code, error.details)
    except InternalError as error:
        _end(str(error))
    except OSError as error:
        _end(f"{error.strerror}: {error.filename}" if error.filename is not None else error.strerror or str(error))
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in _INSTALL:
            raise
        _end(f"this needs the package {package}, which is not installed: {_INSTALL[package]}")
    except MemoryError as error:
        _end(f"out of memory: {str(error)[:200]}".removesuffix(": "))
    except KeyboardInterrupt:
        print("interrupted: what was saved before is whole", file=sys.stderr)
        sys.exit(130)
    finally:
        try:
            sys.stdout.flush()
        except OSError:  # a full disk, which Python would report once more when it ends
            _discard(sys.stdout)


def _open_standard_streams() -> None:
    """Open the streams that were closed, of which the next file to be opened would take the number."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # it takes the lowest free number
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    separate_python()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may hold what the encoding has not


def _end(message: str, code: int = 1, details: str = "") -> NoReturn:
    """Write an error's message on one line, and its details below, and end the tool."""
    with contextlib.suppress(OSError):
        print(f"error: {' '.join(message.split())}", file=sys.stderr)
        if details:
            print(details, file=sys.stderr)
    sys.exit(code)


@contextlib.contextmanager
def _log_on_stdout() -> Iterator[None]:
    """Write what the library logs to stdout, in PaddleSeg's format, on the first process of a launch alone."""
    first = os.environ.get("PADDLE_TRAINER_ID", "0") == "0"
    handler = _Handler(sys.stdout) if first else logging.NullHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s [%(levelname)s]\t%(message)s", "%Y-%m-%d %H:%M:%S"))
    logger = logging.getLogger("paddle_rt")
    before = logger.propagate, logger.level
    logger.addHandler(handler)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.propagate = before[0]
        logger.setLevel(before[1])


class _Handler(logging.StreamHandler):
    """A handler whose errors, such as a full disk, are raised, but for a pipe that is closed.

    The work, which may have taken days, goes on where nobody reads the log any more.
    """

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the name is logging's
        if not isinstance(sys.exc_info()[1], BrokenPipeError):
            raise  # noqa: PLE0704  called while the exception is handled
        _discard(self.stream)
        try:
            print("warning: stdout is closed; the tool goes on without its log", file=sys.stderr, flush=True)
        except BrokenPipeError:  # both were one pipe
            _discard(sys.stderr)


def _discard(stream: TextIO) -> None:
    """Send what is written to a stream from now on nowhere."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, stream.fileno())
    os.close(null)
