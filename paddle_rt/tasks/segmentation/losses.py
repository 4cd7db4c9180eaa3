"""The losses that a segmentation config may name, with PaddleSeg's names, arguments, formulas and numbers.

Each is called with logits [B, C, H, W] and labels [B, H, W] (int64) and returns a scalar. None of them writes to the
labels. A batch in which no pixel is labelled has the loss 0 and gradients of 0.
"""

from collections.abc import Callable, Sequence

import paddle
import paddle.nn.functional as F

from paddle_rt.errors import UserError

Loss = Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]


def _is_labelled(labels: paddle.Tensor, ignore_index: int) -> paddle.Tensor:
    """Return 1 where a pixel counts and 0 where it is ignored, in float32 as in PaddleSeg."""
    return (labels != ignore_index).astype("float32")


def _masked_mean(loss: paddle.Tensor, mask: paddle.Tensor, epsilon: float) -> paddle.Tensor:
    return paddle.mean(loss * mask) / (paddle.mean(mask) + epsilon)


def _class_weights(weight: Sequence[float] | None) -> paddle.Tensor | None:
    return None if weight is None else paddle.to_tensor(weight, dtype="float32")


def _cross_entropy(
    logits: paddle.Tensor, labels: paddle.Tensor, ignore_index: int, weight: paddle.Tensor | None = None
) -> paddle.Tensor:
    """Cross-entropy of each pixel, 0 where it is ignored. Shape: [B, C, H, W] and [B, H, W] to [B, H, W]."""
    if weight is not None and len(weight) != logits.shape[1]:
        raise UserError(f"the loss has {len(weight)} class weights, but the network has {logits.shape[1]} classes")
    logits = logits.transpose([0, 2, 3, 1])
    loss = F.cross_entropy(logits, labels, weight=weight, ignore_index=ignore_index, reduction="none")
    return loss.reshape(labels.shape)


