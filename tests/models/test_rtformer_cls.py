"""RTFormer for classification, and its weights in the segmentation network."""

import logging
import math

import numpy as np
import paddle
import pytest

import paddle_rt
from paddle_rt.checkpoint import atomic_save, load
from paddle_rt.config import load_config, trained_network
from paddle_rt.errors import UserError
from paddle_rt.models.rtformer import RTFormer
from paddle_rt.models.rtformer_cls import RTFormerClassifier
from tests.helpers import TINY, randomize, relative_error, tiny_config

TRUNK = {key: value for key, value in TINY.items() if key not in ("head_channels", "spp_channels")}
# Million parameters at 1,000 classes of DDRNet-23-slim and DDRNet-23.
# Source: the model definitions in ydhongHIT/DDRNet, classification/, counted.
DDRNET = {"slim": 7.57, "base": 28.22}


def classifier(num_classes: int = 3, **arguments) -> RTFormerClassifier:
    return RTFormerClassifier(num_classes, **TRUNK, feature_channels=16, **arguments)


@pytest.mark.parametrize(("size", "parameters"), [("slim", 5.69), ("base", 20.67)])
def test_parameters_are_between_those_of_the_trunk_and_of_ddrnet(size, parameters):
    network = paddle_rt.create_model(f"rtformer_{size}_cls", num_classes=1000)
    count = sum(math.prod(p.shape) for p in network.parameters() if not p.stop_gradient) / 1e6
    print(f"rtformer_{size}_cls: {count:.2f} million, DDRNet {DDRNET[size]}")
    assert count == pytest.approx(parameters, abs=0.005) and 0.7 < count / DDRNET[size] < 1


def test_names_and_shapes_of_the_trunk_are_the_segmentation_networks():
    shapes = [{n: list(v.shape) for n, v in net.state_dict().items()} for net in (classifier(), RTFormer(5, **TINY))]
    trunk = {name: shape for name, shape in shapes[0].items() if not name.startswith("head.")}
    assert list(trunk.items()) == list(shapes[1].items())[: len(trunk)]
    assert {name.partition(".")[0] for name in shapes[1].keys() - trunk.keys()} == {"spp", "seghead", "seghead_extra"}
    assert shapes[0]["head.fc.weight"] == [16, 3]


@pytest.mark.parametrize("size", [(224, 224), (65, 97), (33, 32), (1, 1)])
def test_images_of_any_size_get_one_row_of_logits_each(size, rng):
    network = classifier()
    network.eval()
    images = paddle.to_tensor(rng.standard_normal([2, 3, *size]).astype("float32"))
    with paddle.no_grad():
        (logits,) = network(images)
        alone = np.concatenate([network(images[i : i + 1])[0].numpy() for i in range(2)])
    error = relative_error(logits.numpy(), alone)
    assert list(logits.shape) == [2, 3] and error < 1e-5, f"relative error {error:.1e}"


def test_the_head_equals_its_formula_in_numpy(rng):
    """On the trunk's output, in evaluation mode."""
    network = classifier()
    randomize(network)
    network.eval()
    images = paddle.to_tensor(rng.standard_normal([1, 3, 64, 96]).astype("float32"))
    with paddle.no_grad():
        low, result = network.encode(images)[1].numpy()[0].astype(np.float64), network(images)[0].numpy()[0]
    state = {name.removeprefix("head."): value.numpy() for name, value in network.state_dict().items()}

    def norm_relu(x: np.ndarray, name: str) -> np.ndarray:
        mean, variance, scale, shift = (state[f"{name}.{part}"][:, None, None] for part in PARTS)
        return np.maximum((x - mean) / np.sqrt(variance + 1e-5) * scale + shift, 0)

    features = np.einsum("oc,chw->ohw", state["conv.weight"][:, :, 0, 0], norm_relu(low, "bn1"))
    expected = norm_relu(features, "bn2").mean(axis=(1, 2)) @ state["fc.weight"] + state["fc.bias"]
    error = relative_error(result, expected)
    assert error < 1e-5, f"relative error {error:.1e}"


