"""Reading of annotations beside what SegFormer++'s fork of MMPose reads."""

import json

import numpy as np
import pytest

from paddle_rt.tasks.pose.coco import parse, read_annotations
from tests.helpers import SHARED

GOLDEN = SHARED / "golden_pose"
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs the outputs of the original's pose code")


def test_annotations_are_read_as_by_the_original():
    content = json.loads((GOLDEN / "dataset_parse.json").read_text())
    size = content["image"]["width"], content["image"]["height"]
    for annotation, expected in zip(content["annotations"], content["parsed"], strict=True):
        found = parse(annotation, *size)
        for key, name in (("bbox", "bbox_xyxy"), ("keypoints", "keypoints"), ("visible", "visible")):
            assert np.array_equal(getattr(found, key), np.array(expected[name], np.float32)), (annotation["id"], key)
        assert found.area == np.float32(expected["area"]), annotation["id"]
        assert (found.num_keypoints, found.kept) == (expected["num_keypoints"], expected["kept"]), annotation["id"]


def test_the_ground_truth_keeps_what_the_file_has():
    content = json.loads((GOLDEN / "coco_gt.json").read_text())
    assert read_annotations(GOLDEN / "coco_gt.json").ground_truth() == content
