"""The losses that a segmentation config may name, with PaddleSeg's names, arguments, formulas and numbers.

Each is called with logits [B, C, H, W] in single or double precision and labels [B, H, W] (int64), and returns a
scalar. None of them writes to the labels. A batch in which no pixel is labelled has gradients of 0 and, but for a
DiceLoss with a smooth of 0, the loss 0. Where PaddleSeg 2.8.0 counts ignored pixels or fails, the loss is corrected,
and its docstring says how.
"""

from collections.abc import Callable, Sequence

import paddle
import paddle.nn.functional as F

from paddle_rt.errors import UserError
from paddle_rt.models.cpu_layers import cross_entropy, takes_compiled

Loss = Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]


def _is_labelled(labels: paddle.Tensor, ignore_index: int, dtype: paddle.dtype) -> paddle.Tensor:
    """Return 1 where a pixel counts and 0 where it is ignored."""
    return (labels != ignore_index).astype(dtype)


def _without_ignored(labels: paddle.Tensor, ignore_index: int) -> paddle.Tensor:
    """Return labels that can be used as indices: class 0 stands where a pixel is ignored."""
    return paddle.where(labels != ignore_index, labels, paddle.zeros_like(labels))


def _masked_mean(loss: paddle.Tensor, mask: paddle.Tensor, epsilon: float) -> paddle.Tensor:
    return paddle.mean(loss * mask) / (paddle.mean(mask) + epsilon)


def _class_weights(weight: Sequence[float] | None, logits: paddle.Tensor) -> paddle.Tensor | None:
    """Return the weights of the classes as a tensor.

    Raises:
        UserError: There is not one weight for each class.
    """
    if weight is None:
        return None
    if len(weight) != logits.shape[1]:
        raise UserError(f"the loss has {len(weight)} class weights, but the network has {logits.shape[1]} classes")
    return paddle.to_tensor(weight, dtype=logits.dtype)


def _cross_entropy(
    logits: paddle.Tensor, labels: paddle.Tensor, ignore_index: int, weight: paddle.Tensor | None = None
) -> paddle.Tensor:
    """Cross-entropy of each pixel, 0 where it is ignored. Shape: [B, C, H, W] and [B, H, W] to [B, H, W]."""
    if takes_compiled(logits):
        loss = cross_entropy(logits, labels, ignore_index)
        if weight is None:
            return loss
        return loss * paddle.gather(weight, _without_ignored(labels, ignore_index).flatten()).reshape(loss.shape)
    logits = logits.transpose([0, 2, 3, 1])
    loss = F.cross_entropy(logits, labels, weight=weight, ignore_index=ignore_index, reduction="none")
    return loss.reshape(labels.shape)


def _focus(loss: paddle.Tensor, error: paddle.Tensor, gamma: float) -> paddle.Tensor:
    """Reduce the loss of pixels by a power of their error, which is one minus the probability of the true class."""
    # A power below 1 has no finite gradient at 0, which is the error of an ignored pixel.
    return error.clip(min=1e-12) ** gamma * loss


class CrossEntropyLoss:
    """Mean cross-entropy.

    Corrected against PaddleSeg 2.8.0, which fails on Paddle 3 in nearly all its forms: with `avg_non_ignore` False the
    sum is divided by the number of all pixels, with class weights or without, as in PaddleSeg 2.9. With
    `top_k_percent_pixels`, ignored pixels that are among the hardest, because too few others are labelled, do not count
    in the mean.

    Args:
        weight: Weight of each class, or None.
        ignore_index: Label of pixels that do not count.
        top_k_percent_pixels: Share of the batch's pixels that counts, those with the highest loss; 1.0 counts all.
        avg_non_ignore: Divide by the number (or weight) of labelled pixels, not of all pixels.
    """

    def __init__(
        self,
        weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        top_k_percent_pixels: float = 1.0,
        avg_non_ignore: bool = True,
    ) -> None:
        self.weight, self.ignore_index = weight, ignore_index
        self.top_k_percent_pixels, self.avg_non_ignore = top_k_percent_pixels, avg_non_ignore

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        weight, mask = _class_weights(self.weight, logits), _is_labelled(labels, self.ignore_index, logits.dtype)
        loss = _cross_entropy(logits, labels, self.ignore_index, weight) * mask
        shares = mask if self.avg_non_ignore else paddle.ones_like(mask)
        if weight is not None and self.avg_non_ignore:
            index = _without_ignored(labels, self.ignore_index).flatten()
            shares = mask * paddle.gather(weight, index).reshape(mask.shape)
        if self.top_k_percent_pixels == 1.0:
            return paddle.mean(loss) / (paddle.mean(shares) + 1e-8)
        hardest, index = paddle.topk(loss.flatten(), max(int(self.top_k_percent_pixels * loss.size), 1))
        return paddle.mean(hardest) / (paddle.mean(paddle.gather(shares.flatten(), index)) + 1e-8)


