"""hubconf.py: paddle.hub finds every model in the repository's folder."""

import json

import pytest

from paddle_rt import list_models
from paddle_rt.registry import find_entry
from tests.helpers import ROOT, run_python

CODE = """
import json, sys, paddle
folder = sys.argv[1]
names = paddle.hub.list(folder, source="local")
pages = {name: paddle.hub.help(folder, name, source="local") for name in names}
small = dict(depths=(1, 1, 1, 1), embed_dim=8, head_channels=8)  # of SegFormer++, whose B5 takes long
nets = {
    name: paddle.hub.load(folder, name, source="local", num_classes=5, **(small if name.startswith("seg") else {}))
    for name in names
}
merged = paddle.hub.load(folder, "segformerpp_b0", source="local", num_classes=5, token_merging="bsm_hq", head="mlp")
plain = paddle.hub.load(folder, "segformerpp_b0", source="local", num_classes=5, head="mlp")
plain.set_state_dict(merged.state_dict())
image = paddle.rand([1, 3, 64, 64])
both = [net.eval()(image)[0] for net in (merged, plain)]
difference = float((both[0] - both[1]).abs().max())
print(json.dumps([pages, {name: type(net).__name__ for name, net in nets.items()}, both[0].shape, difference]))
"""


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """What a process says that runs elsewhere, where nothing but the folder leads to paddle_rt."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    done = run_python("-c", CODE, ROOT, cwd=elsewhere, PYTHONPATH="")
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_model_is_listed_and_explained(answers):
    pages = answers[0]
    assert sorted(pages) == list_models()
    for name, page in pages.items():
        assert page.startswith(f"{name}: ") and "Args:" in page and find_entry(name).outputs in page, page


def test_models_load_with_their_arguments(answers):
    _, types, shape, difference = answers
    assert types == {name: find_entry(name).class_name for name in list_models()}
    assert shape == [1, 5, 64, 64]
    assert difference > 0, "token_merging=bsm_hq changes nothing"
