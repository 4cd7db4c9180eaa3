"""Sets of keypoints: their names, which of them swap in a mirror image, their bones and their tolerances."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from paddle_rt.arguments import check_section
from paddle_rt.errors import UserError, shown, unknown
from paddle_rt.kinds import TEXT, listed, number, whole

_INDICES = listed(whole(0, 65_535))
_PAIRS = listed(listed(whole(0, 65_535), 2), valid="a list of pairs of keypoint numbers, the first being 0")
_KINDS = {
    "names": listed(TEXT),
    "flip_pairs": _PAIRS,
    "skeleton": _PAIRS,
    "sigmas": listed(number(0, 100, above=True)),
    "joint_weights": listed(number(0, 1e6)),
    "upper_body": _INDICES,
    "lower_body": _INDICES,
    "category": TEXT,
}


@dataclass(frozen=True)
class KeypointSet:
    """The keypoints of one category of objects. Keypoints are numbered from 0.

    Args:
        names: Their names.
        flip_pairs: Pairs that swap in a mirror image; () where no keypoint has a partner, None where it is unknown.
        skeleton: Pairs that a line connects in a drawing.
        sigmas: Tolerance of each keypoint in the object keypoint similarity (OKS), or None where it is unknown.
        joint_weights: Factor of each keypoint in the loss; () stands for 1 each.
        upper_body: Keypoints of the upper body, for `RandomHalfBody`.
        lower_body: Keypoints of the lower body.
        category: Name of the category in COCO's annotations.

    Raises:
        UserError: A number is out of range, counts differ, names are not unique, or pairs do not pair.
    """

    names: tuple[str, ...]
    flip_pairs: tuple[tuple[int, int], ...] | None = None
    skeleton: tuple[tuple[int, int], ...] = ()
    sigmas: tuple[float, ...] | None = None
    joint_weights: tuple[float, ...] = ()
    upper_body: tuple[int, ...] = ()
    lower_body: tuple[int, ...] = ()
    category: str = "person"

    def __post_init__(self) -> None:
        count = len(self.names)
        if not count or len(set(self.names)) != count or not all(self.names):
            raise UserError(f"keypoints.names must be at least one name, all different, got {shown(list(self.names))}")
        if not self.joint_weights:
            object.__setattr__(self, "joint_weights", (1.0,) * count)
        for key in ("sigmas", "joint_weights"):
            values = getattr(self, key)
            if values is not None and len(values) != count:
                raise UserError(f"keypoints.{key} must be {count} numbers, one for each of names, got {len(values)}")
        for key in ("flip_pairs", "skeleton", "upper_body", "lower_body"):
            indices = np.ravel(getattr(self, key) or []).tolist()
            for index in indices:
                if index >= count:
                    raise UserError(
                        f"keypoints.{key}: there is no keypoint {index}; the last of {count} is {count - 1}"
                    )
            if key != "skeleton" and len(set(indices)) != len(indices):
                again = next(index for index in indices if indices.count(index) > 1)
                raise UserError(f"keypoints.{key}: keypoint {again} ({self.names[again]}) stands there twice")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def flip_indices(self) -> np.ndarray:
        """The keypoint that stands in the place of each in a mirror image, int64 [K].

        Raises:
            UserError: The flip pairs are unknown.
        """
        if self.flip_pairs is None:
            raise UserError(
                "keypoints.flip_pairs is missing: flipping needs the pairs of keypoints that swap in a mirror image; "
                "give them, or [] where no keypoint has a partner"
            )
        indices = np.arange(len(self.names))
        for left, right in self.flip_pairs:
            indices[[left, right]] = right, left
        return indices

    @property
    def oks_sigmas(self) -> np.ndarray:
        """The sigmas as float64 [K].

        Raises:
            UserError: They are unknown.
        """
        if self.sigmas is None:
            raise UserError(
                f"keypoints.sigmas is missing: the object keypoint similarity (OKS) needs {len(self.names)} numbers, "
                "one for each keypoint; COCO's lie from 0.025 (eyes) to 0.107 (hips)"
            )
        return np.array(self.sigmas, np.float64)

    @property
    def halves(self) -> tuple[np.ndarray, np.ndarray]:
        """The keypoints of the upper and of the lower body, each int64 [n].

        Raises:
            UserError: They are unknown.
        """
        if not (self.upper_body and self.lower_body):
            raise UserError(
                "keypoints.upper_body and keypoints.lower_body are missing: RandomHalfBody needs the numbers of the "
                "keypoints of both halves; give them, or leave RandomHalfBody out"
            )
        return np.array(self.upper_body), np.array(self.lower_body)

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as a mapping that YAML and JSON can hold; unknown ones are left out."""
        fields = {key: value for key, value in asdict(self).items() if value is not None}
        return {key: _plain(value) for key, value in fields.items()}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any], where: str = "keypoints") -> "KeypointSet":
        """Return the set that a mapping describes.

        Args:
            fields: The arguments of the class; only `names` is required.
            where: The place of the mapping, for messages.

        Raises:
            UserError: A key is unknown or missing, or a value is not what it may be.
        """
        check_section(where, fields, _KINDS, required=("names",))
        return cls(**{key: _frozen(value) for key, value in fields.items()})


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value


