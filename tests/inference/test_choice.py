"""The backend "auto": the fastest engine with the labels of the reference, measured once."""

import json
import pathlib
import time

import numpy as np
import pytest

from paddle_rt.errors import UserError
from paddle_rt.inference import choice
from paddle_rt.inference.choice import choose_backend
from paddle_rt.inference.deployment import Deployment
from paddle_rt.inference.engines import cache

FRAMES = [np.full((20, 30, 3), value, np.uint8) for value in (0, 9)]
LABELS = np.zeros((100, 100), np.uint8)
OTHER = LABELS.copy()
OTHER[0, :2] = 1  # 2 of 10,000 labels
# Each engine's seconds a frame and labels; those that are missing cannot be loaded.
ENGINES = {"onnxruntime": (0.05, LABELS), "openvino": (0.02, LABELS), "mnn": (0.0, OTHER)}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return what sets up engines, and a list of those that were loaded."""
    (tmp_path / "verification.json").write_text("{}")
    deployment = Deployment(tmp_path, [], [1, 3, None, None], "coarse", onnx="model.onnx")
    monkeypatch.setattr(choice, "load_deployment", lambda _: deployment)
    monkeypatch.setattr(choice, "_PAUSE", 0.0)
    monkeypatch.setenv("PADDLE_RT_CACHE", str(tmp_path / "cache"))
    loaded = []

    def set_up(engines: dict) -> list[str]:
        class Predictor:
            def __init__(self, _: object, backend: str, precision: str, threads: int | None) -> None:
                if backend not in engines:
                    raise UserError(f"backend {backend} needs its package")
                loaded.append(backend)
                self.seconds, self.labels = engines[backend]

            def warmup(self, size: tuple[int, int]) -> None:
                assert size == (20, 30)

            def __call__(self, _: np.ndarray) -> np.ndarray:
                time.sleep(self.seconds)
                return self.labels

        monkeypatch.setattr(choice, "load", Predictor)
        return loaded

    return set_up


def choose(threads: int = 1) -> choice.EngineChoice:
    return choose_backend("export", lambda size: FRAMES, threads)


@pytest.mark.parametrize(
    ("engines", "chosen"),
    [
        (ENGINES, "openvino"),  # MNN is faster, but too many labels differ
        (ENGINES | {"mnn": (0.0, LABELS)}, "mnn"),
        ({name: ENGINES[name] for name in ("openvino", "mnn")}, "openvino"),  # which is the reference then
        ({"mnn": ENGINES["mnn"]}, "mnn"),
    ],
)
def test_the_fastest_engine_with_the_right_labels(machine, engines, chosen):
    machine(engines)
    found = choose()
    assert (found.backend, found.kept) == (chosen, False)
    assert len(found.refusals) == 3 - len(engines)
    if len(engines) == 3:
        assert found.agreement["onnxruntime"] == 1 and f"backend {chosen}; " in str(found)


def test_it_is_measured_once_for_an_export_and_a_number_of_threads(machine, tmp_path):
    loaded = machine(ENGINES)
    first = choose()
    again = choose()
    assert again.kept and (again.backend, again.milliseconds) == (first.backend, first.milliseconds)
    assert len(loaded) == 3
    choose(threads=2)
    assert len(loaded) == 6
    (tmp_path / "verification.json").write_text('{"another": 1}')
    assert not choose().kept


@pytest.mark.parametrize("damage", ["{", '{"backend": "rm"}', json.dumps({"backend": 5})])
def test_a_damaged_cache_is_measured_again(machine, tmp_path, damage):
    machine(ENGINES)
    choose()
    for manifest in (tmp_path / "cache").rglob(cache.MANIFEST):
        manifest.write_text(damage)
    found = choose()
    assert (found.backend, found.kept) == ("openvino", False) and choose().kept


def test_without_a_cache_folder(machine, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PADDLE_RT_CACHE", str(tmp_path / "file/cache"))
    machine(ENGINES)
    assert choose().backend == "openvino"


def test_where_no_engine_can_be_loaded_the_error_is_theirs(machine):
    machine({})
    with pytest.raises(UserError, match="needs its package"):
        choose()


def test_what_is_not_timed(monkeypatch):
    described = {"transforms": [], "input_shape": [1, 3, 8, 8], "output_op": "coarse"}
    for more, backend in (({"model": "m", "params": "p"}, "paddle"), ({"onnx": "o", "task": "pose"}, "openvino")):
        deployment = Deployment(pathlib.Path(), **described, **more)
        monkeypatch.setattr(choice, "load_deployment", lambda _, found=deployment: found)
        assert choose().backend == backend and choose().milliseconds == {}
