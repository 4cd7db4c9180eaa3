"""Faults of PaddleSeg's losses and models: since Paddle 2.6, float and integer tensors do not mix in arithmetic.

The symptom is the same everywhere: `TypeError: (InvalidType) Type promotion only support calculations between
floating-point numbers and between complex and real numbers. But got different data type x: float32, y: int64.`

Left alone, because they need more than an expression: `MSELoss` with integer labels, `PointCrossEntropyLoss` and
`RelaxBoundaryLoss` with class weights (all faulty upstream to this day), and the model PointRend.
"""

import importlib
from collections.abc import Callable

from paddle_rt.paddleseg.patching import mend


def _loss_method(name: str, method: str = "forward") -> Callable:
    return getattr(getattr(importlib.import_module("paddleseg.models.losses"), name), method)


def fix_cross_entropy() -> bool:
    """Cross-entropy fails in nearly all its forms, and so do DistillCrossEntropyLoss and MixedLoss with it.

    Symptom: `TypeError: (InvalidType) Type promotion only support calculations between floating-point numbers and
    between complex numbers. But got different data type x: float32, y: int64.`; with class weights and
    avg_non_ignore=False also an out-of-range error of one_hot, for the ignored label 255.
    Cause: the mask is a float and the label an integer. Mended upstream in PRs 3666 and 3548, whose definition this
    follows: with avg_non_ignore=False the sum is divided by the number of all pixels, class weights or not.
    """
    weights = "coef = paddle.sum(_one_hot * self.weight, axis=-1)"
    exchanges = {
        "mask * coef": "mask * coef.astype(mask.dtype)",
        "label * mask": "label * (label != self.ignore_index).astype(label.dtype)",
        weights: f"{weights} if self.avg_non_ignore else paddle.ones_like(label)",
    }
    return mend(_loss_method("CrossEntropyLoss", "_post_process_loss"), exchanges)


def _fix_ohem(name: str) -> bool:
    exchange = {"prob + (1 - valid_mask)": "prob + (1 - valid_mask).astype(prob.dtype)"}
    return mend(_loss_method(name), exchange)


def fix_ohem_cross_entropy() -> bool:
    """OhemCrossEntropyLoss fails where more pixels are valid than `min_kept`, the normal case.

    Symptom: `TypeError: (InvalidType) Type promotion ...`. Mended upstream in PR 3666.
    """
    return _fix_ohem("OhemCrossEntropyLoss")


def fix_ohem_edge_attention() -> bool:
    """OhemEdgeAttentionLoss fails like OhemCrossEntropyLoss. Mended upstream in PR 3691."""
    return _fix_ohem("OhemEdgeAttentionLoss")


def fix_dual_task() -> bool:
    """DualTaskLoss fails with `TypeError: (InvalidType) Type promotion ...`. Mended upstream in PR 3667."""
    exchanges = {f"{x} * mask": f"{x} * mask.astype({x}.dtype)" for x in ("logit", "labels", "loss")}
    return mend(_loss_method("DualTaskLoss"), exchanges)


def fix_relax_boundary() -> bool:
    """RelaxBoundaryLoss fails with `TypeError: (InvalidType) Type promotion ...`. Mended upstream in PR 3667."""
    label = "label[:, :-1, :, :]"
    exchanges = {
        f"soft * {label}": f"soft * {label}.astype(soft.dtype)",
        f"soft * (1 - {label})": f"soft * (1 - {label}).astype(soft.dtype)",
        f"{label} * logsoft": f"{label}.astype(logsoft.dtype) * logsoft",
    }
    return mend(_loss_method("RelaxBoundaryLoss", "custom_nll"), exchanges)


def fix_region_mutual_information() -> bool:
    """RMILoss fails with `TypeError: (InvalidType) Type promotion ...`. Mended upstream in PR 3667."""
    factors = {"F.sigmoid(logits_4D)": 1, "valid_onehot_labels_4D": 3}
    exchanges = {
        f"{factor} * paddle.unsqueeze(label_mask_3D, axis={axis})": (
            f"{factor} * paddle.unsqueeze(label_mask_3D, axis={axis}).astype(logits_4D.dtype)"
        )
        for factor, axis in factors.items()
    }
    return mend(_loss_method("RMILoss", "forward_sigmoid"), exchanges)


def fix_point_cross_entropy() -> bool:
    """PointCrossEntropyLoss fails with `TypeError: (InvalidType) Type promotion ...`. Mended upstream in PR 3677."""
    exchange = {"mask * coef": "mask * coef.astype(mask.dtype)"}
    return mend(_loss_method("PointCrossEntropyLoss"), exchange)


def fix_l1_integer_label() -> bool:
    """L1Loss fails with integer labels: `TypeError: (InvalidType) Type promotion ...`. Open upstream."""
    call = "paddle.nn.functional.l1_loss(input, {}, 'none', name=self.name)"
    return mend(_loss_method("L1Loss"), {call.format("label"): call.format("label.astype(input.dtype)")})


def _fix_flow_norm(module: str, name: str) -> bool:
    layer = getattr(importlib.import_module(f"paddleseg.models.{module}"), name)
    flow = "paddle.transpose(flow, (0, 2, 3, 1)) / norm"
    return mend(layer.flow_warp, {flow: f"{flow}.astype(flow.dtype)"})


def fix_sfnet() -> bool:
    """SFNet's forward fails: the flow is divided by an integer size. Mended upstream in PR 3666."""
    return _fix_flow_norm("sfnet", "AlignedModule")


def fix_decoupled_segnet() -> bool:
    """DecoupledSegNet's forward fails like SFNet's. Mended upstream in PR 3666."""
    return _fix_flow_norm("decoupled_segnet", "SqueezeBodyEdge")


FIXES = (
    fix_cross_entropy,
    fix_ohem_cross_entropy,
    fix_ohem_edge_attention,
    fix_dual_task,
    fix_relax_boundary,
    fix_region_mutual_information,
    fix_point_cross_entropy,
    fix_l1_integer_label,
    fix_sfnet,
    fix_decoupled_segnet,
)
