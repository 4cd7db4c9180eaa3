"""Sets of keypoints: what they give, and what is refused."""

import numpy as np
import pytest
import yaml

from paddle_rt.errors import UserError
from paddle_rt.inference.keypoints import COCO, JBD, KEYPOINT_SETS, KeypointSet, keypoint_set


@pytest.mark.parametrize("name", KEYPOINT_SETS)
def test_built_in_sets_are_whole(name):
    known = keypoint_set(name)
    count = len(known)
    assert count == {"coco": 17, "jbd": 20}[name]
    assert len(known.oks_sigmas) == len(known.joint_weights) == count
    assert sorted(known.upper_body + known.lower_body) == list(range(count))
    np.testing.assert_array_equal(known.flip_indices[known.flip_indices], np.arange(count))
    for left, right in known.flip_pairs:
        swapped = known.names[left].replace("left", "right")
        assert known.names[right] in (swapped, "l" + known.names[left][1:])
    assert {index for bone in known.skeleton for index in bone} == set(range(count))


@pytest.mark.parametrize("known", [COCO, JBD, KeypointSet(("tip", "tail"), category="fish")])
def test_a_set_survives_yaml(known):
    assert keypoint_set(yaml.safe_load(yaml.safe_dump(known.to_dict()))) == known


def test_unknown_pairs_and_sigmas_are_named_where_they_are_needed():
    unknown = KeypointSet(("tip", "tail"))
    with pytest.raises(UserError, match="keypoints.flip_pairs is missing"):
        _ = unknown.flip_indices
    with pytest.raises(UserError, match="keypoints.sigmas is missing.* 2 numbers"):
        _ = unknown.oks_sigmas
    np.testing.assert_array_equal(keypoint_set({"names": ["tip", "tail"], "flip_pairs": []}).flip_indices, [0, 1])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names": []}, "at least one name"),
        ({"names": ["a", "a", "b"]}, "all different"),
        ({"names": "abc"}, "keypoints.names must be a list"),
        ({"flip_pairs": [[0, 1], [1, 2]]}, r"keypoints.flip_pairs: keypoint 1 \(b\) stands there twice"),
        ({"flip_pairs": [[1, 1]]}, "keypoint 1 .* twice"),
        ({"flip_pairs": [[0, 3]]}, "no keypoint 3; the last of 3 is 2"),
        ({"flip_pairs": [0, 1, 2]}, "list of pairs"),
        ({"skeleton": [[0, 1, 2]]}, "list of pairs"),
        ({"skeleton": [[-1, 1]]}, "list of pairs"),
        ({"sigmas": [0.1, 0.1]}, "keypoints.sigmas must be 3 numbers"),
        ({"sigmas": [0.1, 0.1, 0]}, "keypoints.sigmas must be a list"),
        ({"joint_weights": [1, 1, 1, 1]}, "keypoints.joint_weights must be 3 numbers"),
        ({"upper_body": [0, 0]}, "twice"),
        ({"sigma": [0.1] * 3}, "did you mean 'sigmas'"),
    ],
)
def test_what_is_no_set_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        keypoint_set({"names": ["a", "b", "c"], **changes})


@pytest.mark.parametrize(
    ("value", "message"), [("cocoo", "did you mean 'coco'"), (17, "must be a mapping"), ({}, "names is missing")]
)
def test_other_values_are_refused(value, message):
    with pytest.raises(UserError, match=message):
        keypoint_set(value)
