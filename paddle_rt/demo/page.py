"""The page itself: its parts, and what happens when they are used. `exports` and `media` do the work."""

import base64
import html
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import gradio as gr
import numpy as np
from gradio.data_classes import Base64ImageData

from paddle_rt import imaging
from paddle_rt.demo import media
from paddle_rt.demo.exports import VIEWS, Export, Found, Options, Row, describe_time, in_channels, read_boxes
from paddle_rt.errors import UserError
from paddle_rt.inference import Labels

CSS = """
#message .alert {border: 1px solid #b91c1c; border-radius: 6px; color: #b91c1c; padding: 8px 12px}
.result :is(.image-container, .image-frame, button:has(> .image-frame), img, video) {width: 100% !important}
.result :is(img, video) {height: auto !important; object-fit: contain}
#examples .thumbnail-item {aspect-ratio: 2}
.facts {margin-bottom: 8px}
table.rows {border-collapse: collapse; width: 100%; table-layout: auto}
table.rows, table.rows :is(thead, tbody, tr, td, th) {border: 0 !important}
table.rows tr {border-bottom: 1px solid #8884 !important}
table.rows :is(td, th) {padding: 3px 8px; width: 1%; white-space: nowrap; text-align: left !important}
table.rows .number {text-align: right !important; font-variant-numeric: tabular-nums}
table.rows .wide {width: 60% !important}
.swatch {display: inline-block; width: 14px; height: 14px; border: 1px solid #888; margin-right: 8px;
         vertical-align: -2px}
.bar {background: #64748b; height: 8px; border-radius: 4px; min-width: 1px}
"""
_HEADS = {"segmentation": ("class", "area", "confidence"), "pose": ("person", "score", "keypoints"),
          "classification": ("class", "probability", "")}  # fmt: skip
_LONGEST = 4096  # pixels of a side of a drawing, which JPEG and browsers limit
_KEPT = 3600  # seconds for which the results of a session and the files of users are kept


class _Inputs(NamedTuple):
    """What the page takes in.

    Attributes:
        tabs: The tabs of the kinds of input.
        chosen: Of a session, the name of its tab in a list: a frame of a webcam that is in work sees it change.
    """

    tabs: gr.Tabs
    chosen: gr.State
    image: gr.Image
    boxes: gr.Textbox
    again: gr.Button
    video: gr.Video
    frames: gr.Number
    label: gr.Button
    webcam: gr.Image


def build_page(exports: Sequence[Export], folder: Path) -> gr.Blocks:
    """Return the page.

    Args:
        exports: What it shows, side by side.
        folder: Where the files that it makes are written; whoever made the folder removes it.
    """
    with gr.Blocks(title="paddle_rt", analytics_enabled=False, delete_cache=(600, _KEPT), fill_width=True) as page:
        gr.Markdown("# paddle_rt\nChoose an example, or bring an image, a video or a webcam of your own.")
        with gr.Row():
            with gr.Column(scale=2, min_width=360):
                inputs = _inputs(exports)
                _examples(exports, folder, inputs)
                settings = _settings(exports)
            with gr.Column(scale=1 + 2 * len(exports), min_width=360):
                message = gr.HTML(elem_id="message")
                with gr.Row():
                    panels = [_panel(export, number) for number, export in enumerate(exports)]
        # What is drawn anew when a setting changes or the tab of images is chosen: the results of an image.
        results = gr.State([], time_to_live=_KEPT)
        outputs = [results, message, *(part for panel in panels for part in panel)]
        _connect_images(exports, inputs, settings, outputs)
        _connect_videos(exports, folder, inputs, settings, outputs)
        _connect_webcam(exports, inputs, settings, outputs)
    return page


