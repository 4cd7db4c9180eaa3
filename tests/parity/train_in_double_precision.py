"""Train a config in double precision: python -m tests.parity.train_in_double_precision CONFIG FOLDER LOOP ITERS"""

import sys

import paddle

from paddle_rt.config import load_config
from paddle_rt.tasks.segmentation.task import SegmentationTask
from paddle_rt.training import TrainOptions


def double(dataset: paddle.io.Dataset) -> paddle.io.Dataset:
    """Make a data set give images of Paddle's default type."""
    transforms = dataset.transforms

    def transform(data: dict) -> dict:
        data = transforms(data)
        return {**data, "img": data["img"].astype(paddle.get_default_dtype())}

    dataset.transforms = transform
    return dataset


if __name__ == "__main__":
    path, folder, loop, iters = sys.argv[1:]
    if loop == "paddleseg":
        from paddle_rt.paddleseg.loop import train
    else:
        from paddle_rt.training import train
    original = SegmentationTask.build_data
    SegmentationTask.build_data = lambda self, split: double(original(self, split))
    paddle.set_default_dtype("float64")
    options = TrainOptions(folder, "cpu", seed=1, use_ema=True, log_iters=7, save_interval=int(iters))
    train(load_config(path), options)
