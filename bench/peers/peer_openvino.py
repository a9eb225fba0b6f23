"""OpenVINO on the towers as it converts them from PyTorch, f32 or bf16."""
import openvino

from towers import tower


def prepare(work, arguments):
    module, x = tower(work, arguments.checkpoint)
    model = openvino.convert_model(module, example_input=x)
    model.reshape(list(x.shape))
    compiled = openvino.Core().compile_model(model, "CPU", {
        "INFERENCE_NUM_THREADS": arguments.threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": arguments.format})
    request, array = compiled.create_infer_request(), x.numpy()
    return f"OpenVINO {openvino.__version__.split('-')[0]}", lambda: (request.infer([array]), None)[1]
