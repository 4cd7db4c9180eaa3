"""SegFormer++: a hierarchical transformer encoder whose attention may merge tokens, and an all-1x1 decoder.

Source: Xie et al., SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers, NeurIPS 2021,
arXiv 2105.15203, released in PaddleSeg as `paddleseg/models/segformer.py`, whose parameter names are kept; Kienzle et
al., SegFormer++, MIPR 2024, arXiv 2405.14467.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from paddle.distributed.fleet.utils import recompute
from paddle.nn.initializer import Normal, TruncatedNormal

from paddle_rt.checkpoint import load_pretrained
from paddle_rt.errors import UserError, unknown
from paddle_rt.models.layers import DropPath, resize_as, spatial_size, to_map, to_tokens
from paddle_rt.models.token_merging import STAGES, BipartiteMerging, Merging, keep_all, stage_mergings

VARIANTS = {
    "segformerpp_b0": dict(embed_dim=32, depths=(2, 2, 2, 2)),
    "segformerpp_b1": dict(embed_dim=64, depths=(2, 2, 2, 2)),
    "segformerpp_b2": dict(embed_dim=64, depths=(3, 4, 6, 3)),
    "segformerpp_b3": dict(embed_dim=64, depths=(3, 4, 18, 3)),
    "segformerpp_b4": dict(embed_dim=64, depths=(3, 8, 27, 3)),
    "segformerpp_b5": dict(embed_dim=64, depths=(3, 6, 40, 3)),
}

# Each side of an image, so that the first stage, a quarter of it, holds one patch of the keys, 8 x 8.
_LEAST_SIZE = 4 * (8 - 1) + 1


class SegFormerPlusPlus(nn.Layer):
    """SegFormer with PaddleSeg's parameter names and numbers, and with SegFormer++'s token merging and head.

    Args:
        num_classes: Number of classes C, or of keypoints.
        embed_dim: Width of one attention head; stage i is `embed_dim * num_heads[i]` wide.
        depths: Blocks in each of the four stages.
        num_heads: Attention heads in each of the four stages.
        head: "conv" (SegFormer++ and MMSegmentation) or "mlp" (NVlabs and PaddleSeg).
        head_channels: Width of the head. If None the original's: 256, but with "mlp" 768 for networks deeper than two
            blocks a stage.
        token_merging: None, "bsm_hq", "bsm_fast", "n2d_2x2", "downsample", or four dictionaries, one a stage, as
            `token_merging.stage_mergings` describes them. No parameter depends on it.
        matching_every: Blocks of a stage that share the matches of "bsm", those of the first of them. The original
            matches in each block; sharing saves time and changes the outputs.
        drop_path_rate: Stochastic depth of the last block; it grows linearly from 0 at the first.
        in_channels: Channels of the image.
        pretrained: File, folder or address of weights to start from: of the encoder, or of a whole network, whose head
            may be another.

    Shape: images [B, in_channels, H, W] with H and W of at least 29 (58 with "downsample") to a list of logits
        [B, C, H, W].

    Raises:
        ValueError: An argument is out of range, or a head, preset, mode or key is unknown.
        UserError: An image is too small.

    Source: PaddleSeg `SegFormer`; SegFormer++ `SegformerHead`.
    """

    coarse_align_corners = False

    def __init__(
        self,
        num_classes: int,
        embed_dim: int = 32,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        head: str = "conv",
        head_channels: int | None = None,
        token_merging: str | Sequence[dict[str, Any]] | None = None,
        matching_every: int = 1,
        drop_path_rate: float = 0.1,
        in_channels: int = 3,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        if head not in _HEADS:
            raise unknown("head", head, _HEADS)
        _require_count("num_classes", num_classes)
        level, self._fuse_order, norm_epsilon = _HEADS[head]
        self.backbone = MixVisionTransformer(
            embed_dim, depths, num_heads, token_merging, matching_every, drop_path_rate, in_channels, norm_epsilon
        )
        self.needs_fixed_size = self.backbone.needs_fixed_size  # of a graph: merging counts tokens before it runs
        self.near_ties = self.backbone.near_ties  # rounding decides what merges where tokens are nearly as similar
        if head_channels is None:
            head_channels = 768 if head == "mlp" and sum(depths) > 2 * STAGES else 256
        _require_count("head_channels", head_channels)
        for number, channels in enumerate(self.backbone.feat_channels, 1):
            setattr(self, f"linear_c{number}", level(channels, head_channels))
        self.linear_fuse = _ConvBatchNorm(STAGES * head_channels, head_channels)
        self.dropout = nn.Dropout2D(0.1)
        self.linear_pred = nn.Conv2D(head_channels, num_classes, 1, weight_attr=Normal(std=0.01))
        if pretrained is not None:
            load_pretrained(self, pretrained, new_head=("linear_*",), trunk="backbone.")

    def _fuse(self, features: list[paddle.Tensor]) -> paddle.Tensor:
        """Bring four feature maps to one width and the size of the first, and mix them: [B, head_channels, H/4, W/4].

        The original enlarges the maps, concatenates them and mixes them by a 1x1 convolution. A 1x1 convolution and
        bilinear enlarging commute, so each map meets its part of the convolution's weight at its own size: the same
        numbers for a fraction of the work and memory.
        """
        weights = self._constants() or self._fuse_weights()
        fused = 0.0
        for i in reversed(range(STAGES)):  # the first, which is not enlarged, last: engines add within a convolution
            mixed = F.conv2d(getattr(self, f"linear_c{i + 1}").lift(features[i]), *weights[i])
            fused = fused + (mixed if i == 0 else resize_as(mixed, features[0]))
        return F.relu(self.linear_fuse._batch_norm(fused) if self.training else fused)

    def _fuse_weights(self) -> list[tuple[paddle.Tensor, paddle.Tensor | None]]:
        """Each level's part of the fuse convolution: weight and bias, which hold the BatchNorm unless training."""
        weight, shift = self.linear_fuse._conv.weight.flatten(1), None
        if not self.training:
            norm = self.linear_fuse._batch_norm
            scale = norm.weight / paddle.sqrt(norm._variance + norm._epsilon)
            weight, shift = weight * scale.unsqueeze(1), norm.bias - norm._mean * scale
        parts, pairs = weight.split(STAGES, axis=1), []
        for i in range(STAGES):
            part, bias = getattr(self, f"linear_c{i + 1}").fold(parts[self._fuse_order.index(i + 1)])
            if i == 0 and shift is not None:
                bias = shift if bias is None else bias + shift
            pairs.append((part.unsqueeze([2, 3]), bias))
        return pairs

    @contextmanager
    def folded(self) -> Iterator[None]:
        """While it lasts, what depends on parameters alone is held and not computed: a trace has it as constants.

        Engines take a convolution's weight for one: with oneDNN, Paddle Inference uses that of the first run for ever.
        """
        with paddle.no_grad():
            names = []
            for number, pair in enumerate(self._fuse_weights()):
                for key, value in zip(("weight", "bias"), pair, strict=True):
                    if value is not None:
                        names.append(f"_fuse_{key}{number}")
                        self.register_buffer(names[-1], value, persistable=False)
        try:
            yield
        finally:
            for name in names:
                delattr(self, name)

    def _constants(self) -> list[tuple[paddle.Tensor, paddle.Tensor | None]]:
        """What `folded` holds, if it lasts."""
        if not hasattr(self, "_fuse_weight0"):
            return []
        return [(getattr(self, f"_fuse_weight{i}"), getattr(self, f"_fuse_bias{i}", None)) for i in range(STAGES)]

    def coarse_logits(self, images: paddle.Tensor) -> paddle.Tensor:
        """Logits before the final resize, [B, num_classes, H/4, W/4]; half of that with "downsample"."""
        return self.linear_pred(self.dropout(self._fuse(self.backbone(images))))

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        return [resize_as(self.coarse_logits(images), images)]  # [B, num_classes, H, W]


