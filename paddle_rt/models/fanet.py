"""FANet: a ResNet trunk, fast attention at each of its four sizes, and their fusion from coarse to fine.

Source: Hu et al., Real-Time Semantic Segmentation With Fast Attention, RA-L 2020, arXiv 2007.03815; the authors'
PyTorch code (github.com/feinanshan/FANet, Train/ptsemseg/models/fanet), which has no video part.

Parameter names are those of the authors' training code, with `_mean` and `_variance` for its `running_mean` and
`running_var`, except for these:

| here | there |
| --- | --- |
| ffm_N.qkv.conv.weight [64 + C, C, 1, 1] | ffm_N.w_qs.conv.weight, w_ks.conv.weight, w_vs.conv.weight, in this order |
| ffm_N.qkv.bn.{weight, bias, _mean, _variance} [64 + C] | the same of w_qs.bn, w_ks.bn, w_vs.bn |
| not there, since nothing reads them | ffm_4.up.*, ffm_8.smooth.* |
| every BatchNorm's weight | its absolute value + 1e-5, which the original's normalisation takes instead |
"""

from dataclasses import dataclass

import paddle
import paddle.nn as nn
import paddle.nn.functional as F
from paddle.nn.initializer import KaimingNormal

from paddle_rt.checkpoint import load_pretrained
from paddle_rt.errors import UserError
from paddle_rt.models.layers import resize_as, spatial_size
from paddle_rt.models.resnet import ResNet

VARIANTS = {"fanet18": dict(depth=18), "fanet34": dict(depth=34), "fanet50": dict(depth=50)}

KEYS = 32  # channels of keys and queries
SMOOTH = 128  # channels of the smoothed features
SLOPE = 0.01  # of the leaky ReLU that follows nearly every BatchNorm


@dataclass(frozen=True)
class StreamState:
    """What a FANet remembers of a video: for each frame that the next one will read what its attention modules drew.

    Args:
        contexts: [B, temporal_window - 1, channels of all four modules, 32], oldest first; zeros where there was no
            frame. Its size depends neither on that of the frames nor on the length of the video.
        size: (height, width) of the frames; sums over positions of another size would weigh differently.
        model: Who made it.
    """

    contexts: paddle.Tensor
    size: tuple[int, int]
    model: "FANet"


