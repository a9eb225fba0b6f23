#!/usr/bin/env python3
"""A GPT-2 or Llama checkpoint in Hugging Face's layout -> a GGUF file for llama.cpp, without a tokenizer.

    to_gguf.py CHECKPOINT OUT.gguf f32|f16|bf16|q8_0|q4_0

All matrices get the type, embedding and output layer, too; vectors stay in f32.
"""
import sys

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM

TYPES = {"f32": gguf.GGMLQuantizationType.F32, "f16": gguf.GGMLQuantizationType.F16,
         "bf16": gguf.GGMLQuantizationType.BF16, "q8_0": gguf.GGMLQuantizationType.Q8_0,
         "q4_0": gguf.GGMLQuantizationType.Q4_0}


def interleaved(weight, heads):
    """Rows of rotated halves -> rows of rotated pairs, as llama.cpp wants queries and keys of Llama."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def gpt2(writer, c, state):
    writer.add_feed_forward_length(4 * c.n_embd)
    writer.add_layer_norm_eps(c.layer_norm_epsilon)
    for name, array in state.items():
        if name == "lm_head.weight":
            continue
        name = name.removeprefix("transformer.")
        if array.ndim == 2 and not name.startswith("w"):
            array = array.T  # Conv1D
        for old, new in [("h.", "blk."), ("ln_1", "attn_norm"), ("ln_2", "ffn_norm"), ("attn.c_attn", "attn_qkv"),
                         ("attn.c_proj", "attn_output"), ("mlp.c_fc", "ffn_up"), ("mlp.c_proj", "ffn_down"),
                         ("ln_f", "output_norm"), ("wte", "token_embd"), ("wpe", "position_embd")]:
            name = name.replace(old, new)
        yield name, array


def llama(writer, c, state):
    writer.add_feed_forward_length(c.intermediate_size)
    writer.add_head_count_kv(c.num_key_value_heads)
    writer.add_layer_norm_rms_eps(c.rms_norm_eps)
    writer.add_rope_dimension_count(c.hidden_size // c.num_attention_heads)
    writer.add_rope_freq_base(c.rope_parameters["rope_theta"])
    for name, array in state.items():
        if name == "lm_head.weight" and c.tie_word_embeddings:
            continue
        if "q_proj" in name:
            array = interleaved(array, c.num_attention_heads)
        elif "k_proj" in name:
            array = interleaved(array, c.num_key_value_heads)
        for old, new in [("model.layers.", "blk."), ("input_layernorm", "attn_norm"),
                         ("post_attention_layernorm", "ffn_norm"), ("self_attn.o_proj", "attn_output"),
                         ("self_attn.", "attn_"), ("mlp.", "ffn_"), ("_proj", ""), ("model.norm", "output_norm"),
                         ("model.embed_tokens", "token_embd"), ("lm_head", "output")]:
            name = name.replace(old, new)
        yield name, array


def main():
    source, target, wanted = sys.argv[1:4]
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    c, kind = model.config, TYPES[wanted]
    writer = gguf.GGUFWriter(target, c.model_type)
    writer.add_context_length(c.max_position_embeddings)
    writer.add_embedding_length(c.hidden_size)
    writer.add_block_count(c.num_hidden_layers)
    writer.add_head_count(c.num_attention_heads)
    writer.add_vocab_size(c.vocab_size)
    writer.add_tokenizer_model("no_vocab")
    state = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    for name, array in {"gpt2": gpt2, "llama": llama}[c.model_type](writer, c, state):
        array = np.ascontiguousarray(array, np.float32)
        own = kind if array.ndim == 2 and name != "position_embd.weight" else TYPES["f32"]
        data = array if own == TYPES["f32"] else gguf.quants.quantize(array, own)
        writer.add_tensor(name, data, raw_dtype=own)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
