"""Conversion of PyTorch checkpoints: the originals' outputs, every naming, both file formats, strictness."""

import importlib.util
import json

import numpy as np
import paddle
import pytest

from paddle_rt import create_model
from paddle_rt.checkpoint import read_state_dict
from paddle_rt.convert import from_torch, known_names, load_torch, model_arguments, read_torch
from paddle_rt.errors import UserError
from tests.helpers import ROOT, SHARED, call_tool, relative_error

GOLDEN = SHARED / "golden"
DATA = ROOT / "tests" / "data"
TINY = dict(embed_dim=4, depths=(1, 2, 1, 1), num_heads=(1, 1, 1, 2), head_channels=6)


def tiny(head: str, num_classes: int = 3) -> paddle.nn.Layer:
    """The network that the shipped checkpoints are of."""
    return create_model("segformerpp_b0", num_classes, head=head, **TINY)


def numbers(net: paddle.nn.Layer) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in net.state_dict().items()}


def original(name: str) -> tuple[dict, dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """What a golden file says of itself, the original's weights, the image and the original's output."""
    if not (GOLDEN / f"{name}.npz").is_file():
        pytest.skip("the originals' outputs are not here")
    spec = importlib.util.spec_from_file_location("weights", GOLDEN / "weights.py")
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    golden = np.load(GOLDEN / f"{name}.npz")
    meta = json.loads(str(golden["meta"]))
    state = {key: weights.weight(key, tuple(shape)) for key, shape in json.loads(str(golden["keys"]))}
    image = weights.image(tuple(meta["input_shape"]), meta["input_seed"])
    if name.startswith("fanet"):
        for scale in (value for key, value in state.items() if key.endswith(".weight") and value.ndim == 1):
            scale[::7] *= -1
        return meta, state, image, golden["logits_every_4th"]
    return meta, state, image, golden["logits"]


PRESETS = ["none", "none_17kpt", "bsm_hq", "bsm_hq_odd", "bsm_fast", "n1d_2", "n2d_2x2", "downsample"]


@pytest.mark.parametrize("preset", PRESETS)
def test_segformer_is_the_originals(preset):
    """Conversion, strict loading and the network in one: the original's weights give the original's output."""
    meta, state, image, reference = original(f"segformerpp_b0_{preset}")
    merging = "downsample" if meta.get("down") else meta["tome_cfg"]
    net = create_model("segformerpp_b0", meta.get("ncls", 19), token_merging=merging)
    load_torch(net, state)
    with paddle.no_grad():
        error = relative_error(net.eval().coarse_logits(paddle.to_tensor(image)).numpy(), reference)
    print(f"{preset}: relative error {error:.2e}")
    assert error <= 1e-5, f"relative error {error:.2e}"


@pytest.mark.parametrize("code", ["segmentation", "pose"])
def test_the_pose_network_is_the_originals(code):
    """With the names of the segmentation code, with one output for each keypoint, and with those of the pose code."""
    _, state, image, reference = original("segformerpp_b0_none_17kpt")
    if code == "pose":
        state = {name.replace("decode_head.conv_seg", "head.final_layer"): value for name, value in state.items()}
        state = {name.replace("decode_head.", "head."): value for name, value in state.items()}
    net = create_model("segformerpp_b0_pose", num_keypoints=17)
    load_torch(net, state)
    with paddle.no_grad():
        error = relative_error(net.eval()(paddle.to_tensor(image))[0].numpy(), reference)
    print(f"{code}: relative error {error:.2e}")
    assert error <= 1e-5, f"relative error {error:.2e}"


@pytest.mark.parametrize("code", ["training", "speed"])
def test_fanet_is_the_originals(code):
    _, state, image, reference = original("fanet18")
    if code == "speed":
        state = {name: value for name, value in state.items() if not name.startswith(("clslayer_32", "clslayer_16"))}
        state = {name.replace("ffm_", "fam_").replace("clslayer_8", "clslayer"): v for name, v in state.items()}
    net = create_model("fanet18", 19)
    load_torch(net, state)
    with paddle.no_grad():
        error = relative_error(net.eval()(paddle.to_tensor(image))[0].numpy()[:, :, ::4, ::4], reference)
    print(f"{code} names: relative error {error:.2e}")
    assert error <= 1e-5, f"relative error {error:.2e}"


def test_transformers_network_gives_its_output():
    """The output in the file is transformers' own. Its blocks normalise with an epsilon of 1e-5, others 1e-6."""
    net = tiny("mlp")
    load_torch(net, read_torch(DATA / "segformer_transformers.safetensors"))
    for _, layer in net.named_sublayers():
        if isinstance(layer, paddle.nn.LayerNorm):
            layer._epsilon = 1e-5
    image = np.random.default_rng(0).standard_normal([1, 3, 64, 96]).astype("float32")
    reference = np.load(DATA / "segformer_transformers_logits.npz")["logits"]
    with paddle.no_grad():
        error = relative_error(net.eval().coarse_logits(paddle.to_tensor(image)).numpy(), reference)
    print(f"transformers: relative error {error:.2e}")
    assert error <= 1e-5, f"relative error {error:.2e}"


def test_all_namings_give_one_network():
    """The shipped files hold one encoder, and the first two one head."""
    nets = {}
    for name in ("segformer_transformers.safetensors", "segformer_nvlabs.pth", "segformer_mmsegmentation_float16.pth"):
        state = read_torch(DATA / name)
        head = model_arguments("SegFormerPlusPlus", state)["head"]
        net = tiny(head)
        load_torch(net, state)
        nets[name] = numbers(net)
    transformers, nvlabs, mmsegmentation = nets.values()
    for name, value in transformers.items():
        assert np.array_equal(nvlabs[name], value), name
        if name.startswith("backbone."):
            error = relative_error(mmsegmentation[name], value)
            assert error < 1e-3, f"{name}: {error:.1e} beyond what half precision loses"
    assert not np.array_equal(mmsegmentation["linear_pred.weight"], nvlabs["linear_pred.weight"])


def test_imagenet_encoder_leaves_the_head_alone():
    state = read_torch(DATA / "mit_nvlabs_bfloat16.pth")
    whole, net = tiny("mlp"), tiny("mlp")
    load_torch(whole, read_torch(DATA / "segformer_nvlabs.pth"))
    before, whole = numbers(net), numbers(whole)
    with pytest.raises(UserError, match="head"):
        load_torch(net, state)
    load_torch(net, state, backbone_only=True)
    for name, value in numbers(net).items():
        if name.startswith("backbone."):
            error = relative_error(value, whole[name])
            assert error < 1e-2, f"{name}: {error:.1e} beyond what bfloat16 loses"
        else:
            assert np.array_equal(value, before[name]), name
    converted = from_torch(net, state, backbone_only=True)
    assert converted and all(name.startswith("backbone.") for name in converted)


@pytest.mark.parametrize("name", ["segformer_nvlabs.pth", "segformer_mmsegmentation_float16.pth",
                                  "segformer_transformers.safetensors"])  # fmt: skip
@pytest.mark.parametrize("fault", ["missing", "left over", "shape", "other head", "other program", "empty"])
def test_what_does_not_fit_is_refused_and_changes_nothing(name, fault):
    state = known_names("SegFormerPlusPlus", read_torch(DATA / name))
    head = model_arguments("SegFormerPlusPlus", state)["head"]
    names = [key for key in state if "norm1.weight" in key or "layer_norm_1.weight" in key]
    expected = {"missing": "norm1.weight", "left over": "extra.weight", "shape": "shape",
                "other program": "belong to none", "empty": "none belong to none"}  # fmt: skip
    if fault == "missing":
        del state[names[0]]
    elif fault == "left over":
        state["decode_head.extra.weight"] = np.zeros(3, "float32")
    elif fault == "shape":
        state[names[0]] = state[names[0]][:-1]
    elif fault == "other head":
        head = {"conv": "mlp", "mlp": "conv"}[head]
    elif fault == "other program":
        state = {f"unet.{number}": value for number, value in enumerate(state.values())}
    else:
        state = {}
    net = tiny(head)
    before = numbers(net)
    with pytest.raises(UserError, match=expected.get(fault, "linear_c1")):
        load_torch(net, state)
    assert all(np.array_equal(value, before[key]) for key, value in numbers(net).items())


def test_a_model_without_a_conversion_says_so():
    with pytest.raises(UserError, match="no conversion to RTFormer"):
        model_arguments("RTFormer", {})


def their_fanet(net: paddle.nn.Layer) -> dict[str, np.ndarray]:
    """FANet's training names for the weights of ours, and modules that only the original has."""
    state = {}
    for name, value in numbers(net).items():
        name = name.replace("_mean", "running_mean").replace("_variance", "running_var")
        parts = {name: value}
        if ".qkv." in name:
            names = [name.replace(".qkv.", f".{part}.") for part in ("w_qs", "w_ks", "w_vs")]
            parts = dict(zip(names, np.split(value, [32, 64]), strict=True))
        state.update(parts)
    for unused in ("ffm_4.up", "ffm_8.smooth"):
        state[f"{unused}.conv.weight"] = np.zeros([4, 4, 1, 1], "float32")
        state[f"{unused}.bn.weight"] = np.zeros(4, "float32")
    return state


def test_fanet_scales_are_folded():
    source, net = create_model("fanet18", 5), create_model("fanet18", 5)
    state = their_fanet(source)
    state["ffm_16.w_ks.bn.weight"][3] = -0.25
    state["resnet.layer2.0.downsample.1.weight"][0] = -2.0
    load_torch(net, state)
    loaded = numbers(net)
    assert np.isclose(loaded["ffm_16.qkv.bn.weight"][32 + 3], 0.25 + 1e-5, rtol=1e-6)
    assert np.isclose(loaded["resnet.layer2.0.downsample.1.weight"][0], 2.0 + 1e-5, rtol=1e-6)
    for name, value in numbers(source).items():
        if value.ndim > 1 or not name.endswith(".weight"):
            assert np.array_equal(loaded[name], value), name
    del state["ffm_4.w_vs.bn.bias"]
    with pytest.raises(UserError, match="ffm_4.w_qs.bn.bias, ffm_4.w_ks.bn.bias"):
        load_torch(net, state)


@pytest.mark.parametrize("depth", [18, 50])
def test_imagenet_resnet_fits_the_trunk(depth):
    """paddle.vision's ResNets have torchvision's names."""
    source = getattr(paddle.vision.models, f"resnet{depth}")()
    theirs = {}
    for name, value in numbers(source).items():
        theirs[name.replace("_mean", "running_mean").replace("_variance", "running_var")] = value
    net = create_model("fanet18", 5, depth=depth)
    with pytest.raises(UserError, match="backbone_only"):
        load_torch(net, theirs)
    for state in (theirs, numbers(source)):
        load_torch(net, state, backbone_only=True)
        loaded = numbers(net)
        for name, value in numbers(source).items():
            assert name.startswith("fc.") or np.array_equal(loaded[f"resnet.{name}"], value), name
        paddle.seed(1)
        net = create_model("fanet18", 5, depth=depth)
    theirs["layer5.0.conv1.weight"] = np.zeros(1, "float32")
    with pytest.raises(UserError, match="layer5.0.conv1.weight"):
        load_torch(net, theirs, backbone_only=True)


@pytest.mark.parametrize("depth", [34, 50])
def test_paddlesegs_resnet_fits_the_stages(depth):
    """PaddleSeg ships the "vd" ResNets alone; their stem of three convolutions has no place in ours."""
    import paddleseg.models

    source = getattr(paddleseg.models, f"ResNet{depth}_vd")()
    net = create_model("fanet18", 5, depth=depth)
    before = numbers(net)
    load_torch(net, numbers(source), backbone_only=True)
    loaded, theirs = numbers(net), numbers(source)
    same = [name for name in loaded if np.array_equal(loaded[name], before[name]) and loaded[name].ndim == 4]
    assert all(name.startswith(("resnet.conv1", "ffm", "clslayer")) for name in same), same
    assert np.array_equal(loaded["resnet.layer3.1.conv2.weight"], theirs["bb_2_1.conv1._conv.weight"])
    assert np.array_equal(loaded["resnet.layer1.0.downsample.0.weight"], theirs["bb_0_0.short._conv.weight"])


def test_tool(tmp_path, capsys):
    """The tool makes a file that training starts from."""
    source = paddle.vision.models.resnet18()
    paddle.save(source.state_dict(), str(tmp_path / "resnet18.pdparams"))
    flags = ["--input", tmp_path / "resnet18.pdparams", "--backbone_only", "--output", tmp_path / "trunk.pdparams"]
    code = call_tool("convert", "--model", "fanet18", *flags)
    assert code == 0 and "fanet18" in capsys.readouterr().out
    net = create_model("fanet18", 3, pretrained=str(tmp_path / "trunk.pdparams"))
    assert np.array_equal(net.resnet.conv1.weight.numpy(), source.conv1.weight.numpy())
    assert set(read_state_dict(tmp_path / "trunk.pdparams")) < set(net.state_dict())
