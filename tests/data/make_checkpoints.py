"""Write the tiny checkpoints beside this file: python make_checkpoints.py, with torch 2, transformers 4 and safetensors.

One network of Hugging Face's transformers, with its output, and the same encoder under the names and in the files of
NVlabs and MMSegmentation. The weights are random.
"""

import pathlib
import sys
import types

import numpy as np
import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation

FOLDER = pathlib.Path(__file__).resolve().parent
WIDTHS, DEPTHS, HEADS, HEAD, CLASSES = [4, 4, 4, 8], [1, 2, 1, 1], [1, 1, 1, 2], 6, 3


def transformers_network() -> SegformerForSemanticSegmentation:
    config = SegformerConfig(
        depths=DEPTHS, hidden_sizes=WIDTHS, num_attention_heads=HEADS, decoder_hidden_size=HEAD,
        num_labels=CLASSES,
    )  # fmt: skip
    network = SegformerForSemanticSegmentation(config).eval()
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if value.dtype != torch.float32:
                continue
            if name.endswith("running_var"):
                value.uniform_(0.5, 1.5)
            elif value.ndim == 1:
                value.normal_(0.0, 0.2).add_(1.0 if name.endswith("weight") else 0.0)
            else:
                value.normal_(0.0, value[0].numel() ** -0.5)
    return network


def nvlabs(state: dict) -> dict:
    """NVlabs' names of the encoder, which has one matrix for key and value."""
    result = {}
    for i in range(4):
        theirs, n = "segformer.encoder.", i + 1
        pairs = {f"patch_embeddings.{i}.proj": f"patch_embed{n}.proj",
                 f"patch_embeddings.{i}.layer_norm": f"patch_embed{n}.norm", f"layer_norm.{i}": f"norm{n}"}  # fmt: skip
        for b in range(DEPTHS[i]):
            block = {"layer_norm_1": "norm1", "attention.self.query": "attn.q", "attention.output.dense": "attn.proj",
                     "layer_norm_2": "norm2", "mlp.dense1": "mlp.fc1", "mlp.dwconv.dwconv": "mlp.dwconv.dwconv",
                     "mlp.dense2": "mlp.fc2"}  # fmt: skip
            if i < 3:
                block |= {"attention.self.sr": "attn.sr", "attention.self.layer_norm": "attn.norm"}
            pairs |= {f"block.{i}.{b}.{key}": f"block{n}.{b}.{value}" for key, value in block.items()}
            for leaf in ("weight", "bias"):
                parts = [state[f"{theirs}block.{i}.{b}.attention.self.{part}.{leaf}"] for part in ("key", "value")]
                result[f"block{n}.{b}.attn.kv.{leaf}"] = torch.cat(parts)
        for key, value in pairs.items():
            for leaf in ("weight", "bias"):
                result[f"{value}.{leaf}"] = state[f"{theirs}{key}.{leaf}"]
    return result


def nvlabs_head(state: dict) -> dict:
    pairs = {f"linear_c.{i}.proj": f"linear_c{i + 1}.proj" for i in range(4)}
    pairs |= {"linear_fuse": "linear_fuse.conv", "batch_norm": "linear_fuse.bn", "classifier": "linear_pred"}
    result = {}
    for key, value in pairs.items():
        for name in state:
            if name.startswith(f"decode_head.{key}."):
                result[name.replace(key, value)] = state[name]
    return {**result, "decode_head.conv_seg.weight": torch.rand(CLASSES, HEAD, 1, 1)}


