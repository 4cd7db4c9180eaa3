"""SegFormer++: a hierarchical transformer encoder whose attention may merge tokens, and a head of 1x1 convolutions.

Source: Xie et al., SegFormer: Simple and Efficient Design for Semantic Segmentation with Transformers, NeurIPS 2021,
arXiv 2105.15203, released in PaddleSeg as `paddleseg/models/segformer.py`, whose parameter names are kept; Kienzle et
al., SegFormer++, MIPR 2024, arXiv 2405.14467.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from paddle.distributed.fleet.utils import recompute
from paddle.nn.initializer import Normal, TruncatedNormal

from paddle_rt.arguments import checks_arguments
from paddle_rt.checkpoint import load_pretrained
from paddle_rt.errors import UserError, unknown
from paddle_rt.models.base import Network
from paddle_rt.models.cpu_layers import depthwise_3x3, takes_compiled
from paddle_rt.models.layers import DropPath, resize_as, spatial_size, to_map, to_tokens
from paddle_rt.models.token_merging import STAGES, BipartiteMerging, Merging, keep_all, stage_mergings

# Smallest height and width of an image for which the keys of the first stage, which come from patches of 8 x 8 of its
# tokens, are not empty. The first stage has a quarter of the image's height and width, rounded up.
_LEAST_SIZE = 4 * (8 - 1) + 1


class SegFormerTrunk(Network):
    """The encoder and the head up to the last layer, which the networks for all tasks share.

    Args:
        embed_dim: Width of one attention head; stage i has a width of `embed_dim * num_heads[i]`.
        depths: Numbers of blocks in the four stages.
        num_heads: Numbers of attention heads in the four stages.
        head: "conv" or "mlp".
        head_channels: Width of the head.
        token_merging: As in `SegFormerPlusPlus`.
        matching_every: As in `SegFormerPlusPlus`.
        drop_path_rate: Rate of stochastic depth in the last block.
        in_channels: Number of channels of an image.
    """

    def __init__(
        self,
        embed_dim: int,
        depths: Sequence[int],
        num_heads: Sequence[int],
        head: str,
        head_channels: int,
        token_merging: str | Sequence[dict[str, Any]] | None,
        matching_every: int,
        drop_path_rate: float,
        in_channels: int,
    ) -> None:
        super().__init__()
        level, self._deepest_first, norm_epsilon = _HEADS[head]
        self.backbone = MixVisionTransformer(
            embed_dim, depths, num_heads, token_merging, matching_every, drop_path_rate, in_channels, norm_epsilon
        )
        self.output_stride = 4 * self.backbone.input_stride
        self.needs_fixed_size = self.backbone.merges_tokens  # the cells are laid out when a graph is traced
        self.near_ties = self.backbone.matches_tokens
        self.linear_c1, self.linear_c2, self.linear_c3, self.linear_c4 = (
            level(channels, head_channels) for channels in self.backbone.feat_channels
        )
        self.linear_fuse = ConvBatchNorm(STAGES * head_channels, head_channels)

    @property
    def last_layer(self) -> nn.Conv2D:
        """The 1x1 convolution that gives the output."""
        raise NotImplementedError

    def fuse_weights(self) -> list[paddle.Tensor]:
        """Return the part of the fuse convolution's weight for each level, [head_channels, head_channels]."""
        parts = self.linear_fuse._conv.weight.flatten(1).split(STAGES, axis=1)
        return parts[::-1] if self._deepest_first else parts

    def _fuse(self, features: Sequence[paddle.Tensor]) -> paddle.Tensor:
        """Mix the features of the four stages. Shape: four maps, from H/4 to H/32, to [B, head_channels, H/4, W/4].

        The original enlarges the four levels to H/4, concatenates them and applies a 1x1 convolution. Enlarging and a
        1x1 convolution commute, so each level is convolved at its own size with its part of the weight, and the results
        are enlarged and added: the same numbers with a fraction of the work and of the memory.
        """
        c1, c2, c3, c4 = features
        weight1, weight2, weight3, weight4 = self.fuse_weights()
        fused = resize_as(self.linear_c4(c4, weight4), c1)  # [B, head_channels, H/4, W/4]
        fused = fused + resize_as(self.linear_c3(c3, weight3), c1)
        fused = fused + resize_as(self.linear_c2(c2, weight2), c1)
        fused = fused + self.linear_c1(c1, weight1)
        return F.relu(self.linear_fuse._batch_norm(fused))


