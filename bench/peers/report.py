"""The table of run.py."""
import datetime
import json
import subprocess

from cases import CASES


def machine(a):
    """What `tessera bench --peaks` says, in a line."""
    out = json.loads(subprocess.run([a.tessera, "bench", "--peaks", "-t", str(a.threads), "--json"], check=True,
                                    capture_output=True, text=True).stdout)
    flags = next(line for line in open("/proc/cpuinfo") if line.startswith("flags")).split()
    wanted = ("avx2", "fma", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8")
    peaks = ", ".join(f"{name} {p['gflops']:.0f} GFLOP/s" for name, p in out["peaks"].items() if name != "read_gb_per_s")
    return (f"{out['processor']}, {out['threads']} threads ({' '.join(f for f in wanted if f in flags)}; Tessera's kernels: "
            f"{out['kernels']}). Peaks measured: {peaks}, reading {out['peaks']['read_gb_per_s']:.1f} GB/s.")


def shown(case, ms, a):
    if case.work == "transcribe":
        return f"{ms / 1e3:.1f} s"
    if case.work in ("prefill", "decode"):
        return f"{(a.prefill if case.work == 'prefill' else a.decode) / ms * 1e3:.0f} t/s"
    return f"{ms:.0f} ms"


def row(case, result, a):
    ours = {n: r["ms"] for n, r in result.items() if n.startswith("tessera")}
    peers = sorted(((r["ms"], n) for n, r in result.items() if not n.startswith("tessera")))
    own = ", ".join(f"{n.removeprefix('tessera ')} {shown(case, ms, a)}" for n, ms in ours.items())
    others = ", ".join(f"{n} {shown(case, ms, a)}" for ms, n in peers)
    ratio = f"{peers[0][0] / min(ours.values()):.2f}" if peers and ours else "-"
    return f"| {case.name} | {own or '-'} | {others or '-'} | {ratio} | {case.bar} |"


def write_report(results, a):
    versions = sorted({r["version"] for result in results.values() for r in result.values() if " " in r["version"]})
    lines = ["# Tessera beside its peers", "",
             f"Written by `bench/peers/run.py` on {datetime.date.today()}. {machine(a)}",
             f"Medians of {a.rounds} rounds in which every contestant has its turn; peers the fastest first. Decoding follows a",
             f"prompt of {a.prefill} tokens. The ratio is the best peer's time to Tessera's best.", "",
             "| work | Tessera | peers | ratio | bar |", "| --- | --- | --- | --- | --- |"]
    lines += [row(case, results[case.name], a) for case in CASES if case.name in results]
    lines += ["", "Versions: " + "; ".join(versions) + "."]
    with open(a.out, "w") as out:
        out.write("\n".join(lines) + "\n")
