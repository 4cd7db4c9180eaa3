"""The contract of a network: everything that training, evaluation, export and inference may ask of one."""

import paddle
import paddle.nn as nn

from paddle_rt.models.layers import resize_as


class Network(nn.Layer):
    """Base class of every network.

    `forward` takes images [B, C, H, W] and returns a list of outputs. The first is the main output; those behind it
    come from auxiliary heads and are returned only while training. A subclass overrides the attributes and methods
    below where the defaults do not describe it. Nobody finds out by other means what a network can do.

    Attributes:
        output_stride: How many times smaller than the images the result of `coarse_logits` is, or None for a network
            that has no such result.
        align_corners: How the last resize of `forward` aligns `coarse_logits` with the images.
        needs_fixed_size: Whether an exported graph of this network needs a fixed height and width.
        near_ties: Whether the network chooses between nearly equal values (such as the matches of token merging), so
            that rounding may decide a choice differently in another engine.
        takes_clips: Whether the network also takes clips, [B, n C, H, W].
        temporal_window: Number of frames that one output depends on; 1 for a network that takes single images.
        takes_bgr: Whether the channels of an image come in the order blue, green, red. Only a network that `for_export`
            returns may have it.
    """

    output_stride: int | None = None
    align_corners: bool = False
    needs_fixed_size: bool = False
    near_ties: bool = False
    takes_clips: bool = False
    temporal_window: int = 1
    takes_bgr: bool = False

    def coarse_logits(self, images: paddle.Tensor) -> paddle.Tensor:
        """Return the main output before its final resize.

        Shape: images [B, C, H, W] to [B, num_classes, H / output_stride, W / output_stride].
        """
        raise NotImplementedError(f"{type(self).__name__} has no coarse logits: its output_stride is None")

    def resize_logits(self, coarse: paddle.Tensor, images: paddle.Tensor) -> paddle.Tensor:
        """Resize coarse logits to the height and width of the images, as the end of `forward` does."""
        return resize_as(coarse, images, self.align_corners)

    def state_shape(self, batch: int = 1) -> list[int]:
        """Return the shape of the state that `coarse_step` carries from frame to frame."""
        raise NotImplementedError(f"{type(self).__name__} keeps no state: its temporal_window is 1")

    def coarse_step(self, frame: paddle.Tensor, state: paddle.Tensor) -> tuple[paddle.Tensor, paddle.Tensor]:
        """Return the coarse logits of the next frame of a video, and the state for the frame after it.

        The state of the first frame is zeros of `state_shape`.
        """
        raise NotImplementedError(f"{type(self).__name__} keeps no state: its temporal_window is 1")

    def for_export(self, target: str = "cpu") -> "Network":
        """Return the network that an exported graph is traced from.

        It computes the same numbers as this network in evaluation mode, with constants folded and with operators that
        every inference engine of the target computes correctly. It may share parameters with this network, which is not
        changed.

        Args:
            target: "cpu" or "gpu". For "gpu" the operators are those that TensorRT takes, no intermediate value comes
                near the limit of half precision, the network may take its channels in reverse order (`takes_bgr`), and
                its state may have another scale.
        """
        return self
