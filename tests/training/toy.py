"""A task of a user: the brightness of small images, learned by a network of three layers."""

import numpy as np
import paddle

from paddle_rt.models.base import Network
from paddle_rt.tasks.base import Scores, Task


class BrightnessData(paddle.io.Dataset):
    """Noise images [3, 8, 8] and their mean, with a random factor of `numpy.random` on both while training."""

    def __init__(self, number: int, first: int = 0, augment: bool = True) -> None:
        self.number, self.first, self.augment = number, first, augment

    def __len__(self) -> int:
        return self.number

    def __getitem__(self, index: int) -> dict:
        image = np.random.RandomState(self.first + index).rand(3, 8, 8)
        if self.augment:
            image = image * np.random.uniform(0.5, 1.5)
        dtype = paddle.get_default_dtype()
        return {"img": image.astype(dtype), "target": image.mean(keepdims=True).reshape(1).astype(dtype)}


class BrightnessNetwork(Network):
    """A convolution with BatchNorm and dropout, and a linear layer: [B, 3, 8, 8] to [B, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = paddle.nn.Conv2D(3, 8, 3, padding=1)
        self.norm = paddle.nn.BatchNorm2D(8)
        self.drop = paddle.nn.Dropout(0.2)
        self.head = paddle.nn.Linear(8, 1)

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        features = paddle.nn.functional.relu(self.norm(self.conv(images)))
        return [self.head(self.drop(features.mean(axis=[2, 3])))]


class BrightnessTask(Task):
    """Squared error; the score is 1 / (1 + mean absolute error)."""

    name = "brightness"
    config_keys = ("train_dataset", "val_dataset")

    @classmethod
    def check(cls, config):
        pass

    def build_data(self, split):
        return BrightnessData(**self.config[f"{split}_dataset"])

    def losses(self, outputs, batch):
        return [((outputs[0] - batch["target"]) ** 2).mean()]

    def evaluate(self, network, dataset, num_workers=0):
        network.eval()
        with paddle.no_grad():
            errors = [
                float(abs(network(self._one(s))[0] - float(s["target"][0])).mean())
                for s in (dataset[i] for i in range(len(dataset)))
            ]
        value = 1 / (1 + float(np.mean(errors)))
        return Scores({"Closeness": value}, "Closeness", f"#Images: {len(dataset)} Closeness: {value:.4f}")

    def predict(self, network, image_path, save_dir):
        raise NotImplementedError

    @staticmethod
    def _one(sample):
        return paddle.to_tensor(sample["img"]).unsqueeze(0)
