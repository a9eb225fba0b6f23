#!/usr/bin/env python3
"""Hugging Face directories with random weights in the shapes of well-known checkpoints, for benchmarks.

    make_shapes.py OUT [SHAPE...] [--dtype f32|bf16|f16] [--tokenizer DIR]
    make_shapes.py --list

Written by transformers itself, so that it opens them, and what converts from it does. Text decoders get a tokenizer only where
--tokenizer names a directory with one (tokenizer.json, ...). (pip: torch transformers)
"""
import argparse
import json
import os
import shutil

import torch
import transformers as hf

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
LLAMA3 = {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192, "rope_theta": 500000.0}
HALF = {"do_normalize": True, "do_rescale": True, "do_resize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "rescale_factor": 1 / 255}
VIT = {**HALF, "image_processor_type": "ViTImageProcessor", "resample": 2, "size": {"height": 224, "width": 224}}
SIGLIP = {**HALF, "image_processor_type": "SiglipImageProcessor", "resample": 3, "size": {"height": 512, "width": 512}}


def whisper(width, layers, heads):
    return hf.WhisperForConditionalGeneration, hf.WhisperConfig(
        d_model=width, encoder_layers=layers, decoder_layers=layers, encoder_attention_heads=heads,
        decoder_attention_heads=heads, encoder_ffn_dim=4 * width, decoder_ffn_dim=4 * width)


# name -> (model class, config), preprocessor_config.json (or what writes it)
SHAPES = {
    "gpt2": (lambda: (hf.GPT2LMHeadModel, hf.GPT2Config()), None),
    "smollm2-135m": (lambda: (hf.LlamaForCausalLM, hf.LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, rms_norm_eps=1e-5, tie_word_embeddings=True, bos_token_id=0,
        eos_token_id=0, rope_parameters={"rope_type": "default", "rope_theta": 100000.0})), None),
    "llama-3.2-1b": (lambda: (hf.LlamaForCausalLM, hf.LlamaConfig(
        vocab_size=128256, hidden_size=2048, intermediate_size=8192, num_hidden_layers=16, num_attention_heads=32,
        num_key_value_heads=8, head_dim=64, max_position_embeddings=131072, rms_norm_eps=1e-5, tie_word_embeddings=True,
        bos_token_id=128000, eos_token_id=128001, rope_parameters=LLAMA3)), None),
    "vit-b16-224": (lambda: (hf.ViTForImageClassification, hf.ViTConfig(num_labels=1000)), VIT),
    "siglip-b16-512": (lambda: (hf.SiglipVisionModel, hf.SiglipVisionConfig(image_size=512)), SIGLIP),
    "whisper-base": (lambda: whisper(512, 6, 8), hf.WhisperFeatureExtractor),
    "whisper-small": (lambda: whisper(768, 12, 12), hf.WhisperFeatureExtractor),
}


def make(name, folder, dtype, tokenizer):
    torch.manual_seed(0)
    kind, config = SHAPES[name][0]()
    torch.set_default_dtype(dtype)  # weights are made in their own type: half the memory
    model = kind(config)
    torch.set_default_dtype(torch.float32)
    model.save_pretrained(folder)
    preprocessor = SHAPES[name][1]
    if isinstance(preprocessor, dict):
        with open(f"{folder}/preprocessor_config.json", "w") as f:
            json.dump(preprocessor, f, indent=1)
    elif preprocessor:
        preprocessor().save_pretrained(folder)
    for file in os.listdir(tokenizer) if tokenizer and not isinstance(preprocessor, dict) else []:
        if file.startswith(("tokenizer", "vocab", "merges", "special_tokens")):
            shutil.copy(f"{tokenizer}/{file}", folder)
    return sum(p.numel() for p in model.parameters())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", nargs="?")
    parser.add_argument("shapes", nargs="*", choices=[[], *SHAPES], metavar="SHAPE")
    parser.add_argument("--dtype", choices=DTYPES, default="f32")
    parser.add_argument("--tokenizer")
    parser.add_argument("--list", action="store_true")
    arguments = parser.parse_args()
    if arguments.list or not arguments.out:
        print("\n".join(SHAPES))
        return
    for name in arguments.shapes or SHAPES:
        count = make(name, os.path.join(arguments.out, name), DTYPES[arguments.dtype], arguments.tokenizer)
        print(f"{name}: {count / 1e6:.1f} M parameters in {arguments.dtype}", flush=True)


if __name__ == "__main__":
    main()
