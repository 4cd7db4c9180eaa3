"""Tiles after export: the labels of predict's sliding window, in the memory of one row of tiles."""

import pathlib
import re
import tracemalloc
from collections.abc import Callable

import numpy as np
import paddle
import pytest

from paddle_rt.components import build_component
from paddle_rt.export.publish import FORMATS, export
from paddle_rt.imaging import read_label, write_image
from paddle_rt.inference import BACKENDS, Deployment, Segmenter, predictor
from paddle_rt.inference.preprocess import Preprocess
from paddle_rt.inference.tiles import TiledSegmenter
from paddle_rt.models.rtformer import RTFormer
from paddle_rt.tasks.segmentation.export import SegmentationExport
from paddle_rt.tasks.segmentation.transforms import Compose, transform_catalogue
from paddle_rt.tasks.segmentation.tta import Augmentation, predict_logits, restore
from tests.helpers import NORMALIZE, TINY, message, randomize, run_python, smooth_image

CLASSES, TILE = 5, (64, 96)
RESIZE = {"type": "Resize", "target_size": [210, 150]}
PADDING = {"type": "Padding", "target_size": [260, 240]}
# name: the graph's output, its input's shape, and the transforms
EXPORTS = {
    "coarse": ("coarse", [None, 3, None, None], [NORMALIZE]),
    "fixed": ("coarse", [2, 3, *TILE], [NORMALIZE]),
    "logits": ("none", [None, 3, None, None], [NORMALIZE]),
    "softmax": ("softmax", [None, 3, None, None], [NORMALIZE]),
    "labels": ("labels", [None, 3, None, None], [NORMALIZE]),
    "resized": ("none", [None, 3, None, None], [RESIZE, NORMALIZE]),
    "padded": ("coarse", [1, 3, *TILE], [PADDING, NORMALIZE]),
}


@pytest.fixture(scope="module")
def model() -> RTFormer:
    net = RTFormer(num_classes=CLASSES, **TINY)
    randomize(net)
    net.eval()
    return net


class Graph:
    """What an engine does: the network itself, on the input and with the output that a graph has."""

    def __init__(self, model: RTFormer, deployment: Deployment) -> None:
        self.model, self.deployment = model, deployment

    def run(self, images: np.ndarray) -> np.ndarray:
        if self.deployment.takes_frames:
            images = np.stack([Preprocess([NORMALIZE])(frame)[0] for frame in images])
        with paddle.no_grad():
            if self.deployment.output_op == "coarse":
                return self.model.coarse_logits(paddle.to_tensor(images)).numpy()
            logits = self.model(paddle.to_tensor(images))[0]
            return (
                paddle.nn.functional.softmax(logits, axis=1) if self.deployment.output_op == "softmax" else logits
            ).numpy()


@pytest.fixture
def exported(model: RTFormer, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Segmenter]:
    """Return what gives the segmenter of an export; the exports are not written, since that takes seconds for each."""

    def get(name: str) -> Segmenter:
        output_op, shape, transforms = EXPORTS[name]
        kind = "uint8" if output_op in ("coarse", "labels") else "float32"
        names = [f"class {index}" for index in range(CLASSES)]
        facts = {"input_dtype": kind, "num_classes": CLASSES, "class_names": names}
        deployment = Deployment(pathlib.Path(name), transforms, shape, output_op, **facts)
        monkeypatch.setattr(predictor, "load_deployment", lambda folder: deployment)
        monkeypatch.setattr(predictor, "_load_engine", lambda *_: Graph(model, deployment))
        return Segmenter(name, threads=1)

    return get


def expected_logits(model: RTFormer, transforms: list, image: np.ndarray, overlap: int) -> np.ndarray:
    """Return the logits of predict's sliding window."""
    steps = [build_component("step", step, transform_catalogue()) for step in transforms]
    sample = Compose(steps)({"img": image.astype("float32")})
    window = Augmentation(crop_size=TILE[::-1], stride=(TILE[1] - overlap, TILE[0] - overlap))
    with paddle.no_grad():
        logits = predict_logits(model, paddle.to_tensor(sample["img"][np.newaxis]), window)
        return restore(logits, sample["trans_info"]).numpy()[0]


@pytest.mark.parametrize("overlap", [0, 17])
@pytest.mark.parametrize(
    "name, size",
    [("coarse", (150, 333)), ("coarse", (40, 250)), ("fixed", (150, 333)), ("fixed", TILE), ("logits", (90, 97)),
     ("softmax", (90, 97)), ("resized", (331, 222)), ("resized", (70, 90)), ("padded", (150, 222))],
)  # fmt: skip
def test_labels_are_those_of_predict_s_sliding_window(name, size, overlap, model, exported):
    image = smooth_image(*size, cell=8)
    logits = expected_logits(model, EXPORTS[name][2], image, overlap)
    found = TiledSegmenter(exported(name), TILE, overlap).predict(image)
    wanted = logits.argmax(axis=0)
    assert found.map.dtype == np.uint8 and found.map.shape == size and len(np.unique(wanted)) > 1
    chosen = np.take_along_axis(logits, found.map[np.newaxis].astype(np.int64), axis=0)[0]
    gap = float((logits.max(axis=0) - chosen).max()) / np.abs(logits).max()
    probability = np.exp(logits - logits.max(axis=0))
    error = float(np.abs(found.confidence - (1 / probability.sum(axis=0))).max())
    print(f"{name} {size}: labels {np.mean(found.map != wanted):.2e} differ, gap {gap:.1e}, confidence {error:.1e}")
    assert gap < 1e-4  # labels differ only where the two largest logits are as good as equal
    assert error < 1e-3


