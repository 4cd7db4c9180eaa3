"""Files of the page: images and videos that users upload, videos that the page gives back, and examples."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from paddle_rt import imaging
from paddle_rt.demo.exports import Export, Found, Options, Row, describe_time, label_map
from paddle_rt.errors import UserError
from paddle_rt.imaging.labels import count_values
from paddle_rt.inference.media.pipeline import label_frames
from paddle_rt.inference.media.sinks import write_video
from paddle_rt.inference.media.sources import VIDEO_SUFFIXES, Frame, open_source
from paddle_rt.streetscenes import scenes, street_people

EXAMPLES, EXAMPLE_SIZE = 3, (256, 512)


def label_video(
    path: str,
    export: Export,
    options: Options,
    output: Path,
    limit: int,
    progress: Callable[[int, int | None], None] = lambda done, total: None,
) -> tuple[list[Row], str, list[str]]:
    """Label a video file and write its overlay as WebM, which browsers play.

    Args:
        path: The file; other sources that `open_source` opens are refused, since users of the page name them.
        export: A network; one for pose takes the whole frame for one box.
        options: How labels are drawn.
        output: The video to write, *.webm.
        limit: The number of frames that are read.
        progress: Called after every frame with the number of frames so far and the expected number.

    Returns:
        The mean area of each class, which is empty for other tasks; a line with the time; and a line for each frame
        that could not be read.

    Raises:
        UserError: The file is not a video.
    """
    if Path(path).suffix.lower() not in VIDEO_SUFFIXES or "://" in path:
        raise UserError(f"{Path(path).name} is not a video; expected a file such as {', '.join(VIDEO_SUFFIXES[:6])}")
    source = open_source(path, limit, channels=export.predictor.channels)
    counts, state, done = np.zeros(256, np.int64), None, 0
    confidence = options.view == "confidence" and export.has_confidence

    def find(frame: Frame) -> Found:
        nonlocal state
        found = export.find(frame.image, None, confidence, state if frame.continues else None)
        state = found.state
        return found

    def advance() -> None:
        nonlocal done
        done += 1
        progress(done, source.total)

    with write_video(output, source.fps) as add:

        def write(frame: Frame, found: Found) -> None:
            if export.labels_pixels:
                counts[:] += count_values(label_map(found))
            add(export.draw(found, options))

        report = label_frames(export, source, write, progress=advance, predict=find)
    if not report.labelled:
        raise UserError("; ".join(report.failures[:3]))
    stages = {name: report.stages[name] for name in export.predictor.stages}
    time = f"{report.labelled} frames; {describe_time(stages, report.labelled, confidence)}"
    return export.area_rows(counts, options) if export.labels_pixels else [], time, report.failures


def write_examples(exports: Sequence[Export], folder: Path, first: int) -> list[tuple[Path, str]]:
    """Render images for the networks of the page, `EXAMPLES` of each kind.

    Args:
        exports: Networks for pose get people, the others streets.
        folder: Where the images are written.
        first: The number of the first image of each kind.

    Returns:
        The files, and the boxes of the people in each, as `read_boxes` takes them; "" for a street.
    """
    examples = []
    kinds = dict.fromkeys("people" if export.predictor.task == "pose" else "street" for export in exports)
    for kind in kinds:
        for index in range(first, first + EXAMPLES):
            boxes = ""
            if kind == "people":
                image, people = street_people.render_people(street_people.SERIES["test"][0] + index, *EXAMPLE_SIZE)
                boxes = "\n".join(" ".join(f"{value:.0f}" for value in person.box) for person in people)
            else:
                image, _ = scenes.render(scenes.make_scene(scenes.SERIES["test"][0] + index), *EXAMPLE_SIZE)
            path = folder / f"{kind}_{index}.png"
            imaging.write_image(path, image)
            examples.append((path, boxes))
    return examples
