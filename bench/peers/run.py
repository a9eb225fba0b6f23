#!/usr/bin/env python3
"""Tessera beside its peers on the same weights and inputs, turn by turn; writes a table.

    run.py --checkpoints DIR --cache DIR [--tessera build/release/bin/tessera] [--rounds 5] [--threads 2] [--dtypes f32]
           [--speech FILE] [--only TEXT]... [--out bench/RESULTS.md]

DIR holds whisper-tiny.en (as published) and what make_shapes.py writes there (shapes alone decide what a product costs, so random
weights do); --speech is a recording of about ten minutes. Run it with the Python of install.sh's environment. Peers that are
missing or can't do a piece of work are left out, and the reason is printed. Every contestant is a process of its own; in each
round each does the work once, one after the other, and the median of the rounds counts.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from cases import CASES, HERE, convert
from report import write_report


class Worker:
    """A peer's process that waits for its turn."""
    def __init__(self, case, peer, form, path, a):
        self.name = f"{peer} {form}"
        command = [sys.executable, os.path.join(HERE, "worker.py"), peer, case.work, path, "--format", form,
                   "--threads", str(a.threads), "--prefill", str(a.prefill), "--decode", str(a.decode)]
        self.said = tempfile.TemporaryFile("w+")  # not a pipe: what a talkative peer says would fill it and stop the peer
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.said, text=True)
        self.version = self.answer()["version"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.said.seek(0)
            said = self.said.read().strip().splitlines()
            raise RuntimeError(said[-1] if said else f"exit code {self.process.wait()}")
        return json.loads(line)

    def run(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return self.answer()["ms"]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class Program:
    """A command whose whole life is timed."""
    def __init__(self, name, version, command):
        self.name, self.version, self.command = name, version, command
        self.run()

    def run(self):
        start = time.perf_counter()
        done = subprocess.run(self.command, capture_output=True, text=True)
        took = 1e3 * (time.perf_counter() - start)
        if done.returncode or len(done.stdout) < 20:
            raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "no text came out")
        return took

    def close(self):
        pass


class Tessera:
    def __init__(self, case, dtype, path, a):
        self.name, self.work = f"tessera {dtype}", case.work
        text = case.work in ("prefill", "decode")
        self.command = [a.tessera, "bench", "-m", path, "-t", str(a.threads), "--dtype", dtype, "--repeat", "1", "--json",
                        "--prefill", str(a.prefill if text else 1), "--decode", str(a.decode if case.work == "decode" else 1)]
        self.run()

    def run(self):
        done = subprocess.run(self.command, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(done.stderr.strip().splitlines()[-1])
        out = json.loads(done.stdout)
        self.version = "Tessera " + out["version"]
        return next(w["median_ms"] for w in out["work"] if w["work"] == self.work)

    def close(self):
        pass


def contestants(case, a):
    """What starts each of them."""
    checkpoint = os.path.join(a.checkpoints, case.checkpoint)
    speech = case.work == "transcribe"
    for dtype in a.dtypes:
        if speech:
            command = [a.tessera, "transcribe", "-m", checkpoint, "-t", str(a.threads), "--dtype", dtype, "--beam-size",
                       str(case.beams), a.speech]
            for name, more in ((dtype, []), (f"{dtype} batched", ["--batch", "8"])):
                yield f"tessera {name}", lambda n=name, c=command + more: Program(f"tessera {n}", "Tessera", c)
        else:
            yield f"tessera {dtype}", lambda d=dtype: Tessera(case, d, checkpoint, a)
    for peer, form in case.peers:
        def start(peer=peer, form=form):
            path = convert(case, peer, form, checkpoint, a.cache)
            if not speech:
                return Worker(case, peer, form, path, a)
            command = [sys.executable, os.path.join(HERE, f"peer_{peer}.py"), path, a.speech, str(case.beams), str(a.threads)]
            return Program(f"{peer} {form}", peer, command + form.split())
        yield f"{peer} {form}", start


def measure(case, a):
    """{contestant: {"ms": median, "version": ...}}"""
    ready, times = [], {}
    for name, start in contestants(case, a):
        try:
            ready.append(start())
        except (RuntimeError, OSError, StopIteration) as problem:
            print(f"{case.name}: {name} is left out: {problem}", file=sys.stderr, flush=True)
    for _ in range(a.rounds):
        for one in ready:
            times.setdefault(one.name, []).append(one.run())
    for one in ready:
        one.close()
    return {one.name: {"ms": statistics.median(times[one.name]), "version": one.version} for one in ready}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoints", required=True)
    parser.add_argument("--cache", required=True)
    parser.add_argument("--tessera", default=os.path.join(HERE, "../../build/release/bin/tessera"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--prefill", type=int, default=512)
    parser.add_argument("--decode", type=int, default=32)
    parser.add_argument("--dtypes", nargs="+", default=["f32"])
    parser.add_argument("--speech")
    parser.add_argument("--only", action="append", default=[], help="cases with this in their name")
    parser.add_argument("--peers", nargs="+", help="only these contestants, as \"pytorch f32\"")
    parser.add_argument("--out", default=os.path.join(HERE, "../RESULTS.md"))
    a = parser.parse_args()
    os.makedirs(a.cache, exist_ok=True)
    stored = os.path.join(a.cache, "results.json")  # of earlier calls, so that cases can be measured one at a time
    results = json.load(open(stored)) if os.path.exists(stored) else {}
    for case in CASES:
        if a.only and not any(text in case.name for text in a.only):
            continue
        if case.work == "transcribe" and not a.speech:
            continue
        if "avx512_bf16" not in open("/proc/cpuinfo").read():
            case.peers = [p for p in case.peers if p[1] != "bf16"]  # emulated, several times slower than f32
        if a.peers:
            case.peers = [p for p in case.peers if " ".join(p) in a.peers]
        results[case.name] = measure(case, a)
        print(case.name, {name: round(r["ms"], 1) for name, r in results[case.name].items()}, flush=True)
        with open(stored, "w") as f:
            json.dump(results, f, indent=1)
    write_report(results, a)


if __name__ == "__main__":
    main()