def _inputs(exports: Sequence[Export]) -> _Inputs:
    has_poses = any(export.predictor.task == "pose" for export in exports)
    chosen = gr.State(["Image"], time_to_live=_KEPT)
    with gr.Tabs() as tabs, gr.Tab("Image", id="Image"):
        image = gr.Image(sources=["upload", "clipboard"], label="image", height=260, buttons=[], elem_id="image")
        # Handlers get the path of the file that came, so that the library says what is wrong with it. A subclass of
        # gr.Image would do, but Gradio writes a .pyi file beside the module of one.
        image.preprocess = lambda payload: payload and payload.path
        boxes = gr.Textbox(
            "", label="boxes of people: x1 y1 x2 y2 in pixels, one on each line; empty for the whole image",
            lines=2, visible=has_poses, elem_id="boxes",
        )  # fmt: skip
        again = gr.Button("Find people in these boxes", size="sm", visible=has_poses)
    with tabs, gr.Tab("Video", id="Video"):
        video = gr.Video(sources=["upload"], label="video", height=260, buttons=[], elem_id="video")
        frames = gr.Number(200, label="frames to read at most", minimum=1, maximum=100_000, precision=0)
        label = gr.Button("Label the video", variant="primary", elem_id="label_video")
    with tabs, gr.Tab("Webcam", id="Webcam"):
        options = gr.WebcamOptions(mirror=False)
        webcam = gr.Image(
            sources=["webcam"], streaming=True, type="numpy", label="webcam", height=260, buttons=[],
            webcam_options=options, elem_id="webcam",
        )  # fmt: skip
    return _Inputs(tabs, chosen, image, boxes, again, video, frames, label, webcam)


def _examples(exports: Sequence[Export], folder: Path, inputs: _Inputs) -> None:
    """Add images that are rendered here, and a button that renders others."""
    first = media.write_examples(exports, folder, 0)
    examples, number = gr.State(first), gr.State(media.EXAMPLES)
    gallery = gr.Gallery(
        [str(path) for path, _ in first], label="examples, rendered here", columns=3, buttons=[],
        height=40 + 34 * len(first), allow_preview=False, object_fit="cover", elem_id="examples", interactive=False,
    )  # fmt: skip
    more = gr.Button("Render others", size="sm")

    def choose(event: gr.SelectData, shown: list[tuple[Path, str]], chosen: list[str]) -> tuple[Any, str, str]:
        path, boxes = shown[event.index]
        chosen[:] = ["Image"]  # else a webcam that records would take the place of the result
        return gr.update(selected="Image"), str(path), boxes

    def render(start: int) -> tuple[list[str], list[tuple[Path, str]], int]:
        shown = media.write_examples(exports, folder, start)
        return [str(path) for path, _ in shown], shown, start + media.EXAMPLES

    given, taken = [examples, inputs.chosen], [inputs.tabs, inputs.image, inputs.boxes]
    gallery.select(choose, given, taken, show_progress="hidden")
    more.click(render, [number], [gallery, examples, number])


def _settings(exports: Sequence[Export]) -> list[gr.components.Component]:
    """Add the settings, in the order of the arguments of `Options`."""
    segmenters = [export for export in exports if export.labels_pixels]
    names = list(dict.fromkeys(name for export in segmenters for name in export.class_names))
    has_labels, has_confidence = bool(segmenters), any(export.has_confidence for export in segmenters)
    has_poses = any(export.predictor.task == "pose" for export in exports)
    start = Options()
    view = gr.Radio(VIEWS, value=start.view, label="show", visible=has_confidence, elem_id="view")
    opacity = gr.Slider(0, 1, start.opacity, step=0.05, label="opacity", visible=has_labels, elem_id="opacity")
    contours = gr.Checkbox(start.contours, label="contours", visible=has_labels)
    with gr.Accordion("classes", open=len(names) <= 30, visible=has_labels):
        classes = gr.CheckboxGroup(names, value=names, show_label=False, container=False, elem_id="classes")
        with gr.Row():
            gr.Button("all", size="sm").click(lambda: names, None, classes, queue=False)
            gr.Button("none", size="sm").click(lambda: [], None, classes, queue=False)
    threshold = gr.Slider(0, 1, start.threshold, step=0.05, label="least score of a keypoint", visible=has_poses)
    return [opacity, classes, contours, view, threshold]


