"""Checkpoints: strict to the last name, and whole or absent on disk."""

import io
import logging
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import paddle
import pytest

from paddle_rt.checkpoint import atomic_save, load, load_pretrained, read_saved, read_state_dict, save_weights
from paddle_rt.errors import UserError
from paddle_rt.files import whole_file


class Net(paddle.nn.Layer):
    """A trunk and a head."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.trunk = paddle.nn.Conv2D(3, width, 3)
        self.norm = paddle.nn.BatchNorm2D(width)
        self.head = paddle.nn.Conv2D(width, 2, 1)


def arrays(model: paddle.nn.Layer) -> dict[str, np.ndarray]:
    return {name: value.numpy() for name, value in model.state_dict().items()}


@pytest.mark.parametrize("folder", [False, True])
def test_round_trip(folder, tmp_path):
    source, target = Net(), Net()
    atomic_save(source.state_dict(), tmp_path / "new" / "model.pdparams")
    path = tmp_path / "new" if folder else tmp_path / "new" / "model.pdparams"
    assert list(read_state_dict(path)) == list(source.state_dict())
    load(target, path)
    for name, value in arrays(source).items():
        np.testing.assert_array_equal(arrays(target)[name], value)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["model.pdparams"]


def pickled(content: object) -> bytes:
    return pickle.dumps(content, protocol=2)


def zipped(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr(name, pickled({"trunk.weight": np.zeros(3)}))
    return buffer.getvalue()


NOT_CHECKPOINTS = {
    "empty": (b"", "0 bytes.* is not a whole Paddle checkpoint"),
    "text": (b"trunk.weight: 3\n", "not a whole Paddle checkpoint"),
    "zeros": (bytes(4096), "not a whole Paddle checkpoint"),
    "noise": (np.random.default_rng(0).bytes(4096), "not a whole Paddle checkpoint"),
    "list": (pickled([np.zeros(3)]), "holds list, expected a state dict"),
    "number": (pickled(3), "holds int, expected a state dict"),
    "empty_dict": (pickled({}), "holds dict, expected a state dict"),
    "dict_of_texts": (pickled({"trunk.weight": "x"}), "trunk.weight hold no array"),
    "array_of_texts": (pickled({"trunk.weight": np.array(["x"])}), "trunk.weight hold no array"),
    "zip": (zipped("model.pdparams"), "not a whole Paddle checkpoint.*comes from another framework"),
    "torch": (zipped("archive/data.pkl"), "not a whole Paddle checkpoint.*comes from another framework"),
    "old_torch": (pickled(0x1950A86A20F9469CFC6C) + pickled(1001), "holds int, expected a state dict"),
}


@pytest.mark.parametrize("name", NOT_CHECKPOINTS)
def test_file_that_is_no_checkpoint(name, tmp_path):
    content, message = NOT_CHECKPOINTS[name]
    file = tmp_path / "model.pdparams"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        read_state_dict(file)
    assert str(file) in str(raised.value)


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated_checkpoint(part, tmp_path):
    file = tmp_path / "model.pdparams"
    atomic_save(Net().state_dict(), file)
    file.write_bytes(file.read_bytes()[: int(part * file.stat().st_size)])
    with pytest.raises(UserError, match="is not a whole Paddle checkpoint"):
        read_state_dict(file)


def test_optimizers_file(tmp_path):
    model = Net()
    schedule = paddle.optimizer.lr.StepDecay(0.1, 1)
    optimizer = paddle.optimizer.Adam(schedule, parameters=model.parameters())
    model.head.weight.sum().backward()
    optimizer.step()
    atomic_save(optimizer.state_dict(), tmp_path / "model.pdopt")
    with pytest.raises(UserError, match="LR_Scheduler hold no array; is it an optimizer's file"):
        read_state_dict(tmp_path / "model.pdopt")


def test_a_state_dict_is_found_among_what_is_saved_beside_it(tmp_path, caplog):
    model, average = Net(), Net()
    optimizer = paddle.optimizer.Adam(parameters=model.parameters())
    model.head.weight.sum().backward()
    optimizer.step()
    beside = {"epoch": 3, "args": {"lr": 0.1}, "optimizer": optimizer.state_dict()}
    caplog.set_level(logging.INFO, logger="paddle_rt")
    for wrapped, lines in (
        ({"model": model.state_dict(), **beside}, 1),
        ({"ema": average.state_dict(), "net": {"weights": model.state_dict()}}, 1),
        ({"module": {f"module.{name}": value for name, value in model.state_dict().items()}}, 0),
    ):
        caplog.clear()
        paddle.save(wrapped, str(tmp_path / "x.pdparams"))
        target = Net()
        state = read_state_dict(tmp_path / "x.pdparams")
        assert len(caplog.messages) <= lines, caplog.messages
        load(target, state)
        for name, value in arrays(model).items():
            np.testing.assert_array_equal(arrays(target)[name], value)


@pytest.mark.parametrize("make", [lambda path: None, Path.mkdir])
def test_nothing_there(make, tmp_path):
    make(tmp_path / "output")
    with pytest.raises(UserError, match="no checkpoint at .*output.*; expected a .pdparams or .safetensors file, or a"):
        read_state_dict(tmp_path / "output")


def changed(**changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """A state dict of Net with entries replaced, added, or (None) taken away; __ stands for a point."""
    state = {**arrays(Net()), **{name.replace("__", "."): value for name, value in changes.items()}}
    return {name: value for name, value in state.items() if value is not None}


MISFITS = {
    "missing": (changed(head__bias=None), r"1 missing \(head.bias\)"),
    "extra": (changed(hed__bias=np.zeros(2)), r"1 unknown \(hed.bias; the first looks like head.bias\)"),
    "misshapen": (changed(head__bias=np.zeros(5)), r"1 of another shape \(head.bias: file \[5\], model \[2\]\)"),
    "prefix": (
        {f"model.{name}": value for name, value in changed().items()} | {"ema.decay": np.zeros(1)},
        r"8 missing \(trunk.weight, trunk.bias, norm.weight and 5 more\); 9 unknown",
    ),
    "nan": (changed(head__bias=np.array([0, np.nan])), r"1 with numbers that are not finite \(head.bias\)"),
    "inf": (changed(norm___mean=np.full(4, np.inf)), r"not finite \(norm._mean\)"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_misfit_is_named_and_changes_nothing(name):
    state, message = MISFITS[name]
    model = Net()
    before = arrays(model)
    with pytest.raises(UserError, match=message):
        load(model, {key: value.astype("float32") for key, value in state.items()})
    for key, value in arrays(model).items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.parametrize("prefix", ["model.", "a.b."])
def test_a_prefix_of_all_names_is_taken_off_and_named(prefix, caplog):
    caplog.set_level(logging.INFO, "paddle_rt")
    model, state = Net(), changed()
    load(model, {f"{prefix}{name}": value for name, value in state.items()})
    assert all(np.array_equal(value, state[name]) for name, value in arrays(model).items())
    assert f"All names of the checkpoint begin with {prefix!r}, which is taken off" in caplog.text


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_files_of_paddle_are_read_as_paddle_reads_them(protocol, tmp_path):
    model = Net()
    optimizer = paddle.optimizer.Adam(paddle.optimizer.lr.StepDecay(0.1, 1), parameters=model.parameters())
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    scores = {"mIoU": np.float64(0.25), "Acc": 0.5, "iter": 3}
    for content in (model.state_dict(), optimizer.state_dict(), scores, [paddle.ones([2]), "text"]):
        paddle.save(content, str(tmp_path / "x"), protocol=protocol)
        ours, theirs = read_saved(tmp_path / "x"), paddle.load(str(tmp_path / "x"), return_numpy=True)
        assert type(ours) in (dict, list) and len(ours) == len(theirs)
        pairs = zip(ours, theirs, strict=True) if isinstance(ours, list) else ((ours[k], theirs[k]) for k in theirs)
        for mine, other in pairs:
            assert type(mine) is type(other) and np.array_equal(mine, other), (mine, other)


def test_a_pickle_that_runs_something_is_refused_by_name(tmp_path):
    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'mark'}",)

    for name in ("model.pdparams", "model.pdopt", "model.pdstates"):
        (tmp_path / name).write_bytes(pickled({"w": np.zeros(3), "x": Hostile()}))
        with pytest.raises(UserError, match=rf"{name}: refused: the file asks for \w+.system.*it was not run"):
            read_saved(tmp_path / name)
    assert not (tmp_path / "mark").exists()


def test_safetensors_are_read_wherever_pdparams_are(tmp_path):
    source, target = Net(), Net()
    atomic_save(source.state_dict(), tmp_path / "run" / "model.safetensors")
    for path in (tmp_path / "run", tmp_path / "run" / "model.safetensors"):
        target = Net()
        load(target, path)
        for name, value in arrays(source).items():
            np.testing.assert_array_equal(arrays(target)[name], value)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["model.safetensors"]
    atomic_save(source.state_dict(), tmp_path / "run" / "model.pdparams")
    with pytest.raises(UserError, match="run holds model.pdparams and model.safetensors; name the file"):
        load(target, tmp_path / "run")


def test_a_folder_that_holds_the_moving_average_alone(tmp_path):
    """The weights of ema_best_model are taken; where a folder has both, those of the network are."""
    state = {"weight": np.ones(2, np.float32)}
    save_weights(state, tmp_path / "ema_model.pdparams")
    np.testing.assert_array_equal(read_state_dict(tmp_path)["weight"], state["weight"])
    save_weights({"weight": np.zeros(2, np.float32)}, tmp_path / "model.pdparams")
    np.testing.assert_array_equal(read_state_dict(tmp_path)["weight"], np.zeros(2))


def test_safetensors_of_half_precision(tmp_path):
    state = {"w": paddle.ones([2, 3]).astype("bfloat16") / 3, "h": np.ones(2, np.float16), "n": np.array(3)}
    save_weights(state, tmp_path / "x.safetensors")
    found = read_state_dict(tmp_path / "x.safetensors")
    assert found["w"].dtype == np.float32 and found["h"].dtype == np.float16
    assert found["n"].shape == () and found["n"] == 3
    assert np.array_equal(found["w"], state["w"].astype("float32").numpy())


@pytest.mark.parametrize("size", [0, 5, 30, 200, -1])
def test_a_cut_safetensors_file_is_refused(size, tmp_path):
    atomic_save(Net().state_dict(), tmp_path / "x.safetensors")
    (tmp_path / "x.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:size])
    with pytest.raises(UserError, match=r"x\.safetensors"):
        read_state_dict(tmp_path / "x.safetensors")


def test_patterns_excuse_what_they_name():
    model, state = Net(), changed(head__weight=None, extra=np.ones(1), head__bias=np.zeros(9, "float32"))
    load(model, state, may_miss=["head.*"], may_skip=["extra"])
    np.testing.assert_array_equal(model.trunk.weight.numpy(), state["trunk.weight"])


def test_pretrained_wants_the_whole_trunk(tmp_path):
    model, state = Net(), changed(head__weight=None, head__bias=None, other=np.ones(1))
    atomic_save(state, tmp_path / "whole.pdparams")
    load_pretrained(model, str(tmp_path / "whole.pdparams"), new_head=["head.*"])
    np.testing.assert_array_equal(model.trunk.weight.numpy(), state["trunk.weight"])
    del state["norm._mean"]
    atomic_save(state, tmp_path / "part.pdparams")
    with pytest.raises(UserError, match=r"1 missing \(norm._mean\)"):
        load_pretrained(model, str(tmp_path / "part.pdparams"), new_head=["head.*"])


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_failed_saving_leaves_the_old_file(error, tmp_path, monkeypatch):
    file = tmp_path / "model.pdparams"
    atomic_save(Net().state_dict(), file)
    before = file.read_bytes()

    def save(_: object, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise error

    monkeypatch.setattr(paddle, "save", save)
    with pytest.raises(type(error)) as raised:
        atomic_save(Net().state_dict(), file)
    if isinstance(error, OSError):
        assert re.search("No space left on device: .*model.pdparams", str(raised.value))
    assert file.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["model.pdparams"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_types_that_are_no_weights_are_refused():
    model = paddle.nn.Linear(2, 2)
    bfloat16 = {"weight": np.full([2, 2], 16009, np.uint16), "bias": np.zeros(2, "float32")}
    with pytest.raises(UserError, match="bfloat16"):
        load(model, bfloat16)
    huge = {"weight": np.full([2, 2], 1e300), "bias": np.zeros(2, "float32")}
    with pytest.raises(UserError, match="not finite"):
        load(model, huge)


def test_full_disk_names_the_file(tmp_path):
    """What the system itself says of a full disk, which names no file."""
    with pytest.raises(OSError, match="No space left on device: .*scores.json"):
        with whole_file(tmp_path / "scores.json"), open("/dev/full", "w") as full:
            full.write("x")
    assert not os.listdir(tmp_path)
