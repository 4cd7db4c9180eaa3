"""Export networks: trace, convert to ONNX, optimise, verify, publish, and quantise to int8."""
