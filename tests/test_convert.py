"""Conversion of PyTorch checkpoints: the originals' outputs, every naming, and files that are not what they say."""

import importlib.util
import json

import numpy as np
import paddle
import pytest

from paddle_rt import create_model
from paddle_rt.convert import load_torch
from tests.conftest import ROOT, relative_error

SHARED = ROOT.parent / "shared" / "golden"


def golden_state(golden, weights) -> dict[str, np.ndarray]:
    """The original's weights as the golden files' README describes them."""
    state = {name: weights.weight(name, tuple(shape)) for name, shape in json.loads(str(golden["keys"]))}
    if "resnet.conv1.weight" in state:
        for name, value in state.items():
            if name.endswith(".weight") and value.ndim == 1:
                value[::7] *= -1
    return state


GOLDEN = ["fanet18", *(f"segformerpp_b0_{kind}" for kind in (
    "none", "none_17kpt", "bsm_hq", "bsm_hq_odd", "bsm_fast", "n1d_2", "n2d_2x2", "downsample"))]  # fmt: skip


@pytest.mark.parametrize("name", GOLDEN)
def test_output_is_the_originals(name):
    """Conversion, strict loading and the network in one: the original's weights give the original's output."""
    if not (SHARED / f"{name}.npz").is_file():
        pytest.skip("the originals' outputs are not here")
    spec = importlib.util.spec_from_file_location("weights", SHARED / "weights.py")
    weights = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(weights)
    golden = np.load(SHARED / f"{name}.npz")
    meta = json.loads(str(golden["meta"]))
    image = paddle.to_tensor(weights.image(tuple(meta["input_shape"]), meta["input_seed"]))
    if name.startswith("fanet"):
        net, limit = create_model(name, 19), 1e-5
    else:
        merging = "downsample" if meta.get("down") else meta["tome_cfg"]
        net = create_model("segformerpp_b0", meta.get("ncls", 19), token_merging=merging)
        limit = 1e-4
    load_torch(net, golden_state(golden, weights))
    net.eval()
    with paddle.no_grad():
        if name.startswith("fanet"):
            output, reference = net(image)[0].numpy()[:, :, ::4, ::4], golden["logits_every_4th"]
        else:
            output, reference = net.coarse_logits(image).numpy(), golden["logits"]
    error = relative_error(output, reference)
    print(f"{name}: relative error {error:.2e}")  # shown by pytest -s and where it fails
    assert output.shape == reference.shape and error <= limit, f"relative error {error:.2e}"