class SegFormerPlusPlus(SegFormerTrunk):
    """SegFormer with PaddleSeg's parameter names and numbers, and with the token merging and the head of SegFormer++.

    Args:
        num_classes: Number of classes C.
        embed_dim: Width of one attention head; stage i has a width of `embed_dim * num_heads[i]`.
        depths: Numbers of blocks in the four stages.
        num_heads: Numbers of attention heads in the four stages.
        head: "conv" (SegFormer++ and MMSegmentation) or "mlp" (NVlabs and PaddleSeg).
        head_channels: Width of the head. None means the original's: 256, or 768 for an "mlp" head on a network with
            more than two blocks per stage on average.
        token_merging: None, "bsm_hq", "bsm_fast", "n2d_2x2", "downsample", or one dictionary for each of the four
            stages as `token_merging.stage_mergings` takes them. No parameter depends on it.
        matching_every: In mode "bsm", this many successive blocks of a stage use the matches that the first of them
            found. The original finds matches in every block; sharing them saves time and changes the outputs.
        drop_path_rate: Rate of stochastic depth in the last block; it grows linearly from 0 in the first block.
        in_channels: Number of channels of an image.
        pretrained: File, folder or address of weights to start from, either of the encoder alone or of a whole network,
            whose head may differ.

    Shape: images [B, in_channels, H, W] with H and W of at least 29 (58 with "downsample") to a list of logits
        [B, C, H, W].

    Raises:
        UserError: An argument is unknown or out of range, the weights do not fit, or an image is too small.

    Source: PaddleSeg `SegFormer`; SegFormer++ `SegformerHead`.
    """

    @checks_arguments
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
        if head not in _HEADS:
            raise unknown("head", head, _HEADS)
        if head_channels is None:
            head_channels = 768 if head == "mlp" and sum(depths) > 2 * STAGES else 256
        super().__init__(
            embed_dim,
            depths,
            num_heads,
            head,
            head_channels,
            token_merging,
            matching_every,
            drop_path_rate,
            in_channels,
        )
        self.dropout = nn.Dropout2D(0.1)
        self.linear_pred = nn.Conv2D(head_channels, num_classes, 1, weight_attr=Normal(std=0.01))
        if pretrained is not None:
            load_pretrained(self, pretrained, new_head=("linear_*",), trunk="backbone.")

    @property
    def last_layer(self) -> nn.Conv2D:
        return self.linear_pred

    def coarse_logits(self, images: paddle.Tensor) -> paddle.Tensor:
        return self.linear_pred(self.dropout(self._fuse(self.backbone(images))))

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        return [resize_as(self.coarse_logits(images), images)]  # [B, num_classes, H, W]

    def for_export(self, target: str = "cpu") -> Network:
        from paddle_rt.models.segformer_export import SegFormerForExport

        return SegFormerForExport(self, target)


