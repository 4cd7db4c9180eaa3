"""tools/compare.py."""

import functools
import http.server
import threading
from pathlib import Path

import paddle
import pytest

from paddle_rt import create_model
from paddle_rt.checkpoint import atomic_save
from paddle_rt.models.rtformer import RTFormer
from paddle_rt.paddleseg import counterparts
from paddle_rt.paddleseg.releases import RELEASES
from tests.helpers import ROOT, TINY, randomize, refused, run_python, written

CLASSES = 19


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """A server on this machine with weights in the place of a release."""
    monkeypatch.setenv("SEG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "*")
    release = RELEASES["rtformer_slim_cityscapes"]
    network = create_model("rtformer_slim", CLASSES)
    randomize(network)
    atomic_save(network.state_dict(), tmp_path / "web" / release.dataset / release.name / "model.pdparams")
    handler = functools.partial(Quiet, directory=str(tmp_path / "web"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def test_a_release_is_downloaded_compared_and_gets_its_command(call, mirror, tmp_path):
    flags = ["--release", "rtformer_slim_cityscapes", "--mirror", mirror, "--input_size", 64, 96, "--images", 1]
    code, out, err = call("compare", *flags)
    assert code == 0, err
    kept = tmp_path / "home/pretrained_model/rtformer_slim_cityscapes_1024x512_120k/model.pdparams"
    config = "configs/rtformer/rtformer_slim_cityscapes_1024x512_120k.yml"
    assert "  equal at a relative error of 1e-05" in out and f"{kept}, 1 images" in out
    lines = ["expected mIoU 0.7631, as published:", f"  python tools/val.py -c {config} --model_path {kept}"]
    assert out.splitlines()[-2:] == lines


def test_a_release_with_other_weights_is_refused(call, mirror, tmp_path):
    atomic_save(
        {"x": paddle.zeros([1])}, tmp_path / "web/cityscapes/rtformer_slim_cityscapes_1024x512_120k/model.pdparams"
    )
    refused(call("compare", "--release", "rtformer_slim_cityscapes", "--mirror", mirror), "does not fit")
    refused(call("compare", "--release", "rtformer_base_ade20k", "--mirror", mirror), "the server answered 404")


def test_releases_are_known_and_their_configs_exist():
    assert {name: release.miou for name, release in RELEASES.items()} == {
        "rtformer_slim_cityscapes": 0.7631,
        "rtformer_base_cityscapes": 0.7924,
        "rtformer_slim_ade20k": 0.3667,
        "rtformer_base_ade20k": 0.4202,
    }
    for release in RELEASES.values():
        assert (ROOT / release.config).is_file() and release.address().startswith("https://paddleseg.bj.bcebos.com/")


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
    "--release rtformer_slim": (1, "unknown release 'rtformer_slim', did you mean 'rtformer_slim_"),
    "--release rtformer_slim_ade20k --model_path {weights}": (2, "exclude each other"),
    "--model_path {weights} --opts model.base_channels=16": (1, "iter_5 does not fit RTFormer"),
    "--opts model.type=DDRNet_23": (1, "unknown argument of DDRNet_23|nothing to compare with"),
}


@pytest.mark.parametrize("line", BAD_FLAGS)
def test_bad_flag_gets_one_line(call, line, config, weights, images, tmp_path):
    code, expected = BAD_FLAGS[line]
    flags, before = line.format(config=config, weights=weights, images=images).split(), written(weights.parent)
    refused(call("compare", "-c", config, *flags), expected, code)
    assert written(tmp_path) == [] and written(weights.parent) == before and Path(config).is_file()