PARTS = ("_mean", "_variance", "weight", "bias")


@pytest.fixture
def trained(tmp_path) -> tuple[RTFormerClassifier, str]:
    """A classification network and its checkpoint."""
    network = classifier()
    randomize(network)
    (tmp_path / "cls").mkdir()
    atomic_save(network.state_dict(), tmp_path / "cls/model.pdparams")
    return network, str(tmp_path / "cls")


def equal_entries(first, second) -> set[str]:
    """Parts, up to the first dot, in which every entry of the first network equals the second's."""
    ours, theirs = first.state_dict(), second.state_dict()
    different = {n.partition(".")[0] for n in ours if n not in theirs or not np.array_equal(ours[n], theirs[n])}
    return {n.partition(".")[0] for n in ours} - different


STAGES = {"conv1", "layer1", "layer2", "layer3", "layer3_", "compression3", "layer4", "layer5"}


@pytest.mark.parametrize("injection", [[True, True], [True, False]], ids=["slim", "base"])
def test_a_segmentation_network_starts_from_a_classification_checkpoint(injection, trained, caplog):
    with caplog.at_level(logging.INFO, logger="paddle_rt"):
        network = RTFormer(5, **TINY, use_injection=injection, pretrained=trained[1])
    assert equal_entries(network, trained[0]) == STAGES
    (record,) = (record.getMessage() for record in caplog.records if "parameters and buffers" in record.getMessage())
    assert "; new: spp (55), seghead (11), seghead_extra (11); left out of the file: " in record
    assert ("layer5.down (10), head (" in record) == (not injection[1]) and "head (11)" in record
    again = classifier(4, pretrained=trained[1])
    assert equal_entries(again, trained[0]) == STAGES, "a head for other classes stays new"


def test_a_classification_network_starts_from_a_segmentation_checkpoint(tmp_path):
    source = RTFormer(5, **TINY, use_injection=[True, False])
    randomize(source)
    atomic_save(source.state_dict(), tmp_path / "w.pdparams")
    network = classifier(pretrained=str(tmp_path / "w.pdparams"))
    assert equal_entries(network, source) == STAGES - {"layer5"}, "layer5.down stays new"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(base_channels=16), r"does not fit RTFormer: \d+ of another shape \(conv1.0.weight: file \[8, 3, 3, 3\]"),
        (dict(low_attention="mhsa"), r"does not fit RTFormer: 8 missing \(layer4.attn_l.query.weight"),
    ],
)
def test_a_trunk_that_does_not_fit_is_refused(arguments, message, trained):
    with pytest.raises(UserError, match=message):
        RTFormer(5, **{**TINY, **arguments}, pretrained=trained[1])


def test_a_checkpoint_of_the_other_task_is_one_clear_line(trained, tmp_path):
    config = load_config(tiny_config(tmp_path))
    expected = (
        f"{trained[1]} is of a network for another task: the trunk is this model's, but it has head in place of spp, "
        "seghead, seghead_extra; to start from its trunk, give it as model.pretrained"
    )
    with pytest.raises(UserError) as caught:
        trained_network(config, trained[1])
    assert str(caught.value) == expected
    for injection in ([True, True], [True, False]):
        state = {n: v.numpy() for n, v in RTFormer(5, **TINY, use_injection=injection).state_dict().items()}
        with pytest.raises(UserError, match="it has spp, seghead, seghead_extra in place of head; to start from its"):
            load(trained[0], state)
    other = {n: v for n, v in state.items() if not n.startswith(("layer4", "layer5", "spp"))}
    with pytest.raises(UserError, match="does not fit RTFormerClassifier"):
        load(trained[0], other)


def test_a_network_of_another_task_in_a_config_is_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="RTFormerClassifier is a network for classification, but the config's task is "
                       "segmentation; change task, or take FANet or RTFormer or SegFormerPlusPlus"):  # fmt: skip
        load_config(tiny_config(tmp_path, model={"type": "RTFormerClassifier", "variant": "slim"}))
