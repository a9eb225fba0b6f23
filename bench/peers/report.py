"""The tables of run.py: one for each kind of machine."""
import datetime
import json
import os
import re
import subprocess

from cases import CASES

SAME_TYPE = {"f32": ("f32",), "bf16": ("bf16",), "int8": ("int8", "q8_0"), "int4": ("q4_0",)}


def machine(a):
    """The heading of this machine's table, and what `tessera bench --peaks` says, in a line."""
    out = json.loads(subprocess.run([a.tessera, "bench", "--peaks", "-t", str(a.threads), "--json"], check=True,
                                    capture_output=True, text=True).stdout)
    flags = next(line for line in open("/proc/cpuinfo") if line.startswith("flags")).split()
    wanted = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8")
    peaks = ", ".join(f"{name} {p['gflops']:.0f} GFLOP/s" for name, p in out["peaks"].items() if name != "read_gb_per_s")
    return (f"## {out['processor']}, kernels: {out['kernels']}",
            f"{out['threads']} threads ({' '.join(f for f in wanted if f in flags)}). "
            f"Peaks measured: {peaks}, reading {out['peaks']['read_gb_per_s']:.1f} GB/s.")


def shown(case, ms, a):
    if case.work == "transcribe":
        return f"{ms / 1e3:.1f} s"
    if case.work in ("prefill", "decode"):
        return f"{(a.prefill if case.work == 'prefill' else a.decode) / ms * 1e3:.0f} t/s"
    return f"{ms:.0f} ms"


def ratio(case, ours, peers):
    """The best peer's time to Tessera's best; for prompts, type by type, as the bar has it."""
    if not peers or not ours:
        return "-"
    if "same type" not in case.bar:
        return f"{min(peers.values()) / min(ours.values()):.2f}"
    ratios = []
    for kind, ms in ours.items():
        same = [peer for name, peer in peers.items() if name.split()[-1] in SAME_TYPE.get(kind, ())]
        if same:
            ratios.append(f"{kind} {min(same) / ms:.2f}")
    return ", ".join(ratios) or "-"


def row(case, result, a):
    ours = {n.removeprefix("tessera "): r["ms"] for n, r in result.items() if n.startswith("tessera")}
    peers = {n: r["ms"] for n, r in result.items() if not n.startswith("tessera")}
    own = ", ".join(f"{n} {shown(case, ms, a)}" for n, ms in ours.items())
    others = ", ".join(f"{n} {shown(case, ms, a)}" for n, ms in sorted(peers.items(), key=lambda p: p[1]))
    return f"| {case.name} | {own or '-'} | {others or '-'} | {ratio(case, ours, peers)} | {case.bar} |"


HEAD = """# Tessera beside its peers

Written by `bench/peers/run.py`, which replaces the table of its own kind of machine: medians of rounds in which every contestant has its turn; peers the
fastest first. Decoding follows a prompt of 512 tokens. The ratio is the best peer's time to Tessera's best (for prompts, beside the same type).
"""


def write_report(results, a):
    versions = sorted({r["version"] for result in results.values() for r in result.values() if " " in r["version"]})
    heading, peaks = machine(a)
    lines = [heading, "", f"{datetime.date.today()}, {a.rounds} rounds, {peaks}", "",
             "| work | Tessera | peers | ratio | bar |", "| --- | --- | --- | --- | --- |"]
    lines += [row(case, results[case.name], a) for case in CASES if case.name in results]
    lines += ["", "Versions: " + "; ".join(versions) + "."]
    before = open(a.out).read() if os.path.exists(a.out) else ""
    others = [part for part in re.findall(r"^## .*?(?=^## |\Z)", before, re.M | re.S) if not part.startswith(heading + "\n")]
    with open(a.out, "w") as out:
        out.write("\n".join([HEAD, "\n".join(lines) + "\n", *others]).rstrip() + "\n")
