#!/usr/bin/env python3
"""A llama2.c checkpoint (version 0, f32) and its tokenizer as a Hugging Face directory.

    convert_llama2c.py MODEL.bin TOKENIZER.bin OUT          (pip: numpy safetensors)
"""
import argparse
import json
import os
import struct

import numpy as np
from safetensors.numpy import save_file

EPS, THETA = 1e-5, 10000.0  # llama2.c has them in its source


def rotate_half_order(weight, heads):
    """llama2.c turns neighbours (2i, 2i+1) of a head together, HF numbers i and i + half."""
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).swapaxes(1, 2).reshape(rows, width)


def read_model(path):
    """-> config.json, tensors by HF's names."""
    with open(path, "rb") as f:
        width, inner, layers, heads, kv_heads, vocab, positions = struct.unpack("7i", f.read(28))
        numbers = np.fromfile(f, np.float32)
    head, at = width // heads, 0

    def take(*shape):
        nonlocal at
        at += int(np.prod(shape))
        return numbers[at - int(np.prod(shape)):at].reshape(shape)

    tied, vocab = vocab > 0, abs(vocab)
    tensors = {"model.embed_tokens.weight": take(vocab, width)}
    order = [("input_layernorm", (width,)), ("self_attn.q_proj", (heads * head, width)),
             ("self_attn.k_proj", (kv_heads * head, width)), ("self_attn.v_proj", (kv_heads * head, width)),
             ("self_attn.o_proj", (width, heads * head)), ("post_attention_layernorm", (width,)),
             ("mlp.gate_proj", (inner, width)), ("mlp.down_proj", (width, inner)), ("mlp.up_proj", (inner, width))]
    for name, shape in order:
        for i, weight in enumerate(take(layers, *shape)):
            turned = {"self_attn.q_proj": heads, "self_attn.k_proj": kv_heads}.get(name)
            tensors[f"model.layers.{i}.{name}.weight"] = rotate_half_order(weight, turned) if turned else weight
    tensors["model.norm.weight"] = take(width)
    take(2, positions, head // 2)  # cosines and sines
    if not tied:
        tensors["lm_head.weight"] = take(vocab, width)
    if at != len(numbers):
        raise SystemExit(f"{path}: {len(numbers)} numbers, expected {at}")
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": width,
              "intermediate_size": inner, "num_hidden_layers": layers, "num_attention_heads": heads,
              "num_key_value_heads": kv_heads, "max_position_embeddings": positions, "vocab_size": vocab,
              "rms_norm_eps": EPS, "hidden_act": "silu", "tie_word_embeddings": tied, "bos_token_id": 1,
              "eos_token_id": 2, "rope_theta": THETA, "torch_dtype": "float32"}
    return config, {n: np.ascontiguousarray(t) for n, t in tensors.items()}


def read_pieces(path, count):
    """-> [(piece as SentencePiece has it, score)]."""
    pieces = []
    with open(path, "rb") as f:
        f.read(4)
        for _ in range(count):
            score, length = struct.unpack("fi", f.read(8))
            pieces.append((f.read(length).decode().replace(" ", "▁"), score))
    pieces[1:3] = [("<s>", 0.0), ("</s>", 0.0)]  # llama2.c has line ends around them
    return pieces


def tokenizer(pieces):
    """tokenizer.json as published Llama 2 checkpoints have it."""
    ids = {piece: i for i, (piece, _) in enumerate(pieces)}
    merges = []
    for piece, score in pieces:
        cuts = [(piece[:i], piece[i:]) for i in range(1, len(piece)) if piece[:i] in ids and piece[i:] in ids]
        merges += [(score, a, b) for a, b in sorted(cuts, key=lambda c: (ids[c[0]], ids[c[1]]))]
    merges.sort(key=lambda m: -m[0])
    return {
        "version": "1.0", "truncation": None, "padding": None,
        "added_tokens": [{"id": i, "content": t, "single_word": False, "lstrip": False, "rstrip": False,
                          "normalized": False, "special": True} for i, t in enumerate(("<unk>", "<s>", "</s>"))],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "pre_tokenizer": None,
        "post_processor": {"type": "TemplateProcessing",
                           "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                           "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                           "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}}},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "vocab": ids,
                  "merges": [[a, b] for _, a, b in merges]}}


def convert(model, pieces, out):
    config, tensors = read_model(model)
    os.makedirs(out, exist_ok=True)
    files = {"config.json": config, "tokenizer.json": tokenizer(read_pieces(pieces, config["vocab_size"])),
             "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2}}
    for name, value in files.items():
        with open(f"{out}/{name}", "w", encoding="utf-8") as f:
            json.dump(value, f, ensure_ascii=False, indent=1)
            f.write("\n")
    save_file(tensors, f"{out}/model.safetensors", metadata={"format": "pt"})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("model", "tokenizer", "out"):
        parser.add_argument(name)
    arguments = parser.parse_args()
    convert(arguments.model, arguments.tokenizer, arguments.out)
