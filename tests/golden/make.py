#!/usr/bin/env python3
"""Makes the golden checkpoints under tests/data/families (see FORMAT.md there).

    make.py                 all cases          make.py CASE...    these cases (names may be cut: `make.py gpt2`)
    make.py --check [CASE]  makes them in a temporary folder and compares with what is committed
    make.py --list          names and what they are about

Needs torch 2.13 and transformers 5.23 (others may round differently; --check allows 1e-5 in golden tensors).
"""
import argparse
import json
import os
import sys
import tempfile
import zlib

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
sys.dont_write_bytecode = True

import torch  # noqa: E402
from safetensors.torch import load_file  # noqa: E402

from reference import clip, encoder_decoder, gpt2, llama, siglip, tessera_cases, text_classifier, vit, whisper  # noqa: E402,F401
from reference.common import CASES, MAX_SEEDS, Retry  # noqa: E402

DATA = os.path.normpath(os.path.join(HERE, "../data/families"))
TOLERANCE = 1e-5


def make(name, folder, verbose=False):
    about, build = CASES[name]
    for seed in range(1, MAX_SEEDS + 1):
        try:
            checkpoint = build(zlib.crc32(name.encode()) // 1000 * 1000 + seed)
        except Retry as reason:
            if verbose:
                print(f"{name}: seed {seed}: {reason}", file=sys.stderr)
            continue
        checkpoint.write(folder, name, about, seed)
        return
    raise SystemExit(f"{name}: no seed up to {MAX_SEEDS} will do")


def same(a, b, where):
    """Differences between two JSON values; floats may differ by TOLERANCE relative."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [d for k in a for d in same(a[k], b[k], f"{where}.{k}")]
    if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        return [d for i, (x, y) in enumerate(zip(a, b)) for d in same(x, y, f"{where}[{i}]")]
    if isinstance(a, float) and isinstance(b, float):
        # what a gap or score lies at may move with the last digits of the logits
        return [] if abs(a - b) <= 1e-4 + TOLERANCE * abs(a) else [f"{where}: {a} and {b}"]
    return [] if a == b else [f"{where}: {a} and {b}"]


def compare_tensors(old, new, exact, where):
    a, b = load_file(old), load_file(new)
    if a.keys() != b.keys():
        return [f"{where}: other names: {sorted(a.keys() ^ b.keys())}"]
    out = []
    for name in a:
        x, y = a[name], b[name]
        if x.dtype != y.dtype or x.shape != y.shape:
            out.append(f"{where}: {name}: {x.dtype} {list(x.shape)} and {y.dtype} {list(y.shape)}")
        elif not torch.equal(x, y):
            off = float((x.double() - y.double()).abs().max() / x.double().abs().max().clamp(min=1e-30))
            if exact or not x.is_floating_point() or not off <= TOLERANCE:
                out.append(f"{where}: {name}: off by {off:.2g} of its largest value")
    return out


def check(name, temporary):
    committed, fresh = os.path.join(DATA, name), os.path.join(temporary, name)
    if not os.path.isdir(committed):
        return [f"{name}: not committed"]
    make(name, fresh)
    if sorted(os.listdir(committed)) != sorted(os.listdir(fresh)):
        return [f"{name}: other files"]
    out = []
    for file in sorted(os.listdir(fresh)):
        a, b = os.path.join(committed, file), os.path.join(fresh, file)
        if file.endswith(".safetensors"):
            out += compare_tensors(a, b, file != "golden.safetensors", f"{name}/{file}")
        else:
            out += same(json.load(open(a)), json.load(open(b)), f"{name}/{file}")
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("-v", "--verbose", action="store_true", help="say why a seed was passed over")
    arguments = parser.parse_args()
    names = [n for n in CASES if not arguments.cases or any(n.startswith(c) for c in arguments.cases)]
    if not names:
        parser.error("no such case")
    if arguments.list:
        print("\n".join(f"{n:24} {CASES[n][0]}" for n in names))
        return 0
    if not arguments.check:
        for name in names:
            make(name, os.path.join(DATA, name), arguments.verbose)
            size = sum(e.stat().st_size for e in os.scandir(os.path.join(DATA, name)))
            print(f"{name}: {size / 1000:.0f} kB")
        return 0
    with tempfile.TemporaryDirectory() as temporary:
        differences = [d for n in names for d in check(n, temporary)]
    print("\n".join(differences) or f"{len(names)} cases: the same")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
