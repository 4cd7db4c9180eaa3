"""Measure exports and training steps beside PaddleSeg's."""