class OhemCrossEntropyLoss:
    """Mean cross-entropy of the hard pixels (online hard example mining).

    A pixel is hard where its true class has a probability below `thresh`, or below that of the pixel number `min_kept`
    in the order of rising probability if that is higher. With `min_kept` 0, or no more labelled pixels than
    `min_kept`, all count.

    Args:
        thresh: Probability.
        min_kept: Number of pixels of the batch.
        ignore_index: Label of pixels that do not count.
    """

    def __init__(self, thresh: float = 0.7, min_kept: int = 10000, ignore_index: int = 255) -> None:
        self.thresh, self.min_kept, self.ignore_index = thresh, min_kept, ignore_index

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        labels = labels.reshape([logits.shape[0], 1, *logits.shape[2:]])
        kept = self._hard_pixels(logits, labels)
        labels = paddle.where(kept, labels, paddle.full_like(labels, self.ignore_index))
        loss = _cross_entropy(logits, labels.squeeze(1), self.ignore_index).unsqueeze(1)
        return _masked_mean(loss, kept.astype(loss.dtype), 1e-5)

    @paddle.no_grad()
    def _hard_pixels(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        valid = labels != self.ignore_index
        if not 0 < self.min_kept < int(valid.sum()):
            return valid
        index = _without_ignored(labels, self.ignore_index)
        probability = paddle.take_along_axis(F.softmax(logits, axis=1), index, axis=1)
        probability = probability + (~valid).astype(probability.dtype)  # ignored pixels come last
        threshold = max(self.thresh, float(paddle.sort(probability.flatten())[self.min_kept - 1]))
        return valid & (probability < paddle.to_tensor(threshold, dtype=probability.dtype))


class DiceLoss:
    """One minus the Dice coefficient of each class, averaged over classes and images.

    Corrected against PaddleSeg 2.8.0, whose loss writes class 0 over the ignored pixels of the batch's labels: every
    loss computed after it, its own for the next head included, then counts them, and in MixedLoss the backward pass of
    another loss fails.

    Args:
        weight: Weight of each class, or None.
        ignore_index: Label of pixels that do not count.
        smooth: Added to numerator and denominator.
    """

    def __init__(self, weight: Sequence[float] | None = None, ignore_index: int = 255, smooth: float = 1.0) -> None:
        self.weight, self.ignore_index, self.smooth = weight, ignore_index, smooth

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        classes, weight = logits.shape[1], _class_weights(self.weight, logits)
        mask = _is_labelled(labels, self.ignore_index, logits.dtype).unsqueeze(1)
        truth = F.one_hot(_without_ignored(labels, self.ignore_index), classes).astype(logits.dtype)
        truth = (truth.transpose([0, 3, 1, 2]) * mask).flatten(2)  # [B, C, H W]
        guess = (F.softmax(logits, axis=1) * mask).flatten(2)
        both, either = paddle.sum(guess * truth, axis=2), paddle.sum(guess + truth, axis=2)
        loss = (1 - (2 * both + self.smooth) / (either + self.smooth + 1e-8)).mean(axis=0)  # [C]
        return (loss if weight is None else loss * weight).sum() / classes


class LovaszSoftmaxLoss:
    """Lovász-Softmax loss: a convex surrogate of one minus the IoU of each class, over the whole batch.

    Corrected against PaddleSeg 2.8.0, which returns no scalar for a batch without a labelled pixel.

    Args:
        ignore_index: Label of pixels that do not count.
        classes: "present" averages over the classes in the labels, "all" over all, a list over those in it.

    Source: Berman, Triki, Blaschko, "The Lovász-Softmax loss", 2018.
    """

    def __init__(self, ignore_index: int = 255, classes: str | Sequence[int] = "present") -> None:
        if not classes or isinstance(classes, str) and classes not in ("present", "all"):
            raise UserError(f"LovaszSoftmaxLoss: classes is {classes!r}; give 'present', 'all' or a list of classes")
        self.ignore_index, self.classes = ignore_index, classes

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        numbers = range(logits.shape[1]) if isinstance(self.classes, str) else self.classes
        if max(numbers) >= logits.shape[1]:
            raise UserError(f"LovaszSoftmaxLoss: classes is {self.classes}, but there are {logits.shape[1]} classes")
        index = paddle.nonzero(labels.flatten() != self.ignore_index).flatten()
        if index.size == 0:
            return logits.sum() * 0.0
        probability = F.softmax(logits, axis=1).transpose([0, 2, 3, 1]).reshape([-1, logits.shape[1]])
        labels, probability = paddle.gather(labels.flatten(), index), paddle.gather(probability, index)  # [P], [P, C]
        losses = []
        for number in numbers:
            truth = (labels == number).astype(probability.dtype)
            if self.classes != "present" or truth.any():
                errors = paddle.abs(truth - probability[:, number])
                losses.append(_lovasz(errors, errors, truth))
        return paddle.stack(losses).mean()


class LovaszHingeLoss:
    """Lovász hinge loss of two classes, over the whole batch.

    Corrected against PaddleSeg 2.8.0, which returns no scalar for a batch without a labelled pixel.

    Args:
        ignore_index: Label of pixels that do not count.

    Shape: logits [B, 1, H, W] of class 1, or [B, 2, H, W], from which the logit is computed as in PaddleSeg,
        log(p + e / (1 - p + e)) with the probability p of class 1 and e = 1e-9; labels 0 and 1.

    Source: Berman, Triki, Blaschko, "The Lovász-Softmax loss", 2018.
    """

    def __init__(self, ignore_index: int = 255) -> None:
        self.ignore_index = ignore_index

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        if logits.shape[1] > 2:
            raise UserError(f"LovaszHingeLoss takes 2 classes, got {logits.shape[1]}; LovaszSoftmaxLoss takes more")
        index = paddle.nonzero(labels.flatten() != self.ignore_index).flatten()
        if index.size == 0:
            return logits.sum() * 0.0
        if logits.shape[1] == 2:
            probability = F.softmax(logits, axis=1)[:, 1]
            logits = paddle.log(probability + 1e-9 / (1 - probability + 1e-9))
        truth = paddle.gather(labels.flatten(), index).astype(logits.dtype)
        errors = 1.0 - paddle.gather(logits.flatten(), index) * (2.0 * truth - 1.0)
        return _lovasz(errors, F.relu(errors), truth)


def _lovasz(errors: paddle.Tensor, values: paddle.Tensor, truth: paddle.Tensor) -> paddle.Tensor:
    """Sum of values times the gradient of the Lovász extension of the Jaccard loss at sorted errors (algorithm 1)."""
    order = paddle.argsort(errors.detach(), descending=True)
    truth = paddle.gather(truth, order)  # [P]
    total = truth.sum()
    intersection, union = total - truth.cumsum(), total + (1 - truth).cumsum()
    jaccard = 1.0 - intersection / union
    gradient = paddle.concat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return paddle.sum(paddle.gather(values, order) * gradient)


class BCELoss:
    """Mean binary cross-entropy of logits, each class by itself.

    Corrected against PaddleSeg 2.8.0, whose dynamic weights count ignored pixels as pixels of class 0. In training,
    pixels that are not labelled do not count as edges or as their absence either, and a MixedLoss may learn edges.

    Args:
        weight: None, or "dynamic" to weigh positive and negative pixels by each other's share of the labelled pixels.
        pos_weight: Weight of the positive pixels, None, or "dynamic".
        ignore_index: Label of pixels that do not count.
        edge_label: Learn the edges of the classes, which a data set with `edge: True` gives, instead of the classes.
    """

    def __init__(
        self,
        weight: str | None = None,
        pos_weight: float | str | None = None,
        ignore_index: int = 255,
        edge_label: bool = False,
    ) -> None:
        if weight not in (None, "dynamic"):
            raise UserError(f"BCELoss: weight is {weight!r}; give 'dynamic', or leave it out")
        if isinstance(pos_weight, str) and pos_weight != "dynamic":
            raise UserError(f"BCELoss: pos_weight is {pos_weight!r}; give a number or 'dynamic'")
        self.weight, self.pos_weight, self.ignore_index, self.edge_label = weight, pos_weight, ignore_index, edge_label

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        labels = labels.unsqueeze(1) if labels.ndim < logits.ndim else labels
        mask = _is_labelled(labels, self.ignore_index, logits.dtype)
        labels = _without_ignored(labels, self.ignore_index)
        if labels.shape[1] != logits.shape[1]:
            labels = F.one_hot(labels.squeeze(1), logits.shape[1]).transpose([0, 3, 1, 2])
        truth = labels.astype(logits.dtype)
        positive, negative = _dynamic_weights(truth, mask)
        weight = positive * truth + negative * (1 - truth) if self.weight == "dynamic" else None
        pos_weight = positive if self.pos_weight == "dynamic" else self.pos_weight
        if isinstance(pos_weight, int | float):
            pos_weight = paddle.to_tensor(pos_weight, dtype=logits.dtype)
        settings = {"weight": weight, "pos_weight": pos_weight, "reduction": "none"}
        return _masked_mean(F.binary_cross_entropy_with_logits(logits, truth, **settings), mask, 1e-10)


def _dynamic_weights(truth: paddle.Tensor, mask: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    positive, negative = (truth * mask).sum(), ((1 - truth) * mask).sum()
    total = positive + negative + 1e-10
    return 2 * negative / total, 2 * positive / total


class FocalLoss:
    """Focal loss of two classes, each by itself.

    Args:
        alpha: Weight of class 1; that of class 0 is 1 - alpha.
        gamma: How much the loss of well-classified pixels is reduced.
        ignore_index: Label of pixels that do not count.

    Source: Lin et al., "Focal loss for dense object detection", 2017.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, ignore_index: int = 255) -> None:
        self.alpha, self.gamma, self.ignore_index = alpha, gamma, ignore_index

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        if logits.shape[1] != 2:
            raise UserError(f"FocalLoss takes 2 classes, got {logits.shape[1]}; MultiClassFocalLoss takes more")
        mask = _is_labelled(labels, self.ignore_index, logits.dtype).unsqueeze(3)
        truth = F.one_hot(_without_ignored(labels, self.ignore_index), 2).astype(logits.dtype)
        logits = logits.transpose([0, 2, 3, 1])
        loss = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        probability = F.sigmoid(logits)
        error = 1 - (probability * truth + (1 - probability) * (1 - truth))
        loss = _focus((self.alpha * truth + (1 - self.alpha) * (1 - truth)) * loss, error, self.gamma)
        return paddle.sum(loss * mask) / (paddle.sum(mask) * 2 + 1e-10)


class MultiClassFocalLoss:
    """Mean cross-entropy, reduced where the true class has a high probability.

    Args:
        num_class: Number of classes; PaddleSeg's argument, which nothing depends on.
        alpha: Factor of the loss.
        gamma: How much the loss of well-classified pixels is reduced.
        ignore_index: Label of pixels that do not count.

    Source: Lin et al., "Focal loss for dense object detection", 2017.
    """

    def __init__(self, num_class: int, alpha: float = 1.0, gamma: float = 2.0, ignore_index: int = 255) -> None:
        self.num_class, self.alpha, self.gamma, self.ignore_index = num_class, alpha, gamma, ignore_index

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        loss = _cross_entropy(logits, labels, self.ignore_index)
        loss = self.alpha * _focus(loss, 1 - paddle.exp(-loss), self.gamma)
        return _masked_mean(loss, _is_labelled(labels, self.ignore_index, logits.dtype), 1e-10)


class BootstrappedCrossEntropyLoss:
    """Mean cross-entropy of each image's pixels with the highest loss, averaged over the images.

    These are all pixels with a loss above `loss_th`, or the `min_K` highest if they are fewer. Corrected against
    PaddleSeg 2.8.0, which fails for images of no more than `min_K` pixels, and where fewer than `min_K` are labelled
    counts ignored pixels too, with a loss of 0.

    Args:
        min_K: Least number of pixels.
        loss_th: Loss.
        weight: Weight of each class, or None.
        ignore_index: Label of pixels that do not count.
    """

    def __init__(
        self,
        min_K: int,  # noqa: N803  PaddleSeg's name
        loss_th: float,
        weight: Sequence[float] | None = None,
        ignore_index: int = 255,
    ) -> None:
        self.min_kept, self.threshold, self.weight, self.ignore_index = min_K, loss_th, weight, ignore_index

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        losses = _cross_entropy(logits, labels, self.ignore_index, _class_weights(self.weight, logits))
        labelled = (labels != self.ignore_index).sum(axis=[1, 2]).tolist()
        total = losses.sum() * 0.0
        for loss, most in zip(losses, labelled, strict=True):
            loss = paddle.sort(loss.flatten(), descending=True)  # ignored pixels, whose loss is 0, come last
            above = int((loss > self.threshold).sum())
            kept = min(max(above, self.min_kept), most)
            if kept > 0:
                total = total + loss[:kept].mean()
        return total / logits.shape[0]


class MixedLoss:
    """Several losses of one output; the loop adds them up and logs each.

    Args:
        losses: Losses of this module.
        coef: The weight of each.
    """

    def __init__(self, losses: list[Loss], coef: list[float]) -> None:
        if not isinstance(losses, list) or not isinstance(coef, list) or len(losses) != len(coef):
            raise UserError(f"MixedLoss takes a list of losses and as many coef, got {losses!r} and {coef!r}")
        if any(isinstance(loss, MixedLoss) for loss in losses):
            raise UserError("MixedLoss: a loss of it is a MixedLoss; give the losses of both in one list")
        self.losses, self.coef = losses, coef

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> list[paddle.Tensor]:
        return [loss(logits, labels) * coef for loss, coef in zip(self.losses, self.coef, strict=True)]


LOSSES = {
    loss.__name__: loss
    for loss in (
        BCELoss,
        BootstrappedCrossEntropyLoss,
        CrossEntropyLoss,
        DiceLoss,
        FocalLoss,
        LovaszHingeLoss,
        LovaszSoftmaxLoss,
        MixedLoss,
        MultiClassFocalLoss,
        OhemCrossEntropyLoss,
    )
}
