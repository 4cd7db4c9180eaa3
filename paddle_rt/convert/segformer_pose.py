"""The names of SegFormer++'s pose networks in its fork of MMPose, and those of encoders to start from.

A segmentation network of SegFormer++ with one output for each keypoint has the same layers and is taken too.
"""

import dataclasses

from paddle_rt.convert import segformer
from paddle_rt.convert.naming import Naming

BACKBONE = segformer.BACKBONE

_SEGMENTATION, *_OTHERS = segformer.NAMINGS


def _for_pose(naming: Naming, **changes: object) -> Naming:
    modules = {theirs: ours.replace("linear_pred", "final_layer") for theirs, ours in naming.modules.items()}
    return dataclasses.replace(naming, modules=modules, arguments={}, **changes)


_POSE = _for_pose(
    dataclasses.replace(
        _SEGMENTATION,
        modules={
            theirs.replace("decode_head.conv_seg", "head.final_layer").replace("decode_head.", "head."): ours
            for theirs, ours in _SEGMENTATION.modules.items()
        },
    ),
    source="SegFormer++'s fork of MMPose",
    recognised_by="head.final_layer",
)

NAMINGS = (_POSE, _for_pose(_SEGMENTATION), *(_for_pose(naming, backbone_only=True) for naming in _OTHERS))
