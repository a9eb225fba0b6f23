"""The towers as PyTorch modules with an example input: what PyTorch runs and the exporters of other peers start from."""
import json
import os

import torch
import transformers as hf


class Hidden(torch.nn.Module):
    """The last hidden states alone."""
    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return self.module(x).last_hidden_state


def tower(work, checkpoint):
    """-> (module, input [1, ...])"""
    if work == "encode sound":
        encoder = hf.WhisperModel.from_pretrained(checkpoint, dtype=torch.float32).encoder.eval()
        return Hidden(encoder), torch.rand(1, encoder.config.num_mel_bins, 2 * encoder.config.max_source_positions)
    model = hf.AutoModel.from_pretrained(checkpoint, dtype=torch.float32).eval()
    model = getattr(model, "vision_model", model)
    with open(os.path.join(checkpoint, "config.json")) as f:
        size = json.load(f)["image_size"]
    return Hidden(model), torch.rand(1, 3, size, size)
