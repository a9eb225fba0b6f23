#!/usr/bin/env python3
"""Training a GPT beside PyTorch, turn by turn on the same machine: tokens a second and memory.

    training.py --text FILE [--tessera build/release/bin/tessera] [--rounds 3] [--steps 8] [--threads 2] [--compile] [--bf16]
                [--layers 6 --width 384 --heads 6 --context 256 --batch 16 --vocabulary 4800]

Both train the same shape (pre-norm blocks, GELU by tanh, tied embedding, AdamW, clipping) in f32. The first two steps of a turn do not
count; a turn's figure is the median of the others, and of the turns the median counts. --compile: torch.compile as well.
--bf16: products of bf16 numbers in both (PyTorch's autocast). GPT-2 124M, nearly: --layers 12 --width 768
--heads 12 --context 1024 --batch 4 --tokenizer models/default --vocabulary 51864.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

TORCH = r"""
import json, resource, sys, time
import torch, torch.nn as nn, torch.nn.functional as F
o = json.loads(sys.argv[1])
torch.set_num_threads(o["threads"]); torch.manual_seed(0)
D, H, T, B, V = o["width"], o["heads"], o["context"], o["batch"], o["vocabulary"]
class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.ln_1, self.c_attn, self.c_proj = nn.LayerNorm(D), nn.Linear(D, 3 * D), nn.Linear(D, D)
        self.ln_2, self.fc, self.out = nn.LayerNorm(D), nn.Linear(D, 4 * D), nn.Linear(4 * D, D)
    def forward(self, x):
        q, k, v = (t.view(B, T, H, D // H).transpose(1, 2) for t in self.c_attn(self.ln_1(x)).split(D, -1))
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(a.transpose(1, 2).reshape(B, T, D))
        return x + self.out(F.gelu(self.fc(self.ln_2(x)), approximate="tanh"))
class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.wte, self.wpe, self.ln_f = nn.Embedding(V, D), nn.Embedding(T, D), nn.LayerNorm(D)
        self.h = nn.ModuleList(Block() for _ in range(o["layers"]))
        for p in self.parameters():
            if p.dim() > 1: nn.init.normal_(p, 0, 0.02)
    def forward(self, ids, targets):
        x = self.wte(ids) + self.wpe(torch.arange(T))
        for block in self.h: x = block(x)
        return F.cross_entropy((self.ln_f(x) @ self.wte.weight.t()).view(-1, V), targets.reshape(-1))
model = Gpt()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
run = torch.compile(model) if o["compile"] else model
seconds = []
for step in range(o["steps"]):
    ids = torch.randint(0, V, (B, T + 1))
    start = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=o["bf16"]):
        loss = run(ids[:, :-1], ids[:, 1:])
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    seconds.append(time.perf_counter() - start)
print(json.dumps({"seconds": seconds, "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
                  "parameters": sum(p.numel() for p in model.parameters()), "version": torch.__version__}))
"""


def speed(seconds, tokens):
    return tokens / statistics.median(seconds[2:])


def torch_turn(a, compiled):
    options = {k: getattr(a, k) for k in ("threads", "width", "heads", "context", "batch", "vocabulary", "layers", "steps")}
    done = subprocess.run([sys.executable, "-c", TORCH, json.dumps({**options, "compile": compiled, "bf16": a.bf16})], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    said = json.loads(done.stdout.splitlines()[-1])
    return speed(said["seconds"], a.batch * a.context), said["memory_mb"]


def tessera_turn(a, folder):
    run = os.path.join(folder, f"run{len(os.listdir(folder))}")
    command = [a.tessera, "train", "gpt", "--tokenizer", a.tokenizer or os.path.join(folder, "tokenizer"), "-o", run, a.text, "--steps", a.steps,
               "--layers", a.layers, "--width", a.width, "--heads", a.heads, "--context", a.context, "--batch", a.batch,
               "--threads", a.threads, "--evaluate-every", 0, "--checkpoint-every", 0] + ["--bf16"] * a.bf16
    with tempfile.NamedTemporaryFile("r") as memory:
        subprocess.run(["/usr/bin/time", "-o", memory.name, "-f", "%M", *map(str, command)], check=True, capture_output=True)
        kilobytes = float(memory.read())
    with open(os.path.join(run, "log.jsonl")) as log:
        seconds = [json.loads(line)["seconds"] for line in log]
    return speed(seconds, a.batch * a.context), kilobytes / 1024


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--text", required=True)
    p.add_argument("--tessera", default="build/release/bin/tessera")
    p.add_argument("--compile", action="store_true")
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--tokenizer", help="instead of one learnt from the text; of --vocabulary tokens")
    for name, value in (("rounds", 3), ("steps", 8), ("threads", 2), ("layers", 6), ("width", 384), ("heads", 6), ("context", 256),
                        ("batch", 16), ("vocabulary", 4800)):
        p.add_argument(f"--{name}", type=int, default=value)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if not a.tokenizer:
            subprocess.run([a.tessera, "train", "tokenizer", "--vocab-size", str(a.vocabulary), "-o",
                            os.path.join(folder, "tokenizer"), a.text], check=True, capture_output=True)
        contestants = {"tessera": lambda: tessera_turn(a, folder), "pytorch": lambda: torch_turn(a, False)}
        if a.compile:
            contestants["pytorch, compiled"] = lambda: torch_turn(a, True)
        figures = {name: [] for name in contestants}
        for round_ in range(a.rounds):
            for name, turn in contestants.items():
                figures[name].append(turn())
                print(f"round {round_ + 1}: {name}: {figures[name][-1][0]:.0f} tokens/s, {figures[name][-1][1]:.0f} MB", file=sys.stderr)
    ours = statistics.median(f[0] for f in figures["tessera"])
    for name, all_ in figures.items():
        tokens, memory = (statistics.median(x) for x in zip(*all_))
        print(f"{name:20} {tokens:8.0f} tokens/s {memory:8.0f} MB   tessera / this: {ours / tokens:.2f}")


if __name__ == "__main__":
    main()
