"""PaddleSeg's network and ours side by side, with the same weights."""

import os
import statistics
import time
from dataclasses import dataclass

import numpy as np
import paddle
from tqdm import tqdm

from paddle_rt.checkpoint import load
from paddle_rt.errors import UserError
from paddle_rt.weights import find_weights

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Comparison:
    """What differs between two networks.

    Args:
        relative_error: Largest ||ours - theirs|| / ||theirs|| of the logits over the images.
        largest_difference: Largest |ours - theirs| of a logit.
        label_agreement: Share of pixels with the same label.
        parameters: How many numbers each network learns (PaddleSeg's, ours).
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


def compare(
    ours: paddle.nn.Layer, theirs: paddle.nn.Layer, checkpoint: str | os.PathLike | None, images: list[np.ndarray]
) -> Comparison:
    """Load one set of weights into both networks, run both on every image, in turns, and measure what differs.

    Args:
        ours: Our network.
        theirs: PaddleSeg's, with the same names of parameters.
        checkpoint: A path, as `read_state_dict` takes it; None for the weights of `theirs`.
        images: Batches [B, C, H, W], float32, as the network takes them.

    Raises:
        UserError: The weights do not fit both networks to the last name.
    """
    named = checkpoint and find_weights(checkpoint, type(ours).__name__)
    weights = named or {name: value.numpy() for name, value in theirs.state_dict().items()}
    for network in (theirs, ours):
        load(network, weights)
        network.eval()
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
        raise UserError("the networks give numbers that are not finite: the checkpoint is damaged")
    return Comparison(
        relative_error=max(errors),
        largest_difference=max(differences),
        label_agreement=statistics.mean(agreements),
        parameters=tuple(sum(p.size for p in n.parameters() if not p.stop_gradient) for n in (theirs, ours)),
        milliseconds=tuple(1e3 * statistics.median(column) for column in zip(*times, strict=True)),
        speedup=statistics.median(slow / fast for slow, fast in times),
        images=len(images),
    )


def _timed(network: paddle.nn.Layer, batch: paddle.Tensor) -> tuple[np.ndarray, float]:
    start = time.perf_counter()
    logits = network(batch)[0].numpy()
    return logits, time.perf_counter() - start