class FANet(nn.Layer):
    """FANet for images and, with a temporal window, for video.

    Args:
        num_classes: Number of classes.
        depth: Of the ResNet: 18, 34, 50, 101 or 152.
        temporal_window: Frames T whose keys and values the attention of the last one reads; 1 is the network for
            images. It adds no parameters.
        in_channels: Channels of an image.
        pretrained: File, folder or address of weights to start from, read at construction: those of a FANet, or of a
            ResNet trained on ImageNet, which has no first shortcut since only here its first stage has a stride.

    Shape: images [B, 3, H, W] or clips [B, n, 3, H, W], also as [B, 3 n, H, W], of any H and W, the oldest frame first,
        to a list of logits [B, num_classes, H, W] of the last frame: the main head's and, while training, those of two
        auxiliary heads, whose losses the paper weighs 1, 0.5 and 0.5. Of a clip the last T frames are read; a shorter
        one is the beginning of a video.

    Raises:
        UserError: There is no ResNet of that depth, or the weights do not fit.
        ValueError: num_classes, temporal_window or in_channels is no number of at least 1.

    Source: arXiv 2007.03815, figure 2; section III for video.
    """

    coarse_align_corners = True  # every resize of the original aligns the corners

    def __init__(
        self,
        num_classes: int,
        depth: int = 18,
        temporal_window: int = 1,
        in_channels: int = 3,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        counts = dict(num_classes=num_classes, temporal_window=temporal_window, in_channels=in_channels)
        for name, value in counts.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"FANet: {name} must be a whole number of at least 1, got {value!r}")
        self.temporal_window, self.in_channels = temporal_window, in_channels
        # All four stages halve the size: 1/8, 1/16, 1/32, 1/64. The names below count from 1/4, as the authors do.
        self.resnet = ResNet(depth, strides=(2, 2, 2, 2), slope=SLOPE, in_channels=in_channels)
        c4, c8, c16, c32 = self.resnet.channels
        self.ffm_32 = FastAttention(c32)
        self.ffm_16 = FastAttention(c16)
        self.ffm_8 = FastAttention(c8, has_smooth=False)
        self.ffm_4 = FastAttention(c4, has_up=False)
        self.clslayer_32 = Head(SMOOTH, 64, num_classes)
        self.clslayer_16 = Head(SMOOTH, 64, num_classes)
        self.clslayer_8 = Head(2 * SMOOTH, 256, num_classes)
        if pretrained is not None:
            new_head, optional = ("ffm_*", "clslayer_*"), ("resnet.layer1.0.downsample.*",)
            load_pretrained(self, pretrained, new_head, optional, trunk="resnet.")

    @property
    def _attentions(self) -> tuple["FastAttention", ...]:
        return self.ffm_4, self.ffm_8, self.ffm_16, self.ffm_32

    def forward(self, images: paddle.Tensor) -> list[paddle.Tensor]:
        main, context, lowest = self._fuse(*self._read_clips(images))
        logits = [self.clslayer_8(main)]
        if self.training:
            logits += [self.clslayer_32(self.ffm_32.smooth(lowest)), self.clslayer_16(context)]
        size = images.flatten(0, 1) if images.ndim == 5 else images
        return [resize_as(coarse, size, align_corners=True) for coarse in logits]  # [B, num_classes, H, W]

    def coarse_logits(self, images: paddle.Tensor) -> paddle.Tensor:
        """Logits of the main head before the final resize, [B, num_classes, H/8, W/8]."""
        return self.clslayer_8(self._fuse(*self._read_clips(images))[0])

    def stream_step(self, frame: paddle.Tensor, state: StreamState | None = None) -> tuple[paddle.Tensor, StreamState]:
        """Segment the next frame of a video at the cost of a single image.

        Args:
            frame: [B, 3, H, W], of B videos side by side.
            state: What the step before gave; None at the beginning of a video and after a cut.

        Returns:
            Coarse logits of the frame, those of the clip that ends with it, and the state for the next step.

        Raises:
            UserError: The network is training, or the state is of another network or of frames of another size.
        """
        if self.training:
            raise UserError("FANet.stream_step runs a trained network: call eval() first")
        batch, size = frame.shape[0], tuple(frame.shape[2:])
        contexts = paddle.zeros(self.state_shape(batch)) if state is None else state.contexts
        if state is not None and (state.model is not self or contexts.shape[1:] != self.state_shape(batch)[1:]):
            raise UserError("the state comes from another FANet; begin with state None")
        if state is not None and (state.size != size or contexts.shape[0] != batch):
            raise UserError(
                f"the state is of {contexts.shape[0]} videos of {list(state.size)} (height, width), the frame of "
                f"{batch} of {list(size)}; begin with state None where a video changes its size"
            )
        coarse, contexts = self.coarse_step(frame, contexts)
        return coarse, StreamState(contexts, size, self)

    def state_shape(self, batch: int = 1) -> list[int]:
        """Shape of `StreamState.contexts`: [B, temporal_window - 1, channels of all four modules, 32]."""
        return [batch, self.temporal_window - 1, sum(self.resnet.channels), KEYS]

    def coarse_step(self, frame: paddle.Tensor, contexts: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """`stream_step` on bare tensors, for graphs.

        An exact sum over a window has to know what leaves it, so the state holds T - 1 contexts (120 KB each with depth
        18). They are summed anew for every frame, T - 1 sums of 31 thousand numbers beside the billions of products of
        the trunk: unlike a running sum, that does not drift.

        Shape: frame [B, 3, H, W] and contexts [B, T - 1, channels, 32] to [B, num_classes, H/8, W/8] and contexts.
        """
        features, queries, latest = self._read(frame)
        contexts = paddle.concat([contexts, paddle.concat(latest, axis=1).unsqueeze(1)], axis=1)  # [B, T, channels, 32]
        summed = paddle.split(contexts.sum(axis=1), list(self.resnet.channels), axis=1)
        return self.clslayer_8(self._fuse(features, queries, summed)[0]), contexts[:, 1:]

    def _read(self, frames: paddle.Tensor) -> tuple[list[paddle.Tensor], list[paddle.Tensor], list[paddle.Tensor]]:
        """Features, queries and contexts of single frames, from H/8 to H/64."""
        features = self.resnet(frames)
        read = [module.read(feature) for module, feature in zip(self._attentions, features, strict=True)]
        return features, [queries for queries, _ in read], [context for _, context in read]

    def _read_clips(self, images: paddle.Tensor) -> tuple[list, list, list]:
        """As `_read`, but the features and queries are those of the last frames, the contexts the sums over clips."""
        frames, length = _last_frames(images, self.in_channels, self.temporal_window)
        features, queries, contexts = self._read(frames)
        if length == 1:
            return features, queries, contexts
        features, queries, contexts = (
            [x.reshape([-1, length, *x.shape[1:]]) for x in group] for group in (features, queries, contexts)
        )
        return [x[:, -1] for x in features], [x[:, -1] for x in queries], [x.sum(axis=1) for x in contexts]

    def _fuse(
        self, features: list[paddle.Tensor], queries: list[paddle.Tensor], contexts: list[paddle.Tensor]
    ) -> tuple[paddle.Tensor, paddle.Tensor, paddle.Tensor]:
        """Features of the main head [B, 256, H/8, W/8] and of the auxiliary ones, [B, 128, H/32, W/32] and
        [B, c32, H/64, W/64], of which the last is not smoothed yet."""
        attended = [m(*inputs) for m, *inputs in zip(self._attentions, features, queries, contexts, strict=True)]
        quarter, eighth, sixteenth, lowest = attended
        sixteenth = sixteenth + resize_as(self.ffm_32.up(lowest), sixteenth, align_corners=True)  # [B, c16, H/32, W/32]
        eighth = eighth + resize_as(self.ffm_16.up(sixteenth), eighth, align_corners=True)  # [B, c8, H/16, W/16]
        quarter = quarter + resize_as(self.ffm_8.up(eighth), quarter, align_corners=True)  # [B, c4, H/8, W/8]
        context, detail = self.ffm_16.smooth(sixteenth), self.ffm_4.smooth(quarter)
        return paddle.concat([resize_as(context, detail, align_corners=True), detail], axis=1), context, lowest


class FastAttention(nn.Layer):
    """Attention without softmax, which lets keys and values be multiplied first: linear in the number of positions.

    With queries q and keys k of length 1 at every position, y = q (k^T v); a 1x1 convolution follows, and the input is
    added. The sum over positions in k^T v, the context, is not divided by their number. In a video the contexts of the
    last frames are summed.

    Args:
        channels: Width C of the features.
        has_up: Whether a finer module takes `up` of the result.
        has_smooth: Whether a head takes `smooth` of the result.

    Shape: features [B, C, h, w], queries [B, h w, 32] and contexts [B, C, 32] to [B, C, h, w].

    Source: arXiv 2007.03815, section III and figure 3.
    """

    def __init__(self, channels: int, has_up: bool = True, has_smooth: bool = True) -> None:
        super().__init__()
        # One convolution where the original has three: each of its channels is one of theirs.
        self.qkv = ConvNorm(channels, 2 * KEYS + channels, 1, slope=1.0)
        self.latlayer3 = ConvNorm(channels, channels, 1)
        if has_up:
            # A 1x1 convolution with a border of zeros: the map grows by 2, and there it is what BatchNorm makes of 0.
            # The weights are trained with it.
            self.up = ConvNorm(channels, channels // 2, 1, padding=1)
        if has_smooth:
            self.smooth = ConvNorm(channels, SMOOTH, 3)

    def read(self, features: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Queries [B, h w, 32] and context [B, C, 32] of features [B, C, h, w]."""
        tokens = self.qkv(features).flatten(2).transpose([0, 2, 1])  # [B, h w, 64 + C]
        queries, keys, values = paddle.split(tokens, [KEYS, KEYS, features.shape[1]], axis=2)
        return _unit(queries), paddle.matmul(F.leaky_relu(values, SLOPE), _unit(keys), transpose_x=True)

    def forward(self, features: paddle.Tensor, queries: paddle.Tensor, context: paddle.Tensor) -> paddle.Tensor:
        # The 1x1 convolution is linear as well: done on 32 columns instead of h w positions it costs nothing.
        context = self.latlayer3.conv(context.unsqueeze(3)).squeeze(3)  # [B, C, 32]
        attended = paddle.matmul(queries, context, transpose_y=True).transpose([0, 2, 1])  # [B, C, h w]
        return self.latlayer3.normalise(attended.reshape([0, 0, *spatial_size(features)])) + features


class Head(nn.Layer):
    """3x3 convolution, then 1x1 to classes, without bias. Shape: [B, in_channels, h, w] to [B, num_classes, h, w]."""

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
        """BatchNorm and leaky ReLU, for who has done the convolution."""
        x = self.bn(x)
        return x if self.slope == 1.0 else F.leaky_relu(x, self.slope)

    def forward(self, x: paddle.Tensor) -> paddle.Tensor:
        return self.normalise(self.conv(x))


def _unit(x: paddle.Tensor) -> paddle.Tensor:
    """Divide by the length over the last axis, 1e-12 at least; a gradient is finite even where all of them are zero.

    A product, since Paddle Inference with oneDNN gets `square` of a part of a split tensor wrong.
    """
    return x / (x * x).sum(axis=-1, keepdim=True).clip(min=1e-24).sqrt()


def _conv(in_channels: int, out_channels: int, kernel_size: int, padding: int | None = None) -> nn.Conv2D:
    # What the authors ask of PyTorch, kaiming_normal with a = 1: a standard deviation of 1 / sqrt(fan in).
    weight = paddle.ParamAttr(initializer=KaimingNormal(negative_slope=1.0, nonlinearity="leaky_relu"))
    padding = kernel_size // 2 if padding is None else padding
    return nn.Conv2D(in_channels, out_channels, kernel_size, padding=padding, weight_attr=weight, bias_attr=False)


def _last_frames(images: paddle.Tensor, channels: int, window: int) -> tuple[paddle.Tensor, int]:
    """The last frames of clips, `window` at most, as [B n, channels, H, W], and their number n."""
    if images.ndim == 4 and images.shape[1] == channels:
        return images, 1
    if images.ndim == 4 and images.shape[1] % channels == 0:
        images = images.reshape([0, images.shape[1] // channels, channels, *spatial_size(images)])
    if images.ndim != 5 or images.shape[2] != channels:
        c = channels
        raise UserError(f"FANet takes [B, {c}, H, W], [B, n, {c}, H, W] or [B, {c} n, H, W], got {images.shape}")
    images = images[:, -window:]
    return images.flatten(0, 1), images.shape[1]