class MixVisionTransformer(nn.Layer):
    """The encoder of SegFormer: four stages of transformer blocks on overlapping patches of the stage before.

    Args:
        embed_dim: Width of one attention head; stage i has a width of `embed_dim * num_heads[i]`.
        depths: Numbers of blocks in the four stages.
        num_heads: Numbers of attention heads in the four stages.
        token_merging: As in `SegFormerPlusPlus`.
        matching_every: As in `SegFormerPlusPlus`.
        drop_path_rate: Rate of stochastic depth in the last block.
        in_channels: Number of channels of an image.
        norm_epsilon: Added to the variance in the LayerNorms after the patch embeddings and the spatial reductions:
            1e-5 in NVlabs' code and PaddleSeg, 1e-6 in MMSegmentation and SegFormer++. All have 1e-6 elsewhere.

    Shape: images [B, in_channels, H, W] to four maps [B, feat_channels[i], H/s, W/s] with s = 4, 8, 16, 32; twice that
        with "downsample".

    Raises:
        UserError: An argument is unknown or out of range, or an image is too small.

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
        self.feat_channels = [embed_dim * heads for heads in num_heads]
        self.input_stride = 2 if token_merging == "downsample" else 1
        self._matching_every = matching_every
        mergings = stage_mergings(token_merging)
        kinds = [merging for pair in mergings for merging in pair]
        self.merges_tokens = any(merging is not keep_all for merging in kinds)
        self.matches_tokens = any(isinstance(merging, BipartiteMerging) for merging in kinds)
        rates = iter(np.linspace(0.0, drop_path_rate, sum(depths)).tolist())
        for i in range(STAGES):
            channels = self.feat_channels[i]
            kernel_size, stride = (7, 4) if i == 0 else (3, 2)
            patches = PatchEmbed(in_channels, channels, kernel_size, stride, norm_epsilon)
            attention = dict(reduction=8 >> i, mergings=mergings[i], norm_epsilon=norm_epsilon)
            blocks = [Block(channels, num_heads[i], next(rates), **attention) for _ in range(depths[i])]
            setattr(self, f"patch_embed{i + 1}", patches)
            setattr(self, f"block{i + 1}", nn.LayerList(blocks))
            setattr(self, f"norm{i + 1}", nn.LayerNorm(channels, epsilon=1e-6))
            in_channels = channels
        self.apply(_initialize)

    @property
    def stages(self) -> tuple[tuple["PatchEmbed", nn.LayerList, nn.LayerNorm], ...]:
        """Patch embedding, blocks and normalisation of each of the four stages."""
        return (
            (self.patch_embed1, self.block1, self.norm1),
            (self.patch_embed2, self.block2, self.norm2),
            (self.patch_embed3, self.block3, self.norm3),
            (self.patch_embed4, self.block4, self.norm4),
        )

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        _require_size(images, _LEAST_SIZE * self.input_stride)
        features = []
        feature = images if self.input_stride == 1 else _every_second(images)
        for patch_embed, blocks, norm in self.stages:
            tokens, size = patch_embed(feature)  # [B, h w, C]
            matches = {}
            for number, block in enumerate(blocks):
                if number % self._matching_every == 0:
                    matches = {}
                tokens = block(tokens, size, matches)
            feature = to_map(norm(tokens), size)  # [B, C, h, w]
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
    """Pre-normalised attention and feed-forward layer, both residual. Shape: tokens [B, h w, C] to the same."""

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
    """Multi-head attention to a spatially reduced copy of the tokens; queries, or keys and values, may be merged.

    Args:
        channels: Width C.
        num_heads: Number of heads, a divisor of C.
        reduction: Keys and values come from patches of reduction x reduction tokens.
        mergings: The merging of the queries, and that of the keys and values after their reduction.
        norm_epsilon: Added to the variance in the LayerNorm after the reduction.

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
        self.merge_queries, self.merge_keys = mergings
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
        context, _ = self.merge_keys(context, context_size, matches)  # [B, K, C]
        queries, unmerge = self.merge_queries(tokens, size, matches)  # [B, Q, C]

        scale = (tokens.shape[2] // self.num_heads) ** -0.5
        queries = self._split(self.q(queries) * scale)  # [B, heads, Q, C / heads]
        keys, values = (self._split(part) for part in self.kv(context).chunk(2, axis=2))
        if self.training:  # computes the attention weights, which are large, again for the gradients
            mixed = recompute(_attend, queries, keys, values, preserve_rng_state=False)
        else:
            mixed = _attend(queries, keys, values)
        return unmerge(self.proj(mixed.transpose([0, 2, 1, 3]).flatten(2)))  # [B, Q, C]

    def _split(self, tokens: paddle.Tensor) -> paddle.Tensor:
        return tokens.reshape([0, 0, self.num_heads, tokens.shape[2] // self.num_heads]).transpose([0, 2, 1, 3])


def _attend(queries: paddle.Tensor, keys: paddle.Tensor, values: paddle.Tensor) -> paddle.Tensor:
    weights = F.softmax(paddle.matmul(queries, keys, transpose_y=True), axis=3)  # [B, heads, Q, K]
    return paddle.matmul(weights, values)  # [B, heads, Q, C / heads]


class MixFeedForward(nn.Layer):
    """Feed-forward layer with a depthwise 3x3 convolution, which provides positional information.

    Shape: tokens [B, h w, C] to the same.
    """

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(channels, hidden_channels)
        depthwise = nn.Conv2D(hidden_channels, hidden_channels, 3, padding=1, groups=hidden_channels)
        self.dwconv = nn.Sequential(("dwconv", depthwise))
        self.fc2 = nn.Linear(hidden_channels, channels)

    def forward(self, tokens: paddle.Tensor, size: Sequence[int]) -> paddle.Tensor:
        hidden, depthwise = self.fc1(tokens), self.dwconv["dwconv"]  # [B, h w, 4 C]
        if takes_compiled(hidden, depthwise.weight):
            return self.fc2(F.gelu(depthwise_3x3(hidden, size, depthwise.weight, depthwise.bias)))
        hidden = self.dwconv(to_map(hidden, size))  # [B, 4 C, h, w]
        return self.fc2(to_tokens(F.gelu(hidden)))


class ConvBatchNorm(nn.Layer):
    """Container of a 1x1 convolution without bias and a BatchNorm, with the names of PaddleSeg's ConvBNReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self._conv = nn.Conv2D(in_channels, out_channels, 1, bias_attr=False)
        self._batch_norm = nn.BatchNorm2D(out_channels)


class ConvLevel(ConvBatchNorm):
    """First layer of the "conv" head, a 1x1 convolution with BatchNorm and ReLU, and its part of the fuse convolution.

    Shape: [B, in_channels, h, w] and a weight [M, out_channels] to [B, M, h, w].
    """

    def forward(self, x: paddle.Tensor, fuse_weight: paddle.Tensor) -> paddle.Tensor:
        x = F.relu(self._batch_norm(self._conv(x)))  # [B, out_channels, h, w]
        return F.conv2d(x, fuse_weight.unsqueeze([2, 3]))


class LinearLevel(nn.Layer):
    """First layer of the "mlp" head, a linear layer, and its part of the fuse convolution.

    Two linear maps in a row are one linear map, whose weight and bias are the product of theirs.

    Shape: [B, in_channels, h, w] and a weight [M, out_channels] to [B, M, h, w].
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.proj = nn.Linear(in_channels, out_channels)

    def forward(self, x: paddle.Tensor, fuse_weight: paddle.Tensor) -> paddle.Tensor:
        weight, bias = self.product(fuse_weight)
        return F.conv2d(x, weight.unsqueeze([2, 3]), bias)

    def product(self, fuse_weight: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return weight [M, in_channels] and bias [M] of both maps together."""
        weight = paddle.matmul(fuse_weight, self.proj.weight, transpose_y=True)
        return weight, paddle.matmul(fuse_weight, self.proj.bias)


class _Head(NamedTuple):
    """What distinguishes the two heads.

    Args:
        level: First layer of the head, applied to each feature.
        deepest_first: Whether the fuse convolution's weight holds the level of the deepest stage first.
        norm_epsilon: Epsilon of some LayerNorms in the encoder; see `MixVisionTransformer`.
    """

    level: type[ConvLevel] | type[LinearLevel]
    deepest_first: bool
    norm_epsilon: float


_HEADS = {"conv": _Head(ConvLevel, False, 1e-6), "mlp": _Head(LinearLevel, True, 1e-5)}


def _every_second(images: paddle.Tensor) -> paddle.Tensor:
    """Halve an image as nearest-neighbour resizing does: keep the even rows and columns, but not a last odd one."""
    height, width = spatial_size(images)
    return images[:, :, : height // 2 * 2 : 2, : width // 2 * 2 : 2]


def _initialize(layer: nn.Layer) -> None:
    """Draw NVlabs' initial weights. Paddle's defaults for biases and LayerNorms are already NVlabs'."""
    if isinstance(layer, nn.Linear):
        TruncatedNormal(std=0.02)(layer.weight)
    elif isinstance(layer, nn.Conv2D):
        fan_out = math.prod(layer._kernel_size) * layer._out_channels // layer._groups
        Normal(std=math.sqrt(2.0 / fan_out))(layer.weight)


def _require_size(images: paddle.Tensor, least: int) -> None:
    """Refuse images without any keys, since Paddle computes attention to no keys without an error."""
    if any(isinstance(length, int) and length < least for length in spatial_size(images)):
        raise UserError(f"SegFormer++ needs images of at least {least} x {least}, got {images.shape[2:]}; enlarge them")