def mmsegmentation(encoder: dict) -> dict:
    """MMSegmentation's names of NVlabs' encoder: packed projections, feed-forward layers as convolutions."""
    result = {}
    for i in range(4):
        n, layer = i + 1, f"backbone.layers.{i}"
        pairs = {f"patch_embed{n}.proj": f"{layer}.0.projection", f"patch_embed{n}.norm": f"{layer}.0.norm",
                 f"norm{n}": f"{layer}.2"}  # fmt: skip
        for b in range(DEPTHS[i]):
            block = {"norm1": "norm1", "attn.proj": "attn.attn.out_proj", "attn.sr": "attn.sr", "attn.norm": "attn.norm",
                     "norm2": "norm2", "mlp.fc1": "ffn.layers.0", "mlp.dwconv.dwconv": "ffn.layers.1",
                     "mlp.fc2": "ffn.layers.4"}  # fmt: skip
            pairs |= {f"block{n}.{b}.{key}": f"{layer}.1.{b}.{value}" for key, value in block.items()}
            for leaf in ("weight", "bias"):
                both = [encoder[f"block{n}.{b}.attn.{part}.{leaf}"] for part in ("q", "kv")]
                result[f"{layer}.1.{b}.attn.attn.in_proj_{leaf}"] = torch.cat(both)
        for key, value in pairs.items():
            for leaf in ("weight", "bias"):
                if f"{key}.{leaf}" in encoder:
                    array = encoder[f"{key}.{leaf}"]
                    is_linear = "ffn" in value and array.ndim == 2
                    result[f"{value}.{leaf}"] = array[:, :, None, None] if is_linear else array
    convolutions = {f"convs.{i}": WIDTHS[i] for i in range(4)} | {"fusion_conv": 4 * HEAD}
    for name, channels in convolutions.items():
        result[f"decode_head.{name}.conv.weight"] = torch.randn(HEAD, channels, 1, 1)
        norm = torch.nn.BatchNorm2d(HEAD)
        norm.running_mean.normal_()
        result |= {f"decode_head.{name}.bn.{leaf}": value for leaf, value in norm.state_dict().items()}
    result["decode_head.conv_seg.weight"] = torch.randn(CLASSES, HEAD, 1, 1)
    result["decode_head.conv_seg.bias"] = torch.randn(CLASSES)
    return result


class HistoryBuffer:
    """Stands for mmengine's, which its checkpoints hold."""

    def __init__(self) -> None:
        self._log_history, self._statistics = np.arange(3.0), {"mean": np.float64(1.5)}


def main() -> None:
    torch.manual_seed(0)
    network = transformers_network()
    network.save_pretrained(FOLDER, safe_serialization=True)
    (FOLDER / "model.safetensors").rename(FOLDER / "segformer_transformers.safetensors")
    (FOLDER / "config.json").unlink()
    image = np.random.default_rng(0).standard_normal([1, 3, 64, 96]).astype("float32")
    with torch.no_grad():
        logits = network(torch.from_numpy(image)).logits.numpy()
    np.savez_compressed(FOLDER / "segformer_transformers_logits.npz", logits=logits)

    state = network.state_dict()
    encoder = nvlabs(state)
    whole = {**{f"backbone.{name}": value for name, value in encoder.items()}, **nvlabs_head(state)}
    old = {"meta": {"epoch": 1}, "state_dict": {f"module.{name}": value for name, value in whole.items()}}
    torch.save(old, FOLDER / "segformer_nvlabs.pth", _use_new_zipfile_serialization=False)
    classifier = {"head.weight": torch.randn(5, WIDTHS[-1]), "head.bias": torch.zeros(5)}
    imagenet = {name: value.bfloat16() for name, value in {**encoder, **classifier}.items()}
    torch.save(imagenet, FOLDER / "mit_nvlabs_bfloat16.pth", _use_new_zipfile_serialization=False)

    for name in ("mmengine", "mmengine.logging"):
        sys.modules[name] = types.ModuleType(name)
    sys.modules["mmengine.logging"].HistoryBuffer, HistoryBuffer.__module__ = HistoryBuffer, "mmengine.logging"
    half = {name: value.half() if value.is_floating_point() else value for name, value in mmsegmentation(encoder).items()}
    new = {"meta": {"seed": 1}, "message_hub": {"loss": HistoryBuffer()}, "state_dict": half,
           "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 6e-5}]}}  # fmt: skip
    torch.save(new, FOLDER / "segformer_mmsegmentation_float16.pth")


if __name__ == "__main__":
    main()
