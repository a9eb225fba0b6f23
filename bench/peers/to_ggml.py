#!/usr/bin/env python3
"""A Whisper checkpoint in Hugging Face's layout -> one file for whisper.cpp (matrices in f16, the rest in f32).

    to_ggml.py CHECKPOINT OUT.bin [TOKENIZER_DIR]
"""
import json
import os
import struct
import sys

import numpy as np
import torch
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

RENAMED = [("model.", ""), (".layers.", ".blocks."), ("self_attn_layer_norm", "attn_ln"),
           ("encoder_attn_layer_norm", "cross_attn_ln"), ("final_layer_norm", "mlp_ln"), ("self_attn", "attn"),
           ("encoder_attn", "cross_attn"), ("q_proj", "query"), ("k_proj", "key"), ("v_proj", "value"),
           ("out_proj", "out"), ("fc1", "mlp.0"), ("fc2", "mlp.2"), ("encoder.layer_norm", "encoder.ln_post"),
           ("decoder.layer_norm", "decoder.ln"), ("embed_positions.weight", "positional_embedding"),
           ("embed_tokens", "token_embedding")]


def byte_of_character():
    """How byte-level BPE writes bytes as printable characters."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [b for b in range(256) if b not in plain]
    return {**{chr(b): b for b in plain}, **{chr(256 + i): b for i, b in enumerate(rest)}}


def tokens(folder):
    with open(os.path.join(folder, "tokenizer.json")) as f:
        vocabulary = json.load(f)["model"]["vocab"]
    decode = byte_of_character()
    texts = sorted(vocabulary, key=vocabulary.get)
    return [bytes(decode[c] for c in text) for text in texts if all(c in decode for c in text)]


def write(out, name, array):
    half = array.ndim > 1 and "positional_embedding" not in name and "bias" not in name
    array = np.ascontiguousarray(array, np.float16 if half else np.float32)
    out.write(struct.pack("<iii", array.ndim, len(name), int(half)))
    out.write(struct.pack(f"<{array.ndim}i", *reversed(array.shape)))
    out.write(name.encode() + array.tobytes())


def main():
    source, target = sys.argv[1:3]
    model = WhisperForConditionalGeneration.from_pretrained(source, dtype=torch.float32)
    c = model.config
    with open(target, "wb") as out:
        out.write(struct.pack("<12i", 0x67676D6C, c.vocab_size, c.max_source_positions, c.d_model,
                              c.encoder_attention_heads, c.encoder_layers, c.max_target_positions, c.d_model,
                              c.decoder_attention_heads, c.decoder_layers, c.num_mel_bins, 1))
        filters = WhisperFeatureExtractor(feature_size=c.num_mel_bins).mel_filters.T.astype(np.float32)
        out.write(struct.pack("<2i", *filters.shape) + np.ascontiguousarray(filters).tobytes())
        words = tokens(sys.argv[3] if len(sys.argv) > 3 else source)
        out.write(struct.pack("<i", len(words)))
        for word in words:
            out.write(struct.pack("<i", len(word)) + word)
        for name, tensor in model.state_dict().items():
            if name == "proj_out.weight":
                continue  # the token embedding once more
            for old, new in RENAMED:
                name = name.replace(old, new)
            array = tensor.numpy()
            write(out, name, array[:, None] if name.startswith("encoder.conv") and array.ndim == 1 else array)


if __name__ == "__main__":
    main()
