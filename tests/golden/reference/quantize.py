"""int8 weights, by the tool that makes the default model's."""
import os
import sys

import torch

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../../tools"))
import int8_rows  # noqa: E402

from .tessera import published  # noqa: E402


def quantize(tensors, model):
    """Published tensors -> stored tensors and quantization_config; `model` gets what they stand for."""
    stored, meant, config = int8_rows.quantize({n: t.numpy() for n, t in tensors.items()})
    load_published(model, {n: torch.from_numpy(a) for n, a in meant.items()})
    return {n: torch.from_numpy(a) for n, a in stored.items()}, config


def load_published(model, tensors):
    """Puts tensors by published name into a Tessera reference model: each goes where the model has its old value."""
    old = published(model)
    places = {(tuple(p.shape), p.detach().numpy().tobytes()): p for p in model.parameters()}
    with torch.no_grad():
        for name, value in tensors.items():
            places[tuple(old[name].shape), old[name].numpy().tobytes()].copy_(value)
