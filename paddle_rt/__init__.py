"""Real-time semantic segmentation on PaddlePaddle: RTFormer, FANet and SegFormer++, trained, exported and run."""

from paddle_rt.registry import create_model, list_models
from paddle_rt.weights import list_weights

__version__ = "0.1.0"
__all__ = ["__version__", "create_model", "list_models", "list_weights"]
