#!/usr/bin/env python3
"""Makes tests/data/sampler: what HF transformers' generate() makes of logits and of a toy language model.

processors.*   logits before and after all of HF's logits processors and warpers, as generate() itself assembles them
generate.*     greedy and beam search over a table: ids and scores

The toy: logits of the token after ids[0..p] are row (7*ids[p] + 13*ids[p-1] + 3*p) mod ROWS of a random table
(ids[-1] counts as 0).
"""
import itertools
import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GenerationConfig, GenerationMixin, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput
from transformers.utils import logging

OUT = Path(__file__).resolve().parent.parent / "data" / "sampler"
VOCAB, ROWS = 41, 101
EOS = 3


class ToyConfig(PretrainedConfig):
    model_type = "toy"
    vocab_size = VOCAB
    num_hidden_layers = 1


class Toy(PreTrainedModel, GenerationMixin):
    config_class = ToyConfig

    def __init__(self, table):
        super().__init__(ToyConfig())
        self.table = torch.nn.Parameter(table)
        self.generation_config = GenerationConfig(pad_token_id=0)

    def forward(self, input_ids, **_):
        before = torch.cat([torch.zeros_like(input_ids[:, :1]), input_ids[:, :-1]], dim=1)
        row = (7 * input_ids + 13 * before + 3 * torch.arange(input_ids.shape[1])) % ROWS
        return CausalLMOutput(logits=self.table[row])


def make_table(seed, scale, eos_bonus):
    table = scale * torch.randn(ROWS, VOCAB, generator=torch.Generator().manual_seed(seed))
    table[:, EOS] += eos_bonus
    return table


# --- logits processors -------------------------------------------------------------------------------------------

def processed(model, options, prompt, generated, logits):
    config = GenerationConfig(**{"pad_token_id": 0, **options})
    config.update(**config._get_default_generation_params(), defaults_only=True)
    if config.max_new_tokens is not None:
        config.max_length = config.max_new_tokens + len(prompt)
    if config.min_new_tokens is not None:
        config.min_length = config.min_new_tokens + len(prompt)
    model._prepare_special_tokens(config, kwargs_has_attention_mask=True)
    steps = model._get_logits_processor(config, input_ids_seq_length=len(prompt))
    ids = torch.tensor([prompt + generated])
    return steps(ids, logits[None].clone())[0]


def openai_penalties(presence, frequency, generated, logits):
    """presence once, frequency for each time a token is in the output: OpenAI's formula."""
    return torch.stack([x - frequency * generated.count(i) - presence * (i in generated) for i, x in enumerate(logits)])


SINGLE = [
    {},
    {"repetition_penalty": 1.7}, {"repetition_penalty": 0.6},
    {"no_repeat_ngram_size": 1}, {"no_repeat_ngram_size": 2}, {"no_repeat_ngram_size": 3},
    {"sequence_bias": [[[4], 2.5], [[17], -1.25], [[40], -100.0]]},
    {"bad_words_ids": [[5], [6, 7], [9, 1, 8], [EOS]], "eos_token_id": EOS},
    {"min_new_tokens": 3, "eos_token_id": EOS}, {"min_new_tokens": 9, "eos_token_id": [EOS, 11]},
    {"min_length": 8, "eos_token_id": EOS},
    {"forced_bos_token_id": 12}, {"forced_eos_token_id": 13, "max_new_tokens": 4},
    {"forced_bos_token_id": 12, "begin_suppress_tokens": [1, 2, 3]},
    {"suppress_tokens": [0, 7, 39, 40]}, {"begin_suppress_tokens": [1, 2, 3, 38]},
]
WARPERS = [
    {"temperature": 0.7}, {"temperature": 1.9}, {"top_k": 1}, {"top_k": 5}, {"top_k": 41}, {"top_k": 0},
    {"top_p": 0.9, "top_k": 0}, {"top_p": 0.5, "top_k": 0}, {"top_p": 0.01, "top_k": 0}, {"top_p": 0.8, "top_k": 7},
    {"min_p": 0.1, "top_k": 0}, {"min_p": 0.9, "top_k": 0}, {"min_p": 1.0, "top_k": 0},
    {"temperature": 1.5, "top_k": 20, "top_p": 0.85, "min_p": 0.2},
    {"temperature": 0.4, "top_p": 0.95, "min_p": 0.05},
]
CONTEXTS = [([2], []), ([5, 6, 7, 5], [6]), ([9], [1]), ([1, 5, 6], [9, 1, 5]), ([4, 4, 4, 30, 31, 4], [30, 31, 31])]


def processor_cases():
    picks = random.Random(5)
    for options in SINGLE:
        for context in CONTEXTS:
            yield options, context
    for warper in WARPERS:
        for extra in ({}, {"num_beams": 3, "eos_token_id": EOS}, {"num_beams": 2, "eos_token_id": [EOS, 11, 12]}):
            yield {"do_sample": True, **warper, **extra}, picks.choice(CONTEXTS)
    for _ in range(60):
        options = {"eos_token_id": EOS}
        for part in picks.sample(SINGLE, 4):
            options.update(part)
        if picks.random() < 0.6:
            options.update({"do_sample": True, **picks.choice(WARPERS)})
        yield options, picks.choice(CONTEXTS)


def at_an_edge(model, options, prompt, generated, logits):
    """Whether rounding decides what stays."""
    outcomes = []
    for noise in (0, 1e-4, -1e-4):
        step = noise * torch.sign(torch.randn(VOCAB, generator=torch.Generator().manual_seed(1)))
        outcomes.append(torch.isinf(processed(model, options, prompt, generated, logits + step)).tolist())
    return any(o != outcomes[0] for o in outcomes)


