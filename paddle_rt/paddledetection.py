"""Keys of PaddleDetection's configs of top-down pose, and what stands in a config of ours in their place."""

from typing import Any

from paddle_rt.errors import UserError

# Wherever they stand, and as the value of a `type`.
KEYS = {
    "KeyPointMSELoss": "loss: {type: KeypointMSELoss}",
    "KeypointTopDownCocoDataset": "type: CocoKeypoints",
    "KeyPointTopDownCOCOEval": "nothing: val prints AP and PCK together",
    "RandomFlipHalfBodyTransform": "the transforms RandomFlip, RandomHalfBody and RandomBBoxTransform",
    "TopDownAffine": "the transform TopdownAffine",
    "TopDownEvalAffine": "the transform TopdownAffine",
    "ToHeatmapsTopDown": "the transform GenerateTarget",
    "ToHeatmapsTopDown_DARK": "the transform GenerateTarget",
    "ToHeatmapsTopDown_UDP": "the transform GenerateTarget with udp: True",
    "TopDownHRNet": "model: {type: SegFormerPose}",
    "anno_path": "annotations of CocoKeypoints, with its folder",
    "dataset_dir": "nothing: annotations and image_root of CocoKeypoints are whole paths",
    "flip_perm": "keypoints.flip_pairs",
    "hmsize": "heatmap_size of GenerateTarget",
    "image_dir": "image_root of CocoKeypoints, with its folder",
    "num_joints": "keypoints, from whose names the number follows",
    "num_joints_half_body": "min_total_keypoints of RandomHalfBody",
    "pixel_std": "nothing: scales are in pixels",
    "prob_half_body": "prob of RandomHalfBody",
    "train_height": "input_size of TopdownAffine, [width, height]",
    "train_width": "input_size of TopdownAffine, [width, height]",
    "trainsize": "input_size of TopdownAffine",
    "upper_body_ids": "keypoints.upper_body",
    "use_dark": "test_config.decoding: dark",
    "use_udp": "udp of TopdownAffine and of GenerateTarget",
}
# At the top of a config; some of these names mean something else further down.
TOP_KEYS = {
    "EvalDataset": "val_dataset",
    "EvalReader": "val_dataset.transforms",
    "LearningRate": "lr_scheduler",
    "OptimizerBuilder": "optimizer",
    "TestDataset": "nothing: predict takes --image_path",
    "TestReader": "val_dataset.transforms",
    "TrainDataset": "train_dataset",
    "TrainReader": "train_dataset.transforms and batch_size",
    "_BASE_": "_base_",
    "architecture": "task: pose and model.type",
    "bbox_file": "bbox_file of val_dataset",
    "epoch": "iters, which counts batches",
    "image_thre": "image_thre of val_dataset",
    "log_iter": "the flag --log_iters of train",
    "metric": "nothing: val prints AP and PCK together",
    "pretrain_weights": "model.pretrained",
    "save_dir": "the flag --save_dir of train",
    "snapshot_epoch": "the flag --save_interval of train, which counts iterations",
    "use_gpu": "the flag --device",
    "use_gt_bbox": "use_gt_bbox of val_dataset",
    "weights": "the flag --model_path of val, predict and export",
    "worker_num": "the flag --num_workers",
}


def refuse_keys(values: dict[str, Any]) -> None:
    """Refuse a config with a key of PaddleDetection.

    Raises:
        UserError: Names the first such key, and what stands in its place here.
    """
    for key in values:
        if key in TOP_KEYS:
            raise _error(key, key, TOP_KEYS)
    _refuse_below("", values)


def _refuse_below(where: str, value: Any) -> None:
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        return
    for key, part in value.items():
        place = f"{where}[{key}]" if isinstance(key, int) else f"{where}.{key}".lstrip(".")
        for name in (key, part if key == "type" else None):
            if isinstance(name, str) and name in KEYS:
                raise _error(place, name, KEYS)
        _refuse_below(place, part)


def _error(where: str, key: str, table: dict[str, str]) -> UserError:
    start = "" if where == key else f"{where}: "
    return UserError(f"{start}{key} is of PaddleDetection's configs; here it is {table[key]} (see docs/pose.md)")
