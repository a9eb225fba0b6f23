#!/usr/bin/env python3
"""Makes tests/data/training: how PyTorch trains a tiny GPT-2, step by step.

    tests/golden/make_training.py            (needs torch 2.13 and transformers 5.23)

corpus.txt is a text, and bpe-*.json the merges that HF's trainer finds in it (needs tokenizers 0.23): `vocab` in the
order of the ids. The corpus is made anew from --shakespeare FILE (tinyshakespeare), else taken as it is.

curve/ has the first weights and golden.json: the text as ids, the options, and the loss, learning rate and norm of the
gradient of each step. Row b of step s is the `context` + 1 ids from (31 s + 97 b) mod (number of ids - context) on.
"""
import argparse
import json
import math
import pathlib
import sys

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import GPT2Config, GPT2LMHeadModel

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from reference.tokenizer_texts import CORPUS  # noqa: E402

DATA = pathlib.Path(__file__).parent.parent / "data" / "training"
OPTIONS = {"steps": 50, "batch": 4, "context": 24, "peak": 1e-2, "floor": 0.1, "warmup": 5, "beta1": 0.9, "beta2": 0.95,
           "epsilon": 1e-8, "weight_decay": 0.1, "clip": 1.0}


def text_ids(count, vocab):
    """A stream in which each token tells something about the next one."""
    generator, ids = torch.Generator().manual_seed(5), [0]
    while len(ids) < count:
        jump = int(torch.randint(0, 4, (1,), generator=generator))
        ids.append((3 * ids[-1] + 7 + jump) % vocab)
    return ids


def rate(step, o):
    if step < o["warmup"]:
        return o["peak"] * (step + 1) / o["warmup"]
    done = (step - o["warmup"]) / (o["steps"] - o["warmup"])
    return o["peak"] * (o["floor"] + (1 - o["floor"]) * 0.5 * (1 + math.cos(math.pi * done)))


def curve():
    torch.manual_seed(3)
    config = GPT2Config(vocab_size=53, n_positions=32, n_embd=20, n_layer=2, n_head=4, resid_pdrop=0.0, embd_pdrop=0.0,
                        attn_pdrop=0.0, bos_token_id=52, eos_token_id=52, attn_implementation="eager")
    model, o = GPT2LMHeadModel(config), OPTIONS
    folder = DATA / "curve"
    folder.mkdir(parents=True, exist_ok=True)
    save_file({n: p.detach().clone() for n, p in model.named_parameters()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(json.loads(config.to_json_string()), indent=2) + "\n")
    ids = text_ids(400, config.vocab_size)
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    optimizer = torch.optim.AdamW([{"params": matrices, "weight_decay": o["weight_decay"]},
                                   {"params": vectors, "weight_decay": 0.0}], lr=1.0,
                                  betas=(o["beta1"], o["beta2"]), eps=o["epsilon"])
    losses, rates, norms = [], [], []
    for step in range(o["steps"]):
        starts = [(31 * step + 97 * b) % (len(ids) - o["context"]) for b in range(o["batch"])]
        rows = torch.tensor([ids[s:s + o["context"] + 1] for s in starts])
        logits = model(rows[:, :-1]).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), rows[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(model.parameters(), o["clip"])))
        rates.append(rate(step, o))
        for group in optimizer.param_groups:
            group["lr"] = rates[-1]
        optimizer.step()
        losses.append(loss.item())
    golden = {"options": o, "ids": ids, "losses": losses, "rates": rates, "gradient_norms": norms}
    (folder / "golden.json").write_text(json.dumps(golden) + "\n")
    print(f"curve: loss {losses[0]:.4f} to {losses[-1]:.4f}")


def merges(name, vocab_size, min_frequency, special):
    made = Tokenizer(BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    made.train([str(DATA / "corpus.txt")],
               BpeTrainer(vocab_size=vocab_size, min_frequency=min_frequency, special_tokens=special, show_progress=False,
                          initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    model = json.loads(made.to_str())["model"]
    found = {"vocab_size": vocab_size, "min_frequency": min_frequency, "special_tokens": special,
             "vocab": sorted(model["vocab"], key=model["vocab"].get), "merges": model["merges"]}
    (DATA / f"bpe-{name}.json").write_text(json.dumps(found, ensure_ascii=False) + "\n")
    print(f"bpe-{name}: {len(found['vocab'])} tokens, {len(found['merges'])} merges")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shakespeare", type=pathlib.Path)
    file = parser.parse_args().shakespeare
    curve()
    if file:
        repeats = ["aaaa aaaaa aaaaaa abab ababab bcbc abcabc abc bc ab cab\n", "\n\n\n  x\r\n\t\ty   z\n"]
        (DATA / "corpus.txt").write_text(file.read_text()[:24000] + "\n".join(repeats + CORPUS[:20]), newline="")
    merges("common", 700, 2, ["<|endoftext|>"])
    merges("all", 4000, 0, ["<s>", "</s>"])  # to the last pair: no more than there are


if __name__ == "__main__":
    main()