def make_processors():
    model = Toy(make_table(1, 1, 0))
    cases, before, after = [], [], []
    generator = torch.Generator().manual_seed(2)
    for options, (prompt, generated) in processor_cases():
        logits = 3 * torch.randn(VOCAB, generator=generator)
        while at_an_edge(model, options, prompt, generated, logits):
            logits = 3 * torch.randn(VOCAB, generator=generator)
        cases.append({"options": options, "prompt": prompt, "generated": generated})
        before.append(logits)
        after.append(processed(model, options, prompt, generated, logits))
    for presence, frequency in ((0.8, 0.0), (0.0, 0.3), (-0.5, 1.1)):
        for prompt, generated in CONTEXTS:
            logits = 3 * torch.randn(VOCAB, generator=generator)
            cases.append({"options": {}, "presence": presence, "frequency": frequency, "prompt": prompt,
                          "generated": generated})
            before.append(logits)
            after.append(openai_penalties(presence, frequency, generated, logits))
    # equal logits: all equals of the k-th stay
    logits = torch.tensor([0.0, 2.0, 1.0, 1.0] + [1.0] * 3 + [-1.0] * (VOCAB - 7))
    cases.append({"options": {"do_sample": True, "top_k": 3}, "prompt": [1], "generated": []})
    before.append(logits)
    after.append(processed(model, {"do_sample": True, "top_k": 3}, [1], [], logits))
    return cases, {"before": torch.stack(before), "after": torch.stack(after)}


# --- searches ----------------------------------------------------------------------------------------------------

PROMPTS = [[1], [4, 9, 2], [30, 31, 30, 31, 30, 8]]
PROCESSORS = [
    {}, {}, {"repetition_penalty": 1.5}, {"no_repeat_ngram_size": 2}, {"min_new_tokens": 5},
    {"suppress_tokens": list(range(20, 36)), "begin_suppress_tokens": [EOS, 5]},
    {"sequence_bias": [[[EOS], 1.5], [[7], -3.0]]}, {"forced_bos_token_id": 12, "forced_eos_token_id": EOS},
]


def search_cases():
    picks = random.Random(11)
    for prompt, extra in itertools.product(PROMPTS, PROCESSORS[1:]):
        yield prompt, {"max_new_tokens": picks.choice([1, 6, 14]), "eos_token_id": EOS, **extra}
    for beams, early in itertools.product([2, 3, 4, 7], [False, True, "never"]):
        for length_penalty in (-1.0, 0.0, 0.6, 1.0, 2.0):
            options = {"num_beams": beams, "early_stopping": early, "length_penalty": length_penalty,
                       "num_return_sequences": picks.randint(1, beams), "max_new_tokens": picks.choice([1, 4, 9, 16]),
                       "eos_token_id": picks.choice([EOS, EOS, [EOS, 11, 12], None])}
            extra = picks.choice(PROCESSORS)
            if options["eos_token_id"] is None:
                extra = {}
            yield picks.choice(PROMPTS), {**options, **extra}
    yield [4, 9, 2], {"num_beams": 3, "max_length": 9, "eos_token_id": EOS}
    yield [4, 9, 2], {"max_length": 9, "min_length": 8, "eos_token_id": EOS}


def search(table, prompt, options):
    answer = Toy(table).generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                                 use_cache=False, return_dict_in_generate=True, output_scores=True, **options)
    ends = options["eos_token_id"]
    ends = [] if ends is None else ends if isinstance(ends, list) else [ends]
    results = []
    for i, ids in enumerate(answer.sequences[:, len(prompt):].tolist()):
        end = next((n for n, id in enumerate(ids) if id in ends), len(ids))
        result = {"ids": ids[:end], "ended": end < len(ids)}
        if "num_beams" in options:
            result["score"] = answer.sequences_scores[i].item()
            if result["score"] < -1e8:
                continue  # not a sequence that exists: where there are too few, places keep their first score
        results.append(result)
    return results


def make_searches():
    tables, cases = [], []
    for index, (scale, bonus) in enumerate(((1.0, 0.5), (2.0, 1.0), (0.5, 1.5))):
        tables.append(make_table(20 + index, scale, bonus))
    noise = 1e-4 * torch.randn(ROWS, VOCAB, generator=torch.Generator().manual_seed(9))
    for n, (prompt, options) in enumerate(search_cases()):
        for shift in range(len(tables)):
            index = (n + shift) % len(tables)
            results = search(tables[index], prompt, options)
            twins = [search(tables[index] + s * noise, prompt, options) for s in (1, -1)]
            if all([r["ids"] for r in t] == [r["ids"] for r in results] for t in twins):
                cases.append({"table": index, "prompt": prompt, "options": options, "results": results})
                break
    return cases, {f"table.{i}": t for i, t in enumerate(tables)}


def write(name, cases, tensors):
    OUT.mkdir(parents=True, exist_ok=True)
    save_file(tensors, OUT / f"{name}.safetensors")
    lines = ",\n".join(json.dumps(case) for case in cases)
    (OUT / f"{name}.json").write_text(f'{{"cases": [\n{lines}\n]}}\n')
    print(name, len(cases), "cases")


if __name__ == "__main__":
    logging.set_verbosity_error()
    torch.manual_seed(0)
    write("processors", *make_processors())
    write("generate", *make_searches())