@pytest.fixture(scope="module")
def written_export(model: RTFormer, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("tiles") / "export"
    export(model, folder, SegmentationExport([NORMALIZE], "CamVid"), [2, 3, *TILE], "coarse", FORMATS)
    return folder


@pytest.mark.slow  # an export takes many seconds
def test_infer_takes_the_memory_of_a_row_of_tiles(written_export, tmp_path):
    """The peak of the whole process, of which the interpreter and the engine take most."""
    code = "import resource; from paddle_rt.cli.infer import main; main()"
    line = ["--config", written_export, "--backend", "onnxruntime", "--threads", 2, "--save", "labels"]
    peaks = []
    for height in (256, 16384):
        image = smooth_image(height, 512, cell=32)
        write_image(tmp_path / f"{height}.png", image)
        more = ["--image_path", tmp_path / f"{height}.png", "--save_dir", tmp_path, "--tile", *TILE]
        words = list(map(str, [*line, *more]))
        show = "print('peak', resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)"
        done = run_python("-c", f"import sys; sys.argv[1:] = {words!r}\n{code}\n{show}")
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout.split("peak ")[1]))
    logits = 4 * CLASSES * image.shape[0] * image.shape[1] >> 20
    beside = (2 * image.nbytes + image.nbytes // 3) >> 20  # the image, its decoder, and the labels
    print(f"peaks of {peaks[0]} and {peaks[1]} MiB; image and labels {beside} MiB, logits of the image {logits} MiB")
    assert read_label(tmp_path / "pseudo_color_prediction/16384.png", CLASSES).shape == (16384, 512)
    assert peaks[1] - peaks[0] < beside + logits // 4


@pytest.mark.slow
def test_the_engines_give_the_same(model, written_export):
    image = smooth_image(150, 333, cell=8)
    logits = expected_logits(model, [NORMALIZE], image, 17)
    for backend in BACKENDS:
        labels = TiledSegmenter(Segmenter(written_export, backend, threads=2), TILE, 17)(image)
        chosen = np.take_along_axis(logits, labels[np.newaxis].astype(np.int64), axis=0)[0]
        gap = float((logits.max(axis=0) - chosen).max()) / np.abs(logits).max()
        print(f"{backend}: labels {np.mean(labels != logits.argmax(axis=0)):.2e} differ, gap {gap:.1e}")
        assert gap < 1e-4


def test_a_small_image_is_extended_for_a_fixed_graph(exported):
    tiles = TiledSegmenter(exported("fixed"), TILE, 16)
    image = smooth_image(50, 70, cell=8)
    mirrored = np.pad(image, ((0, 14), (0, 26), (0, 0)), "symmetric")
    assert np.array_equal(tiles(image), tiles(mirrored)[:50, :70])


def test_an_image_of_one_tile_has_the_labels_without_tiles(exported):
    image = smooth_image(*TILE, cell=8)
    assert np.array_equal(TiledSegmenter(exported("fixed"), TILE)(image), exported("fixed")(image))


def test_memory_is_that_of_a_row_of_tiles(exported, monkeypatch):
    peaks, coarse = [], np.zeros((CLASSES, *(side // 8 for side in TILE)), np.float32)
    monkeypatch.setattr(Segmenter, "run_prepared", lambda self, prepared: coarse[np.newaxis])
    for height in (640, 6400):
        image = smooth_image(height, 96, cell=8)
        tiles = TiledSegmenter(exported("fixed"), TILE, 16)
        tiles(image[:64])
        tracemalloc.start()
        labels = tiles(image)
        peaks.append(tracemalloc.get_traced_memory()[1] - labels.nbytes)
        tracemalloc.stop()
    whole = 4 * CLASSES * image.shape[0] * image.shape[1]
    print(f"peaks beside the labels {peaks} bytes; logits of the taller image {whole} bytes")
    assert peaks[1] < 1.5 * peaks[0] and peaks[1] < whole / 4


def test_every_tile_is_announced(exported):
    seen = []
    TiledSegmenter(exported("coarse"), TILE, 0, lambda places: seen.extend(places) or places)(smooth_image(130, 100))
    assert seen == [(0, 0), (0, 4), (64, 0), (64, 4), (66, 0), (66, 4)]


@pytest.mark.parametrize(
    "name, tile, overlap, words",
    [
        ("labels", TILE, 0, "gives labels, which cannot be averaged .* --output_op coarse"),
        ("fixed", (64, 64), 0, "takes images of 64 x 96 .* tiles of 64 x 64 do not fit"),
        ("coarse", TILE, 64, "the overlap of tiles must be a whole number from 0 to 63, got 64"),
        ("coarse", (2**14, 2**13), 0, "too large"),
    ],
)
def test_what_fits_no_tiles_is_refused(name, tile, overlap, words, exported):

    assert re.search(words, message(TiledSegmenter, exported(name), tile, overlap))


def test_logits_that_are_no_numbers_are_refused(exported, monkeypatch):
    segmenter = exported("coarse")
    run = segmenter.run_prepared
    monkeypatch.setattr(segmenter, "run_prepared", lambda prepared: run(prepared) * np.nan)
    assert "NaN or infinity" in message(TiledSegmenter(segmenter, TILE), smooth_image(100, 100))
