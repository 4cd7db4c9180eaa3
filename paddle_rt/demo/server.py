"""The server of the page, which the browser may not leave."""

import contextlib
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import Any

import fastapi
import gradio as gr
import uvicorn

from paddle_rt.demo.page import CSS

# What the browser may load: from this server alone. Gradio evaluates text as code in some of its parts.
POLICY = b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:"
_MOST_BYTES = 2**30  # of a file that is uploaded
_GRACE = 3  # seconds for requests in work when the server ends
_App = Callable[[Any, Any, Any], Awaitable[None]]


def serve(page: gr.Blocks, listener: socket.socket) -> None:
    """Serve a page until Ctrl-C or SIGTERM; from then on this process opens no connection to another machine."""
    sys.addaudithook(stay_here)
    page.has_launched = True  # else Gradio takes any file of this machine that a request names for an upload
    app = fastapi.FastAPI(openapi_url=None)
    gr.mount_gradio_app(
        app, page, "/", footer_links=[], run_history=False, show_error=False, max_file_size=_MOST_BYTES,
        ssr_mode=False, enable_monitoring=False, pwa=False, mcp_server=False, css=CSS,
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
    )  # fmt: skip
    config = uvicorn.Config(
        _confined(app), log_config=None, log_level="error", access_log=False, timeout_graceful_shutdown=_GRACE
    )
    with contextlib.suppress(KeyboardInterrupt):
        uvicorn.Server(config).run([listener])


def stay_here(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse connections and look-ups of names, such as those for an address that a request gives Gradio.

    Args:
        event: An audit event of Python.
        arguments: Its arguments.

    Raises:
        PermissionError: It is the event of a connection or a look-up.
    """
    is_local = event == "socket.connect" and isinstance(arguments[1], str | bytes)  # a socket of this machine
    if event in ("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto") and not is_local:
        raise PermissionError("paddle-rt demo asks the net for nothing")


def _confined(app: _App) -> _App:
    """Return an application whose answers tell the browser to load nothing from other servers."""

    async def call(scope: Any, receive: Any, send: Any) -> None:
        async def add(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY)]
            await send(message)

        await app(scope, receive, add)

    return call
