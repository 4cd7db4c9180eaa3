"""SegFormer++ for pose: the segmentation network's numbers, and weights to start from."""

import logging

import numpy as np
import paddle
import pytest

import paddle_rt
from paddle_rt.checkpoint import atomic_save, load
from paddle_rt.convert import from_torch, load_torch, read_torch
from paddle_rt.errors import UserError
from paddle_rt.models.segformer import SegFormerPlusPlus
from paddle_rt.models.segformer_pose import SegFormerPose
from tests.helpers import ROOT, randomize, relative_error

DATA = ROOT / "tests" / "data"
TINY = dict(embed_dim=8, depths=(1, 1, 1, 1), head_channels=16, drop_path_rate=0.0)
OF_DATA = dict(embed_dim=4, depths=(1, 2, 1, 1), num_heads=(1, 1, 1, 2), head_channels=6)  # of the shipped checkpoints


def noise(*shape: int) -> paddle.Tensor:
    return paddle.to_tensor(np.random.default_rng(0).standard_normal(shape).astype("float32"))


def values(network) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in network.state_dict().items()}


def as_pose(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name.replace("linear_pred", "final_layer"): value for name, value in state.items()}


@pytest.mark.parametrize("merging", [None, "bsm_hq", "bsm_fast", "n2d_2x2", [{"q_mode": "n2d", "q_s": 2}] * 4])
def test_heatmaps_are_the_segmentation_networks_coarse_logits(merging):
    """With the same weights, whatever merges; and a quarter of the image in size."""
    pose = SegFormerPose(6, token_merging=merging, **TINY)
    segmentation = SegFormerPlusPlus(6, token_merging=merging, **TINY)
    randomize(segmentation)
    load(pose, as_pose(values(segmentation)))
    assert (pose.needs_fixed_size, pose.near_ties) == (segmentation.needs_fixed_size, segmentation.near_ties)
    pose.eval(), segmentation.eval()
    for height, width in ((96, 64), (65, 49)):
        images = noise(2, 3, height, width)
        with paddle.no_grad():
            (heatmaps,), exported = pose(images), pose.for_export()
            reference = segmentation.coarse_logits(images).numpy()
            same = pose.resize_logits(pose.coarse_logits(images), images).numpy()
            error = relative_error(exported(images)[0].numpy(), reference)
        assert heatmaps.shape == [2, 6, -(-height // 4), -(-width // 4)]
        assert np.array_equal(heatmaps.numpy(), reference) and np.array_equal(same, reference)
        assert error <= 1e-5, f"relative error of the export {error:.1e}"


def test_the_head_starts_as_the_originals_and_drops_nothing():
    paddle.seed(0)
    network = SegFormerPose(**{**TINY, "head_channels": 256})
    spreads = {name: float(value.std()) for name, value in values(network).items() if value.ndim > 1}
    for name in ("final_layer.weight", *(f"linear_c{n}._conv.weight" for n in range(1, 5))):
        assert spreads[name] == pytest.approx(0.001, rel=0.1), name
    assert spreads["linear_fuse._conv.weight"] == pytest.approx((2 / 256) ** 0.5, rel=0.01)
    assert not values(network)["final_layer.bias"].any()
    network.train()
    first, second = (network(noise(2, 3, 64, 64))[0].numpy() for _ in range(2))
    assert np.array_equal(first, second)


def start(tmp_path, source, caplog, **arguments) -> tuple[SegFormerPose, set[str], str]:
    """A network that starts from another one, the names that it took over, and the line of the log."""
    randomize(source, 1)
    atomic_save(source.state_dict(), tmp_path / "w.pdparams")
    with caplog.at_level(logging.INFO, logger="paddle_rt"):
        network = SegFormerPose(**{**TINY, "pretrained": str(tmp_path / "w.pdparams"), **arguments})
    given = values(source)
    taken = {name for name, value in values(network).items() if name in given and np.array_equal(value, given[name])}
    return network, taken, caplog.messages[-1]


@pytest.mark.parametrize("head", ["conv", "mlp"])
def test_it_starts_from_a_segmentation_network(head, tmp_path, caplog):
    network, taken, line = start(tmp_path, SegFormerPlusPlus(17, head=head, **TINY), caplog)
    assert {name for name in values(network) if name.startswith("backbone.")} <= taken
    assert "final_layer.weight" not in taken, "the last layer of classes is no last layer of keypoints"
    assert "new: " in line and "final_layer (2)" in line.partition("left out")[0]
    assert "linear_pred (2)" in line.partition("left out")[2]


def test_it_starts_from_a_pose_network_with_other_keypoints(tmp_path, caplog):
    network, taken, line = start(tmp_path, SegFormerPose(20, **TINY), caplog)
    assert set(values(network)) - taken == {"final_layer.weight", "final_layer.bias"}
    assert "new: final_layer (2); left out of the file: final_layer (2)" in line
    network, taken, line = start(tmp_path, SegFormerPose(17, **TINY), caplog)
    assert set(values(network)) == taken and "new: none" in line


def test_an_encoder_that_does_not_fit_is_refused(tmp_path, caplog):
    with pytest.raises(UserError, match="does not fit SegFormerPose: .* of another shape"):
        start(tmp_path, SegFormerPlusPlus(17, **TINY), caplog, embed_dim=16)
    with pytest.raises(UserError, match="does not fit SegFormerPose: .* missing"):
        start(tmp_path, SegFormerPlusPlus(17, **TINY), caplog, depths=(1, 2, 1, 1))


def test_a_checkpoint_of_the_other_task_is_one_clear_line():
    pose, segmentation = SegFormerPose(5, **TINY), SegFormerPlusPlus(5, **TINY)
    with pytest.raises(UserError, match="another task.* linear_pred in place of final_layer; .* model.pretrained"):
        load(pose, values(segmentation))
    with pytest.raises(UserError, match="another task.* final_layer in place of linear_pred"):
        load(segmentation, values(pose))


@pytest.mark.parametrize("name", ["mit_nvlabs_bfloat16.pth", "segformer_transformers.safetensors"])
def test_encoders_of_other_programs_convert(name):
    network, state = SegFormerPose(3, **OF_DATA), read_torch(DATA / name)
    before = values(network)
    with pytest.raises(UserError, match="no head for SegFormerPose.* --backbone_only"):
        load_torch(network, state)
    converted = from_torch(network, state, backbone_only=True)
    assert converted.keys() == {key for key in before if key.startswith("backbone.")}
    assert all(np.array_equal(value, before[key]) for key, value in values(network).items() if key not in converted)


def test_the_forks_checkpoint_converts_strictly():
    network, state = SegFormerPose(3, **OF_DATA), read_torch(DATA / "segformer_mmsegmentation_float16.pth")
    names = {key: key.replace("decode_head.conv_seg", "head.final_layer") for key in state}
    fork = {names[key].replace("decode_head.", "head."): value for key, value in state.items()}
    load_torch(network, fork)
    assert np.array_equal(values(network)["final_layer.weight"], fork["head.final_layer.weight"].astype("float32"))
    last = fork.pop("head.final_layer.bias")
    with pytest.raises(UserError, match="1 missing .final_layer.bias"):
        load_torch(network, fork)
    with pytest.raises(UserError, match="no such names for SegFormerPose: head.extra.weight"):
        load_torch(network, {**fork, "head.final_layer.bias": last, "head.extra.weight": last})
    with pytest.raises(UserError, match="final_layer.weight: file .3, 6, 1, 1., model .4, 6, 1, 1."):
        load_torch(SegFormerPose(4, **OF_DATA), {**fork, "head.final_layer.bias": last})
    with pytest.raises(UserError, match="no such names for SegFormerPlusPlus: head.convs"):
        load_torch(SegFormerPlusPlus(3, **OF_DATA), {**fork, "head.final_layer.bias": last})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(token_merging="downsample"), "'downsample' is for segmentation"),
        (dict(token_merging="bsm_h"), "did you mean 'bsm_hq'"),
        (dict(num_keypoints=0), "num_keypoints must be a whole number from 1"),
        (dict(head="mlp"), "unknown argument of SegFormerPose 'head'"),
        (dict(num_classes=5, num_keypoints=5), "give num_keypoints alone"),
    ],
)
def test_arguments_that_cannot_work_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        paddle_rt.create_model("segformerpp_b0_pose", **arguments)


@pytest.mark.parametrize("arguments", [{}, dict(num_keypoints=20), dict(num_classes=20)])
def test_create_model_counts_keypoints(arguments):
    network = paddle_rt.create_model("segformerpp_b0_pose", **TINY, **arguments)
    assert network.final_layer.weight.shape[0] == next(iter(arguments.values()), 17)
    assert "segformerpp_b5_pose" in paddle_rt.list_models(task="pose")
