"""What lower precision and token merging cost a trained network, on validation data: labels, mIoU by class, time."""

import pathlib
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from paddle_rt.benchmark.plan import Choice, read_model
from paddle_rt.errors import UserError
from paddle_rt.files import whole_file
from paddle_rt.imaging import read_image
from paddle_rt.imaging.folders import pair_folders, require_pairs
from paddle_rt.imaging.labels import read_label
from paddle_rt.inference import load
from paddle_rt.tasks.segmentation.metrics import confusion_matrix, scores

if TYPE_CHECKING:
    from paddle_rt.config import Config

PLAIN = "plain"  # the variant that the config describes
_WORST = 3  # classes that the table names
_RESAMPLES = 500  # sets of images, drawn with replacement, from which standard errors come
COLUMNS = (
    ("network", "variant", "{}"), ("engine", "backend", "{}"), ("device", "device", "{}"),
    ("precision", "precision", "{}"),
    ("same labels", "label_agreement", "{:.3%}"), ("mIoU", "mIoU", "{:.4f}"), ("difference", "difference", "{:+.4f}"),
    ("its standard error", "standard_error", "{:.4f}"),
    ("classes that lose most", "worst", "{}"), ("ms", "ms", "{:.1f}"), ("times as fast", "speed", "{:.2f}"),
)  # fmt: skip


@dataclass
class Way:
    """One way to run the trained network, and what was found with it.

    Args:
        variant: The variant of the network.
        choice: The engine and the precision.
        predictor: Gives the labels of a frame.
        confusions: Pixels by true and predicted class, of each frame.
        same: The share of labels that are those of the first way, by frame.
        seconds: The time of each frame.
    """

    variant: str
    choice: Choice
    predictor: Any
    confusions: list[np.ndarray] = field(default_factory=list)
    same: list[float] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


def with_arguments(config: "Config", variant: str) -> "Config":
    """Return a config whose network has further arguments.

    Args:
        config: The config.
        variant: key=value,key=value, or `PLAIN`.
    """
    if variant == PLAIN:
        return config
    from paddle_rt.config import Config

    arguments = read_model(f"{config.values['model']['type']}:{variant}").arguments
    return Config(config.path, {**config.values, "model": {**config.values["model"], **arguments}})


def load_ways(
    config: "Config",
    checkpoint: str,
    variants: Sequence[str],
    choices: Sequence[Choice],
    samples: Sequence[tuple[np.ndarray, np.ndarray]],
    folder: pathlib.Path,
    threads: int,
) -> tuple[list[Way], list[str]]:
    """Export every variant of a trained network, quantise it where int8 is asked for, and load it in every engine.

    Args:
        config: The config of the network and of the data.
        checkpoint: The trained weights.
        variants: The variants, as `with_arguments` takes them.
        choices: The engines, devices and precisions.
        samples: Validation frames of one size, and their labels, by which int8 is judged.
        folder: The folder of the exports.
        threads: CPU threads of every engine.

    Returns:
        The ways, and the reasons why others are missing.
    """
    from paddle_rt.config import build_task, trained_network
    from paddle_rt.export.publish import export
    from paddle_rt.export.quantize import quantize

    height, width = _only_size(samples)
    ways, refusals = [], []
    for number, variant in enumerate(variants):
        changed = with_arguments(config, variant)
        spec = build_task(changed).export_spec()
        for target in dict.fromkeys(choice.target for choice in choices):
            own = [choice for choice in choices if choice.target == target]
            precisions = {choice.precision for choice in own}
            formats = ["onnx", *sorted({choice.backend for choice in own} & {"paddle", "mnn"})]
            # int8 on a GPU gives coarse logits, as the benchmark has it.
            output_op = "labels" if target == "gpu" and "int8" not in precisions else "coarse"
            # On a CPU an engine computes the graph of fp32 in half precision, if it can.
            graphs = ("fp32", "fp16") if target == "gpu" and "fp16" in precisions else ("fp32",)
            place, network = folder / f"{number}_{target}", trained_network(changed, checkpoint)
            export(network, place, spec, [1, 3, height, width], output_op, formats, target, graphs)
            if "int8" in precisions:
                calibration = [frame for frame, _ in build_task(changed).raw_samples("train", len(samples))]
                try:
                    quantize(place, calibration, samples, spec)
                except UserError as error:
                    refusals.append(f"{variant}: {error}")
            _load(place, variant, own, threads, ways, refusals)
    return ways, refusals


