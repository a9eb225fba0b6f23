"""ONNX Runtime on the towers as PyTorch exports them: f32, or int8 (its dynamic quantisation)."""
import os
import tempfile

import onnxruntime
import torch

from towers import tower


def prepare(work, arguments):
    module, x = tower(work, arguments.checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "tower.onnx")
        torch.onnx.export(module, (x,), path, input_names=["x"], dynamo=True, verbose=False)
        if arguments.format == "int8":
            from onnxruntime.quantization import QuantType, quantize_dynamic
            quantised = os.path.join(folder, "int8.onnx")
            quantize_dynamic(path, quantised, weight_type=QuantType.QInt8, per_channel=True)
            path = quantised
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = arguments.threads
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy()}
    return f"ONNX Runtime {onnxruntime.__version__}", lambda: (session.run(None, feed), None)[1]
