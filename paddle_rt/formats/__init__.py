"""Files of weights, read without running anything that they ask for, and without PyTorch or Paddle."""
