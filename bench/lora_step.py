#!/usr/bin/env python3
"""Alternate bench_lora_step with the peer's lora_step.py on one pinned core and print a Markdown table.

    lora_step.py --ours build/bench/bench_lora_step --peer "python peers/lora_step.py --model gpt2" --model-dir M --adapter-dir A

Both sides get the same folders and so the same weights, adapter and tokens; losses are compared step by step. --clock cpu times
the steps in processor time of the process: the steadier figure on a machine that others use too.
"""
import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys


def run(command, core):
    """One JSON line of the command, with the processor seconds that the process took."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("OPENBLAS_")} | {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(["taskset", "-c", core] + command, env=env, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if done.returncode or not lines:
        sys.exit(f"failed ({done.returncode}): {shlex.join(command)}\n{done.stderr[-1500:]}")
    return json.loads(lines[-1]) | {"cpu_s": after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime}


# Makes the peer's script read processor time where it reads the clock.
CPU_CLOCK = "import runpy, sys, time; time.perf_counter = time.process_time; sys.argv = sys.argv[1:]; sys.path.insert(0, sys.argv[0].rpartition('/')[0]); runpy.run_path(sys.argv[0], run_name='__main__')"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ours", required=True)
    parser.add_argument("--peer", required=True)
    parser.add_argument("--model-dir", required=True)
    parser.add_argument("--adapter-dir", required=True)
    parser.add_argument("--dtypes", nargs="+", default=["fp32", "medium"], help="of the peer; ours is fp32")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--core", default="1")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    args = parser.parse_args()
    common = ["--model-dir", args.model_dir, "--adapter-dir", args.adapter_dir, "--warmup", str(args.warmup), "--repeats", str(args.repeats)]
    commands = {"Cambium fp32": [args.ours] + common}
    for dtype in args.dtypes:
        python, *script = shlex.split(args.peer)
        commands[f"PyTorch + PEFT {dtype}"] = [python] + (["-c", CPU_CLOCK] if args.clock == "cpu" else []) + script + common + ["--dtype", dtype]
    results = {name: [] for name in commands}
    for _ in range(args.rounds):
        for name, command in commands.items():
            results[name].append(run(command, args.core))
    print(f"| run | step {args.clock} ms: min | median | tok/s (best) | peak MiB | ready s | process CPU s | losses |\n|---|---|---|---|---|---|---|---|")
    reference = next(iter(results.values()))[0]["losses"]
    for name, runs in results.items():
        pool = [t for r in runs for t in r["cpu_steps" if args.clock == "cpu" and "cpu_steps" in r else "steps"][args.warmup:]]
        losses = runs[0]["losses"]
        apart = max(abs(a - b) / abs(b) for a, b in zip(losses, reference))
        print(f"| {name} | {min(pool):.0f} | {statistics.median(pool):.0f} | {1e3 * runs[0]['tokens'] / min(pool):.0f} | {max(r['memory_mb']['VmHWM'] for r in runs)} | "
              f"{min(r['ready_s'] for r in runs):.2f} | {min(r['cpu_s'] for r in runs):.1f} | {losses[0]:.6f} -> {losses[-1]:.6f}, apart {apart:.1e} |")
    print("\nLosses of", ", ".join(f"{name}: {runs[0]['losses']}" for name, runs in results.items()))
    print("Probe GF/s", {name: [p for r in runs for p in r["probe_gflops"]] for name, runs in results.items()}, "versions", next(reversed(results.values()))[0].get("versions"))


if __name__ == "__main__":
    main()