def _panel(export: Export, number: int) -> tuple[gr.Column, gr.Image, gr.Video, gr.HTML]:
    """Add what is shown of an export: an image, in a column that hides it, or a video, and the table below."""
    with gr.Column(min_width=320):
        with gr.Column(min_width=0) as holder:
            image = gr.Image(label=export.name, interactive=False, buttons=["download", "fullscreen"],
                             elem_classes="result", elem_id=f"result_{number}")  # fmt: skip
        # Results are no files: a webcam would fill the disk, and another user could ask for them.
        image.postprocess = as_data
        video = gr.Video(label=export.name, interactive=False, visible=False, buttons=["download"], autoplay=True,
                         loop=True, elem_classes="result", elem_id=f"result_video_{number}")  # fmt: skip
        facts = gr.HTML(facts_html(export, "", []), elem_id=f"facts_{number}")
    return holder, image, video, facts


def as_data(image: np.ndarray | None) -> Base64ImageData | None:
    """Return a BGR image as the browser takes it, with at most 4096 pixels a side."""
    if image is None:
        return None
    if max(image.shape) > _LONGEST:
        shares = _LONGEST / max(image.shape)
        image = cv2.resize(image, None, fx=shares, fy=shares, interpolation=cv2.INTER_AREA)
    data = base64.b64encode(cv2.imencode(".jpg", image)[1].tobytes()).decode()
    return Base64ImageData(url=f"data:image/jpeg;base64,{data}")


def facts_html(export: Export, time: str, rows: Sequence[Row]) -> str:
    """Return the text below a result: the engine, the time, and a table."""
    facts = f'<div class="facts">{html.escape(export.engine)}{"; " if time else ""}{html.escape(time)}</div>'
    if not rows:
        return facts
    name, share, more = _HEADS[export.predictor.task]
    more = more if rows[0].more else ""
    lines = [
        f'<tr><th>{name}</th><th class="wide"></th><th class="number">{share}</th><th class="number">{more}</th></tr>'
    ]
    for row in rows:
        swatch = f'<span class="swatch" style="background: rgb{row.colour}"></span>' if row.colour else ""
        lines.append(
            f"<tr><td>{swatch}{html.escape(row.name)}</td>"
            f'<td class="wide"><div class="bar" style="width: {100 * min(row.share, 1):.1f}%"></div></td>'
            f'<td class="number">{100 * row.share:.1f} %</td><td class="number">{row.more or ""}</td></tr>'
        )
    return f'{facts}<table class="rows">{"".join(lines)}</table>'


def _shown(export: Export, found: Found | None, options: Options) -> list[Any]:
    """Return the values of a panel for a result, or for none."""
    image, facts = None, facts_html(export, "", [])
    if found is not None:
        time = describe_time(found.seconds, confidence=isinstance(found.result, Labels))
        image, facts = export.draw(found, options), facts_html(export, time, export.rows(found, options))
    return [gr.update(visible=True), image, gr.update(value=None, visible=False), facts]


def _failed(exports: Sequence[Export], error: UserError, path: str = "") -> list[Any]:
    """Return the values of all outputs for a mistake: one line, and nothing that looks like its result."""
    return [[], _alert(str(error), path), *(value for export in exports for value in _shown(export, None, Options()))]


def _alert(text: str, path: str) -> str:
    """Return a message that speaks of an uploaded file by its name; "" for an empty text."""
    text = text.replace(path, Path(path).name) if path else text
    return f'<div class="alert" role="alert">{html.escape(text)}</div>' if text else ""


