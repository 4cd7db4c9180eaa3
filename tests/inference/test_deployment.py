"""deploy.yaml stays in its folder, and every file that an engine reads is covered by a digest."""

import json
import os
import pathlib

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from paddle_rt.inference.deployment import (
    VERIFICATION,
    Deployment,
    check_graph,
    file_digest,
    load_deployment,
    save_deployment,
)
from paddle_rt.inference.external_data import external_files
from tests.helpers import message


def graph(folder: pathlib.Path, name: str = "model.onnx", beside: str = "") -> pathlib.Path:
    """Write a graph with numbers in an initializer and in a branch; `beside` names the file that holds them."""

    def tensor(key: str) -> onnx.TensorProto:
        return numpy_helper.from_array(np.ones(300, np.float32), key)

    branch = helper.make_graph([helper.make_node("Constant", [], ["c"], value=tensor("k"))], "branch", [], [])
    nodes = [helper.make_node("Add", ["x", "w"], ["y"])]
    nodes += [helper.make_node("If", ["b"], ["z"], then_branch=branch, else_branch=branch)]
    model = helper.make_model(helper.make_graph(nodes, "g", [], [], [tensor("w")]))
    external = dict(save_as_external_data=True, location=beside, size_threshold=0, convert_attribute=True)
    onnx.save(model, folder / name, **(external if beside else {}))
    return folder / name


@pytest.fixture
def export(tmp_path) -> pathlib.Path:
    folder = tmp_path / "export"
    folder.mkdir()
    graph(folder)
    write_digests(folder, "model.onnx")
    return with_onnx(folder, "model.onnx")


def write_digests(folder: pathlib.Path, *names: str) -> None:
    digests = {name: file_digest(folder / name) for name in names}
    (folder / VERIFICATION).write_text(json.dumps({"files": digests}))


def with_onnx(folder: pathlib.Path, name: str) -> pathlib.Path:
    """Describe the export as one whose ONNX graph has another name."""
    save_deployment(Deployment(folder, [], [1, 3, 8, 8], "argmax", onnx=name))
    return folder


def test_names_stay_in_the_folder(export, tmp_path):
    load_deployment(export)
    outside = graph(tmp_path, "outside.onnx")
    for name in (str(outside), "../outside.onnx", "x/../../outside.onnx", str(export / "model.onnx")):
        assert "leads out of the folder" in message(load_deployment, with_onnx(export, name))
    (export / "link.onnx").symlink_to(outside)
    assert "leads out of the folder" in message(load_deployment, with_onnx(export, "link.onnx"))


@pytest.mark.parametrize("name", ["deploy.yaml", VERIFICATION, "model.onnx"])
def test_a_pipe_in_an_export_is_refused(export, name):
    (export / name).unlink()
    os.mkfifo(export / name)
    assert f"{name} is a named pipe" in message(load_deployment, export)


def test_a_huge_description_is_refused_before_it_is_read(export):
    os.truncate(export / "deploy.yaml", 2**21)
    assert "has 2097152 bytes, expected at most" in message(load_deployment, export)


def test_numbers_beside_a_graph_are_covered(export):
    graph(export, beside="weights.bin")
    assert external_files(export / "model.onnx") == {"weights.bin"}
    write_digests(export, "model.onnx")
    deployment = load_deployment(export)
    assert "does not list" in message(check_graph, deployment, "model.onnx")
    write_digests(export, "model.onnx", "weights.bin")
    check_graph(deployment, "model.onnx")
    (export / "weights.bin").write_bytes(bytes(2400))
    assert "weights.bin is not the graph that" in message(check_graph, deployment, "model.onnx")


def test_numbers_elsewhere_are_refused(export, tmp_path):
    graph(tmp_path, "outside.onnx", beside="weights.bin")
    data = (tmp_path / "outside.onnx").read_bytes()
    (export / "model.onnx").write_bytes(data.replace(b"weights.bin", b"../x/ws.bin"))
    assert external_files(export / "model.onnx") == {"../x/ws.bin"}
    write_digests(export, "model.onnx")
    assert "leads out of the folder" in message(check_graph, load_deployment(export), "model.onnx")


def test_a_damaged_graph_is_refused(export):
    whole = graph(export, beside="weights.bin").read_bytes()
    for data in (b"\xff" * 50, b"no graph at all", whole[:-5]):
        (export / "model.onnx").write_bytes(data)
        write_digests(export, "model.onnx")
        assert "model.onnx is damaged: it is no ONNX graph" in message(
            check_graph, load_deployment(export), "model.onnx"
        )


@pytest.mark.parametrize("content", ["", "[]", '{"files": 3}', "{", "[" * 100_000, '{"files": {}}'])
def test_a_damaged_verification_is_named(export, content):
    (export / VERIFICATION).write_text(content)
    assert VERIFICATION in message(check_graph, load_deployment(export), "model.onnx")
