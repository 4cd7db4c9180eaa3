"""Time the PyTorch originals of FANet and SegFormer++ on a GPU, with random weights and batch 1.

python tools/benchmark_originals.py --fanet FANet --segformerpp SegformerPlusPlus

The folders are clones of github.com/feinanshan/FANet and github.com/KieDani/SegformerPlusPlus. This needs PyTorch and,
for SegFormer++, torchvision, tomesd, addict, omegaconf, rich and yapf; nothing of Paddle.

"network" is what the originals time themselves: a random tensor on the GPU to logits at a quarter of its size. FANet's
code for it has no BatchNorm. "to labels" adds the resize to the tensor's size and the argmax, as our graphs have them.
"""

import argparse
import importlib
import itertools
import json
import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

FANET = ("18", "34")
SEGFORMER = (("b0", None), ("b0", "bsm_fast"), ("b0", "n2d_2x2"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fanet", type=pathlib.Path, help="clone of FANet")
    parser.add_argument("--segformerpp", type=pathlib.Path, help="clone of SegFormer++")
    parser.add_argument("--size", type=int, nargs=2, default=(1024, 2048), metavar=("H", "W"))
    parser.add_argument("--runs", type=int, default=200, help="runs that count, after 50 runs and 2 seconds")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--output", type=pathlib.Path, help="the rows as JSON")
    arguments = parser.parse_args()
    parts = [(arguments.fanet, "Testing/models"), (arguments.segformerpp, "model_without_OpenMMLab")]
    for folder, part in parts:
        if folder and not (folder / part).is_dir():
            parser.error(f"{folder} is no clone of the original: it holds no {part}")
    if not any(folder for folder, _ in parts):
        parser.error("give a clone with --fanet, --segformerpp or both")
    import torch

    # As in our rows of fp32; cuDNN measures its algorithms, as our graphs of fixed size have it do.
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    rows, is_gpu = [], arguments.device != "cpu"
    for name, build in networks(arguments.fanet, arguments.segformerpp):
        for precision in ("fp32", "fp16"):
            times = measure(build, precision, arguments.size, arguments.device, arguments.runs)
            rows.append({"model": name, "precision": precision, "size": list(arguments.size), **times})
            print(rows[-1], file=sys.stderr, flush=True)
            if arguments.output:
                facts = {"gpu": torch.cuda.get_device_name() if is_gpu else "cpu", "torch": torch.__version__}
                arguments.output.write_text(json.dumps({**facts, "rows": rows}, indent=1))
    print("| original | precision | network ms | to labels ms |\n| --- | --- | --- | --- |")
    for row in rows:
        print(f"| {row['model']} | {row['precision']} | {row['network_ms']:.2f} | {row['to_labels_ms']:.2f} |")


def networks(fanet: pathlib.Path | None, segformerpp: pathlib.Path | None) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Return the originals' networks of 19 classes: a name and a function that makes one."""
    if fanet:
        sys.path.insert(0, str(fanet / "Testing"))
        module = importlib.import_module("models.fanet.fanet")
        resnet = importlib.import_module("models.fanet.resnet")
        resnet.model_zoo.load_url = lambda url: {}  # its constructor downloads ImageNet's weights
        for depth in FANET:
            yield f"FANet-{depth}", lambda depth=depth: module.FANet(19, f"resnet{depth}")
    if segformerpp:
        sys.path.insert(0, str(segformerpp / "model_without_OpenMMLab"))
        module = importlib.import_module("segformer_plusplus.build_model")
        for variant, merging in SEGFORMER:
            name = f"SegFormer++ {variant}" + (f", {merging}" if merging else "")
            yield name, lambda of=(variant, merging): module.create_model(*of, out_channels=19)


def measure(build: Callable[[], Any], precision: str, size: tuple[int, int], device: str, runs: int) -> dict[str, Any]:
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
                if number >= min(50, runs) and (runs < 50 or time.perf_counter() - start >= 2):
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


if __name__ == "__main__":
    main()
