"""FANet: a ResNet, fast attention on each of its four features, and their fusion from coarse to fine.

Source: Hu et al., Real-Time Semantic Segmentation With Fast Attention, RA-L 2020, arXiv 2007.03815; the authors'
PyTorch code (github.com/feinanshan/FANet, Train/ptsemseg/models/fanet), which has no video part.

The parameter names are those of the authors' training code, with `_mean` and `_variance` for its `running_mean` and
`running_var`, except for these:

| here | authors' code |
| --- | --- |
| ffm_N.qkv.conv.weight [64 + C, C, 1, 1] | ffm_N.w_qs.conv.weight, w_ks.conv.weight, w_vs.conv.weight, in this order |
| ffm_N.qkv.bn.{weight, bias, _mean, _variance} [64 + C] | the same of w_qs.bn, w_ks.bn, w_vs.bn |
| absent, since nothing reads them | ffm_4.up.*, ffm_8.smooth.* |
| weight of a BatchNorm, abs(w) + 1e-5 | w, whose normalisation scales by abs(w) + 1e-5 |
"""

from dataclasses import dataclass
from typing import NamedTuple

import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from paddle.nn.initializer import KaimingNormal

from paddle_rt.arguments import checks_arguments
from paddle_rt.checkpoint import load_pretrained
from paddle_rt.errors import UserError
from paddle_rt.models.base import Network
from paddle_rt.models.layers import resize_as, spatial_size, to_map, to_tokens
from paddle_rt.models.layers_export import copy_for_export, resize_with_aligned_corners, set_constant, take_bgr
from paddle_rt.models.resnet import ResNet

KEYS = 32  # channels of keys and queries
SMOOTH = 128  # channels of the smoothed features
SLOPE = 0.01  # negative slope of the leaky ReLU after nearly every BatchNorm
# Length of the keys in a graph for GPUs. A context sums over all positions: with keys of length 1 it reached 1.6e4 at
# 1024x2048 and four times as much over a window of 4 frames, while half precision ends at 65504.
GPU_KEY_LENGTH = 2.0**-8


class Level(NamedTuple):
    """The input of one attention module.

    Args:
        features: Features of an image, [B, C, h, w].
        queries: Queries of the same image, [B, h w, 32].
        context: Product of keys and values of the image, or the sum of these products over a clip, [B, C, 32].
    """

    features: paddle.Tensor
    queries: paddle.Tensor
    context: paddle.Tensor


@dataclass(frozen=True)
class StreamState:
    """What `FANet.stream_step` carries from one frame of a video to the next.

    Args:
        contexts: Contexts of all four attention modules for each earlier frame of the window, oldest first,
            [B, temporal_window - 1, channels, 32]; zeros before the first frame. The shape depends neither on the size
            of the frames nor on the length of the video.
        size: (height, width) of the frames. Contexts of another size, which are sums over all positions, would have
            another weight.
        network: The network that computed the contexts.
    """

    contexts: paddle.Tensor
    size: tuple[int, int]
    network: "FANet"


