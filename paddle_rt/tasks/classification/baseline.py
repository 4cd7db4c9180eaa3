"""A linear classifier of colour histograms, to tell what a score is worth: it sees no shapes."""

import cv2
import numpy as np
from tqdm import tqdm

from paddle_rt.tasks.classification.datasets import ClassifiedImages
from paddle_rt.tasks.classification.metrics import count

_BINS = 8  # of each of the three channels
_STEPS, _RATE, _DECAY = 400, 2.0, 1e-4


def histograms(dataset: ClassifiedImages) -> np.ndarray:
    """Return the square roots of the shares of 512 colours in each image, float32 [N, 512]."""
    indices = tqdm(range(len(dataset)), desc="colour histograms", unit="img", leave=False, disable=None)
    counts = [
        cv2.calcHist([dataset.frame(index)], [0, 1, 2], None, [_BINS] * 3, [0, 256] * 3).ravel() for index in indices
    ]
    counts = np.stack(counts)
    return np.sqrt(counts / counts.sum(axis=1, keepdims=True))


def score(train_data: ClassifiedImages, val_data: ClassifiedImages) -> float:
    """Fit a softmax regression to the histograms of one data set, and return its top-1 on another.

    Full gradients with momentum and a weight decay; the classifier has no random numbers.
    """
    features, test = histograms(train_data), histograms(val_data)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-3
    features, test = ((np.append((f - mean) / deviation, np.ones((len(f), 1)), axis=1)) for f in (features, test))
    truths = np.eye(train_data.num_classes)[train_data.labels]
    weights = np.zeros((features.shape[1], train_data.num_classes))
    speed = np.zeros_like(weights)
    for _ in range(_STEPS):
        logits = features @ weights
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        gradient = features.T @ (shares - truths) / len(features) + _DECAY * weights
        speed = 0.9 * speed - _RATE / _BINS**2 * gradient
        weights += speed
    confusion, _ = count(test @ weights, val_data.labels)
    return float(np.trace(confusion) / confusion.sum())