class MixVisionTransformer(nn.Layer):
    """SegFormer's encoder: four stages of transformer blocks, each on overlapping patches of the one before.

    Args:
        norm_epsilon: Added to the variance by the LayerNorms behind the patch embeddings and the spatial reductions.
            NVlabs and PaddleSeg have 1e-5 there, MMSegmentation and SegFormer++ 1e-6; all have 1e-6 elsewhere.

    Further arguments as `SegFormerPlusPlus` has them.

    Shape: images [B, in_channels, H, W] to four maps [B, feat_channels[i], H/s, W/s], s = 4, 8, 16, 32.

    Source: arXiv 2105.15203, section 3.1; PaddleSeg `MixVisionTransformer`.
    """

    def __init__(
        self,
        embed_dim: int = 32,
        depths: Sequence[int] = (2, 2, 2, 2),
        num_heads: Sequence[int] = (1, 2, 5, 8),
        token_merging: str | Sequence[dict[str, Any]] | None = None,
        matching_every: int = 1,
        drop_path_rate: float = 0.1,
        in_channels: int = 3,
        norm_epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        counts = dict(embed_dim=embed_dim, in_channels=in_channels, matching_every=matching_every)
        for name, value in counts.items():
            _require_count(name, value)
        for name, values in dict(depths=depths, num_heads=num_heads).items():
            if not isinstance(values, list | tuple) or len(values) != STAGES:
                raise ValueError(f"SegFormer++: {name} must be {STAGES} numbers, one a stage, got {values!r}")
            for value in values:
                _require_count(name, value)
        self.feat_channels = [embed_dim * heads for heads in num_heads]
        self._matching_every = matching_every
        self._step = 2 if token_merging == "downsample" else 1
        mergings = stage_mergings(token_merging)
        kinds = [merging for pair in mergings for merging in pair]
        self.needs_fixed_size = any(merging is not keep_all for merging in kinds)
        self.near_ties = any(isinstance(merging, BipartiteMerging) for merging in kinds)
        rates = iter(np.linspace(0.0, drop_path_rate, sum(depths)).tolist())
        for i in range(STAGES):
            channels = self.feat_channels[i]
            patches = PatchEmbed(in_channels, channels, *((7, 4) if i == 0 else (3, 2)), norm_epsilon)
            attention = dict(reduction=8 >> i, mergings=mergings[i], norm_epsilon=norm_epsilon)
            blocks = [Block(channels, num_heads[i], next(rates), **attention) for _ in range(depths[i])]
            setattr(self, f"patch_embed{i + 1}", patches)
            setattr(self, f"block{i + 1}", nn.LayerList(blocks))
            setattr(self, f"norm{i + 1}", nn.LayerNorm(channels, epsilon=1e-6))
            in_channels = channels
        self._stages = [tuple(f"{part}{i + 1}" for part in ("patch_embed", "block", "norm")) for i in range(STAGES)]
        self.apply(_initialize)

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        _require_size(images, _LEAST_SIZE * self._step)
        features = []
        feature = images if self._step == 1 else _every_second(images)
        for patch_embed, blocks, norm in self._stages:
            tokens, size = getattr(self, patch_embed)(feature)  # [B, h w, C]
            for number, block in enumerate(getattr(self, blocks)):
                if number % self._matching_every == 0:
                    matches = {}
                tokens = block(tokens, size, matches)
            feature = to_map(getattr(self, norm)(tokens), size)  # [B, C, h, w]
            features.append(feature)
        return features


class PatchEmbed(nn.Layer):
    """Overlapping patches as tokens. Shape: [B, in, H, W] to [B, h w, out] and (h, w)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, epsilon: float) -> None:
        super().__init__()
        self.proj = nn.Conv2D(in_channels, out_channels, kernel_size, stride, padding=kernel_size // 2)
        self.norm = nn.LayerNorm(out_channels, epsilon=epsilon)

    def forward(self, x: paddle.Tensor) -> tuple[paddle.Tensor, list[int | paddle.Tensor]]:
        x = self.proj(x)
        return self.norm(to_tokens(x)), spatial_size(x)


class Block(nn.Layer):
    """Attention and feed-forward, both residual and normalised before. Shape: tokens [B, h w, C] to the same."""

    def __init__(self, channels: int, num_heads: int, drop_path_rate: float, **attention: Any) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(channels, epsilon=1e-6)
        self.attn = Attention(channels, num_heads, **attention)
        self.drop_path = DropPath(drop_path_rate)
        self.norm2 = nn.LayerNorm(channels, epsilon=1e-6)
        self.mlp = MixFeedForward(channels, 4 * channels)

    def forward(self, tokens: paddle.Tensor, size: Sequence[int], matches: dict) -> paddle.Tensor:
        tokens = tokens + self.drop_path(self.attn(self.norm1(tokens), size, matches))
        return tokens + self.drop_path(self.mlp(self.norm2(tokens), size))


class Attention(nn.Layer):
    """Multi-head attention to a spatially reduced copy of the tokens, either side of it merged further.

    Args:
        channels: Width C.
        num_heads: Heads that share it.
        reduction: Keys and values come from patches of reduction x reduction tokens.
        mergings: What merges the queries, and what merges the keys and values after their reduction.
        norm_epsilon: Of the LayerNorm behind the reduction.

    Shape: tokens [B, h w, C] to the same.

    Source: arXiv 2105.15203, "efficient self-attention"; arXiv 2405.14467, section 3.
    """

    def __init__(
        self, channels: int, num_heads: int, reduction: int, mergings: tuple[Merging, Merging] = (keep_all, keep_all),
        norm_epsilon: float = 1e-5,
    ) -> None:  # fmt: skip
        super().__init__()
        self.num_heads = num_heads
        self.reduction = reduction
        self._merge_queries, self._merge_keys = mergings
        self.q = nn.Linear(channels, channels)
        self.kv = nn.Linear(channels, 2 * channels)
        self.proj = nn.Linear(channels, channels)
        if reduction > 1:
            self.sr = nn.Conv2D(channels, channels, reduction, stride=reduction)
            self.norm = nn.LayerNorm(channels, epsilon=norm_epsilon)

    def forward(self, tokens: paddle.Tensor, size: Sequence[int], matches: dict | None = None) -> paddle.Tensor:
        context, context_size = tokens, size
        if self.reduction > 1:
            context = self.sr(to_map(tokens, size))  # [B, C, h/r, w/r]
            context, context_size = self.norm(to_tokens(context)), spatial_size(context)
        context, _ = self._merge_keys(context, context_size, matches)  # [B, K, C]
        queries, unmerge = self._merge_queries(tokens, size, matches)  # [B, Q, C]

        scale = (tokens.shape[2] // self.num_heads) ** -0.5
        queries = self._split(self.q(queries) * scale)  # [B, heads, Q, C / heads]
        keys, values = (self._split(part) for part in self.kv(context).chunk(2, axis=2))
        if self.training:  # the weights, the largest map of all, are computed again for the gradients
            mixed = recompute(_attend, queries, keys, values, preserve_rng_state=False)
        else:
            mixed = _attend(queries, keys, values)
        return unmerge(self.proj(mixed.transpose([0, 2, 1, 3]).flatten(2)))  # [B, Q, C]

    def _split(self, tokens: paddle.Tensor) -> paddle.Tensor:
        return tokens.reshape([0, 0, self.num_heads, tokens.shape[2] // self.num_heads]).transpose([0, 2, 1, 3])


def _attend(queries: paddle.Tensor, keys: paddle.Tensor, values: paddle.Tensor) -> paddle.Tensor:
    weights = F.softmax(paddle.matmul(queries, keys, transpose_y=True), axis=-1)  # [B, heads, Q, K]
    return paddle.matmul(weights, values)  # [B, heads, Q, C / heads]


class MixFeedForward(nn.Layer):
    """Feed-forward layer with a depthwise 3x3 convolution, which tells tokens where they are. Shape: as the input."""

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden_channels)
        depthwise = nn.Conv2D(hidden_channels, hidden_channels, 3, padding=1, groups=hidden_channels)
        self.dwconv = nn.Sequential(("dwconv", depthwise))
        self.fc2 = nn.Linear(hidden_channels, channels)

    def forward(self, tokens: paddle.Tensor, size: Sequence[int]) -> paddle.Tensor:
        hidden = self.dwconv(to_map(self.fc1(tokens), size))  # [B, 4 C, h, w]
        return self.fc2(to_tokens(F.gelu(hidden)))


class LinearLevel(nn.Layer):
    """One level of the "mlp" head: a linear layer, which is one with its part of the fuse convolution."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, out_channels)

    def lift(self, x: paddle.Tensor) -> paddle.Tensor:
        """What the fuse convolution is applied to: here the level's input. Shape: [B, in, h, w] to the same."""
        return x

    def fold(self, weight: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor | None]:
        """The fuse convolution's part [M, out] and its bias, as they apply to what `lift` gives."""
        return paddle.matmul(weight, self.proj.weight, transpose_y=True), paddle.matmul(weight, self.proj.bias)


class _ConvBatchNorm(nn.Layer):
    """A 1x1 convolution without bias and a BatchNorm, under the names that they have in PaddleSeg's ConvBNReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self._conv = nn.Conv2D(in_channels, out_channels, 1, bias_attr=False)
        self._batch_norm = nn.BatchNorm2D(out_channels)


class ConvLevel(_ConvBatchNorm):
    """One level of the "conv" head: a 1x1 convolution, BatchNorm and ReLU."""

    def lift(self, x: paddle.Tensor) -> paddle.Tensor:
        """Shape: [B, in, h, w] to [B, out, h, w]."""
        return F.relu(self._batch_norm(self._conv(x)))

    def fold(self, weight: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor | None]:
        return weight, None


# By name: a level, the order of the levels in the fuse convolution's weight, and the encoder's `norm_epsilon`.
_HEADS = {"conv": (ConvLevel, (1, 2, 3, 4), 1e-6), "mlp": (LinearLevel, (4, 3, 2, 1), 1e-5)}


def _every_second(images: paddle.Tensor) -> paddle.Tensor:
    """Halve the image as "nearest" does: the even rows and columns, a last odd one left out."""
    height, width = spatial_size(images)
    return images[:, :, : height // 2 * 2 : 2, : width // 2 * 2 : 2]


def _initialize(layer: nn.Layer) -> None:
    """NVlabs' initial values; biases are 0 and LayerNorms the identity from the start."""
    if isinstance(layer, nn.Linear):
        TruncatedNormal(std=0.02)(layer.weight)
    elif isinstance(layer, nn.Conv2D):
        fan_out = math.prod(layer._kernel_size) * layer._out_channels // layer._groups
        Normal(std=math.sqrt(2.0 / fan_out))(layer.weight)


def _require_size(images: paddle.Tensor, least: int) -> None:
    """Refuse what is too small, since attention to no keys at all goes through in silence."""
    if any(isinstance(length, int) and length < least for length in spatial_size(images)):
        raise UserError(f"SegFormer++ needs images of at least {least} x {least}, got {images.shape[2:]}; enlarge them")


def _require_count(name: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"SegFormer++: {name} must hold whole numbers of at least 1, got {value!r}")
