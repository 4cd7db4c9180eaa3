"""The addresses of a service, what they take and answer, and the page that describes them."""

import html
import json
import pathlib
from collections.abc import Callable
from typing import Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from python_multipart.multipart import FormParser, parse_options_header
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from paddle_rt import __version__
from paddle_rt.errors import UserError, shown, unknown
from paddle_rt.inference import PoseEstimator
from paddle_rt.serving.outputs import MOST_BOXES, ZIP, TooLarge, Upload
from paddle_rt.serving.service import Refused, Service

MOST_IMAGES = 64  # of a batch
_LONGEST_NAME = 200  # characters of an image's name
_NAME = "upload"  # of an image that the client does not name
_GONE = 499  # the status that stands in logs where a client has left; nobody receives it
_ERRORS = {
    408: "The body did not arrive in time.",
    413: "The body has too many bytes, or an image too many pixels.",
    422: "An image is broken, or a parameter is not what it may be.",
    503: "The queue is full, the time is up, or the service is stopping; Retry-After says when to try again.",
}


def create_app(service: Service) -> FastAPI:
    """Return the application that answers for a service.

    Its page of documentation, and everything else, is made here: nothing is loaded from elsewhere.
    """
    # FastAPI would send traces where variables of the environment tell it to.
    app = FastAPI(
        title=f"paddle-rt serve, {service.predictor.task}",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        telemetry={"auto_configure": False, "tracing": False, "metrics": False, "logs": False},
    )
    _add_predictions(app, service)
    _add_facts(app, service)
    _add_errors(app, service)
    return app


def _add_predictions(app: FastAPI, service: Service) -> None:
    names = list(service.outputs)
    output_query = Query(names[0], description="The form of the answer", json_schema_extra={"enum": names})
    boxes_query = Query(
        None,
        description="For pose: [[x1, y1, x2, y2], ...] of the people; without it the whole image is one box",
        include_in_schema=isinstance(service.predictor, PoseEstimator),
    )
    types = {output.media_type: {} for output in service.outputs.values()}

    @app.post("/predict", **_documented("image/*", {"type": "string", "format": "binary"}, types))
    async def predict(
        request: Request,
        output: str = output_query,
        name: str = Query(_NAME, description="The name of the image in the answer"),
        boxes: str | None = boxes_query,
    ) -> Response:
        """Answer for one image, the body: a JPEG, PNG, BMP, TIFF or WebP file."""
        upload = _clean_name(name), _read_boxes(service, boxes, None)
        return await _answer(service, request, output, lambda body: [Upload(upload[0], body, upload[1])], False)

    form = {"type": "object", "properties": {
        "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
        "boxes": {"type": "string", "description": "For pose: a list with the boxes of each image, or null"},
    }}  # fmt: skip
    types = {output.media_type if output.join else ZIP: {} for output in service.outputs.values()}

    @app.post("/predict/batch", **_documented("multipart/form-data", form, types))
    async def predict_batch(request: Request, output: str = output_query) -> Response:
        """Answer for several images, the files of a form: with one file for all, or with a ZIP file of one for each.

        Where one of them is broken, the answer names it, and none is answered.
        """
        content_type = request.headers.get("content-type", "")
        return await _answer(service, request, output, lambda body: _read_form(service, content_type, body), True)


def _documented(media_type: str, schema: dict[str, Any], types: dict[str, Any]) -> dict[str, Any]:
    error = {"application/json": {"example": {"error": "what is wrong"}}}
    responses: dict[int | str, Any] = {200: {"content": types}}
    responses |= {status: {"description": text, "content": error} for status, text in _ERRORS.items()}
    body = {"required": True, "content": {media_type: {"schema": schema}}}
    return {"response_class": Response, "responses": responses, "openapi_extra": {"requestBody": body}}


