"""Run a graph of coarse logits in MNN with nothing but MNN and NumPy, as on an emulated ARM computer.

    python tests/deploy/run_mnn.py model.mnn frames.npz logits.npz

frames.npz holds uint8 frames [H, W, 3] of one size; logits.npz gets the logits of each.
"""

import sys

import MNN
import numpy as np


def main(graph: str, frames: str, logits: str) -> None:
    network, results = MNN.Interpreter(graph), {}
    session = network.createSession({"backend": "CPU", "numThread": 1, "precision": "normal"})
    caffe = MNN.Tensor_DimensionType_Caffe
    for name, frame in np.load(frames).items():
        batch = np.ascontiguousarray(frame[np.newaxis])
        network.resizeTensor(network.getSessionInput(session, "frame"), batch.shape)
        network.resizeSession(session)
        network.getSessionInput(session, "frame").copyFrom(MNN.Tensor(batch.shape, MNN.Halide_Type_Uint8, batch, caffe))
        network.runSession(session)
        output = network.getSessionOutput(session)
        zeros = np.zeros(output.getShape(), np.float32)
        host = MNN.Tensor(zeros.shape, MNN.Halide_Type_Float, zeros, caffe)
        output.copyToHostTensor(host)
        results[name] = np.array(host.getNumpyData(), np.float32).reshape(zeros.shape)
    np.savez(logits, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
