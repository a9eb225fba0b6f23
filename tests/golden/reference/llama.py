"""Llama: rotary positions of each kind, grouped-query heads, biases, tied and own heads."""
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

from .common import (Checkpoint, Retry, case, demand_stable, demand_varied, hidden_states, integers, randomize,
                     record_generate)

END = 82
GREEDY = ("greedy", {"max_new_tokens": 12})
BEAMS = ("beams", {"max_new_tokens": 10, "num_beams": 3, "num_return_sequences": 2})
PENALISED = ("greedy penalised", {"max_new_tokens": 12, "repetition_penalty": 1.4, "no_repeat_ngram_size": 2})


def small(**options):
    defaults = dict(vocab_size=83, max_position_embeddings=32, hidden_size=18, intermediate_size=40, num_hidden_layers=2,
                    num_attention_heads=3, num_key_value_heads=1, bos_token_id=1, eos_token_id=END, pad_token_id=END)
    return LlamaConfig(**{**defaults, **options}, attn_implementation="eager")


def build(seed, config, runs=(GREEDY, BEAMS), dtype=torch.float16, tokens=9, prompt_tokens=4):
    model = randomize(LlamaForCausalLM(config), seed, dtype)
    with torch.no_grad():  # an end token that comes up now and then
        model.lm_head.weight[END] = (1.5 * model.lm_head.weight[END]).to(dtype).float()
    model.generation_config.pad_token_id = END
    ids = torch.tensor([integers(seed, "input_ids", END, tokens)])
    with torch.no_grad(), hidden_states(model.model.layers, model.model.norm) as golden:
        golden["logits"] = model(ids).logits[0]

    def answers():
        prompt = ids[:, :prompt_tokens]
        return [record_generate(model, name, {"input_ids": prompt}, prompt[0].tolist(), [END], options)
                for name, options in runs]

    generate = answers()
    demand_varied(generate[0]["ids"], 5)
    demand_stable(model, answers, seed)
    made = Checkpoint("llama").add_model(model, dtype)
    made.add_golden({"input_ids": ids[0], **golden})
    made.notes["generate"] = generate
    return made


def old_spelling(made, **rope_scaling):
    """config.json as transformers 4 wrote it: rope_theta at the top, the scaling in rope_scaling."""
    config = made.files["config.json"]
    config["rope_theta"] = config.pop("rope_parameters")["rope_theta"]
    config["rope_scaling"] = rope_scaling or None
    config["torch_dtype"] = config.pop("dtype")
    return made


@case("llama-published", "f32, as Llama 2 is published: 4 heads, one for one, own head, inv_freq buffers, old config keys")
def llama_published(seed):
    made = build(seed, small(hidden_size=16, num_attention_heads=4, num_key_value_heads=4, num_hidden_layers=3,
                             rms_norm_eps=1e-5), (GREEDY, BEAMS, PENALISED), torch.float32)
    ended = [h["ids"][-1] == END for g in made.notes["generate"] for h in g.get("hypotheses", [])]
    if not any(ended):
        raise Retry("some hypothesis is to end by itself")
    old_spelling(made)
    for key in ("head_dim", "attention_bias", "mlp_bias"):  # came later
        made.files["config.json"].pop(key)
    made.files["config.json"].update(pretraining_tp=1, attention_dropout=0.0)
    for layer in range(3):
        made.tensors[f"model.layers.{layer}.self_attn.rotary_emb.inv_freq"] = torch.ones(2)
    return made


@case("llama-tied-grouped", "as SmolLM2: tied head, 9 heads share 3, rope_theta 100000, heads of 4")
def llama_tied(seed):
    return build(seed, small(hidden_size=36, num_attention_heads=9, num_key_value_heads=3, tie_word_embeddings=True,
                             rope_parameters={"rope_type": "default", "rope_theta": 100000.0}))


@case("llama-bias", "attention_bias and mlp_bias, one head of keys for all, gelu, large rms_norm_eps")
def llama_bias(seed):
    return build(seed, small(attention_bias=True, mlp_bias=True, hidden_act="gelu", rms_norm_eps=1e-2))


@case("llama-head-dim", "head_dim 10 with 3 heads on a width of 18; attention_bias alone")
def llama_head_dim(seed):
    return build(seed, small(head_dim=10, attention_bias=True))


@case("llama-linear", "rope_scaling linear, in the old spelling (`type`); mlp_bias alone")
def llama_linear(seed):
    made = build(seed, small(mlp_bias=True, num_key_value_heads=3,
                             rope_parameters={"rope_type": "linear", "factor": 2.5, "rope_theta": 500.0}))
    return old_spelling(made, type="linear", factor=2.5)


LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 24, "rope_theta": 1000.0}
# Llama 3.1 and 3.2, a linear one, SmolLM2: heads, parameters; and positions to their far ends.
PUBLISHED = [
    (128, {**LLAMA3, "rope_theta": 500000.0, "original_max_position_embeddings": 8192}),
    (64, {**LLAMA3, "factor": 32.0, "rope_theta": 500000.0, "original_max_position_embeddings": 8192}),
    (64, {"rope_type": "linear", "factor": 3.0, "rope_theta": 10000.0}),
    (64, {"rope_type": "default", "rope_theta": 100000.0}),
]
POSITIONS = [0, 1, 7, 511, 8191, 65537, 131071]


def published_ropes(made):
    """Cosines and sines of published shapes, rope.i [positions, 2F]: cos beside sin."""
    made.notes["rope"] = {"positions": POSITIONS, "configs": []}
    for i, (head, parameters) in enumerate(PUBLISHED):
        config = LlamaConfig(hidden_size=2 * head, num_attention_heads=2, max_position_embeddings=131072,
                             rope_parameters=dict(parameters))
        cos, sin = LlamaRotaryEmbedding(config)(torch.zeros(1), torch.tensor([POSITIONS]))
        made.add_golden({f"rope.{i}": torch.cat((cos[0, :, : head // 2], sin[0, :, : head // 2]), -1)})
        made.notes["rope"]["configs"].append({"head_dim": head, "max_position_embeddings": 131072,
                                              "rope_parameters": parameters})
    return made


@case("llama-llama3-rope", "llama3 scaling with waves of each kind, beyond the old context; angles of published shapes")
def llama3_rope(seed):
    made = build(seed, small(hidden_size=24, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=96,
                             tie_word_embeddings=True, rope_parameters=dict(LLAMA3)), tokens=64, prompt_tokens=50)
    return published_ropes(made)


@case("llama-bf16-sharded", "bf16 in three files with an index; llama3 scaling in the old spelling")
def llama_bf16(seed):
    made = build(seed, small(hidden_size=24, num_attention_heads=6, num_key_value_heads=2,
                             rope_parameters=dict(LLAMA3)), dtype=torch.bfloat16)
    made.shards = 3
    return old_spelling(made, **{k: v for k, v in LLAMA3.items() if k != "rope_theta"})
