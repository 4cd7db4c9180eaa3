"""PaddleSeg's export and deployment, which benchmarks run beside ours."""

import pathlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from paddle_rt.files import temporary_home
from paddle_rt.inference.engines import Engine, OpenVino, PaddleInference
from paddle_rt.paddleseg.components import import_paddleseg

if TYPE_CHECKING:
    from paddle import nn

TRANSFORMS = [{"type": "Normalize"}]  # of PaddleSeg's RTFormer configs; what is measured depends on no other value


class PaddleSegPipeline:
    """PaddleSeg's deployment as its deploy/python/infer.py runs it: its transforms, its argmax graph, oneDNN.

    Args:
        folder: Holds what `export_paddleseg` wrote.
        threads: Threads of the CPU library.
        backend: "paddle", or "openvino" for its graph in that engine.
        onednn: Whether oneDNN is used, which is PaddleSeg's fastest choice on a CPU. RTFormer's labels are right
            without it only: the weights of its cross attention's convolution are computed anew for each frame, and
            oneDNN keeps those of the first.
        device: "cpu", or "gpu" for an NVIDIA GPU, with backend "paddle".
    """

    def __init__(
        self, folder: pathlib.Path, threads: int, backend: str = "paddle", onednn: bool = True, device: str = "cpu"
    ) -> None:
        import_paddleseg()
        from paddleseg.cvlibs import manager
        from paddleseg.transforms import Compose

        steps = [dict(step) for step in TRANSFORMS]
        self._transforms = Compose([manager.TRANSFORMS[step.pop("type")](**step) for step in steps])
        if backend == "openvino":
            self._engine: Engine = OpenVino(folder / "model.onnx", threads=threads)
        else:
            files = folder / "model.json", folder / "model.pdiparams"
            self._engine = PaddleInference(*files, device, threads=threads, onednn=onednn)
        self.timings: dict[str, float] = {}

    def warmup(self) -> float:
        """Do nothing, since PaddleSeg's deployment does nothing before the first frame."""
        return 0.0

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """Label a frame. Shape: uint8 BGR [H, W, 3] to uint8 [H, W]."""
        moments = [time.perf_counter()]
        image = self._prepare(frame)
        moments.append(time.perf_counter())
        output = self._engine.run(image)
        moments.append(time.perf_counter())
        labels = output[0].astype(np.uint8)
        moments.append(time.perf_counter())
        stages = ("preprocess", "network", "labels")
        self.timings = {s: b - a for s, a, b in zip(stages, moments[:-1], moments[1:], strict=True)}
        return labels

    def _prepare(self, frame: np.ndarray) -> np.ndarray:
        return self._transforms({"img": frame.astype("float32")})["img"][np.newaxis]

    def engine_and_inputs(self, frame: np.ndarray) -> tuple[Engine, tuple[np.ndarray, ...]]:
        """Return the engine and what it runs on, as `Predictor.engine_and_inputs` does."""
        return self._engine, (self._prepare(frame),)


def export_paddleseg(network: "nn.Layer", size: Sequence[int], folder: pathlib.Path, onnx: bool = False) -> None:
    """Write a network of PaddleSeg with an argmax behind it, as its export does, at one size.

    Args:
        network: The network.
        size: (height, width).
        folder: Gets model.json and model.pdiparams.
        onnx: Also write model.onnx, as paddle2onnx converts it.
    """
    import paddle

    class WithArgmax(paddle.nn.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.model = network

        def forward(self, x: paddle.Tensor) -> paddle.Tensor:
            return paddle.argmax(self.model(x)[0], axis=1, dtype="int32")

    wrapper = WithArgmax()
    wrapper.eval()
    spec = paddle.static.InputSpec([1, 3, *size], "float32", "x")
    folder.mkdir(parents=True)
    with temporary_home():  # where Paddle writes the code that it traces
        paddle.jit.save(paddle.jit.to_static(wrapper, input_spec=[spec], full_graph=True), str(folder / "model"))
    if onnx:
        import paddle2onnx

        files = (str(folder / f"model.{suffix}") for suffix in ("json", "pdiparams", "onnx"))
        paddle2onnx.export(*files, opset_version=17, optimize_tool="none")