class FANet(Network):
    """FANet for images and, with a temporal window, for video.

    Args:
        num_classes: Number of classes.
        depth: Depth of the ResNet: 18, 34, 50, 101 or 152.
        temporal_window: Number of frames T whose keys and values the attention of the last frame reads. 1 is the
            network for images. No parameter depends on it.
        in_channels: Number of channels of an image.
        pretrained: File, folder or address of weights to start from, either of a FANet or of a ResNet trained on
            ImageNet. The latter has no shortcut convolution in its first stage, which only here has a stride.

    Shape: images [B, C, H, W], or clips [B, n, C, H, W] or [B, n C, H, W] with the oldest frame first, of any H and W,
        to a list of logits [B, num_classes, H, W] for the last frame: those of the main head and, while training, of
        two auxiliary heads; the paper weights the three losses by 1, 0.5 and 0.5. The last T frames of a clip are read.
        A shorter clip is the beginning of a video.

    Raises:
        UserError: There is no ResNet of that depth, an argument is no number of at least 1, the weights do not fit, or
            images have another shape.

    Source: arXiv 2007.03815, figure 2; section III for video.
    """

    output_stride = 8
    align_corners = True  # as in every resize of the original
    takes_clips = True

    @checks_arguments
    def __init__(
        self,
        num_classes: int,
        depth: int = 18,
        temporal_window: int = 1,
        in_channels: int = 3,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        self.temporal_window, self.in_channels = temporal_window, in_channels
        # All four stages halve the size: 1/8, 1/16, 1/32, 1/64. The authors' names count from 1/4.
        self.resnet = ResNet(depth, strides=(2, 2, 2, 2), slope=SLOPE, in_channels=in_channels)
        c4, c8, c16, c32 = self.resnet.channels
        self.ffm_32 = FastAttention(c32)
        self.ffm_16 = FastAttention(c16)
        self.ffm_8 = FastAttention(c8, has_smooth=False)
        self.ffm_4 = FastAttention(c4, has_up=False)
        self.clslayer_32 = Head(SMOOTH, 64, num_classes)
        self.clslayer_16 = Head(SMOOTH, 64, num_classes)
        self.clslayer_8 = Head(2 * SMOOTH, 256, num_classes)
        self.resize = _resize
        if pretrained is not None:
            new_head, optional = ("ffm_*", "clslayer_*"), ("resnet.layer1.0.downsample.*",)
            load_pretrained(self, pretrained, new_head, optional, trunk="resnet.")

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        main, context, lowest = self._fuse(self._read_clips(images))
        logits = [self.clslayer_8(main)]
        if self.training:
            logits += [self.clslayer_32(self.ffm_32.smooth(lowest)), self.clslayer_16(context)]
        reference = images.flatten(0, 1) if images.ndim == 5 else images
        return [self.resize_logits(coarse, reference) for coarse in logits]  # [B, num_classes, H, W]

    def coarse_logits(self, images: paddle.Tensor) -> paddle.Tensor:
        main, _, _ = self._fuse(self._read_clips(images))
        return self.clslayer_8(main)

    def state_shape(self, batch: int = 1) -> list[int]:
        return [batch, self.temporal_window - 1, sum(self.resnet.channels), KEYS]

    def coarse_step(self, frame: paddle.Tensor, state: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return the coarse logits of the next frame of a video, and the state for the frame after it.

        The logits are those of the clip that ends with the frame, at the cost of a single image. The state holds the
        contexts of T - 1 frames (120 KB each with depth 18), since an exact sum over a window needs to know what leaves
        the window. They are added anew for each frame, which costs little and, unlike a running sum, does not drift.

        Shape: frame [B, C, H, W] and state [B, T - 1, channels, 32] to [B, num_classes, H/8, W/8] and the next state.
        """
        levels = self._read(frame)
        latest = paddle.concat([level.context for level in levels], axis=1).unsqueeze(1)
        contexts = paddle.concat([state, latest], axis=1)  # [B, T, channels, 32]
        sums = paddle.split(contexts.sum(axis=1), list(self.resnet.channels), axis=1)
        levels = [level._replace(context=context) for level, context in zip(levels, sums, strict=True)]
        main, _, _ = self._fuse(levels)
        return self.clslayer_8(main), contexts[:, 1:]

    def stream_step(self, frame: paddle.Tensor, state: StreamState | None = None) -> tuple[paddle.Tensor, StreamState]:
        """Compute `coarse_step`, and check that the state belongs to the network and to the video.

        Args:
            frame: The next frame of each of B videos, [B, C, H, W].
            state: The state that the previous step returned; None at the beginning of a video and after a cut.

        Returns:
            The coarse logits of the frame and the state for the next step.

        Raises:
            UserError: The network is training, or the state is of another network or of frames of another size.
        """
        if self.training:
            raise UserError("FANet.stream_step runs a trained network: call eval() first")
        batch, size = frame.shape[0], tuple(frame.shape[2:])
        contexts = paddle.zeros(self.state_shape(batch)) if state is None else state.contexts
        if state is not None and (state.network is not self or contexts.shape[1:] != self.state_shape(batch)[1:]):
            raise UserError("the state comes from another FANet; begin with state None")
        if state is not None and (state.size != size or contexts.shape[0] != batch):
            raise UserError(
                f"the state is of {contexts.shape[0]} videos of {list(state.size)} (height, width), the frame of "
                f"{batch} of {list(size)}; begin with state None where a video changes its size"
            )
        coarse, contexts = self.coarse_step(frame, contexts)
        return coarse, StreamState(contexts, size, self)

    def resize_logits(self, coarse: paddle.Tensor, images: paddle.Tensor) -> paddle.Tensor:
        return self.resize(coarse, images)

    def for_export(self, target: str = "cpu") -> "FANet":
        # `_unit` needs no replacement: it has x * x, not `square`, which oneDNN gets wrong for part of a split tensor.
        network = copy_for_export(self)
        if target == "gpu":
            for attention in (network.ffm_4, network.ffm_8, network.ffm_16, network.ffm_32):
                attention.shorten_keys(GPU_KEY_LENGTH)
            take_bgr(network, network.resnet.conv1)
        else:
            network.resize = resize_with_aligned_corners
        network.eval()
        return network

    def _read(self, frames: paddle.Tensor) -> list[Level]:
        """Read single frames [B, C, H, W] into levels from H/8 to H/64."""
        c4, c8, c16, c32 = self.resnet(frames)
        return [self.ffm_4.read(c4), self.ffm_8.read(c8), self.ffm_16.read(c16), self.ffm_32.read(c32)]

    def _read_clips(self, images: paddle.Tensor) -> list[Level]:
        """Read images or clips into levels: features and queries of the last frames, contexts summed over the clips."""
        frames, length = _last_frames(images, self.in_channels, self.temporal_window)
        levels = self._read(frames)
        if length == 1:
            return levels
        clips = [[x.reshape([-1, length, *x.shape[1:]]) for x in level] for level in levels]
        return [Level(features[:, -1], queries[:, -1], context.sum(axis=1)) for features, queries, context in clips]

    def _fuse(self, levels: list[Level]) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
        """Attend at each level and fuse the levels from coarse to fine.

        Returns:
            The features of the main head, [B, 256, H/8, W/8], and of the two auxiliary heads, [B, 128, H/32, W/32] and
            [B, c32, H/64, W/64]; the last are not smoothed yet.
        """
        level4, level8, level16, level32 = levels
        lowest = self.ffm_32(*level32)  # [B, c32, H/64, W/64]
        sixteenth = self.ffm_16(*level16)  # [B, c16, H/32, W/32]
        sixteenth = sixteenth + self.resize(self.ffm_32.up(lowest), sixteenth)
        eighth = self.ffm_8(*level8)  # [B, c8, H/16, W/16]
        eighth = eighth + self.resize(self.ffm_16.up(sixteenth), eighth)
        quarter = self.ffm_4(*level4)  # [B, c4, H/8, W/8]
        quarter = quarter + self.resize(self.ffm_8.up(eighth), quarter)
        context, detail = self.ffm_16.smooth(sixteenth), self.ffm_4.smooth(quarter)
        return paddle.concat([self.resize(context, detail), detail], axis=1), context, lowest


class FastAttention(nn.Layer):
    """Attention without softmax: keys and values are multiplied first, so the cost is linear in the positions.

    With queries q and keys k of length 1 at every position, the result is y = q (k^T v). A 1x1 convolution follows, and
    the input is added. The context k^T v is a sum over positions, not a mean. In a video, the contexts of the last
    frames are added.

    Args:
        channels: Width C of the features.
        has_up: Whether the next finer level uses the result, through `up`.
        has_smooth: Whether a head uses the result, through `smooth`.

    Shape: features [B, C, h, w], queries [B, h w, 32] and context [B, C, 32] to [B, C, h, w].

    Source: arXiv 2007.03815, section III and figure 3.
    """

    def __init__(self, channels: int, has_up: bool = True, has_smooth: bool = True) -> None:
        super().__init__()
        # One convolution in place of the original's three; each of its channels is a channel of one of them.
        self.qkv = ConvNorm(channels, 2 * KEYS + channels, 1, slope=1.0)
        self.latlayer3 = ConvNorm(channels, channels, 1)
        self.key_length = 1.0
        if has_up:
            # As in the original, this 1x1 convolution pads: the map grows by 2, with a border of BatchNorm(0).
            self.up = ConvNorm(channels, channels // 2, 1, padding=1)
        if has_smooth:
            self.smooth = ConvNorm(channels, SMOOTH, 3)

    def read(self, features: paddle.Tensor) -> Level:
        """Compute queries and context of features [B, C, h, w]."""
        tokens = to_tokens(self.qkv(features))  # [B, h w, 64 + C]
        queries, keys, values = paddle.split(tokens, [KEYS, KEYS, features.shape[1]], axis=2)
        context = paddle.matmul(F.leaky_relu(values, SLOPE), _unit(keys, self.key_length), transpose_x=True)
        return Level(features, _unit(queries), context)

    def forward(self, features: paddle.Tensor, queries: paddle.Tensor, context: paddle.Tensor) -> paddle.Tensor:
        # The 1x1 convolution is linear, so it may come first: on 32 columns instead of h w positions it is cheap.
        context = self.latlayer3.conv(context.unsqueeze(3)).squeeze(3)  # [B, C, 32]
        attended = paddle.matmul(queries, context, transpose_y=True)  # [B, h w, C]
        return self.latlayer3.normalise(to_map(attended, spatial_size(features))) + features

    def shorten_keys(self, length: float) -> None:
        """Give the keys of a copy for export another length, and let the BatchNorm behind them make up for it.

        Args:
            length: A power of two, so that the results stay the same to the bit. Contexts become as much smaller.
        """
        norm, self.key_length = self.latlayer3.bn, length
        set_constant(norm, "weight", norm.weight / length)
        set_constant(norm, "_mean", norm._mean * length)


class Head(nn.Layer):
    """A 3x3 convolution, and a 1x1 convolution to classes without bias.

    Shape: [B, in_channels, h, w] to [B, num_classes, h, w].
    """

    def __init__(self, in_channels: int, middle: int, num_classes: int) -> None:
        super().__init__()
        self.conv = ConvNorm(in_channels, middle, 3)
        self.conv_out = _conv(middle, num_classes, 1)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.conv_out(self.conv(x))


class ConvNorm(nn.Layer):
    """Convolution, BatchNorm, leaky ReLU. Shape: [B, in_channels, h, w] to [B, out_channels, h, w]."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, padding: int | None = None, slope: float = SLOPE
    ) -> None:
        super().__init__()
        self.conv = _conv(in_channels, out_channels, kernel_size, padding)
        self.bn = nn.BatchNorm2D(out_channels)
        self.slope = slope

    def normalise(self, x: paddle.Tensor) -> paddle.Tensor:
        """Apply BatchNorm and leaky ReLU to the result of the convolution."""
        x = self.bn(x)
        return x if self.slope == 1.0 else F.leaky_relu(x, self.slope)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.normalise(self.conv(x))


def _resize(x: paddle.Tensor, reference: paddle.Tensor) -> paddle.Tensor:
    return resize_as(x, reference, align_corners=True)


def _unit(x: paddle.Tensor, length: float = 1.0) -> paddle.Tensor:
    """Scale the vectors of [B, n, C] to a length; those shorter than 1e-12 are treated as if they had that length."""
    # The square root of a clipped sum has a finite gradient even for a vector of zeros.
    unit = x / (x * x).sum(axis=2, keepdim=True).clip(min=1e-24).sqrt()
    return unit if length == 1.0 else unit * length


def _conv(in_channels: int, out_channels: int, kernel_size: int, padding: int | None = None) -> nn.Conv2D:
    # The authors' initialisation, PyTorch's kaiming_normal with a = 1: a standard deviation of 1 / sqrt(fan in).
    weight = paddle.ParamAttr(initializer=KaimingNormal(negative_slope=1.0, nonlinearity="leaky_relu"))
    padding = kernel_size // 2 if padding is None else padding
    return nn.Conv2D(in_channels, out_channels, kernel_size, padding=padding, weight_attr=weight, bias_attr=False)


def _last_frames(images: paddle.Tensor, channels: int, window: int) -> tuple[paddle.Tensor, int]:
    """Return the last frames of clips, at most `window`, as [B n, channels, H, W], and their number n."""
    if images.ndim == 4 and images.shape[1] == channels:
        return images, 1
    if images.ndim == 4 and images.shape[1] % channels == 0:
        images = images.reshape([0, images.shape[1] // channels, channels, *spatial_size(images)])
    if images.ndim != 5 or images.shape[2] != channels:
        c = channels
        raise UserError(f"FANet takes [B, {c}, H, W], [B, n, {c}, H, W] or [B, {c} n, H, W], got {images.shape}")
    images = images[:, -window:]
    return images.flatten(0, 1), images.shape[1]
