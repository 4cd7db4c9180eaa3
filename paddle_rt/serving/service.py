"""What stands between a request and the network: limits, the queue, the threads that work, and numbers for monitoring.

A body is received within limits of size and time. The request then takes one of the places of the queue, or is refused
at once. Three images are past the queue at any time: one that is decoded, one that the network runs on, in a thread of
its own, and one whose answer is encoded. Whose client has gone, or whose time is up, leaves the queue, at the latest
when another request needs the place.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect, Request

from paddle_rt.inference.loading import LibraryPredictor
from paddle_rt.serving.outputs import Item, Output, Upload, decode, outputs_of, predict

# Of the bodies that are being received: how many there are, and the size of how many of the largest ones they share.
_MOST_UPLOADS, _LARGEST_UPLOADS = 256, 8
_PIPELINE = 3  # images that are decoded, run and encoded at once
_CODEC_THREADS = 2
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)  # seconds


@dataclass(frozen=True)
class Limits:
    """The limits of a service.

    Args:
        max_bytes: The size of a request's body.
        max_pixels: The pixels of an image.
        queue: Requests that are in work or wait for it; further ones are refused.
        timeout: Seconds within which a request has to arrive, has to be answered, and its answer has to be taken.
    """

    max_bytes: int = 16 << 20
    max_pixels: int = 1 << 24
    queue: int = 16
    timeout: float = 30.0


class Refused(Exception):
    """A request that is not answered.

    Args:
        status: The status of HTTP.
        message: What is wrong, on one line.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Service:
    """An export that answers requests; it lives in one event loop.

    Args:
        predictor: What runs the export, warmed up.
        engine: The engine in words, such as "openvino fp32 cpu".
        limits: The limits.

    Attributes:
        outputs: The forms of answers by their names, the usual one first.
        stopping: Whether new work is refused.
        registry: The numbers for Prometheus.
    """

    def __init__(self, predictor: LibraryPredictor, engine: str, limits: Limits) -> None:
        self.predictor, self.engine, self.limits = predictor, engine, limits
        self.outputs = outputs_of(predictor)
        self.stopping = False
        self._places: dict[asyncio.Timeout, Request] = {}  # the requests that are in work or wait for it
        self._uploads: dict[asyncio.Timeout, int] = {}  # the bytes of each body that is being received, oldest first
        self._pipeline, self._turn = asyncio.Semaphore(_PIPELINE), asyncio.Lock()
        self._network = ThreadPoolExecutor(1, "network")
        self._codec = ThreadPoolExecutor(_CODEC_THREADS, "codec")
        self.registry = CollectorRegistry()
        self._requests = Counter("paddle_rt_requests", "Answers by status", ["status"], registry=self.registry)
        self._images = Counter("paddle_rt_images", "Images that the network ran on", registry=self.registry)
        about = "Seconds of an answered request in each stage; total is all of it"
        self._seconds = Histogram("paddle_rt_seconds", about, ["stage"], registry=self.registry, buckets=_BUCKETS)
        for name, about, read in (
            ("busy", "Requests in work or waiting for it", lambda: self.busy),
            ("queue_limit", "Requests that may be in work or wait", lambda: self.limits.queue),
            ("uploads", "Requests whose bodies are being received", lambda: len(self._uploads)),
        ):
            Gauge(f"paddle_rt_{name}", about, registry=self.registry).set_function(read)

    @property
    def busy(self) -> int:
        """Return the number of requests that are in work or wait for it."""
        return len(self._places)

    def count(self, status: int) -> None:
        """Count an answer."""
        self._requests.labels(str(status)).inc()

    async def receive(self, request: Request) -> bytes:
        """Return the body of a request.

        Raises:
            Refused: It is too large, or does not arrive in time.
            ClientDisconnect: The client has gone.
        """
        limit, seconds = self.limits.max_bytes, self.limits.timeout
        too_large = Refused(413, f"the body is larger than {limit} bytes, the most that this service takes")
        if int(request.headers.get("content-length", 0)) > limit:
            raise too_large
        body = bytearray()
        try:
            async with asyncio.timeout(seconds) as upload:
                self._uploads[upload] = 0
                try:
                    async for chunk in request.stream():
                        if len(body) + len(chunk) > limit:
                            raise too_large
                        body += chunk
                        self._uploads[upload] = len(body)
                        self._bound_uploads()
                finally:
                    self._uploads.pop(upload, None)
        except TimeoutError as error:
            if self.stopping:
                raise _stopping() from error
            raise Refused(408, f"the body did not arrive within {seconds:g} s, or the service is overloaded") from error
        return bytes(body)

    def _bound_uploads(self) -> None:
        sizes = self._uploads.values()
        if len(sizes) > _MOST_UPLOADS or sum(sizes) > _LARGEST_UPLOADS * self.limits.max_bytes:
            self._end_oldest_upload()

    def _end_oldest_upload(self) -> None:
        oldest = next(iter(self._uploads))
        del self._uploads[oldest]
        oldest.reschedule(0)  # which is past

    def stop(self) -> None:
        """Refuse new work, also where its body is still being received; what waits is still answered."""
        self.stopping = True
        while self._uploads:
            self._end_oldest_upload()

    def close(self) -> None:
        """End the threads."""
        for pool in (self._network, self._codec):
            pool.shutdown(cancel_futures=True)

    async def answer(
        self, request: Request, read: Callable[[], list[Upload]], output: Output, batch: bool
    ) -> tuple[str, bytes, dict[str, float]]:
        """Run the network on the images of a request.

        Args:
            request: The request, whose body has been received.
            read: Returns the images; it is called outside of the event loop.
            output: The form of the answer.
            batch: Whether the request was one for a batch.

        Returns:
            Type and content of the answer, and the seconds that each stage took.

        Raises:
            Refused: The service is stopping, its queue is full, or the time is up.
            UserError: An image or its boxes are not what they should be; then no image is answered.
            ClientDisconnect: The client has gone.
        """
        if self.stopping:
            raise _stopping()
        if self.busy >= self.limits.queue:
            await self._free_places()
        if self.busy >= self.limits.queue:
            raise Refused(503, f"the queue is full: {self.busy} requests are in work or wait; try again later")
        seconds, start = {}, time.perf_counter()
        try:
            async with asyncio.timeout(self.limits.timeout) as place:
                self._places[place] = request
                try:
                    uploads = await self._run(self._codec, read)
                    parts = [await self._encoded(request, upload, output, seconds) for upload in uploads]
                    names = [upload.name for upload in uploads]
                    with _timed(seconds, "encode"):
                        media_type, content = await self._run(self._codec, output.pack, names, parts, batch)
                finally:
                    self._places.pop(place, None)
        except TimeoutError as error:
            await _check_client(request)
            raise Refused(503, f"there was no answer within {self.limits.timeout:g} s; try again later") from error
        seconds["total"] = time.perf_counter() - start
        for stage, value in seconds.items():
            self._seconds.labels(stage).observe(value)
        return media_type, content, seconds

    async def _free_places(self) -> None:
        """End the requests whose clients have gone."""
        for place, request in list(self._places.items()):
            if await request.is_disconnected() and self._places.pop(place, None) and not place.expired():
                place.reschedule(0)  # which is past

    async def _encoded(self, request: Request, upload: Upload, output: Output, seconds: dict[str, float]) -> Any:
        """Return what an output makes of an image, when it is the image's turn."""
        with _timed(seconds, "wait"):
            await self._pipeline.acquire()
        try:
            await _check_client(request)
            channels = self.predictor.channels
            with _timed(seconds, "decode"):
                frame = await self._run(self._codec, decode, upload, channels, self.limits.max_pixels)
            with _timed(seconds, "wait"):
                await self._turn.acquire()
            try:
                await _check_client(request)
                found, stages = await self._run(self._network, self._predict, frame, upload.boxes)
            finally:
                self._turn.release()
            for stage, value in stages.items():
                seconds[stage] = seconds.get(stage, 0.0) + value
            with _timed(seconds, "encode"):
                return await self._run(self._codec, output.encode, Item(upload, frame, found))
        finally:
            self._pipeline.release()

    def _predict(self, frame: Any, boxes: list[Any] | None) -> tuple[Any, dict[str, float]]:
        found = predict(self.predictor, frame, boxes)
        self._images.inc()
        return found, self.predictor.timings

    async def _run(self, pool: ThreadPoolExecutor, function: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)


def _stopping() -> Refused:
    return Refused(503, "the service is stopping")


async def _check_client(request: Request) -> None:
    """Raise ClientDisconnect where nobody waits for the answer any more."""
    if await request.is_disconnected():
        raise ClientDisconnect


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = seconds.get(stage, 0.0) + time.perf_counter() - start
