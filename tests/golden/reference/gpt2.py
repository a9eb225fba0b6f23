"""GPT-2: language models alone, and one with cross-attention to given rows."""
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from .common import (Checkpoint, Retry, case, demand_stable, demand_varied, hidden_states, integers, normal, randomize,
                     record_generate)

GREEDY = ("greedy", {"max_new_tokens": 12})
BEAMS = ("beams", {"max_new_tokens": 10, "num_beams": 3})
MANY = [
    GREEDY,
    ("greedy penalised", {"max_new_tokens": 12, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2}),
    ("greedy suppressed", {"max_new_tokens": 8, "min_new_tokens": 6, "suppress_tokens": [3, 17, 40, 41, 42],
                           "begin_suppress_tokens": [7, 60]}),
    BEAMS,
    ("beams, all returned", {"max_new_tokens": 10, "num_beams": 4, "num_return_sequences": 4, "length_penalty": 0.6,
                             "early_stopping": True}),
    ("beams, long preferred", {"max_new_tokens": 14, "num_beams": 3, "num_return_sequences": 2,
                               "length_penalty": 2.0, "early_stopping": "never"}),
    ("beams penalised", {"max_new_tokens": 10, "num_beams": 5, "repetition_penalty": 1.3, "no_repeat_ngram_size": 2,
                         "min_new_tokens": 3}),
]


def small(**options):
    defaults = dict(vocab_size=83, n_positions=32, n_embd=18, n_layer=2, n_head=3, bos_token_id=82, eos_token_id=82)
    return GPT2Config(**{**defaults, **options}, attn_implementation="eager")


def build(seed, config, runs=(GREEDY, BEAMS), dtype=torch.float32, memory_rows=0, tokens=9):
    model = randomize(GPT2LMHeadModel(config), seed, dtype)
    with torch.no_grad():  # an end token that comes up now and then
        model.transformer.wte.weight[config.eos_token_id] *= 2
    model.generation_config.pad_token_id = config.eos_token_id
    ids = torch.tensor([integers(seed, "input_ids", config.vocab_size - 1, tokens)])
    given = {}
    if memory_rows:
        given["encoder_hidden_states"] = normal(seed, "memory", (1, memory_rows, config.n_embd))
    body = model.transformer
    with torch.no_grad(), hidden_states(body.h, body.ln_f) as golden:
        golden["logits"] = model(ids, **given).logits[0]
    if memory_rows:
        golden["memory"] = given["encoder_hidden_states"][0]

    def answers():
        prompt = ids[:, :4]
        return [record_generate(model, name, {"input_ids": prompt, **given}, prompt[0].tolist(),
                                [config.eos_token_id], options) for name, options in runs]

    generate = answers()
    demand_varied(generate[0]["ids"], 5)
    demand_stable(model, answers, seed)
    made = Checkpoint("gpt2").add_model(model, dtype)
    made.add_golden({"input_ids": ids[0], **golden})
    made.notes["generate"] = generate
    return made


@case("gpt2-base", "as `gpt2` is published: no prefix, leftover attn.bias buffers, old config keys; all ways of search")
def gpt2_base(seed):
    made = build(seed, small(n_embd=16, n_head=4, n_layer=3), MANY)
    ended = [h["ids"][-1] == 82 for g in made.notes["generate"] for h in g.get("hypotheses", [])]
    if not any(ended) or all(ended):
        raise Retry("some hypotheses are to end by themselves, some by length")
    config = made.files["config.json"]
    made.files["config.json"] = {
        "activation_function": "gelu_new", "architectures": ["GPT2LMHeadModel"], "attn_pdrop": 0.1, "bos_token_id": 82,
        "embd_pdrop": 0.1, "eos_token_id": 82, "initializer_range": 0.02, "layer_norm_epsilon": 1e-05,
        "model_type": "gpt2", "n_ctx": 32, "n_embd": config["n_embd"], "n_head": config["n_head"],
        "n_layer": config["n_layer"], "n_positions": 32, "resid_pdrop": 0.1, "summary_activation": None,
        "summary_first_dropout": 0.1, "summary_proj_to_labels": True, "summary_type": "cls_index",
        "summary_use_proj": True, "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
        "vocab_size": 83}
    made.tensors = {n.removeprefix("transformer."): t for n, t in made.tensors.items()}
    for layer in range(3):
        made.tensors[f"h.{layer}.attn.bias"] = torch.tril(torch.ones(1, 1, 32, 32))
        made.tensors[f"h.{layer}.attn.masked_bias"] = torch.tensor(-1e4)
    return made


@case("gpt2-relu-unscaled", "f16, relu, scale_attn_weights false, inner width of its own")
def gpt2_relu(seed):
    return build(seed, small(activation_function="relu", scale_attn_weights=False, n_inner=29), dtype=torch.float16)


@case("gpt2-silu-inverse", "f16, silu, scale_attn_by_inverse_layer_idx, 3 heads of 5, large layer_norm_epsilon")
def gpt2_silu(seed):
    return build(seed, small(n_embd=15, n_layer=3, activation_function="silu", scale_attn_by_inverse_layer_idx=True,
                             layer_norm_epsilon=1e-2), dtype=torch.float16)


@case("gpt2-gelu-untied", "f16, exact gelu, tie_word_embeddings false (lm_head.weight), upcast attention, 1 head")
def gpt2_gelu(seed):
    return build(seed, small(n_head=1, activation_function="gelu", tie_word_embeddings=False,
                             reorder_and_upcast_attn=True), dtype=torch.float16)


@case("gpt2-tanh-cross", "f16, tanh, add_cross_attention with 7 given rows, inverse layer scaling there too")
def gpt2_cross(seed):
    return build(seed, small(activation_function="tanh", add_cross_attention=True, n_inner=20,
                             scale_attn_by_inverse_layer_idx=True), memory_rows=7, dtype=torch.float16)


@case("gpt2-bf16-sharded", "weights in bf16, in three files with an index; quick_gelu")
def gpt2_bf16(seed):
    made = build(seed, small(n_embd=24, activation_function="quick_gelu"), dtype=torch.bfloat16)
    made.shards = 3
    return made
