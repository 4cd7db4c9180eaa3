"""The server of HTTP: uvicorn with limits for clients that are slow, and an end that finishes what is queued."""

import asyncio
from types import FrameType

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from paddle_rt.serving.app import create_app
from paddle_rt.serving.service import Service

_LINGER = 2.0  # seconds in which the rest of a body that is refused is read, so that its client reads the answer
_MOST_CONNECTIONS = 512  # of these, the oldest one without a request gives way to a new one
_GRACE = 5.0  # seconds that clients have to take their answers when the service ends


class Connection(H11Protocol):
    """A connection, which ends where for too long no request is in work, or its client does not take what was answered.

    So end clients that send nothing, a head slowly, or the rest of a body that was refused. The time for a body, and
    for an answer, is a limit of the service.
    """

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._since = self.loop.time()
        self._end_later(self.config.timeout_keep_alive)
        if len(self.connections) > _MOST_CONNECTIONS:
            idle = [other for other in self.connections if other.cycle is None or other.cycle.response_complete]
            oldest = min(idle, key=lambda other: other._since)  # this one is among them
            self.connections.discard(oldest)  # which its end does later, when more may have come
            oldest.transport.abort()

    def on_response_complete(self) -> None:
        is_sending = self.conn.their_state is h11.SEND_BODY
        self._end_later(_LINGER if is_sending else self.config.timeout_keep_alive)
        super().on_response_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.config.timeout_keep_alive, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread.cancel()

    def _end_later(self, seconds: float) -> None:
        last = self.cycle
        self.loop.call_later(seconds, lambda: self.cycle is last and self.transport.abort())


class Server(uvicorn.Server):
    """The server of a service. The first signal to end refuses new work, and the server ends when all is answered.

    Args:
        service: The service.
    """

    def __init__(self, service: Service) -> None:
        # The log has the faults of the service alone: what clients do wrong is their business, and may be much.
        config = uvicorn.Config(
            create_app(service), http=Connection, loop="asyncio", ws="none", lifespan="off", log_config=None,
            log_level="error", access_log=False, server_header=False, proxy_headers=False,
            timeout_keep_alive=service.limits.timeout, timeout_graceful_shutdown=_GRACE,
        )  # fmt: skip
        super().__init__(config)
        self.service = service

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; a second signal ends at once."""
        if self.service.stopping:
            super().handle_exit(sig, frame)
        self.service.stopping = True

    async def on_tick(self, counter: int) -> bool:
        """Return whether the server ends; uvicorn asks ten times a second."""
        if self.service.stopping:
            self.service.stop()
            self.should_exit = self.should_exit or not self.service.busy
        return await super().on_tick(counter)
