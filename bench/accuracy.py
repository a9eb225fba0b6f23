#!/usr/bin/env python3
"""What a number format costs in accuracy: the same recordings, photos and text in f32 and in others.

    accuracy.py [--dtypes f32 auto int8] [--kv-cache auto] [--tessera build/release/bin/tessera] [--threads 2]
        [--speech-model DIR --speech LIBRISPEECH_DIR [--utterances 200]]     word error rate, and how far it is from f32's
        [--image-model DIR --photos DIR [--images 500]]                      share of photos with f32's first label
        [--text-model DIR --text FILE [--bytes 50000]]                       perplexity, and its ratio to f32's

LIBRISPEECH_DIR holds transcripts.txt (`ID TEXT` a line) and ID.mp3 somewhere below. (pip: transformers, for Whisper's normaliser)
"""
import argparse
import glob
import json
import os
import subprocess
import tempfile


def tessera(a, command, model, dtype, files, *options):
    """The JSON lines of a command."""
    done = subprocess.run([a.tessera, command, "--json", "-m", model, "--dtype", dtype, "--kv-cache", a.kv_cache, "-t", str(a.threads), *options, *files],
                          capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"tessera {command} --dtype {dtype}: {done.stderr.strip()}")
    return [json.loads(line) for line in done.stdout.splitlines()]


def edits(a, b):
    """Least insertions, deletions and replacements between two lists."""
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        left, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            left, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, left + (x != y))
    return row[-1]


def speech(a):
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer
    normal = EnglishTextNormalizer({})
    with open(os.path.join(a.speech, "transcripts.txt")) as f:
        transcripts = dict(line.strip().split(" ", 1) for line in f)
    found = {os.path.basename(p)[:-4]: p for p in glob.glob(os.path.join(a.speech, "**", "*.mp3"), recursive=True)}
    every = sorted(set(found) & set(transcripts))
    names = every[::max(1, len(every) // a.utterances)][:a.utterances]  # over all speakers
    words = [normal(transcripts[n]).split() for n in names]
    first = None
    for dtype in a.dtypes:
        lines = tessera(a, "transcribe", a.speech_model, dtype, [found[n] for n in names])
        wrong = sum(edits(w, normal(line["text"]).split()) for w, line in zip(words, lines, strict=True))
        rate = 100 * wrong / sum(map(len, words))
        first = rate if first is None else first
        print(f"WER of {len(names)} utterances, {dtype}: {rate:.2f} % ({rate - first:+.2f})", flush=True)


def photos(a):
    every = sorted(glob.glob(os.path.join(a.photos, "*.jpg")))
    files = every[::max(1, len(every) // a.images)][:a.images]
    first = None
    for dtype in a.dtypes:
        labels = [line["text"] for line in tessera(a, "classify", a.image_model, dtype, files, "--top", "1")]
        first = first or labels
        same = sum(x == y for x, y in zip(first, labels, strict=True))
        print(f"first label as {a.dtypes[0]}'s, {dtype}: {100 * same / len(files):.1f} % of {len(files)} photos", flush=True)


def text(a):
    with open(a.text, "rb") as f, tempfile.NamedTemporaryFile(suffix=".txt") as part:
        part.write(f.read(a.bytes).decode(errors="ignore").encode())
        part.flush()
        first = None
        for dtype in a.dtypes:
            line, = tessera(a, "perplexity", a.text_model, dtype, [part.name])
            first = first or line["perplexity"]
            change = 100 * (line["perplexity"] / first - 1)
            print(f"perplexity of {line['tokens']} tokens, {dtype}: {line['perplexity']:.4f} ({change:+.2f} %)", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dtypes", nargs="+", default=["f32", "auto"])
    parser.add_argument("--tessera", default=os.path.join(os.path.dirname(os.path.abspath(__file__)), "../build/release/bin/tessera"))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kv-cache", default="auto")
    for option in ("--speech-model", "--speech", "--image-model", "--photos", "--text-model", "--text"):
        parser.add_argument(option)
    for option, default in (("--utterances", 200), ("--images", 500), ("--bytes", 50000)):
        parser.add_argument(option, type=int, default=default)
    a = parser.parse_args()
    for work, model, data in ((speech, a.speech_model, a.speech), (photos, a.image_model, a.photos), (text, a.text_model, a.text)):
        if model and data:
            work(a)


if __name__ == "__main__":
    main()
