"""int8 with one scale per output row, in compressed-tensors' names (int-quantized)."""
import torch

# 2-D tensors that are no weight of a Linear or Embedding, or are read as plain rows.
NOT_QUANTIZED = ("position_embedding", "position_embeddings", "embed_positions.weight", "wpe.weight")


def is_quantized(name, tensor):
    return tensor.dim() == 2 and name.endswith(".weight") and not name.endswith(NOT_QUANTIZED)


def quantize_rows(weight):
    """[out, in] -> int8 [out, in], scale [out, 1] f32: symmetric, round to nearest, largest value to 127."""
    scale = (weight.abs().amax(dim=1, keepdim=True) / 127).clamp(min=torch.finfo(torch.float32).tiny)
    return torch.round(weight / scale).clamp(-127, 127).to(torch.int8), scale


def quantization_config(ignored):
    return {"quant_method": "compressed-tensors", "format": "int-quantized", "quantization_status": "compressed",
            "config_groups": {"group_0": {
                "targets": ["Linear", "Embedding"], "input_activations": None, "output_activations": None,
                "weights": {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "channel", "dynamic": False,
                            "group_size": None, "block_structure": None, "actorder": None}}},
            "ignore": ignored, "global_compression_ratio": None, "kv_cache_scheme": None}


def modules_not_quantized(tensors):
    """Linear-like and Embedding modules that stay as they are, by name."""
    return sorted(n.removesuffix(".weight") for n, t in tensors.items()
                  if n.endswith(".weight") and t.dim() >= 2 and not is_quantized(n, t))


def quantize(tensors, model=None):
    """Published tensors -> stored tensors and quantization_config; `model` gets the rounded weights."""
    stored, rounded = {}, {}
    for name, t in tensors.items():
        if is_quantized(name, t):
            q, scale = quantize_rows(t.float())
            stored[name], stored[f"{name}_scale"] = q, scale
            rounded[name] = q.float() * scale
        else:
            stored[name] = t.half()
            rounded[name] = stored[name].float()
    if model is not None:
        load_published(model, rounded)
    return stored, quantization_config(modules_not_quantized(tensors))


def load_published(model, rounded):
    """Puts tensors by published name into a Tessera reference model: each replaces the parameter of its old value."""
    from .tessera import published

    old = published(model)
    by_bytes = {}
    for p in model.parameters():
        by_bytes.setdefault((tuple(p.shape), p.detach().numpy().tobytes()), p)
    with torch.no_grad():
        for name, value in rounded.items():
            by_bytes[tuple(old[name].shape), old[name].numpy().tobytes()].copy_(value)
