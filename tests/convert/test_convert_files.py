"""Files given to the converter: harmful, damaged or of another kind; and the tool's one line for each."""

import io
import json
import pickle
import pickletools
import shutil
import struct
import sys
import zipfile

import numpy as np
import paddle
import pytest

from paddle_rt import create_model
from paddle_rt.checkpoint import atomic_save, named_values, read_state_dict
from paddle_rt.convert import known_names, load_torch, read_torch
from paddle_rt.convert.pickled import Storage, Tensor
from paddle_rt.errors import UserError
from tests.helpers import ROOT, call_tool

DATA = ROOT / "tests" / "data"
FORMATS = {
    "zip": "segformer_mmsegmentation_float16.pth",
    "legacy": "segformer_nvlabs.pth",
    "safetensors": "segformer_transformers.safetensors",
}


SMALL = dict(embed_dim=4, depths=(1, 2, 1, 1), num_heads=(1, 1, 1, 2), head_channels=6)


class Call:
    """Pickled as the call of a function, which the usual unpickler makes."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def with_pickle(kind: str, pickled: bytes) -> bytes:
    """A shipped checkpoint with another pickle in the place of its own."""
    if kind == "zip":
        source, target = zipfile.ZipFile(DATA / FORMATS["zip"]), io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            for name in source.namelist():
                archive.writestr(name, pickled if name.endswith("data.pkl") else source.read(name))
        return target.getvalue()
    whole = (DATA / FORMATS["legacy"]).read_bytes()
    stream = io.BytesIO(whole)
    for _ in range(3):  # magic number, version, system
        pickle.load(stream)
    start = stream.tell()
    for _ in pickletools.genops(stream):
        pass
    return whole[:start] + pickled + whole[stream.tell() :]


@pytest.mark.parametrize("kind", ["zip", "legacy"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", ["system", "eval", "open", "getattr", "import", "setattr"])
def test_nothing_in_a_file_is_run(kind, protocol, function, tmp_path):
    mark, file = tmp_path / "mark", tmp_path / "x.pth"
    call = {
        "system": Call(__import__("os").system, f"touch {mark}"),
        "eval": Call(eval, f"open({str(mark)!r}, 'w').close()"),
        "open": Call(open, str(mark), "w"),
        "getattr": Call(getattr, "text", "upper"),
        "import": Call(__import__, "antigravity"),
        "setattr": Call(setattr, Call(__import__, "paddle_rt"), "create_model", None),
    }[function]
    pickled = pickle.dumps({"a.weight": call, "state_dict": {"b": call}}, protocol)
    file.write_bytes(with_pickle(kind, pickled))
    with pytest.raises(UserError, match="refused: the file asks for .* was not run"):
        read_torch(file)
    assert not mark.exists() and "antigravity" not in sys.modules
    pickle.loads(pickle.dumps(Call(open, str(mark), "w"), protocol)).close()
    assert mark.exists(), "the usual unpickler makes such calls"


def test_what_training_keeps_beside_the_weights_is_a_blank(tmp_path):
    """Objects of numpy, which a usual unpickler makes, are neither made nor in the way."""
    state = {"random": np.random.default_rng(0), "when": __import__("datetime").date(2024, 1, 1), "epoch": 3}
    (tmp_path / "x.pth").write_bytes(with_pickle("zip", pickle.dumps(state, 2)))
    with pytest.raises(UserError, match="'random' is not a tensor"):
        read_torch(tmp_path / "x.pth")


@pytest.mark.parametrize("kind", FORMATS)
def test_a_cut_file_is_refused(kind, tmp_path):
    whole = (DATA / FORMATS[kind]).read_bytes()
    for size in [0, 1, 8, 9, 20, 100, *range(1000, len(whole), 7001), len(whole) - 1]:
        (tmp_path / "x.pth").write_bytes(whole[:size])
        with pytest.raises(UserError, match="x.pth"):
            read_torch(tmp_path / "x.pth")


@pytest.mark.parametrize("kind", FORMATS)
def test_changed_bytes_give_arrays_or_one_clear_error(kind, tmp_path):
    """Whatever a byte says, nothing but a UserError is raised, and what is read is what loading can judge."""
    whole, rng = (DATA / FORMATS[kind]).read_bytes(), np.random.default_rng(1)
    places = len(whole) if kind == "legacy" else 20000 if kind == "zip" else 12000
    refused = 0
    for _ in range(60):
        changed = bytearray(whole)
        for place in rng.integers(0, places, 3):
            changed[place] = rng.integers(0, 256)
        (tmp_path / "x.pth").write_bytes(changed)
        try:
            state = read_torch(tmp_path / "x.pth")
        except UserError:
            refused += 1
        else:
            assert all(isinstance(value, np.ndarray) for value in state.values())
    assert refused, "no change was found"


@pytest.mark.parametrize("name", FORMATS.values())
def test_shapes_that_do_not_fit_are_refused(name):
    """Each kind of tensor in turn as a scalar, a vector and one dimension too many."""
    state = known_names("SegFormerPlusPlus", read_torch(DATA / name))
    net = create_model("segformerpp_b0", 3, head="conv" if name == FORMATS["zip"] else "mlp", **SMALL)
    for key in [key for key in state if ".0.0." in key or "block1.0" in key or "decode" in key or ".1.0." in key]:
        if key.endswith("num_batches_tracked") or (key.startswith("decode_head.conv_seg") and "nvlabs" in name):
            continue  # nothing reads them
        for value in (np.float32(1), np.ones(13, "float32"), state[key][..., np.newaxis, np.newaxis, np.newaxis]):
            with pytest.raises(UserError):
                load_torch(net, {**state, key: value})


def test_two_checkpoints_in_one_are_refused():
    state = known_names("SegFormerPlusPlus", read_torch(DATA / "segformer_nvlabs.pth"))
    net = create_model("segformerpp_b0", 3, head="mlp")
    twice = {**state, **{name.removeprefix("backbone."): value for name, value in state.items()}}
    with pytest.raises(UserError, match="are these two checkpoints"):
        load_torch(net, twice)


def tensors(count: int, prefix: str = "layer") -> dict:
    return {f"{prefix}.{number}.weight": Tensor(Storage("0", "<f4"), 0, (2,), (1,)) for number in range(count)}


OPTIMIZER = {"state": {0: tensors(2, "exp")}, "param_groups": [{"lr": 0.1}]}
WRAPPED = {
    "plain": (tensors(4), None),
    "lightning": ({"epoch": 3, "state_dict": tensors(4), "optimizer_states": [OPTIMIZER]}, None),
    "tutorial": ({"model_state_dict": tensors(4), "optimizer_state_dict": OPTIMIZER, "epoch": 3}, None),
    "nested": ({"checkpoint": {"net": {"weights": tensors(4)}}, "scale": tensors(1, "amp")}, None),
    "average_alone": ({"epoch": 3, "state_dict_ema": tensors(4)}, None),
    "average": (
        {"state_dict_ema": tensors(5, "mean"), "state_dict": tensors(4)},
        "several state dicts: 'state_dict' is taken, and not 'state_dict_ema'",
    ),
    "two": ({"g": tensors(4), "d": tensors(3, "other")}, "several state dicts: 'g' is taken, and not 'd'"),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_the_state_dict_is_found_in_what_programs_save(name, caplog):
    caplog.set_level("INFO", "paddle_rt")
    content, said = WRAPPED[name]
    assert list(named_values(content, Tensor)) == list(tensors(4))
    assert (said in caplog.text) if said else not caplog.text


def renamed(how: str, state: dict) -> dict:
    if how == "averages":
        return {**state, **{"ema_" + name.replace(".", "_"): value * 0 for name, value in state.items()}}
    if how == "lightning":
        parts = [f"{part}.{name}" for part in ("ema_model", "model") for name in state]
        return dict(zip(parts, [value * 0 for value in state.values()] + list(state.values()), strict=True)) | {
            "criterion.weight": np.ones(3, "float32")
        }
    if how == "nested":
        return {f"model.net.{name}": value for name, value in state.items()} | {"criterion.weight": np.ones(3, "f4")}
    if how == "compiled_part":
        return {name.replace("decode_head.", "decode_head._orig_mod."): value for name, value in state.items()}
    return {how + name: value for name, value in state.items()}


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("model.", "'model.'"),
        ("_orig_mod.", "_orig_mod"),
        ("module._orig_mod.", "'module.'"),
        ("net.segmentor.", "'net.segmentor.'"),
        ("compiled_part", "_orig_mod"),
        ("nested", "begin with 'model.net.'; left out are criterion.* (1)"),
        ("lightning", "begin with 'model.'; left out are ema_model.* ("),
        ("averages", "buffers ema_* hold a moving average of the weights and are left out"),
    ],
)
def test_what_programs_add_to_names_is_taken_off_and_named(how, said, caplog):
    caplog.set_level("INFO", "paddle_rt")
    state = read_torch(DATA / FORMATS["safetensors"])
    net = create_model("segformerpp_b0", 3, head="mlp", **SMALL)
    load_torch(net, state)
    expected = {name: value.numpy().copy() for name, value in net.state_dict().items()}
    load_torch(net, {name: value * 0 for name, value in state.items()})
    assert not caplog.text
    load_torch(net, renamed(how, state))
    assert said in caplog.text
    assert all(np.array_equal(value.numpy(), expected[name]) for name, value in net.state_dict().items())


def test_a_classifier_and_a_backbone_get_the_hint(tool, tmp_path):
    state = read_torch(DATA / FORMATS["safetensors"])
    backbone = {name: value for name, value in state.items() if not name.startswith("decode_head.")}
    classifier = {**backbone, "classifier.weight": np.zeros((5, 8), "float32"), "classifier.bias": np.zeros(5, "f4")}
    net = create_model("segformerpp_b0", 3, head="mlp", **SMALL)
    for content, what in ((classifier, "a classifier (classifier.weight, classifier.bias)"), (backbone, "a backbone")):
        with pytest.raises(UserError, match="--backbone_only") as raised:
            load_torch(net, content)
        assert what in str(raised.value)
        load_torch(net, content, backbone_only=True)


def test_many_tensors_of_one_storage_do_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr("paddle_rt.convert.reading._MOST_SHARED", 0.1)
    with pytest.raises(UserError, match="its tensors claim more than 0.1 times its"):
        read_torch(DATA / FORMATS["zip"])


def huge(path) -> None:
    """A safetensors header of two gigabytes in a file of three, which takes no room."""
    with open(path, "wb") as stream:
        stream.write(struct.pack("<Q", 2_000_000_000) + b"{")
        stream.truncate(3_000_000_000)


BAD = {
    "missing.pth": (None, "no checkpoint at"),
    "folder.pth": ("folder", "is a folder, expected a regular file"),
    "empty.pth": (b"", "neither a PyTorch checkpoint"),
    "text.pth": (b"<!DOCTYPE html><html>not found</html>", "neither a PyTorch checkpoint"),
    "image.pth": (b"\x89PNG\r\n\x1a\n" + bytes(64), "neither a PyTorch checkpoint"),
    "cut.pth": ((DATA / "segformer_nvlabs.pth").read_bytes()[:30000], "truncated"),
    "archive.pth": (b"PK\x05\x06" + bytes(18), "neither a PyTorch checkpoint"),
    "pickle.pkl": (pickle.dumps([1, 2, 3]), "that torch.save did not write"),
    "huge.safetensors": (huge, "a header of 2000000000 bytes"),
    "empty.pdparams": (b"", "not a whole Paddle checkpoint"),
}


@pytest.fixture
def tool(capsys):
    """Call tools/convert.py in this process; its exit code and what it wrote to stderr."""

    def call(*arguments: object) -> tuple[int, str]:
        return call_tool("convert", *arguments), capsys.readouterr().err

    return call


@pytest.mark.parametrize("name", BAD)
def test_the_tool_refuses_a_bad_file_with_one_line(tool, name, tmp_path):
    content, message = BAD[name]
    if content == "folder":
        (tmp_path / name).mkdir()
    elif callable(content):
        content(tmp_path / name)
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    target = tmp_path / "made" / "x.pdparams"
    code, line = tool("--model", "segformerpp_b0", "--input", tmp_path / name, "--output", target)
    assert code == 1 and line.startswith("error: ") and line.count("\n") == 1, line
    assert message in line and name in line and not target.parent.exists(), line


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model", "segformerpp_b0"], "shape"),  # of another width
        (["--model", "segformerpp_b1", "--num_classes", "3"], "shape"),
        (["--model", "segformerpp_b0", "--head", "conv"], "linear_c1"),
        (["--model", "fanet18"], "belong to none of these: FANet's training code"),
        (["--model", "rtformer_slim"], "no conversion to RTFormer"),
        (["--model", "segformerp_b0"], "did you mean 'segformerpp_b0'"),
    ],
)
def test_the_tool_refuses_another_architecture_with_one_line(tool, flags, message, tmp_path):
    target = tmp_path / "x.pdparams"
    code, line = tool(*flags, "--input", DATA / "segformer_nvlabs.pth", "--output", target)
    assert code == 1 and line.startswith("error: ") and line.count("\n") == 1 and message in line, line
    assert not target.exists()


def write_safetensors(state: dict[str, np.ndarray], path) -> None:
    header, start = {}, 0
    for name, value in state.items():
        header[name] = {"dtype": "F32", "shape": value.shape, "data_offsets": [start, start + value.nbytes]}
        start += value.nbytes
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(value.tobytes() for value in state.values()))


def test_the_tool_converts_a_whole_network(tool, tmp_path):
    """B0 under NVlabs' names and back: the same numbers, in a file that the model loads to the last name."""
    source = create_model("segformerpp_b0", 3, head="mlp")
    theirs = {}
    for name, value in source.state_dict().items():
        layer = source
        for part in name.split(".")[:-1]:
            layer = getattr(layer, part)
        array = value.numpy().T if isinstance(layer, paddle.nn.Linear) and name.endswith("weight") else value.numpy()
        name = name if name.startswith("backbone.") else f"decode_head.{name}"
        for ours, nvlabs in {"._conv.": ".conv.", "._batch_norm.": ".bn.", "._mean": ".running_mean"}.items():
            name = name.replace(ours, nvlabs)
        theirs[name.replace("._variance", ".running_var")] = np.ascontiguousarray(array)
    write_safetensors(theirs, tmp_path / "b0.safetensors")
    flags = ["--model", "segformerpp_b0", "--num_classes", 3, "--output", tmp_path / "b0.pdparams"]
    code, line = tool(*flags, "--input", tmp_path / "b0.safetensors")
    assert code == 0, line
    again = create_model("segformerpp_b0", 3, head="mlp", checkpoint=tmp_path / "b0.pdparams").state_dict()
    assert all(np.array_equal(value.numpy(), again[name].numpy()) for name, value in source.state_dict().items())


def test_the_tool_leaves_an_earlier_file_alone_when_it_fails(tool, tmp_path):
    shutil.copy(DATA / "segformer_nvlabs.pth", tmp_path / "x.pth")
    atomic_save({"earlier": np.zeros(1)}, tmp_path / "x.pdparams")
    code, line = tool("--model", "segformerpp_b0", "--input", tmp_path / "x.pth", "--output", tmp_path / "x.pdparams")
    assert code == 1 and list(read_state_dict(tmp_path / "x.pdparams")) == ["earlier"], line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.pdparams", "x.pth"]
