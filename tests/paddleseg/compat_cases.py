"""Faulty parts of PaddleSeg, one function each, for test_compat.py to run in a process of its own.

`compat_cases.py plain|mended` prints what every case gave without or with `compat.apply()` as JSON, or with a
folder that of the one case that needs a process of its own; `two_ranks` is started by paddle.distributed.launch. A
case returns what can be compared, or raises.
"""

import contextlib
import functools
import io
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import paddle
from paddle import nn
from paddleseg import transforms
from paddleseg.core import evaluate, predict, train
from paddleseg.models import decoupled_segnet, losses, sfnet
from paddleseg.utils import metrics, train_profiler, utils

from paddle_rt import paddleseg as compat

loop = sys.modules["paddleseg.core.train"]
CLASSES, SIZE = 4, 16


class Images(paddle.io.Dataset):
    """Random images and labels; the last class occurs nowhere."""

    num_classes, ignore_index = CLASSES, 255

    def __init__(self, count: int) -> None:
        rng = np.random.RandomState(count)
        self.images = rng.rand(count, 3, SIZE, SIZE).astype("float32")
        self.labels = rng.randint(0, CLASSES - 1, (count, SIZE, SIZE))
        self.labels[:, :2] = 255

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> dict:
        return {"img": self.images[i], "label": self.labels[i][None], "trans_info": []}


class Unreadable(Images):
    def __getitem__(self, i: int) -> dict:
        raise OSError("the picture is damaged")


class Net(nn.Layer):
    def __init__(self, width: int = CLASSES) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2D(3, width, 1), nn.BatchNorm2D(width), nn.Conv2D(width, CLASSES, 1)

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        logits = self.head(self.norm(self.conv(images)))
        return [logits, logits] if self.training else [logits[:, : CLASSES - 1]]


class OwnLossNet(Net):
    """Like MaskFormer, it computes its losses by itself."""

    def loss_computation(self, logits_list: list, losses: dict, data: dict) -> list:
        return [logits_list[0].mean() * 0 + 5.0]


