"""The pages of docs/tutorials: every block runs, in order, as it stands there; only the training is cut short."""

import re
import shlex
import subprocess
import sys

import cv2
import numpy as np
import pytest
from safetensors.numpy import save_file

from paddle_rt.imaging import read_label
from tests.helpers import ROOT, written

BLOCK = re.compile(r"^```(sh|python)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TOOL = [sys.executable, "-c", "from paddle_rt.cli import main; main()"]


def follow(page: str, folder) -> None:
    """Run the blocks of a page in a folder that looks like the root of a clone."""
    for name in ("configs", "docs"):
        (folder / name).symlink_to(ROOT / name)
    blocks = BLOCK.findall((ROOT / f"docs/tutorials/{page}.md").read_text(encoding="utf-8"))
    assert {kind for kind, _ in blocks} == {"sh", "python"}, "the page has no blocks"
    for kind, block in blocks:
        for command in [block] if kind == "python" else block.splitlines():
            line = [sys.executable, "-c", command] if kind == "python" else _tool(command)
            done = subprocess.run(line, cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"


def _tool(command: str) -> list[str]:
    name, *words = shlex.split(command)
    assert name == "paddle-rt", command
    return [*TOOL, *words, *(["--iters", "2"] if words[0] == "train" else [])]


def transformers_segformer(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random weights of SegFormer B0 with the names of transformers' SegformerForSemanticSegmentation."""
    weights: dict[str, np.ndarray] = {}

    def layer(name: str, *shape: int, bias: bool = True) -> None:
        scale = 1 / np.sqrt(np.prod(shape[1:])) if len(shape) > 1 else 1
        weights[f"{name}.weight"] = (rng.normal(0, scale, shape) if len(shape) > 1 else np.ones(shape)).astype(
            "float32"
        )
        if bias:
            weights[f"{name}.bias"] = np.zeros(shape[0], "float32")

    encoder, before = "segformer.encoder", 3
    for stage, (width, reduction) in enumerate(zip((32, 64, 160, 256), (8, 4, 2, 1), strict=True)):
        size = 7 if stage == 0 else 3
        layer(f"{encoder}.patch_embeddings.{stage}.proj", width, before, size, size)
        layer(f"{encoder}.patch_embeddings.{stage}.layer_norm", width)
        for number in range(2):
            block = f"{encoder}.block.{stage}.{number}"
            for name in ("layer_norm_1", "layer_norm_2"):
                layer(f"{block}.{name}", width)
            for name in ("self.query", "self.key", "self.value", "output.dense"):
                layer(f"{block}.attention.{name}", width, width)
            if reduction > 1:
                layer(f"{block}.attention.self.sr", width, width, reduction, reduction)
                layer(f"{block}.attention.self.layer_norm", width)
            layer(f"{block}.mlp.dense1", 4 * width, width)
            layer(f"{block}.mlp.dwconv.dwconv", 4 * width, 1, 3, 3)
            layer(f"{block}.mlp.dense2", width, 4 * width)
        layer(f"{encoder}.layer_norm.{stage}", width)
        layer(f"decode_head.linear_c.{stage}.proj", 256, width)
        before = width
    layer("decode_head.linear_fuse", 256, 1024, 1, 1, bias=False)
    layer("decode_head.batch_norm", 256)
    layer("decode_head.classifier", 19, 256, 1, 1)
    weights["decode_head.batch_norm.running_mean"] = np.zeros(256, "float32")
    weights["decode_head.batch_norm.running_var"] = np.ones(256, "float32")
    weights["decode_head.batch_norm.num_batches_tracked"] = np.array(1)
    return weights


@pytest.mark.slow
def test_first_image(tmp_path):
    follow("first_image", tmp_path)
    output = tmp_path / "output"
    labels = [
        cv2.imread(str(output / folder / "pseudo_color_prediction/00000.png")) for folder in ("first", "labelled")
    ]
    assert labels[0].shape == (256, 512, 3)
    equal = float((labels[0] == labels[1]).all(-1).mean())
    print(f"{equal:.4%} of the labels of predict and infer are equal")
    assert equal > 0.99, equal


@pytest.mark.slow
def test_own_data(tmp_path):
    follow("own_data", tmp_path)
    output, labels = tmp_path / "output", {}
    for name in ("labelme", "coco", "masks"):
        files = sorted((output / f"data/{name}/labels").rglob("*.png"))
        assert len(files) == 60, name
        labels[name] = np.stack([read_label(str(file), 3) for file in files])
    for name in ("coco", "masks"):
        equal = float((labels[name] == labels["labelme"]).mean())
        print(f"{equal:.4%} of the labels from {name} are those from LabelMe")
        assert equal > 0.96, (name, equal)
    assert {"contact_sheet.png", "classes.png", "report.json"} <= set(written(output / "check"))
    assert len(list((output / "mine_labels/labelme").glob("*.json"))) == 60


@pytest.mark.slow
def test_pytorch_to_onnx(tmp_path):
    checkpoint = tmp_path / "output/checkpoint/model.safetensors"
    checkpoint.parent.mkdir(parents=True)
    save_file(transformers_segformer(np.random.default_rng(0)), checkpoint)
    follow("pytorch_to_onnx", tmp_path)
    assert (tmp_path / "output/segformer_labels/added_prediction/demo.jpg").stat().st_size > 0
