"""What all cases share: random weights, hidden states by hook, generate() records, files."""
import contextlib
import json
import math
import os
import tempfile
import zlib

os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from transformers import LogitsProcessor, LogitsProcessorList
from transformers.utils import logging as hf_logging

hf_logging.disable_progress_bar()
hf_logging.set_verbosity_error()
torch.set_num_threads(1)
torch.use_deterministic_algorithms(True)

MIN_GAP = 1e-3  # between the best two tokens of every greedy step
MAX_SEEDS = 400  # tried one after the other until a case's demands are met

CASES = {}  # name -> (about, function(seed) -> Checkpoint)


class Retry(Exception):
    """This seed's answers are too close to a tie, or too dull to test with; the next one is tried."""


def case(name, about):
    def register(function):
        CASES[name] = (about, function)
        return function

    return register


# --- random numbers, the same on every machine ---------------------------------------------------------------------


def rng(seed, name):
    return np.random.Generator(np.random.Philox(key=[seed, zlib.crc32(name.encode())]))


def normal(seed, name, shape, std=1.0):
    return torch.as_tensor(np.asarray(rng(seed, name).standard_normal(shape)).astype(np.float32) * np.float32(std))


def integers(seed, name, high, count, low=0):
    return [int(i) for i in rng(seed, name).integers(low, high, count)]


EMBEDDINGS = ("wte", "wpe", "embed_tokens", "embed_positions", "position_embeddings", "position_embedding",
              "cls_token", "distillation_token", "class_embedding")


def randomize(model, seed, dtype=torch.float32):
    """Weights large enough that an error shows: matrices of gain 1.4, biases 0.2, norms 1 +- 0.3, embeddings 0.5,
    positions 1 (else one token repeats itself).
    Rounded to dtype and kept in f32."""
    from transformers.pytorch_utils import Conv1D

    fan_in_first = {f"{n}.weight" for n, m in model.named_modules() if isinstance(m, Conv1D)}
    with torch.no_grad():
        for name, p in model.named_parameters():
            x = normal(seed, name, tuple(p.shape))
            if any(e in name for e in EMBEDDINGS):
                x = x * (1.0 if "pos" in name or "wpe" in name else 0.5)
            elif p.dim() == 1:
                x = 1 + 0.3 * x if name.endswith("weight") else 0.2 * x
            else:
                fan_in = p.shape[0] if name in fan_in_first else math.prod(p.shape[1:])
                x = x * (1.4 / math.sqrt(fan_in))
            p.copy_(x.to(dtype).float())
    model.tie_weights() if hasattr(model, "tie_weights") else None
    return model.eval()


# --- stages --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def hidden_states(blocks, norm=None, prefix=""):
    """Collects, while forward runs: what enters block 0 and leaves each block, and the final norm's output."""
    found, hooks = {}, []

    def keep(name, value):
        value = value[0] if isinstance(value, (tuple, list)) else value
        found.setdefault(prefix + name, value[0].detach().clone())

    def enters(module, args, kwargs):
        keep("hidden.0", args if args else kwargs["hidden_states"])

    def leaves(name):
        def hook(module, args, output):
            keep(name, output)
        return hook

    hooks.append(blocks[0].register_forward_pre_hook(enters, with_kwargs=True))
    for i, block in enumerate(blocks):
        hooks.append(block.register_forward_hook(leaves(f"hidden.{i + 1}")))
    if norm is not None:
        hooks.append(norm.register_forward_hook(leaves("last_hidden")))
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


# --- generate() ----------------------------------------------------------------------------------------------------


class GapRecorder(LogitsProcessor):
    """The smallest distance between the best and the second-best token over all steps."""

    def __init__(self):
        self.gap = math.inf

    def __call__(self, input_ids, scores):
        best = scores.float().topk(2, dim=-1).values
        self.gap = min(self.gap, float((best[:, 0] - best[:, 1]).min()))
        return scores


def until_end(ids, ends):
    """Without what pads it: the end token stays, what follows goes."""
    for i, token in enumerate(ids):
        if token in ends:
            return ids[: i + 1]
    return ids


def record_generate(model, name, inputs, prompt, ends, options, strip_prompt=True):
    """One generate() call as golden.json has it. `inputs` are its tensors, `prompt` the decoder's first ids."""
    beams = options.get("num_beams", 1)
    recorder = GapRecorder()
    extra = {} if beams > 1 else {"logits_processor": LogitsProcessorList([recorder])}
    with torch.no_grad():
        out = model.generate(**inputs, **options, **extra, do_sample=False, return_dict_in_generate=True,
                             output_scores=True)
    skip = len(prompt) if strip_prompt else 0
    rows = [until_end(row[skip:], ends) for row in out.sequences.tolist()]
    entry = {"name": name, "prompt": list(prompt), "options": options, "ids": rows[0]}
    if beams > 1:
        entry["score"] = float(out.sequences_scores[0])
        entry["hypotheses"] = [{"ids": r, "score": float(s)} for r, s in zip(rows, out.sequences_scores)]
        scores = [h["score"] for h in entry["hypotheses"]]
        if any(a - b < MIN_GAP for a, b in zip(scores, scores[1:])):
            raise Retry(f"{name}: beam scores too close")
    else:
        entry["gap"] = recorder.gap
        if recorder.gap < MIN_GAP:
            raise Retry(f"{name}: gap {recorder.gap}")
    return entry