class Constant(nn.Layer):
    def __init__(self, value: float) -> None:
        super().__init__()
        self.value = value

    def forward(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        return logits.square().mean() * 0 + self.value


class Square(nn.Layer):
    def forward(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        return logits.square().mean()


class Diverging(Square):
    """NaN from its second value on, with gradients that stay numbers."""

    calls = 0

    def forward(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        self.calls += 1
        return super().forward(logits, labels) + (float("nan") if self.calls > 1 else 0.0)


def run(
    folder: str, model: nn.Layer | None = None, loss: nn.Layer | None = None, groups: bool = False,
    data: Images | None = None, **options
) -> nn.Layer:  # fmt: skip
    """Train a tiny net with PaddleSeg's loop, silent unless log_iters says so."""
    paddle.seed(0)
    pair = {"types": [loss or Square(), Constant(2.0)], "coef": [1, 0.5]}
    options = {"iters": 2, "batch_size": 2, "log_iters": 1000, "save_interval": 1, **options}
    with paddle.utils.unique_name.guard():  # a resumed run finds its optimizer's state by generated names
        model = model or Net()
        parameters = [{"params": model.parameters(), "weight_decay": 0.0}] if groups else model.parameters()
        optimizer = paddle.optimizer.AdamW(0.1, parameters=parameters)
        train(model, data or Images(8), optimizer=optimizer, save_dir=folder, losses=pair, **options)
    return model


def in_folder(case: Callable) -> Callable:
    @functools.wraps(case)
    def wrapped() -> object:
        with tempfile.TemporaryDirectory() as folder:
            return case(folder)

    return wrapped


def logged(folder: str, model: nn.Layer | None = None) -> dict:
    """What the loop writes to VisualDL in its first log line."""
    scalars: dict[str, float] = {}
    writer = types.SimpleNamespace(add_scalar=lambda tag, value, _: scalars.update({tag: value}), close=lambda: None)
    sys.modules["visualdl"] = types.SimpleNamespace(LogWriter=lambda _: writer)
    run(folder, model, Constant(1.5), iters=1, log_iters=1, use_vdl=True)
    return {tag: float(value) for tag, value in scalars.items() if "loss" in tag}


def train_log_own_loss(folder: str) -> dict:
    return logged(folder, OwnLossNet())


def fp16_groups(folder: str) -> float:
    plain = run(folder, groups=True).conv.weight
    return float((run(folder, groups=True, precision="fp16").conv.weight - plain).abs().max())


def to_static(folder: str) -> float:
    difference = run(folder, to_static_training=True).conv.weight - run(folder).conv.weight
    return float(difference.abs().max())


def finished_run(folder: str) -> bool:
    run(folder)
    run(folder, resume_model=f"{folder}/iter_2")
    return True


def resume_odd_name(folder: str) -> None:
    run(folder)
    os.rename(f"{folder}/iter_2", f"{folder}/last")
    run(folder, resume_model=f"{folder}/last")


def resume_best_model(folder: str) -> None:
    run(f"{folder}/a_1", iters=1)
    os.remove(f"{folder}/a_1/iter_1/model.pdopt")
    run(folder, resume_model=f"{folder}/a_1/iter_1", iters=3)


def large_batch(folder: str) -> None:
    def stop(*_: object) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(3)
    try:
        run(folder, batch_size=9)
    finally:
        signal.alarm(0)


def unreadable_image(folder: str) -> dict | str:
    """In a process of its own: the loop hangs in C++, where Python hears no alarm, so that the alarm has to end it."""
    done = subprocess.run([sys.executable, __file__, sys.argv[1], folder], capture_output=True, text=True)
    return "no end" if done.returncode == -signal.SIGALRM else json.loads(done.stdout.splitlines()[-1])


def loss_becomes_nan(folder: str) -> int:
    """How many losses a run of three iterations computes, of which all but the first are NaN."""
    loss = Diverging()
    run(folder, loss=loss, iters=3)
    return loss.calls


def counts_operations(folder: str) -> bool:
    with contextlib.redirect_stdout(io.StringIO()) as out:
        run(folder, iters=1)
    return "Total Flops" in out.getvalue()


def best_model(folder: str) -> dict:
    """Scores .5, then resumed .3, then resumed .7, then a fresh run .1: which of them changed the best models?"""
    original, history, before = loop.evaluate, [], {}
    try:
        for score, start in ((0.5, None), (0.3, "iter_1"), (0.7, "iter_2"), (0.1, None)):
            loop.evaluate = lambda *_, score=score, **__: (score, 0.9, None, None, None)
            resume = start and f"{folder}/{start}"
            iters = int(start[-1]) + 1 if start else 1
            run(folder, iters=iters, val_dataset=Images(1), use_ema=True, resume_model=resume)
            files = Path(folder).glob("*best_model/*.pdparams")
            after = {file.stem: file.read_bytes() for file in files}
            history.append({name: after[name] != before.get(name) for name in sorted(after)})
            before = after
    finally:
        loop.evaluate = original
    return {"changed": history}


def full_disk(folder: str) -> dict:
    """A file of the checkpoint cannot be written in full; is the one from before still whole?"""
    run(folder, Net(width=4096), iters=1)
    file = Path(folder, "iter_1", "model.pdparams")
    whole = file.read_bytes()
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(whole) // 2, limits[1]))
    try:
        run(folder, Net(width=4096), iters=1)
    except OSError as error:
        names = sorted(os.listdir(file.parent))
        return {"error": error.errno, "whole": file.read_bytes() == whole, "files": names}
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    raise AssertionError("the limit on file sizes had no effect")


def profile(folder: str) -> list[str]:
    options = f"batch_range=[1,2];profile_path={folder};exit_on_finished=false;sorted_key=max"
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        for _ in range(4):
            train_profiler.add_profiler_step(options)
    finally:
        sys.stdout = stdout
    return [Path(name).suffix for name in os.listdir(folder)]


def mlu() -> str:
    utils.set_device("mlu")
    return paddle.get_device()


def inputs() -> tuple[paddle.Tensor, paddle.Tensor]:
    rng = np.random.RandomState(0)
    label = rng.randint(0, CLASSES, [2, SIZE, SIZE])
    label[:, :2] = 255
    return paddle.to_tensor(rng.randn(2, CLASSES, SIZE, SIZE).astype("float32")), paddle.to_tensor(label)


def cross_entropy(**options) -> float:
    return float(losses.CrossEntropyLoss(**options)(*inputs()))


def distill(**options) -> float:
    logits, label = inputs()
    return float(losses.DistillCrossEntropyLoss(**options)(logits, logits * 2, label))


def mixed() -> list[float]:
    loss = losses.MixedLoss([losses.CrossEntropyLoss(), losses.CrossEntropyLoss(avg_non_ignore=False)], [0.5, 2.0])
    return [float(value) for value in loss(*inputs())]


def ohem_edge() -> float:
    logits, label = inputs()
    edge = paddle.to_tensor(np.random.RandomState(1).rand(2, 1, SIZE, SIZE).astype("float32"))
    return float(losses.OhemEdgeAttentionLoss(min_kept=10)([logits, edge], label))


def dual_task() -> float:
    paddle.seed(1)
    return float(losses.DualTaskLoss()(*inputs()))


def point() -> float:
    rng = np.random.RandomState(2)
    pair = [rng.randn(2, CLASSES, 10), rng.rand(2, 10, 2)]
    return float(losses.PointCrossEntropyLoss()([paddle.to_tensor(x.astype("float32")) for x in pair], inputs()[1]))


def l1() -> float:
    image = inputs()[0]
    label = paddle.to_tensor(np.random.RandomState(3).choice([0, 1, 255], image.shape))
    return float(losses.L1Loss()(image, label))


def flow(layer: Callable) -> float:
    """A flow of one column moves the picture by one column."""
    image = inputs()[0]
    step = paddle.zeros([2, 2, SIZE, SIZE])
    step[:, 0] = 2 * SIZE / (SIZE - 1)
    moved = layer.flow_warp(None, image, step, paddle.to_tensor([SIZE, SIZE]))
    return float((moved[..., :-1] - image[..., 1:]).abs().max())


def area() -> list[list[int]]:
    label = np.random.RandomState(4).randint(-1, CLASSES + 2, [2, SIZE, SIZE])
    label[:, :2] = 255
    pred = np.random.RandomState(5).randint(-1, CLASSES + 2, [2, 1, SIZE, SIZE]).astype("int32")
    both = [paddle.to_tensor(pred), paddle.to_tensor(label)]
    return [part.tolist() for ignore in (255, 1) for part in metrics.calculate_area(*both, CLASSES, ignore)]


def scores() -> list:
    """PaddleSeg's evaluation from end to end, of a net that never predicts the class that no label has."""
    paddle.seed(3)
    net = Net()
    data = Images(5)
    score = evaluate(net, data, print_detail=False)
    labels = net(paddle.to_tensor(data.images))[0].argmax(axis=1).numpy()
    return [score[0], score[1], list(map(float, score[2])), labels.tolist()]


def absent_zero() -> list:
    counts = [paddle.to_tensor(x) for x in ([2, 1, 0], [4, 1, 0], [3, 2, 0])]
    class_iou, mean = metrics.mean_iou(*counts)
    return [list(map(float, class_iou)), float(mean)]


def one_pixel(folder: str) -> list[int]:
    cv2.imwrite(f"{folder}/a.png", np.zeros([1, 1, 3], "uint8"))
    compose = transforms.Compose([transforms.Normalize()])
    predict(Net(), None, compose, [f"{folder}/a.png"], save_dir=folder)
    return list(cv2.imread(f"{folder}/pseudo_color_prediction/a.png").shape)


def crop() -> dict:
    """Image and label hold the same numbers, so that their crops must too; first with, then without a fit."""
    found = {}
    for name, ratio in (("fit", 0.99), ("no_fit", 0.01)):
        np.random.seed(0)
        label = np.random.randint(0, 9, [40, 30]).astype("uint8")
        image = np.repeat(label[..., None], 3, axis=2).astype("float32")
        data = {"img": image, "label": label, "gt_fields": ["label"], "trans_info": []}
        data = transforms.RandomPaddingCrop((24, 16), category_max_ratio=ratio)(data)
        same = np.array_equal(data["img"], np.repeat(data["label"][..., None], 3, axis=2))
        found[name] = [list(data["img"].shape), str(data["img"].dtype), same]
    return found


WEIGHT, TOP = {"weight": [1, 2, 3, 4]}, {"top_k_percent_pixels": 0.5}
ALL = {"avg_non_ignore": False}
CASES: dict[str, Callable] = {
    **{
        case.__name__: in_folder(case)
        for case in (logged, train_log_own_loss, fp16_groups, finished_run, resume_odd_name, resume_best_model)
    },
    **{case.__name__: in_folder(case) for case in (large_batch, best_model, full_disk, profile, one_pixel, to_static)},
    **{case.__name__: in_folder(case) for case in (unreadable_image, loss_becomes_nan, counts_operations)},
    **{case.__name__: case for case in (mlu, mixed, ohem_edge, dual_task, point, l1, area, scores, absent_zero, crop)},
    "ce": cross_entropy,
    "ce_weight": functools.partial(cross_entropy, **WEIGHT),
    "ce_all": functools.partial(cross_entropy, **ALL),
    "ce_weight_all": functools.partial(cross_entropy, **WEIGHT, **ALL),
    "ce_top": functools.partial(cross_entropy, **TOP),
    "ce_weight_top": functools.partial(cross_entropy, **WEIGHT, **TOP),
    "distill": distill,
    "distill_weight": functools.partial(distill, **WEIGHT),
    "ohem": lambda: float(losses.OhemCrossEntropyLoss(min_kept=10)(*inputs())),
    "relax": lambda: float(losses.RelaxBoundaryLoss()(*inputs())),
    "rmi": lambda: float(losses.RMILoss(num_classes=CLASSES)(*inputs())),
    "sfnet": lambda: flow(sfnet.AlignedModule),
    "decoupled_segnet": lambda: flow(decoupled_segnet.SqueezeBodyEdge),
}


def outcome(case: Callable) -> dict:
    try:
        return {"value": case()}
    except Exception as error:  # noqa: BLE001  whatever PaddleSeg raises is the outcome
        return {"error": type(error).__name__, "message": str(error)}


def two_ranks(folder: str) -> None:
    """Statistics of both ranks without and with the patch, as the evaluation and the saved file have them."""
    seen, rank = [], paddle.distributed.ParallelEnv().rank
    loop.evaluate = lambda model, *_, **__: (seen.append(model.norm._mean.tolist()), (0.5, 0.5, 0, 0, 0))[1]
    report: dict[str, object] = {}
    for name in ("plain", "mended"):
        if name == "mended":
            compat.apply()
        seen.clear()
        run(f"{folder}/{name}", iters=1, use_ema=True, val_dataset=Images(1))
        model = run(f"{folder}/{name}_no_eval", iters=1)
        report[name] = {"evaluated": list(seen), "after": model.norm._variance.tolist()}
    report["scores"] = scores()
    model = Net()
    model.norm._mean.set_value(paddle.full([CLASSES], 1.0 + rank))
    model.norm._variance.set_value(paddle.full([CLASSES], 10.0 * (1 + rank)))
    compat.sync_batch_norm_buffers(model)
    report["average"] = [model.norm._mean.tolist()[0], model.norm._variance.tolist()[0]]
    for kind in ("", "ema_"):
        file = f"{folder}/mended/iter_1/{kind}model.pdparams"
        report[f"saved_{kind}model"] = paddle.load(file)["norm._mean"].tolist() if rank == 0 else []
    Path(folder, f"rank_{rank}.json").write_text(json.dumps(report))


def main(mode: str, folder: str = "") -> None:
    time.sleep = lambda _: None  # the loop rests for a second after each run
    paddle.set_device("cpu")
    if mode == "two_ranks":
        two_ranks(folder)
        return
    if folder:
        if mode == "mended":
            compat.apply()
        signal.alarm(5)
        print(json.dumps(outcome(lambda: run(folder, data=Unreadable(8)))))
        return
    report: dict[str, object] = {"applied": compat.apply(), "again": compat.apply()} if mode == "mended" else {}
    report.update({name: outcome(case) for name, case in CASES.items()})
    if mode == "plain":
        # As if PaddleSeg had been mended here and there before it came to us.
        metrics.calculate_area = compat.evaluation.calculate_area
        losses.CrossEntropyLoss._post_process_loss = lambda *_: 0.0
        losses.L1Loss.forward = functools.wraps(losses.L1Loss.forward)(lambda *_: 0.0)
        report["applied_to_mended"] = compat.apply(absent_class="zero")
    print(json.dumps(report))


if __name__ == "__main__":
    main(*sys.argv[1:])
