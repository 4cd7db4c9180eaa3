"""The PyTorch originals of FANet and SegFormer++, timed on a GPU with random weights and batch 1.

"network" is what the originals time themselves: a random tensor on the GPU to logits at a quarter of its size. FANet's
code for it has no BatchNorm. "to labels" adds the resize to the tensor's size and the argmax, as our graphs have them.
"""

import importlib
import itertools
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from paddle_rt.errors import UserError

FANET = ("18", "34")
SEGFORMER = (("b0", None), ("b0", "bsm_fast"), ("b0", "n2d_2x2"))
PARTS = {"fanet": "Testing", "segformerpp": "model_without_OpenMMLab"}  # of the clones
_WARM_UP = 50  # runs


def run(clones: dict[str, pathlib.Path], size: Sequence[int], device: str, runs: int) -> Iterator[dict[str, Any]]:
    """Time every original in fp32 and fp16.

    Args:
        clones: Folders of the clones by the names of `PARTS`.
        size: Height and width of the tensor.
        device: As PyTorch names it.
        runs: Runs that count.

    Returns:
        A row for each network and precision: model, precision, size, gpu, torch, network_ms and to_labels_ms.

    Raises:
        UserError: A folder is no clone, or the device is missing.
    """
    for name, folder in clones.items():
        if not (folder / PARTS[name]).is_dir():
            raise UserError(f"--{name}: {folder} is no clone of the original: it has no folder {PARTS[name]}")
    import torch

    if device != "cpu" and not torch.cuda.is_available():
        raise UserError(f"PyTorch finds no GPU for --device {device}; --device cpu tries the command")
    # As in our rows of fp32; cuDNN measures its algorithms, as our graphs of fixed size have it do.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    facts = {"gpu": "cpu" if device == "cpu" else torch.cuda.get_device_name(), "torch": torch.__version__}
    for name, build in networks(clones.get("fanet"), clones.get("segformerpp")):
        for precision in ("fp32", "fp16"):
            times = measure(build, precision, size, device, runs)
            yield {"model": name, "precision": precision, "size": list(size), **facts, **times}


def networks(fanet: pathlib.Path | None, segformerpp: pathlib.Path | None) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Return the originals' networks of 19 classes: a name and a function that makes one."""
    if fanet:
        sys.path.insert(0, str(fanet / PARTS["fanet"]))
        module = importlib.import_module("models.fanet.fanet")
        resnet = importlib.import_module("models.fanet.resnet")
        resnet.model_zoo.load_url = lambda url: {}  # its constructor downloads ImageNet's weights
        for depth in FANET:
            yield f"FANet-{depth}", lambda depth=depth: module.FANet(19, f"resnet{depth}")
    if segformerpp:
        sys.path.insert(0, str(segformerpp / PARTS["segformerpp"]))
        module = importlib.import_module("segformer_plusplus.build_model")
        for variant, merging in SEGFORMER:
            name = f"SegFormer++ {variant}" + (f", {merging}" if merging else "")
            yield name, lambda of=(variant, merging): module.create_model(*of, out_channels=19)


def measure(build: Callable[[], Any], precision: str, size: Sequence[int], device: str, runs: int) -> dict[str, Any]:
    """Return the median milliseconds of the network alone and to labels; the wall clock waits for the GPU."""
    import torch

    torch.manual_seed(0)
    dtype = torch.float16 if precision == "fp16" else torch.float32
    network = build().to(device, dtype).eval()
    image = torch.rand(1, 3, *size, device=device, dtype=dtype)
    wait = torch.cuda.synchronize if device != "cpu" else lambda: None

    def to_labels() -> Any:
        logits = torch.nn.functional.interpolate(network(image), tuple(size), mode="bilinear")
        return logits.argmax(1).to(torch.uint8)

    times = {}
    with torch.no_grad():
        for name, call in (("network", lambda: network(image)), ("to_labels", to_labels)):
            start = time.perf_counter()
            for number in itertools.count():
                if number >= min(_WARM_UP, runs) and (runs < _WARM_UP or time.perf_counter() - start >= 2):
                    break
                call()
                wait()
            seconds = []
            for _ in range(runs):
                start = time.perf_counter()
                call()
                wait()
                seconds.append(time.perf_counter() - start)
            times[f"{name}_ms"] = 1e3 * statistics.median(seconds)
    return times
