#!/usr/bin/env python3
"""Whisper's sound tower on one window of 30 s, f32: Tessera beside PyTorch (HF transformers), turn by turn.

    whisper_encoder.py BENCH_PROGRAM CHECKPOINT [--rounds 7] [--threads 2]
    (BENCH_PROGRAM: build/release/bin/bench_whisper_encoder, built with -DTESSERA_BUILD_BENCH=ON; pip: torch transformers)
"""
import argparse
import json
import statistics
import subprocess
import sys
import time

import torch
from transformers import WhisperModel


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("checkpoint")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    encoder = WhisperModel.from_pretrained(arguments.checkpoint, dtype=torch.float32).encoder.eval()
    mel = torch.rand(1, encoder.config.num_mel_bins, 2 * encoder.config.max_source_positions)
    ours, theirs, peak = [], [], 0
    with torch.inference_mode():
        encoder(mel)
        for _ in range(arguments.rounds):
            command = [arguments.program, arguments.checkpoint, "3", str(arguments.threads)]
            lines = [json.loads(l) for l in subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()]
            ours.append(statistics.median(l["ms"] for l in lines))
            peak = max(peak, *(l["peak_mb"] for l in lines))
            times = []
            for _ in range(3):
                start = time.perf_counter()
                encoder(mel)
                times.append(1e3 * (time.perf_counter() - start))
            theirs.append(statistics.median(times))
    a, b = statistics.median(ours), statistics.median(theirs)
    print(f"Tessera {a:.1f} ms, PyTorch {torch.__version__} {b:.1f} ms: {a / b:.2f} of PyTorch's time "
          f"({arguments.threads} threads, medians of {arguments.rounds} rounds); Tessera's peak memory {peak:.0f} MB")


if __name__ == "__main__":
    sys.exit(main())