def load_exports(
    folders: Sequence[str], choices: Sequence[Choice], samples: Sequence[tuple[np.ndarray, np.ndarray]], threads: int
) -> tuple[list[Way], list[str]]:
    """Load exports as they are in every engine, which needs no Paddle.

    Args:
        folders: The folders of the exports, whose names become those of the variants.
        choices: The engines, devices and precisions.
        samples: Frames of one size, and their labels.
        threads: CPU threads of every engine.

    Returns:
        The ways, and the reasons why others are missing.
    """
    _only_size(samples)
    ways, refusals = [], []
    for folder in folders:
        _load(pathlib.Path(folder), pathlib.Path(folder).resolve().name, choices, threads, ways, refusals)
    return ways, refusals


def _load(
    folder: pathlib.Path, variant: str, choices: Sequence[Choice], threads: int, ways: list[Way], refusals: list[str]
) -> None:
    """Load an export in every engine, and add what comes to ways or to refusals."""
    for choice in choices:
        try:
            predictor = load(folder, choice.backend, choice.precision, threads, choice.device)
        except UserError as error:
            refusals.append(f"{variant}: {error}")
        else:
            ways.append(Way(variant, choice, predictor))


def _only_size(samples: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[int, int]:
    sizes = {frame.shape[:2] for frame, _ in samples}
    if len(sizes) > 1:
        raise UserError(f"the images differ in size ({sorted(sizes)}), and a graph has one; resize them")
    return next(iter(sizes))


def read_samples(folder: str, number: int, classes: int, ignored: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Read frames and labels from the folders `images` and `labels` of a folder.

    Args:
        folder: What `paddle-rt render_streetscenes` writes, for one.
        number: At most so many, the first by name.
        classes: The number of classes.
        ignored: The label that does not count.

    Raises:
        UserError: A folder is missing or empty, an image has no label or a label no image, or one cannot be read.
    """
    images, labels = (str(pathlib.Path(folder, name)) for name in ("images", "labels"))
    pairs = require_pairs(pair_folders(images, labels), images, labels)
    return [(read_image(image), read_label(label, classes, ignored)) for image, label in pairs[:number]]


def measure(ways: Sequence[Way], samples: Sequence[tuple[np.ndarray, np.ndarray]], classes: int, ignored: int) -> None:
    """Label every frame in every way, in turns and in random order, and count and time what comes.

    Args:
        ways: The results are added to them.
        samples: Frames and their labels.
        classes: The number of classes.
        ignored: The label that does not count.
    """
    order = np.random.default_rng(0)
    for way in ways:
        way.predictor(samples[0][0])  # the first frame also allocates
    for frame, truth in tqdm(samples, "frames", unit="img", disable=None, leave=False):
        found = {}
        for index in order.permutation(len(ways)):
            start = time.perf_counter()
            found[index] = ways[index].predictor(frame)
            ways[index].seconds.append(time.perf_counter() - start)
        for index, way in enumerate(ways):
            way.confusions.append(confusion_matrix(found[index], truth, classes, ignored))
            way.same.append(float((found[index] == found[0]).mean()))


def rows_of(ways: Sequence[Way], class_names: Sequence[str]) -> list[dict[str, Any]]:
    """Return a row for each way; differences and speed are those to the first way.

    The standard error of a difference in mIoU is that of the choice of images: the standard deviation over sets of
    images drawn with replacement, the same sets for all ways (paired bootstrap).
    """
    reference, resampled = scores(sum(ways[0].confusions)), _resampled_miou(ways[0].confusions)
    rows = []
    for way in ways:
        own = scores(sum(way.confusions))
        lost = {
            name: float(new - old)
            for name, old, new in zip(class_names, reference["class_iou"], own["class_iou"], strict=True)
            if np.isfinite(old) and np.isfinite(new)
        }
        rows.append({
            "variant": way.variant, "backend": way.choice.backend, "device": way.choice.device,
            "precision": way.choice.precision, "images": len(way.same), "label_agreement": statistics.fmean(way.same),
            "mIoU": own["mIoU"], "difference": own["mIoU"] - reference["mIoU"],
            "standard_error": float((_resampled_miou(way.confusions) - resampled).std(ddof=1)), "worst": _worst(lost),
            "class_difference": lost, "ms": 1e3 * statistics.median(way.seconds),
            "speed": statistics.median(a / b for a, b in zip(ways[0].seconds, way.seconds, strict=True)),
        })  # fmt: skip
    return rows


def draw(rows: Sequence[Mapping[str, Any]], path: pathlib.Path | str) -> None:
    """Draw what each row but the first loses or gains: mIoU with its standard error, IoU by class, and speed.

    Args:
        rows: Two rows of `rows_of` or more.
        path: The PNG file to write.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    first, *others = rows
    shown = [key for key in ("variant", "backend", "device", "precision") if len({row[key] for row in rows}) > 1]
    names = [" ".join(row[key].removeprefix("token_merging=") for key in shown) or row["precision"] for row in others]
    classes, places = list(first["class_difference"]), range(len(others))
    lost = np.array([[row["class_difference"].get(name, np.nan) for name in classes] for row in others])
    figure, (scored, by_class, timed) = plt.subplots(
        1, 3, figsize=(16, 2.6 + 0.42 * len(others)), width_ratios=(3, 8, 2), layout="constrained", sharey=True
    )
    scored.axvline(0, color="black", linewidth=0.8)
    differences, errors = ([row[key] for row in others] for key in ("difference", "standard_error"))
    scored.errorbar(differences, places, xerr=errors, fmt="o", color="#0072b2", capsize=3)
    start = " ".join(first[key] for key in shown) or first["precision"]
    scored.set(title=f"difference in mIoU from {start}, {first['mIoU']:.4f}", yticks=places, yticklabels=names)
    scored.locator_params(axis="x", nbins=4)
    largest = float(np.nanmax(np.abs(lost))) or 1.0
    drawn = by_class.imshow(lost, cmap="RdBu", vmin=-largest, vmax=largest, aspect="auto")
    by_class.set(title="difference in IoU by class", xticks=range(len(classes)))
    by_class.set_xticklabels(classes, rotation=45, ha="right")
    figure.colorbar(drawn, ax=by_class, shrink=0.9)
    timed.barh(places, [row["speed"] for row in others], color="#009e73")
    timed.axvline(1, color="black", linewidth=0.8)
    for place, row in enumerate(others):
        timed.text(row["speed"], place, f" {row['speed']:.2f}", va="center")
    timed.set(title="times as fast", xlim=(0, 1.25 * max(row["speed"] for row in others)))
    with whole_file(path) as part:
        figure.savefig(part, dpi=80, format="png")
    plt.close(figure)


def _resampled_miou(confusions: Sequence[np.ndarray]) -> np.ndarray:
    """Return the mIoU on each of the resampled sets of images; the sets depend on nothing but the number of images."""
    frames = len(confusions)
    draws = np.random.default_rng(0).multinomial(frames, [1 / frames] * frames, _RESAMPLES)
    return np.array([scores(confusion)["mIoU"] for confusion in np.tensordot(draws, np.stack(confusions), 1)])


def _worst(lost: Mapping[str, float]) -> str:
    """Name the classes whose IoU falls most."""
    names = [name for name in sorted(lost, key=lost.__getitem__)[:_WORST] if lost[name] < 0]
    return ", ".join(f"{name} {lost[name]:+.4f}" for name in names) or "none"