COCO = KeypointSet(
    names=(
        "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder", "left_elbow",
        "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip", "left_knee", "right_knee", "left_ankle",
        "right_ankle",
    ),
    flip_pairs=((1, 2), (3, 4), (5, 6), (7, 8), (9, 10), (11, 12), (13, 14), (15, 16)),
    skeleton=(
        (15, 13), (13, 11), (16, 14), (14, 12), (11, 12), (5, 11), (6, 12), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10),
        (1, 2), (0, 1), (0, 2), (1, 3), (2, 4), (3, 5), (4, 6),
    ),
    sigmas=(
        0.026, 0.025, 0.025, 0.035, 0.035, 0.079, 0.079, 0.072, 0.072, 0.062, 0.062, 0.107, 0.107, 0.087, 0.087, 0.089,
        0.089,
    ),
    upper_body=tuple(range(11)),
    lower_body=tuple(range(11, 17)),
)  # fmt: skip

JBD = KeypointSet(
    names=(
        "head", "neck", "rsho", "relb", "rwri", "rhan", "lsho", "lelb", "lwri", "lhan", "rhip", "rkne", "rank", "rhee",
        "rtoe", "lhip", "lkne", "lank", "lhee", "ltoe",
    ),
    flip_pairs=((2, 6), (3, 7), (4, 8), (5, 9), (10, 15), (11, 16), (12, 17), (13, 18), (14, 19)),
    skeleton=(
        (0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (1, 6), (6, 7), (7, 8), (8, 9), (2, 10), (10, 11), (11, 12), (12, 13),
        (13, 14), (6, 15), (15, 16), (16, 17), (17, 18), (18, 19),
    ),
    sigmas=(0.1,) * 20,  # placeholders: the authors of the data set published none
    upper_body=tuple(range(10)),
    lower_body=tuple(range(10, 20)),
)  # fmt: skip

KEYPOINT_SETS = {"coco": COCO, "jbd": JBD}


def keypoint_set(value: str | Mapping[str, Any]) -> KeypointSet:
    """Return the set that the key `keypoints` of a config gives.

    Args:
        value: A name of `KEYPOINT_SETS`, or a mapping as `KeypointSet.from_dict` takes it.

    Raises:
        UserError: The name is unknown, or the mapping describes no set.
    """
    if isinstance(value, str):
        if value not in KEYPOINT_SETS:
            raise unknown("set of keypoints", value, KEYPOINT_SETS, "keypoints")
        return KEYPOINT_SETS[value]
    return KeypointSet.from_dict(value)
