"""The reader of Paddle's pickles: every kind of array, and nothing that runs."""

import collections
import io
import os
import pickle
import struct
import time
import tracemalloc

import numpy as np
import pytest

from paddle_rt.errors import UserError
from paddle_rt.formats.paddle_pickle import read_paddle


def read(content: object, protocol: int = 4) -> object:
    data = pickle.dumps(content, protocol)
    return read_paddle(io.BytesIO(data), len(data))


class Call:
    """Pickled as the call of a function, which the usual unpickler makes."""

    def __init__(self, function, *arguments, state=None) -> None:
        self.parts = (function, arguments) if state is None else (function, arguments, state)

    def __reduce__(self):
        return self.parts


SQUARE = np.arange(6, dtype=np.float32).reshape(2, 3)
ARRAYS = {
    "float32": SQUARE,
    "fortran": np.asfortranarray(SQUARE),
    "strided": SQUARE[:, ::2],
    "big_endian": SQUARE.astype(">f4"),
    "float16": SQUARE.astype(np.float16),
    "int64": SQUARE.astype(np.int64),
    "bfloat16": SQUARE.astype(np.uint16),  # as Paddle stores it
    "bool": SQUARE > 2,
    "empty": np.zeros((0, 3), np.float32),
    "zero_dimensions": np.array(3.0),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_of_every_kind_in_every_protocol(protocol):
    found = read(collections.OrderedDict(ARRAYS), protocol)
    assert type(found) is dict and list(found) == list(ARRAYS)
    for name, array in ARRAYS.items():
        assert isinstance(found[name], np.ndarray) and found[name].dtype == array.dtype.newbyteorder("="), name
        assert found[name].shape == array.shape and np.array_equal(found[name], array), name
        assert found[name].flags.writeable, name


@pytest.mark.parametrize("protocol", [2, 4])
def test_what_an_optimizer_keeps(protocol):
    tensor = Call(tuple, ("linear_0.w_0_moment1_0", SQUARE))  # as paddle.save stores a tensor
    content = {"moment": tensor, "LR_Scheduler": {"last_epoch": 3, "last_lr": np.float64(0.25)}, "list": [1, (2, "x")]}
    found = read(content, protocol)
    assert np.array_equal(found["moment"], SQUARE)
    assert found["LR_Scheduler"] == {"last_epoch": 3, "last_lr": 0.25} and found["list"] == [1, (2, "x")]


def test_parts_of_a_large_parameter_are_joined_and_the_table_of_names_is_left_out():
    parts = {"w@@.0": SQUARE.ravel()[:4], "w@@.1": SQUARE.ravel()[4:]}
    table = {"w": {"OriginShape": (2, 3), "slices": list(parts)}}
    found = read({**parts, "UnpackBigParamInfor@@": table, "StructuredToParameterName@@": {"w": "conv_0.w_0"}}, 2)
    assert list(found) == ["w"] and np.array_equal(found["w"], SQUARE)


def test_a_file_of_python_2_whose_bytes_are_texts():
    data = SQUARE.tobytes().decode("latin1")
    array = Call(np.core.multiarray._reconstruct, np.ndarray, (0,), "b", state=(1, (2, 3), SQUARE.dtype, False, data))
    assert np.array_equal(read({"w": array}, 2)["w"], SQUARE)


def test_a_tensor_of_a_static_graph():
    assert np.array_equal(read(Call(eval, "data", {"data": SQUARE})), SQUARE)


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize("function", ["system", "eval", "eval_data", "getattr", "import", "load", "setattr"])
def test_nothing_in_a_file_is_run(protocol, function, tmp_path):
    mark = tmp_path / "mark"
    call = {
        "system": Call(os.system, f"touch {mark}"),
        "eval": Call(eval, f"open({str(mark)!r}, 'w').close()"),
        "eval_data": Call(eval, f"open({str(mark)!r}, 'w').close()", {"data": SQUARE}),
        "getattr": Call(getattr, "text", "upper"),
        "import": Call(__import__, "antigravity"),
        "load": Call(np.load, "x.npy"),
        "setattr": Call(setattr, Call(__import__, "paddle_rt"), "create_model", None),
    }[function]
    with pytest.raises(UserError, match="refused: the file asks .* it was not run"):
        read({"w": SQUARE, "x": call}, protocol)
    assert not mark.exists()


def test_small_files_do_not_become_large():
    """Fifty arrays of the same million bytes, which a pickle can name without storing them again."""
    stored = pickle.dumps(bytes(1_000_000), 4)[:-1]  # without the end; the bytes are number 0 of the memo
    array = (
        b"cnumpy.core.numeric\n_frombuffer\n(h\x00cnumpy\ndtype\n\x8c\x02u1\x89\x88\x87R"
        b"J\x40\x42\x0f\x00\x85\x8c\x01CtR"
    )
    for count in (1, 50):
        data = stored + b"0]" + count * (array + b"a") + b"."
        if count == 1:
            assert len(read_paddle(io.BytesIO(data), len(data))[0]) == 1_000_000
        else:
            with pytest.raises(UserError, match="claims more numbers than it has bytes"):
                read_paddle(io.BytesIO(data), len(data))


def test_lists_that_hold_each_other_take_no_time():
    doubled: list = [0]
    for _ in range(60):
        doubled = [doubled, doubled]
    start = time.perf_counter()
    read({"x": doubled})
    assert time.perf_counter() - start < 5
    endless: list = []
    endless.append(endless)
    with pytest.raises(RecursionError):
        read({"x": endless})


def test_claimed_lengths_take_no_memory():
    for opcode in (pickle.BINBYTES8, pickle.BYTEARRAY8, pickle.BINUNICODE8, pickle.FRAME):
        data = b"\x80\x05" + opcode + struct.pack("<Q", 2**31) + b"."
        tracemalloc.start()
        with pytest.raises((pickle.UnpicklingError, EOFError, IndexError)):
            read_paddle(io.BytesIO(data), len(data))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1_000_000, f"{opcode!r} takes {peak} bytes"


def test_arrays_of_texts_and_objects_are_left_to_the_caller():
    found = read({"text": np.array(["x"]), "object": np.array([None, 1], object)})
    assert not any(isinstance(value, np.ndarray) for value in found.values())