class CrossEntropyLoss:
    """Mean cross-entropy.

    Corrected against PaddleSeg 2.8.0, which fails on Paddle 3 in nearly all its forms: with `avg_non_ignore` False the
    sum is divided by the number of all pixels, with class weights or without, as in PaddleSeg 2.9.

    Args:
        weight: Weight of each class, or None.
        ignore_index: Label of pixels that do not count.
        top_k_percent_pixels: Share of the pixels that counts, those with the highest loss; 1.0 counts all.
        avg_non_ignore: Divide by the number (or weight) of labelled pixels, not of all pixels.
    """

    def __init__(
        self,
        weight: Sequence[float] | None = None,
        ignore_index: int = 255,
        top_k_percent_pixels: float = 1.0,
        avg_non_ignore: bool = True,
    ) -> None:
        self.weight, self.ignore_index = _class_weights(weight), ignore_index
        self.top_k_percent_pixels, self.avg_non_ignore = top_k_percent_pixels, avg_non_ignore

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        mask = _is_labelled(labels, self.ignore_index)
        loss = _cross_entropy(logits, labels, self.ignore_index, self.weight) * mask
        shares = paddle.ones_like(mask)
        if self.weight is not None and self.avg_non_ignore:
            index = (labels * mask.astype(labels.dtype)).flatten()
            shares = paddle.gather(self.weight, index).reshape(mask.shape)
        if self.top_k_percent_pixels == 1.0:
            shares = shares * mask if self.avg_non_ignore else shares
            return paddle.mean(loss) / (paddle.mean(shares) + 1e-8)
        hardest, index = paddle.topk(loss.flatten(), int(self.top_k_percent_pixels * loss.size))
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
        loss = F.cross_entropy(logits, labels, ignore_index=self.ignore_index, reduction="none", axis=1)
        return _masked_mean(loss, kept.astype("float32"), 1e-5)

    @paddle.no_grad()
    def _hard_pixels(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        valid = labels != self.ignore_index
        if not 0 < self.min_kept < int(valid.sum()):
            return valid
        index = paddle.where(valid, labels, paddle.zeros_like(labels))
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
        classes = logits.shape[1]
        if self.weight is not None and len(self.weight) != classes:
            raise UserError(f"DiceLoss has {len(self.weight)} class weights, but the network has {classes} classes")
        mask = _is_labelled(labels, self.ignore_index).unsqueeze(1)
        truth = F.one_hot(paddle.where(labels != self.ignore_index, labels, paddle.zeros_like(labels)), classes)
        truth = (truth.transpose([0, 3, 1, 2]) * mask).flatten(2)  # [B, C, H W]
        guess = (F.softmax(logits, axis=1) * mask).flatten(2)
        both, either = paddle.sum(guess * truth, axis=2), paddle.sum(guess + truth, axis=2)
        loss = (1 - (2 * both + self.smooth) / (either + self.smooth + 1e-8)).mean(axis=0)  # [C]
        if self.weight is not None:
            loss = loss * paddle.to_tensor(self.weight, dtype=loss.dtype)
        return loss.sum() / classes


class LovaszSoftmaxLoss:
    """Lovász-Softmax loss: a convex surrogate of one minus the IoU of each class, over the whole batch.

    Corrected against PaddleSeg 2.8.0, which returns no scalar for a batch without a labelled pixel.

    Args:
        ignore_index: Label of pixels that do not count.
        classes: "present" averages over the classes in the labels, "all" over all, a list over those in it.

    Source: Berman, Triki, Blaschko, "The Lovász-Softmax loss", 2018.
    """

    def __init__(self, ignore_index: int = 255, classes: str | Sequence[int] = "present") -> None:
        if isinstance(classes, str) and classes not in ("present", "all"):
            raise UserError(f"LovaszSoftmaxLoss: classes is {classes!r}; give 'present', 'all' or a list of classes")
        self.ignore_index, self.classes = ignore_index, classes

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        index = paddle.nonzero(labels.flatten() != self.ignore_index).flatten()
        if index.size == 0:
            return logits.sum() * 0.0
        probability = F.softmax(logits, axis=1).transpose([0, 2, 3, 1]).reshape([-1, logits.shape[1]])
        labels, probability = paddle.gather(labels.flatten(), index), paddle.gather(probability, index)  # [P], [P, C]
        losses = []
        for number in range(logits.shape[1]) if isinstance(self.classes, str) else self.classes:
            truth = (labels == number).astype(probability.dtype)
            if self.classes != "present" or truth.any():
                errors = paddle.abs(truth - probability[:, number])
                losses.append(_lovasz(errors, errors, truth))
        return paddle.stack(losses).mean()


class LovaszHingeLoss:
    """Lovász hinge loss of two classes, over the whole batch.

    Args:
        ignore_index: Label of pixels that do not count.

    Shape: logits [B, 1, H, W] of class 1, or [B, 2, H, W], from which the logit is computed as in PaddleSeg,
        log(p + e / (1 - p + e)) with the probability p of class 1 and e = 1e-9; labels 0 and 1.

    Source: Berman, Triki, Blaschko, "The Lovász-Softmax loss", 2018.
    """

    def __init__(self, ignore_index: int = 255) -> None:
        self.ignore_index = ignore_index

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
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
    jaccard = 1.0 - intersection.astype("float32") / union.astype("float32")
    gradient = paddle.concat([jaccard[:1], jaccard[1:] - jaccard[:-1]])
    return paddle.sum(paddle.gather(values, order) * gradient)


class BCELoss:
    """Mean binary cross-entropy of logits, each class by itself.

    Args:
        weight: None, or "dynamic" to weigh positive and negative pixels by each other's share of the batch.
        pos_weight: Weight of the positive pixels, None, or "dynamic". As in PaddleSeg, a dynamic weight counts ignored
            pixels as negative.
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
        if isinstance(pos_weight, str) and pos_weight != "dynamic" or not isinstance(pos_weight, str | float | None):
            raise UserError(f"BCELoss: pos_weight is {pos_weight!r}; give a number with a point, or 'dynamic'")
        self.weight, self.pos_weight, self.ignore_index, self.edge_label = weight, pos_weight, ignore_index, edge_label

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        labels = labels.unsqueeze(1) if labels.ndim < logits.ndim else labels
        mask = _is_labelled(labels, self.ignore_index)
        labels = paddle.where(labels != self.ignore_index, labels, paddle.zeros_like(labels))
        if labels.shape[1] != logits.shape[1]:
            labels = F.one_hot(labels.squeeze(1), logits.shape[1]).transpose([0, 3, 1, 2])
        labels = labels.astype(logits.dtype)
        positive, negative = _dynamic_weights(labels) if "dynamic" in (self.weight, self.pos_weight) else (None, None)
        pos_weight = positive if self.pos_weight == "dynamic" else self.pos_weight
        if isinstance(pos_weight, float):
            pos_weight = paddle.to_tensor(pos_weight, dtype=logits.dtype)
        loss = F.binary_cross_entropy_with_logits(
            logits,
            labels,
            weight=positive * labels + negative * (1 - labels) if self.weight else None,
            pos_weight=pos_weight,
            reduction="none",
        )
        return _masked_mean(loss, mask, 1e-10)


def _dynamic_weights(labels: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
    positive, negative = ((labels == value).astype("float32").sum() for value in (1, 0))
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
        mask = _is_labelled(labels, self.ignore_index).unsqueeze(3)
        truth = F.one_hot(paddle.where(labels != self.ignore_index, labels, paddle.zeros_like(labels)), 2)
        logits = logits.transpose([0, 2, 3, 1])
        settings = {"alpha": self.alpha, "gamma": self.gamma, "reduction": "none"}
        loss = F.sigmoid_focal_loss(logits, truth.astype(logits.dtype), **settings)
        return paddle.sum(loss * mask) / (paddle.sum(mask.astype("int32")) * 2 + 1e-10)


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
        loss = self.alpha * (1 - paddle.exp(-loss)) ** self.gamma * loss
        return _masked_mean(loss, _is_labelled(labels, self.ignore_index), 1e-10)


class BootstrappedCrossEntropyLoss:
    """Mean cross-entropy of each image's pixels with the highest loss, averaged over the images.

    These are all pixels with a loss above `loss_th`, or the `min_K` highest if they are fewer. Corrected against
    PaddleSeg 2.8.0, which fails for images of no more than `min_K` pixels.

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
        self.min_kept, self.threshold = min_K, loss_th
        self.weight, self.ignore_index = _class_weights(weight), ignore_index

    def __call__(self, logits: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        total = 0.0
        for loss in _cross_entropy(logits, labels, self.ignore_index, self.weight):
            loss = paddle.sort(loss.flatten(), descending=True)
            above = int((loss > self.threshold).sum())
            total = total + loss[: max(above, min(self.min_kept, loss.size))].mean()
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
