#!/usr/bin/env python3
"""Fine-tuning all of a ViT beside PyTorch, turn by turn on the same machine: images a second.

    training_vit.py --model DIR --data FILE [--tessera build/release/bin/tessera] [--rounds 3] [--steps 9] [--batch 16] [--threads 2]
                    [--bf16] [--compile]

FILE: JSON Lines of {"image": path, "label": name}. Tessera reads and resizes the photos as it trains; PyTorch is given random numbers of
their shape. The first two steps of a turn do not count; a turn's figure is the median of the others, and of the turns the median counts.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

TORCH = r"""
import json, sys, time
import torch
from transformers import ViTForImageClassification
o = json.loads(sys.argv[1])
torch.set_num_threads(o["threads"]); torch.manual_seed(0)
model = ViTForImageClassification.from_pretrained(o["model"], num_labels=o["labels"], ignore_mismatched_sizes=True).train()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
run = torch.compile(model) if o["compile"] else model
pixels, labels = torch.randn(o["batch"], 3, 224, 224), torch.randint(0, o["labels"], (o["batch"],))
seconds = []
for step in range(o["steps"]):
    start = time.perf_counter()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=o["bf16"]):
        loss = torch.nn.functional.cross_entropy(run(pixel_values=pixels).logits.float(), labels)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    seconds.append(time.perf_counter() - start)
print(json.dumps(seconds))
"""


def images_a_second(a, seconds):
    return a.batch / statistics.median(seconds[2:])


def torch_turn(a, labels, compiled):
    options = {k: getattr(a, k) for k in ("model", "threads", "batch", "steps", "bf16")}
    done = subprocess.run([sys.executable, "-c", TORCH, json.dumps({**options, "labels": labels, "compile": compiled})], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return images_a_second(a, json.loads(done.stdout.splitlines()[-1]))


def tessera_turn(a):
    with tempfile.TemporaryDirectory() as folder:
        run = os.path.join(folder, "run")
        command = [a.tessera, "finetune", "-m", a.model, a.data, "-o", run, "--batch", a.batch, "--steps", a.steps, "--threads", a.threads,
                   "--checkpoint-every", 0] + ["--bf16"] * a.bf16
        subprocess.run([*map(str, command)], check=True, capture_output=True)
        with open(os.path.join(run, "log.jsonl")) as log:
            return images_a_second(a, [json.loads(line)["seconds"] for line in log])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--model", required=True)
    p.add_argument("--data", required=True)
    p.add_argument("--tessera", default="build/release/bin/tessera")
    p.add_argument("--bf16", action="store_true")
    p.add_argument("--compile", action="store_true")
    for name, value in (("rounds", 3), ("steps", 9), ("batch", 16), ("threads", 2)):
        p.add_argument(f"--{name}", type=int, default=value)
    a = p.parse_args()
    with open(a.data) as data:
        labels = len({json.loads(line)["label"] for line in data})
    contestants = {"tessera": lambda: tessera_turn(a), "pytorch": lambda: torch_turn(a, labels, False)}
    if a.compile:
        contestants["pytorch, compiled"] = lambda: torch_turn(a, labels, True)
    figures = {name: [] for name in contestants}
    for round_ in range(a.rounds):
        for name, turn in contestants.items():
            figures[name].append(turn())
            print(f"round {round_ + 1}: {name}: {figures[name][-1]:.1f} images/s", file=sys.stderr)
    ours = statistics.median(figures["tessera"])
    for name, all_ in figures.items():
        print(f"{name:20} {statistics.median(all_):6.1f} images/s   tessera / this: {ours / statistics.median(all_):.2f}")


if __name__ == "__main__":
    main()