def demand_varied(ids, distinct):
    if len(set(ids)) < distinct:
        raise Retry(f"only {len(set(ids))} different ids in {ids}")


def demand_stable(model, answers, seed, times=4, noise=2e-5):
    """answers() must not change when every weight is off by a relative `noise`, several times over."""
    wanted = strip_floats(answers())
    saved = {n: p.detach().clone() for n, p in model.named_parameters()}
    try:
        for t in range(times):
            with torch.no_grad():
                for n, p in model.named_parameters():
                    p.copy_(saved[n] * (1 + normal(seed + 1000 * (t + 1), n, tuple(p.shape), noise)))
            if strip_floats(answers()) != wanted:
                raise Retry("answers change with the last digits of the weights")
    finally:
        with torch.no_grad():
            for n, p in model.named_parameters():
                p.copy_(saved[n])


def strip_floats(value):
    if isinstance(value, dict):
        return {k: strip_floats(v) for k, v in value.items() if not isinstance(v, float)}
    return [strip_floats(v) for v in value] if isinstance(value, (list, tuple)) else value


# --- files ---------------------------------------------------------------------------------------------------------


class Checkpoint:
    """A case in memory: tensors, JSON files, golden tensors and notes; write() lays it out."""

    def __init__(self, family):
        self.family, self.tensors, self.files, self.golden, self.notes = family, {}, {}, {}, {}
        self.shards = 1

    def add_model(self, model, dtype=torch.float32):
        """The published names and config.json, as save_pretrained writes them."""
        with tempfile.TemporaryDirectory() as folder:
            model.save_pretrained(folder)
            self.tensors.update({k: v.to(dtype) for k, v in load_file(folder + "/model.safetensors").items()})
            for file in ("config.json", "generation_config.json"):
                if os.path.exists(f"{folder}/{file}"):
                    with open(f"{folder}/{file}") as f:
                        self.files[file] = json.load(f)
                    self.files[file].pop("transformers_version", None)
            self.files["config.json"]["dtype"] = str(dtype).removeprefix("torch.")
        return self

    def add_golden(self, tensors):
        for name, t in tensors.items():
            t = t if isinstance(t, torch.Tensor) else torch.as_tensor(t)
            self.golden[name] = t.detach().contiguous().clone()
        return self

    def write(self, folder, name, about, seed):
        os.makedirs(folder, exist_ok=True)
        for old in os.listdir(folder):
            os.remove(os.path.join(folder, old))
        for file, value in self.files.items():
            write_json(f"{folder}/{file}", value)
        self._write_weights(folder)
        save_file(dict(sorted(self.golden.items())), f"{folder}/golden.safetensors")
        write_json(f"{folder}/golden.json",
                   {"case": name, "family": self.family, "about": about, "seed": seed, **self.notes})

        for file in os.listdir(folder):
            os.chmod(f"{folder}/{file}", 0o644)

    def _write_weights(self, folder):
        names = sorted(self.tensors)
        tensors = {n: self.tensors[n].contiguous().clone() for n in names}
        if self.shards == 1:
            save_file(tensors, f"{folder}/model.safetensors", metadata={"format": "pt"})
            return
        weight_map = {}
        for i in range(self.shards):
            file = f"model-{i + 1:05}-of-{self.shards:05}.safetensors"
            part = {n: tensors[n] for n in names[i::self.shards]}
            save_file(part, f"{folder}/{file}", metadata={"format": "pt"})
            weight_map.update({n: file for n in part})
        total = sum(t.numel() * t.element_size() for t in tensors.values())
        write_json(f"{folder}/model.safetensors.index.json",
                   {"metadata": {"total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def to_json(value, indent=0):
    """As json.dumps, but a list without objects in it takes one line."""
    def plain(v):
        return not isinstance(v, dict) and (not isinstance(v, (list, tuple)) or all(map(plain, v)))

    pad, end = "\n" + " " * (indent + 1), "\n" + " " * indent
    if isinstance(value, dict) and value:
        items = (f"{json.dumps(k, ensure_ascii=False)}: {to_json(v, indent + 1)}" for k, v in value.items())
        return "{" + pad + ("," + pad).join(items) + end + "}"
    if plain(value) or not value:
        return json.dumps(value, ensure_ascii=False)
    return "[" + pad + ("," + pad).join(to_json(v, indent + 1) for v in value) + end + "]"


def write_json(path, value):
    with open(path, "w", encoding="utf-8") as f:
        f.write(to_json(value) + "\n")
