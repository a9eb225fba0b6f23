"""int8 with one scale per output row, as compressed-tensors stores it (format int-quantized). NumPy only."""
import numpy as np

# 2-D weights that are read as plain rows, not multiplied with or looked up by token id.
NOT_QUANTIZED = ("embed_positions.weight", "wpe.weight")


def is_quantized(name, shape):
    """Weights of Linear and token Embedding modules; convolutions, norms, biases, position tables stay as they are."""
    return len(shape) == 2 and name.endswith(".weight") and not name.endswith(NOT_QUANTIZED)


def quantize_rows(weight):
    """[out, in] -> int8 [out, in], scale [out, 1] f32: symmetric, to nearest even, a row's largest value is 127."""
    weight = weight.astype(np.float32)
    largest = np.abs(weight).max(axis=1, keepdims=True)
    scale = np.maximum(largest / np.float32(127), np.finfo(np.float32).tiny)
    return np.rint(weight / scale).clip(-127, 127).astype(np.int8), scale


def quantize(tensors):
    """{name: array} -> stored tensors (`weight` I8 with `weight_scale`, the rest f16), what they stand for in f32, and
    the quantization_config."""
    stored, meant = {}, {}
    for name, array in tensors.items():
        if is_quantized(name, array.shape):
            stored[name], stored[name + "_scale"] = quantize_rows(array)
            meant[name] = stored[name].astype(np.float32) * stored[name + "_scale"]
        else:
            stored[name] = array.astype(np.float16)
            meant[name] = stored[name].astype(np.float32)
    return stored, meant, quantization_config(tensors)


def quantization_config(tensors):
    ignored = sorted(n.removesuffix(".weight") for n, t in tensors.items()
                     if n.endswith(".weight") and t.ndim >= 2 and not is_quantized(n, t.shape))
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False}
    return {"quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
            "config_groups": {"group_0": {"targets": ["Linear", "Embedding"], "weights": weights,
                                          "input_activations": None, "output_activations": None}},
            "ignore": ignored}
