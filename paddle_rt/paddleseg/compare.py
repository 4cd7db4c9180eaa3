"""PaddleSeg's model and ours side by side with the same weights."""

import functools
import inspect
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import paddle
from paddleseg.cvlibs import manager
from paddleseg.models.backbones.mix_transformer import MixVisionTransformer
from tqdm import tqdm

from paddle_rt.checkpoint import load
from paddle_rt.errors import UserError

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Comparison:
    """What differs between two models.

    Args:
        relative_error: Largest ||ours - theirs|| / ||theirs|| of the logits over the images.
        largest_difference: Largest |ours - theirs| of a logit.
        label_agreement: Share of pixels with the same label.
        parameters: Numbers that each model learns (PaddleSeg's, ours).
        milliseconds: Median time of a forward pass (PaddleSeg's, ours), images taken in turns.
        speedup: Median over the images of PaddleSeg's time divided by ours.
        images: How many images were compared.
    """

    relative_error: float
    largest_difference: float
    label_agreement: float
    parameters: tuple[int, int]
    milliseconds: tuple[float, float]
    speedup: float
    images: int

    @property
    def equal(self) -> bool:
        """Whether the logits are the same to float32 rounding."""
        return self.relative_error <= TOLERANCE


def paddleseg_model(model_cfg: dict, num_classes: int) -> paddle.nn.Layer:
    """PaddleSeg's own model for the `model` section of a config.

    Raises:
        UserError: PaddleSeg has no model of this type, or it does not know an argument.
    """
    arguments = {key: value for key, value in model_cfg.items() if key not in ("type", "pretrained", "bn_momentum")}
    if model_cfg["type"] == "SegFormerPlusPlus":
        ours = inspect.signature(manager.MODELS.components_dict["SegFormerPlusPlus"]).bind(num_classes, **arguments)
        ours.apply_defaults()
        return _paddleseg_segformer(**ours.arguments)
    name = f"PaddleSeg{model_cfg['type']}"
    if name not in manager.MODELS.components_dict:
        raise UserError(f"nothing to compare with: PaddleSeg and this project do not both have a {model_cfg['type']!r}")
    return manager.MODELS.components_dict[name](**{"num_classes": num_classes, **arguments})


def _paddleseg_segformer(
    num_classes: int, embed_dim: int, depths: Sequence[int], num_heads: Sequence[int], head: str,
    head_channels: int | None, token_merging: object, drop_path_rate: float, in_channels: int, **_: object
) -> paddle.nn.Layer:  # fmt: skip
    """PaddleSeg's SegFormer with the arguments of ours."""
    if head != "mlp" or token_merging is not None:
        raise UserError(
            f"nothing to compare with: PaddleSeg's SegFormer has head 'mlp' and merges no tokens, got head {head!r}, "
            f"token_merging {token_merging!r}"
        )
    backbone = MixVisionTransformer(
        patch_size=4, in_channels=in_channels, embed_dims=[embed_dim * heads for heads in num_heads],
        num_heads=list(num_heads), qkv_bias=True, norm_layer=functools.partial(paddle.nn.LayerNorm, epsilon=1e-6),
        depths=list(depths), drop_path_rate=drop_path_rate,
    )  # fmt: skip
    channels = head_channels or (768 if sum(depths) > 8 else 256)
    return manager.MODELS.components_dict["SegFormer"](num_classes, backbone, channels)


def compare(
    ours: paddle.nn.Layer, theirs: paddle.nn.Layer, checkpoint: str | os.PathLike | None, images: list[np.ndarray]
) -> Comparison:
    """Load one set of weights into both models, run both on every image, in turns, and report what differs.

    Args:
        ours, theirs: Models with the same names.
        checkpoint: A `.pdparams` file, or a folder with `model.pdparams`; None for the weights of `theirs`.
        images: Batches [B, C, H, W], float32, as the network takes them.

    Raises:
        UserError: The weights do not fit both models to the last name.
    """
    weights = checkpoint or {name: value.numpy() for name, value in theirs.state_dict().items()}
    for model in (theirs, ours):
        load(model, weights)
        model.eval()
    errors, differences, agreements, times = [], [], [], []
    with paddle.no_grad():
        for image in tqdm(images, desc="compare", unit="img", disable=None, leave=False):
            batch = paddle.to_tensor(image)
            theirs(batch), ours(batch)  # the first pass of a size also allocates
            (reference, slow), (result, fast) = _timed(theirs, batch), _timed(ours, batch)
            differences.append(float(np.abs(result - reference).max()))
            errors.append(float(np.linalg.norm(result - reference) / np.linalg.norm(reference)))
            agreements.append(float((result.argmax(1) == reference.argmax(1)).mean()))
            times.append((slow, fast))
    if not np.isfinite(errors).all():
        raise UserError("the models give numbers that are not finite: the checkpoint is damaged")
    return Comparison(
        relative_error=max(errors),
        largest_difference=max(differences),
        label_agreement=statistics.mean(agreements),
        parameters=tuple(sum(p.size for p in m.parameters() if not p.stop_gradient) for m in (theirs, ours)),
        milliseconds=tuple(1e3 * statistics.median(column) for column in zip(*times, strict=True)),
        speedup=statistics.median(slow / fast for slow, fast in times),
        images=len(images),
    )


def _timed(model: paddle.nn.Layer, batch: paddle.Tensor) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    logits = model(batch)[0].numpy()
    return logits, time.perf_counter() - start