def _connect_images(exports: Sequence[Export], inputs: _Inputs, settings: list, outputs: list) -> None:
    def show(found: list[Found], *chosen: Any) -> list[Any]:
        options = Options(*chosen)
        pairs = zip(exports, found or [None] * len(exports), strict=True)
        return [found, "", *(value for export, one in pairs for value in _shown(export, one, options))]

    def find(path: str | None, boxes: str, *chosen: Any) -> list[Any]:
        if path is None:
            return show([], *chosen)
        try:
            people, found = read_boxes(boxes), []
            for export in exports:
                image = imaging.read_image(path, export.predictor.channels)
                found.append(export.find(image, people, confidence=True))
        except UserError as error:
            return _failed(exports, error, path)
        return show(found, *chosen)

    def redraw(tab: list[str], found: list[Found], *chosen: Any) -> list[Any]:
        return show(found, *chosen) if found and tab != ["Webcam"] else [gr.skip() for _ in outputs]

    given = [inputs.image, inputs.boxes, *settings]
    gr.on([inputs.image.change, inputs.again.click], find, given, outputs, show_progress="minimal")
    given = [inputs.chosen, outputs[0], *settings]
    gr.on(_changes(settings), redraw, given, outputs, show_progress="hidden", trigger_mode="always_last")

    def switch(event: gr.SelectData, tab: list[str], found: list[Found], *chosen: Any) -> list[Any]:
        tab[:] = [event.value]
        return redraw(tab, found if tab == ["Image"] else [], *chosen)

    inputs.tabs.select(switch, given, outputs, show_progress="hidden")


def _changes(settings: list) -> list[Callable]:
    """Return the events of settings that are changed; a slider's comes when it is let go."""
    return [part.release if isinstance(part, gr.Slider) else part.change for part in settings]


def _connect_videos(exports: Sequence[Export], folder: Path, inputs: _Inputs, settings: list, outputs: list) -> None:
    def label_file(path: str | None, frames: int, *chosen: Any, progress: gr.Progress = gr.Progress()) -> list[Any]:
        if path is None:
            return _failed(exports, UserError("there is no video yet; upload one"))
        options, values, failures = Options(*chosen), [], []
        try:
            for export in exports:
                output = folder / f"{uuid.uuid4().hex}.webm"

                def advance(done: int, total: int | None, name: str = export.name) -> None:
                    progress((done, total), desc=name, unit="frames")

                rows, time, failures = media.label_video(path, export, options, output, int(frames or 1), advance)
                video = gr.update(value=str(output), visible=True)
                values += [gr.update(visible=False), None, video, facts_html(export, time, rows)]
        except UserError as error:
            return _failed(exports, error, path)
        return [[], _alert("; ".join(failures[:3]), path), *values]

    inputs.label.click(label_file, [inputs.video, inputs.frames, *settings], outputs)


def _connect_webcam(exports: Sequence[Export], inputs: _Inputs, settings: list, outputs: list) -> None:
    states = gr.State([None] * len(exports), time_to_live=_KEPT)
    nothing = [gr.skip() for _ in (states, *outputs)]

    def label_frame(frame: np.ndarray | None, tab: list[str], before: list, *chosen: Any) -> list[Any]:
        if frame is None or tab != ["Webcam"]:  # a webcam goes on behind another tab
            return nothing
        options, values, after = Options(*chosen), [], []
        try:
            for export, state in zip(exports, before, strict=True):
                image = in_channels(np.ascontiguousarray(frame[..., ::-1]), export.predictor.channels)
                found = export.find(image, None, options.view == "confidence", state)
                after.append(found.state)
                values += _shown(export, found, options)
        except UserError as error:
            return [before, *_failed(exports, error)]
        return [after, gr.skip(), "", *values] if tab == ["Webcam"] else nothing

    # Frames of several users take turns at the locks of the exports; a slot for each user would end after a while.
    given, taken = [inputs.webcam, inputs.chosen, states, *settings], [states, *outputs]
    inputs.webcam.stream(label_frame, given, taken, stream_every=0.1, show_progress="hidden", concurrency_limit=None)
