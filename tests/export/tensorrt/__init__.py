"""What of an export enters TensorRT, found by reading its graphs; neither Paddle nor TensorRT is imported or run.

pir.py reads model.json, paddle_rows.py says what paddle.tensorrt marks and converts, paddle_engines.py cuts engines as
`paddle.tensorrt.convert` does. onnx_rows.py says what TensorRT's ONNX importer takes, onnx_engines.py cuts its engines.
`python -m tests.export.tensorrt EXPORT_DIR ...` prints both. An engine that is cut here has not been built: the tables
are made from the sources of Paddle and of the importer, each row with its source and version.
"""
