#!/usr/bin/env python3
"""One peer doing one kind of work, turn by turn: a process of its own for each, so that nobody's threads spin beside others'.

    worker.py PEER WORK CHECKPOINT [--threads 2] [--format F] [--prefill 512] [--decode 32]

Prints {"version": ...} when it is ready; then each line on standard input makes one run, answered by {"ms": ...}. A peer is a
module peer_<name>.py with `prepare(work, arguments)`, which returns its version and a function that does the work once and
may return the milliseconds that count (else all of its time does).
"""
import argparse
import importlib
import json
import os
import sys
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer")
    parser.add_argument("work", choices=["encode sound", "encode image", "prefill", "decode"])
    parser.add_argument("checkpoint")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--format", default="f32")
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=32)
    arguments = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    version, work = importlib.import_module("peer_" + arguments.peer).prepare(arguments.work, arguments)
    work()
    print(json.dumps({"version": version}), file=answers, flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        took = work()
        print(json.dumps({"ms": took if took is not None else 1e3 * (time.perf_counter() - start)}), file=answers, flush=True)


if __name__ == "__main__":
    main()
