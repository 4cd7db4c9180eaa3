"""PaddleSeg's components by name: its networks are networks of ours, and one transform is corrected."""

import copy
import os
import pickle

import numpy as np
import paddle
import pytest
from paddleseg import transforms as T

from paddle_rt.arguments import describe
from paddle_rt.checkpoint import atomic_save
from paddle_rt.config import build_network, load_config
from paddle_rt.errors import UserError
from paddle_rt.models.base import Network
from paddle_rt.paddleseg.components import components
from paddle_rt.paddleseg.counterparts import paddleseg_model, paddleseg_network
from tests.helpers import TINY, randomize, tiny_config

STDC = {"type": "STDCSeg", "backbone": {"type": "STDC1"}}
NETWORKS = {
    "RTFormer": {"type": "PaddleSegRTFormer", **TINY},
    "DualResNet": {"type": "DDRNet_23", "enable_auxiliary_loss": True},
    "PPLiteSeg": {"type": "PPLiteSeg", "backbone": {"type": "STDC1"}},
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_paddleseg_train(name, tmp_path):
    config = load_config(tiny_config(tmp_path, model=NETWORKS[name]))
    assert config.values["model"]["num_classes"] == 19
    holder = config.values["model"].get("backbone", config.values["model"])
    assert holder["in_channels"] == 3
    network = build_network(config)
    assert isinstance(network, Network) and type(network).__name__ == name
    assert (network.output_stride, network.temporal_window) == (None, 1) and network.for_export() is network
    copied = copy.deepcopy(network)
    outputs = copied(paddle.rand([2, 3, 64, 64]))
    assert [output.shape for output in outputs] == [[2, 19, 64, 64]] * len(outputs)
    with pytest.raises(NotImplementedError):
        network.coarse_logits(paddle.rand([1, 3, 64, 64]))


@pytest.mark.parametrize("change, match", [
    ({"type": "DDRNet"}, "unknown model type 'DDRNet', did you mean 'DDRNet_23'"),
    ({**STDC, "backbone": {"type": "STDC"}}, "unknown model.backbone type 'STDC', did you mean 'STDC"),
    ({**STDC, "backbone": {"type": "MSCAN", "depth": 3}}, "unknown argument of MSCAN 'depth', did you mean 'depths'"),
    ({**STDC, "backbone": {"type": "CAE_base_patch16_224"}}, "unknown model.backbone type 'CAE_base_patch16_224'"),
    ({"type": "MLATransformer", "in_channels": [8] * 4, "backbone": {"type": "ViT_base_patch16_224"}, "heads": 3},
     "unknown argument of MLATransformer 'heads'"),
    ({"type": "SegmentationTransformer", "mla_chanels": 3, "backbone": {"type": "ViT_base_patch16_224"}},
     "unknown argument of SegmentationTransformer 'mla_chanels', did you mean 'mla_channels'"),
    ({**STDC, "backbone": {"type": "VisionTransformer", "dept": 3}}, "argument of VisionTransformer 'dept', did you"),
    ({**STDC, "backbone": {"type": "ViTAdapter", "drop": 3}}, "unknown argument of ViTAdapter 'drop'"),
    ({**STDC, "backbone": {"type": "SwinTransformer_tiny_patch4_window7_224_maskformer", "windows": 3}},
     "unknown argument of SwinTransformer_tiny_patch4_window7_224_maskformer 'windows', did you mean 'window_size'"),
    ({**STDC, "use_boundary": 1}, "unknown argument of STDCSeg 'use_boundary', did you mean 'use_boundary_"),
])  # fmt: skip
def test_unknown_networks_and_arguments_are_named(change, match, tmp_path):
    with pytest.raises(UserError, match=match):
        load_config(tiny_config(tmp_path, model=change))


def test_counterparts():
    theirs = paddleseg_model({"type": "RTFormer", **TINY, "bn_momentum": 0.1}, 5)
    assert type(theirs).__mro__[1].__module__ == "paddleseg.models.rtformer"
    theirs = paddleseg_model({"type": "SegFormerPlusPlus", "variant": "b0", "head": "mlp", "num_classes": 5}, 5)
    assert type(theirs).__mro__[1].__module__ == "paddleseg.models.segformer"
    with pytest.raises(UserError, match="nothing to compare with.*'FANet'"):
        paddleseg_model({"type": "FANet"}, 5)
    with pytest.raises(UserError, match="nothing to compare with.*merges no tokens"):
        paddleseg_model({"type": "SegFormerPlusPlus", "variant": "b0", "token_merging": "bsm_hq"}, 5)


def test_networks_of_paddleseg_alone():
    network = paddleseg_network("STDCSeg", 5, {"backbone": "STDC1"})
    network.eval()
    assert network(paddle.rand([1, 3, 64, 64]))[0].shape == [1, 5, 64, 64]
    with pytest.raises(UserError, match="unknown model of PaddleSeg 'DDRNet'"):
        paddleseg_network("DDRNet", 5, {})
    with pytest.raises(UserError, match="unknown backbone of PaddleSeg 'STDC'"):
        paddleseg_network("STDCSeg", 5, {"backbone": "STDC"})
    with pytest.raises(UserError, match="PaddleSeg's BiSeNetV2: unknown argument of BiSeNetV2 'depth'"):
        paddleseg_network("BiSeNetV2", 5, {"depth": 3})


class Hostile:
    """Pickled as a call that leaves a mark."""

    def __init__(self, mark) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


@pytest.mark.parametrize(("part", "suffix"), [("network", "pdparams"), ("backbone", "safetensors")])
def test_pretrained_weights_of_paddlesegs_networks_are_read_by_ours(part, suffix, tmp_path):
    network = build_network(load_config(tiny_config(tmp_path, model=STDC)))
    randomize(network)
    state = {name: value.numpy() for name, value in network.state_dict().items()}
    prefix = "" if part == "network" else "cp.backbone."
    expected = {name: value for name, value in state.items() if name.startswith(prefix)}
    file = tmp_path / f"x.{suffix}"
    atomic_save({name.removeprefix(prefix): value for name, value in expected.items()}, file)
    section = copy.deepcopy(STDC)
    (section if part == "network" else section["backbone"])["pretrained"] = str(file)
    found = build_network(load_config(tiny_config(tmp_path, model=section))).state_dict()
    assert all(np.array_equal(found[name].numpy(), value) for name, value in expected.items())
    broken = next(iter(expected))
    atomic_save({**{n.removeprefix(prefix): v for n, v in expected.items()}, broken.removeprefix(prefix):
                 np.full_like(expected[broken], np.nan)}, file)  # fmt: skip
    with pytest.raises(UserError, match=rf"x.{suffix} does not fit .*: 1 with numbers that are not finite \(.*weight"):
        build_network(load_config(tiny_config(tmp_path, model=section)))
    atomic_save({"other.weight": np.zeros(3, "float32")}, file)
    with pytest.raises(UserError, match=f"nothing in .*x.{suffix} fits .*it holds other.weight"):
        build_network(load_config(tiny_config(tmp_path, model=section)))
    file.write_bytes(pickle.dumps({"x": Hostile(tmp_path / "mark")}, 2))
    with pytest.raises(UserError, match=f"x.{suffix}: refused: the file asks for"):
        build_network(load_config(tiny_config(tmp_path, model=section)))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("root", [{}, {"dataset_root": "nowhere"}])
def test_data_sets_are_not_downloaded(root):
    with pytest.raises(UserError, match="OpticDiscSeg: no folder at dataset_root .*; unpack https?://"):
        components("datasets")["OpticDiscSeg"](transforms=[], mode="train", **root)
    assert "dataset_root" in describe(components("datasets")["OpticDiscSeg"]).kinds


@pytest.mark.parametrize("kind, right", [("ours", True), ("theirs", False)])
@pytest.mark.parametrize("ratio", [0.99, 0.01])
def test_crop_takes_image_and_label_from_one_place(kind, right, ratio):
    """Image and label hold the same numbers, so that their crops must too, whether or not one is found that fits."""
    crop = components("transforms")["RandomPaddingCrop"] if kind == "ours" else T.RandomPaddingCrop
    np.random.seed(0)
    label = np.random.randint(0, 9, [40, 30]).astype("uint8")
    image = np.repeat(label[..., None], 3, axis=2).astype("float32")
    data = {"img": image, "label": label, "gt_fields": ["label"], "trans_info": []}
    data = crop((24, 16), category_max_ratio=ratio)(data)
    same = np.array_equal(data["img"], np.repeat(data["label"][..., None], 3, axis=2))
    assert (data["img"].shape == (16, 24, 3) and data["img"].dtype == np.float32 and same) is right