async def _answer(
    service: Service, request: Request, output: str, read: Callable[[bytes], list[Upload]], batch: bool
) -> Response:
    if output not in service.outputs:
        raise unknown("output", output, service.outputs)
    body = await service.receive(request)
    chosen = service.outputs[output]
    media_type, content, seconds = await service.answer(request, lambda: read(body), chosen, batch)
    service.count(200)
    timing = ", ".join(f"{stage};dur={1000 * value:.2f}" for stage, value in seconds.items())
    return Response(content, media_type=media_type, headers={"Server-Timing": timing, "X-Engine": service.engine})


def _clean_name(name: str) -> str:
    """Return the last part of a client's name for an image, without what no name of a file has."""
    last = pathlib.PurePosixPath(name.replace("\\", "/")).name
    return "".join(filter(str.isprintable, last))[-_LONGEST_NAME:].strip(". ") or _NAME


def _read_boxes(service: Service, text: str | None, images: int | None) -> Any:
    """Return the boxes of an image, or those of each of several images.

    Args:
        service: The service, which takes boxes for pose alone.
        text: The parameter of the request, JSON.
        images: The number of images; None for a request for one.

    Raises:
        UserError: They are not for this task, no JSON, or too many; the predictor checks the rest.
    """
    if text is None:
        return None if images is None else [None] * images
    if not isinstance(service.predictor, PoseEstimator):
        raise UserError(f"boxes are for the task pose, but this service is for {service.predictor.task}")
    try:
        boxes = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"boxes must be JSON, such as [[x1, y1, x2, y2]], got {shown(text)}") from error
    if images is not None and (not isinstance(boxes, list) or len(boxes) != images):
        raise UserError(f"boxes must be a list with the boxes of each of the {images} images, or null for one")
    for found in [boxes] if images is None else boxes:
        if found is not None and not (isinstance(found, list) and len(found) <= MOST_BOXES):
            raise UserError(f"the boxes of an image must be a list of at most {MOST_BOXES}")
    return boxes


def _read_form(service: Service, content_type: str, body: bytes) -> list[Upload]:
    """Return the images of a form.

    Raises:
        UserError: The body is no such form, it has no image or too many, or its boxes are not as described.
    """
    kind, parameters = parse_options_header(content_type)
    if kind != b"multipart/form-data" or b"boundary" not in parameters:
        raise UserError(f"a batch is a form of files, multipart/form-data, got content of type {shown(content_type)}")
    files: list[tuple[str, bytes]] = []
    fields: dict[bytes, bytes] = {}

    def add_file(file: Any) -> None:
        if len(files) == MOST_IMAGES:
            raise UserError(f"a batch has at most {MOST_IMAGES} images")
        file.file_object.seek(0)
        files.append((_clean_name((file.file_name or b"").decode(errors="replace")), file.file_object.read()))

    def add_field(field: Any) -> None:
        if field.field_name != b"boxes":
            raise unknown("field of the form", (field.field_name or b"").decode(errors="replace"), ["boxes", "images"])
        fields[field.field_name] = field.value or b""

    # Nothing is written to a disk: the body, which is in memory, has been limited.
    config = {"MAX_MEMORY_FILE_SIZE": len(body) + 1}
    try:
        parser = FormParser("multipart/form-data", add_field, add_file, boundary=parameters[b"boundary"], config=config)
        parser.write(body)
        parser.finalize()
    except UserError:
        raise
    except ValueError as error:  # what python_multipart's errors are
        raise UserError(f"the form is broken: {error}") from error
    if not files:
        raise UserError("the form has no file; curl writes one with -F images=@FILE")
    text = fields.get(b"boxes")
    boxes = _read_boxes(service, None if text is None else text.decode(errors="replace"), len(files))
    return [Upload(name, data, found) for (name, data), found in zip(files, boxes, strict=True)]


