"""PaddleSeg's trained RTFormers: where they are, and what they score.

Source: the table of configs/rtformer/README.md in PaddleSeg 2.8.
"""

from dataclasses import dataclass

from paddle_rt.errors import unknown

ADDRESS = "https://paddleseg.bj.bcebos.com/dygraph"


@dataclass(frozen=True)
class Release:
    """Trained weights.

    Args:
        dataset: The folder of the data set below ADDRESS.
        name: The folder of the weights in it, which is also the name of the config in configs/rtformer.
        miou: The published mIoU on the validation data, of whole images at one scale.
    """

    dataset: str
    name: str
    miou: float

    @property
    def config(self) -> str:
        """The config of this project with which the weights are scored."""
        return f"configs/rtformer/{self.name}.yml"

    def address(self, mirror: str = ADDRESS) -> str:
        """Return the address of the weights at ADDRESS or a copy of it."""
        return f"{mirror.rstrip('/')}/{self.dataset}/{self.name}/model.pdparams"


RELEASES = {
    "rtformer_slim_cityscapes": Release("cityscapes", "rtformer_slim_cityscapes_1024x512_120k", 0.7631),
    "rtformer_base_cityscapes": Release("cityscapes", "rtformer_base_cityscapes_1024x512_120k", 0.7924),
    "rtformer_slim_ade20k": Release("ade20k", "rtformer_slim_ade20k_512x512_160k", 0.3667),
    "rtformer_base_ade20k": Release("ade20k", "rtformer_base_ade20k_512x512_160k", 0.4202),
}


def find_release(name: str) -> Release:
    """Return the release of a name.

    Raises:
        UserError: The name is unknown.
    """
    if name not in RELEASES:
        raise unknown("release", name, RELEASES)
    return RELEASES[name]
