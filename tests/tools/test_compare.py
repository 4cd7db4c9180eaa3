"""tools/compare.py."""

from pathlib import Path

import pytest

from paddle_rt.models.rtformer import RTFormer
from paddle_rt.paddleseg import counterparts
from tests.helpers import TINY, refused, run_python, written

CLASSES = 19


def test_compare_finds_equal_models(trained, config, images):
    line = ["-c", config, "--model_path", trained / "run", "--image_path", images / "list.txt"]
    done = run_python("tools/compare.py", *line)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("  equal at a relative error of 1e-05") == 6, done.stdout
    assert done.stdout.count("100.0000 % agree") == 6
    assert f"{trained}/run/iter_4/ema_model.pdparams, 2 images" in done.stdout


def test_compare_takes_random_weights(call, config):
    code, out, err = call("compare", "-c", config, "--input_size", 33, 47, "--images", 1)
    assert code == 0 and "random weights, 1 images" in out, err


SEGFORMER = ["-c", "configs/segformerpp/segformerpp_b0_camvid_480x360_cpu.yml", "--input_size", 65, 97, "--images", 1]


@pytest.mark.parametrize("size", [["model.embed_dim=8", "model.head_channels=8"], ["model.depths=[3,2,2,2]"]])
def test_compare_finds_paddlesegs_segformer(call, size):
    code, out, err = call("compare", *SEGFORMER, "--opts", "model.head=mlp", *size)
    assert code == 0 and "  equal at a relative error of 1e-05" in out, out + err


@pytest.mark.parametrize("option", ["model.head=conv", "model.token_merging=bsm_hq"])
def test_compare_says_that_paddleseg_has_no_counterpart(call, option):
    code, _, err = call("compare", *SEGFORMER, "--opts", "model.head=mlp", option)
    assert code == 1 and err.startswith("error: nothing to compare with: PaddleSeg's SegFormer has head 'mlp'"), err
    assert err.count("\n") == 1 and option.partition("=")[2] in err


def test_compare_tells_unequal_models(call, config, weights, monkeypatch):
    """The same weights under another number of heads: the same names and shapes, other logits."""
    monkeypatch.setattr(counterparts, "paddleseg_model", lambda *_: RTFormer(CLASSES, **{**TINY, "num_heads": 4}))
    code, out, err = call("compare", "-c", config, "--model_path", weights, "--input_size", 32, 64)
    assert code == 1 and "NOT EQUAL at a relative error" in out
    assert err == f"error: {weights} give other logits than PaddleSeg's model\n"


BAD_FLAGS = {
    "--model_path {weights} --opts model.base_channels=16": (1, "iter_5 does not fit RTFormer"),
    "--opts model.type=DDRNet_23": (1, "unknown argument of DDRNet_23|nothing to compare with"),
}


@pytest.mark.parametrize("line", BAD_FLAGS)
def test_bad_flag_gets_one_line(call, line, config, weights, images, tmp_path):
    code, expected = BAD_FLAGS[line]
    flags, before = line.format(config=config, weights=weights, images=images).split(), written(weights.parent)
    refused(call("compare", "-c", config, *flags), expected, code)
    assert written(tmp_path) == [] and written(weights.parent) == before and Path(config).is_file()