def _add_facts(app: FastAPI, service: Service) -> None:
    deployment, limits = service.predictor.deployment, service.limits

    @app.get("/health")
    async def health() -> dict[str, str]:
        """Tell that the process is alive."""
        return {"status": "alive"}

    @app.get("/ready", responses={503: {"description": "The service is stopping."}})
    async def ready() -> Response:
        """Tell whether new work is taken."""
        return JSONResponse({"status": "stopping" if service.stopping else "ready"}, 503 if service.stopping else 200)

    @app.get("/metrics", response_class=Response, responses={200: {"content": {CONTENT_TYPE_LATEST: {}}}})
    async def metrics() -> Response:
        """Give the numbers for Prometheus."""
        return Response(generate_latest(service.registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/model")
    async def model() -> dict[str, Any]:
        """Describe the network, the forms of answers and the limits."""
        settings = {"keypoints": deployment.settings["keypoints"]} if "keypoints" in deployment.settings else {}
        return {
            "task": service.predictor.task,
            "engine": service.engine,
            "input_shape": deployment.input_shape,
            "class_names": deployment.class_names,
            "colors": deployment.palette.tolist() if deployment.num_classes else [],
            **settings,
            "outputs": list(service.outputs),
            "limits": vars(limits),
        }

    @app.get("/", include_in_schema=False)
    @app.get("/docs", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(_page(app.openapi()), headers={"Content-Security-Policy": _POLICY})


def _add_errors(app: FastAPI, service: Service) -> None:
    """Answer every error with one line, and count it."""

    def answer(status: int, message: str) -> Response:
        service.count(status)
        headers = {"Retry-After": "1"} if status == 503 else None
        return JSONResponse({"error": " ".join(message.split())}, status, headers)

    @app.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return answer(error.status, str(error))

    @app.exception_handler(UserError)
    async def mistake(_: Request, error: UserError) -> Response:
        return answer(413 if isinstance(error, TooLarge) else 422, str(error))

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        return answer(422, f"{'.'.join(map(str, first['loc']))}: {first['msg']}")

    @app.exception_handler(HTTPException)
    async def http_error(_: Request, error: HTTPException) -> Response:
        return answer(error.status_code, f"{error.detail}; /docs lists what this service answers")

    @app.exception_handler(ClientDisconnect)
    async def gone(_: Request, __: ClientDisconnect) -> Response:
        return answer(_GONE, "the client has gone")

    @app.exception_handler(Exception)
    async def fault(_: Request, error: Exception) -> Response:  # the server logs it
        return answer(500, f"a fault of the service: {type(error).__name__}")


_POLICY = "default-src 'none'; style-src 'unsafe-inline'"
_STYLE = "body{font:16px sans-serif;max-width:60em;margin:2em auto}code,pre{background:#eee}td{padding:.2em 1em .2em 0}"


def _page(schema: dict[str, Any]) -> str:
    """Return a page that describes what a schema of OpenAPI holds, without scripts."""
    parts = [
        f"<!DOCTYPE html><html lang=en><meta charset=utf-8><title>{html.escape(schema['info']['title'])}</title>",
        f"<style>{_STYLE}</style><h1>{html.escape(schema['info']['title'])} {schema['info']['version']}</h1>",
        "<p>For programs: <a href=/openapi.json>/openapi.json</a> (OpenAPI).</p>",
        "<pre>curl --data-binary @image.jpg 'http://HOST:PORT/predict?output=overlay' -o overlay.jpg\n"
        "curl -F images=@a.jpg -F images=@b.png http://HOST:PORT/predict/batch -o answers.zip</pre>",
    ]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            parts.append(f"<h2><code>{method.upper()} {html.escape(path)}</code></h2>")
            parts.append(f"<p>{html.escape(operation.get('description', ''))}</p><table>")
            for item in operation.get("parameters", []):
                about, values = item.get("description", ""), item["schema"].get("enum", [])
                text = f"{about}: {', '.join(values)}" if values else about
                parts.append(f"<tr><td><code>{html.escape(item['name'])}</code><td>{html.escape(text)}")
            for media_type in operation.get("requestBody", {}).get("content", {}):
                parts.append(f"<tr><td>body<td>{html.escape(media_type)}")
            for status, response in operation["responses"].items():
                about = ", ".join(response.get("content", {})) if status == "200" else response["description"]
                parts.append(f"<tr><td>{status}<td>{html.escape(about)}")
            parts.append("</table>")
    return "\n".join(parts)
