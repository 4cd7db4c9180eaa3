"""SegFormer's names in NVlabs' code, MMSegmentation and SegFormer++, and Hugging Face's transformers.

Our own are PaddleSeg's, which follow NVlabs'.
"""

import numpy as np

from paddle_rt.convert.naming import Naming, State, stacked

BACKBONE = "backbone."  # what the names of our backbone begin with


def _unpack_projections(state: State) -> State:
    """Split the projections that MMSegmentation keeps in one matrix, [3 C, C], into query and key-value."""
    result = {}
    for name, value in state.items():
        module, packed, leaf = name.rpartition(".in_proj_")
        if packed and value.ndim:
            channels = len(value) // 3
            result[f"{module}.q.{leaf}"] = value[:channels]
            result[f"{module}.kv.{leaf}"] = value[channels:]
        else:
            result[name] = value
    return result


def _join_keys_and_values(state: State) -> State:
    """Join the projections of key and value, which transformers keeps apart."""
    result = dict(state)
    for name in state:
        partner = name.replace(".self.key.", ".self.value.")
        if partner != name and partner in state and stacked([state[name], state[partner]]):
            result[name.replace(".self.key.", ".self.kv.")] = np.concatenate([result.pop(name), result.pop(partner)])
    return result


_NVLABS = Naming(
    source="NVlabs SegFormer",
    recognised_by="patch_embed1.proj",
    prefix="backbone.",
    classifier=("head",),
    unused=("decode_head.conv_seg",),  # created by the base class of the head
    arguments={"head": "mlp"},
    modules={
        "patch_embed{n}.{w}": "backbone.patch_embed{n}.{w}",
        "block{n}.{b}.norm1": "backbone.block{n}.{b}.norm1",
        "block{n}.{b}.norm2": "backbone.block{n}.{b}.norm2",
        "block{n}.{b}.attn.{w}": "backbone.block{n}.{b}.attn.{w}",
        "block{n}.{b}.mlp.{w}": "backbone.block{n}.{b}.mlp.{w}",
        "block{n}.{b}.mlp.dwconv.dwconv": "backbone.block{n}.{b}.mlp.dwconv.dwconv",
        "norm{n}": "backbone.norm{n}",
        "decode_head.linear_c{n}.proj": "linear_c{n}.proj",
        "decode_head.linear_fuse.conv": "linear_fuse._conv",
        "decode_head.linear_fuse.bn": "linear_fuse._batch_norm",
        "decode_head.linear_pred": "linear_pred",
    },
)

_MMSEGMENTATION = Naming(
    source="MMSegmentation or SegFormer++",
    recognised_by="layers.0.0.projection",
    prefix="backbone.",
    prepare=_unpack_projections,
    arguments={"head": "conv"},
    modules={
        "layers.{i}.0.projection": "backbone.patch_embed{n}.proj",
        "layers.{i}.0.norm": "backbone.patch_embed{n}.norm",
        "layers.{i}.1.{b}.norm1": "backbone.block{n}.{b}.norm1",
        "layers.{i}.1.{b}.attn.attn.q": "backbone.block{n}.{b}.attn.q",
        "layers.{i}.1.{b}.attn.attn.kv": "backbone.block{n}.{b}.attn.kv",
        "layers.{i}.1.{b}.attn.attn.out_proj": "backbone.block{n}.{b}.attn.proj",
        "layers.{i}.1.{b}.attn.sr": "backbone.block{n}.{b}.attn.sr",
        "layers.{i}.1.{b}.attn.norm": "backbone.block{n}.{b}.attn.norm",
        "layers.{i}.1.{b}.norm2": "backbone.block{n}.{b}.norm2",
        "layers.{i}.1.{b}.ffn.layers.0": "backbone.block{n}.{b}.mlp.fc1",
        "layers.{i}.1.{b}.ffn.layers.1": "backbone.block{n}.{b}.mlp.dwconv.dwconv",
        "layers.{i}.1.{b}.ffn.layers.4": "backbone.block{n}.{b}.mlp.fc2",
        "layers.{i}.2": "backbone.norm{n}",
        "decode_head.convs.{i}.conv": "linear_c{n}._conv",
        "decode_head.convs.{i}.bn": "linear_c{n}._batch_norm",
        "decode_head.fusion_conv.conv": "linear_fuse._conv",
        "decode_head.fusion_conv.bn": "linear_fuse._batch_norm",
        "decode_head.conv_seg": "linear_pred",
    },
)

_TRANSFORMERS = Naming(
    source="Hugging Face transformers",
    recognised_by="encoder.patch_embeddings.0.proj",
    prefix="segformer.",
    classifier=("classifier",),
    prepare=_join_keys_and_values,
    arguments={"head": "mlp"},
    modules={
        "encoder.patch_embeddings.{i}.proj": "backbone.patch_embed{n}.proj",
        "encoder.patch_embeddings.{i}.layer_norm": "backbone.patch_embed{n}.norm",
        "encoder.block.{i}.{b}.layer_norm_1": "backbone.block{n}.{b}.norm1",
        "encoder.block.{i}.{b}.attention.self.query": "backbone.block{n}.{b}.attn.q",
        "encoder.block.{i}.{b}.attention.self.kv": "backbone.block{n}.{b}.attn.kv",
        "encoder.block.{i}.{b}.attention.self.sr": "backbone.block{n}.{b}.attn.sr",
        "encoder.block.{i}.{b}.attention.self.layer_norm": "backbone.block{n}.{b}.attn.norm",
        "encoder.block.{i}.{b}.attention.output.dense": "backbone.block{n}.{b}.attn.proj",
        "encoder.block.{i}.{b}.layer_norm_2": "backbone.block{n}.{b}.norm2",
        "encoder.block.{i}.{b}.mlp.dense1": "backbone.block{n}.{b}.mlp.fc1",
        "encoder.block.{i}.{b}.mlp.dwconv.dwconv": "backbone.block{n}.{b}.mlp.dwconv.dwconv",
        "encoder.block.{i}.{b}.mlp.dense2": "backbone.block{n}.{b}.mlp.fc2",
        "encoder.layer_norm.{i}": "backbone.norm{n}",
        "decode_head.linear_c.{i}.proj": "linear_c{n}.proj",
        "decode_head.linear_fuse": "linear_fuse._conv",
        "decode_head.batch_norm": "linear_fuse._batch_norm",
        "decode_head.classifier": "linear_pred",
    },
)

NAMINGS = (_MMSEGMENTATION, _NVLABS, _TRANSFORMERS)
