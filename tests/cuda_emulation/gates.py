#!/usr/bin/env python3
"""What has to hold of the CUDA kernels beyond their tests; see docs/cuda-emulation.md.

gates.py kernels                 names of all __global__ functions, one a line
gates.py sources                 no asm outside ptx.h, no <<<, no __shared__ or __CUDA_ARCH__ outside device.h and ptx.h, no cast of pointers, __launch_bounds__ on every
                                 kernel, every kernel launched through KERNEL, no call of CUDA's libraries outside kernels/cuda
gates.py launched LOG...         every kernel was launched by the tests that wrote KEMU_LOG, in blocks within its launch bounds
gates.py resources REPORT...     what ptxas -v said: registers times threads fit, static shared memory is within 48 KiB; --spills: and nothing is spilled
gates.py untested [-j N] PROGRAM...   with any one kernel left out a test program has to fail: each is run once to see which kernels it launches, then for every
                                 kernel those that launch it, the quickest first, until one fails

Prints "N passed, N failed" last; the status is 1 if anything failed.
"""
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BACKEND = ROOT / "kernels" / "cuda"
HOUSES = ["kernels", "tensor", "autograd", "nn", "peft", "train", "cli", "examples", "bench"]


def code_of(path):
    """The text with comments and the contents of strings blanked, lines kept."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"(\w*)\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|(?<![0-9a-fA-F])\'(?:\\.|[^\'\\\n])+\'', re.S)
    return pattern.sub(lambda m: '""' + "\n" * m.group().count("\n") if m.group()[0] != "/" else re.sub(r"[^\n]", " ", m.group()), path.read_text())


def sources(folders, suffixes=(".cu", ".h", ".cpp")):
    return sorted(p for f in folders for p in (ROOT / f).rglob("*") if p.suffix in suffixes)


KERNEL = re.compile(r"__global__\s+(?:static\s+)?(?:void\s+)?(__launch_bounds__\s*\((?P<bounds>(?:[^()]|\([^()]*\))*)\)\s*)?(?:void\s+)?(?P<name>\w+)\s*\(")


def kernels():
    """name -> (file, line, text of its launch bounds or None)"""
    found = {}
    for path in sources(["kernels/cuda"]):
        code = code_of(path)
        for m in KERNEL.finditer(code):
            line = code.count("\n", 0, m.start()) + 1
            if m["name"] in found:  # what the emulator logs and leaves out has to be one kernel
                sys.exit(f"{path.relative_to(ROOT)}:{line}: {m['name']} is also the name of a kernel in {found[m['name']][0].name}")
            found[m["name"]] = (path, line, m["bounds"])
    return found


def constants(path):
    """Integer constants of a file, of those it includes from kernels/cuda, by name."""
    values = {}
    for p in [*sources(["kernels/cuda"], (".h",)), path]:
        for m in re.finditer(r"constexpr\s+(?:int|unsigned|std::int64_t)\s+([^;]+);", code_of(p)):
            for part in m[1].split(","):
                name, _, value = part.partition("=")
                values[name.strip()] = value.strip()
    return values


def number(text, values, depth=0):
    """The value of an expression of integers and constants, None if it depends on a template's parameter."""
    if depth > 8:
        return None
    for name in set(re.findall(r"[A-Za-z_]\w*", text)):
        value = number(values[name], values, depth + 1) if name in values else None
        if value is None:
            return None
        text = re.sub(rf"\b{name}\b", str(value), text)
    if not re.fullmatch(r"[\d\s+*/()-]+", text):
        return None
    try:
        return int(eval(text.replace("/", "//"), {"__builtins__": {}}))  # digits and operators only
    except (SyntaxError, ZeroDivisionError):
        return None


def bound_of(kernel):
    path, _, bounds = kernel
    return None if bounds is None else number(bounds.split(",")[0], constants(path))


def check_sources():
    failures = []
    def refuse(path, code, pattern, why):
        for m in re.finditer(pattern, code):
            failures.append(f"{path.relative_to(ROOT)}:{code.count(chr(10), 0, m.start()) + 1}: {why}")
    for path in sources(["kernels/cuda"]):
        code = code_of(path)
        if path.name != "ptx.h":
            refuse(path, code, r"\b(__)?asm(__)?\b", "inline assembly belongs in ptx.h")
        refuse(path, code, r"<<<", "kernels are launched by launch()")
        if path.name not in ("device.h", "ptx.h"):
            refuse(path, code, r"\b__shared__\b", "shared memory is declared by KSHARED and KSHARED_DYN")
            refuse(path, code, r"\breinterpret_cast<(?!std::uintptr_t>)", "vectors are accessed through as_vector(), which the emulator checks")
            refuse(path, code, r"\b__CUDA(_ARCH|CC)__\b", "code for one compiler or chip belongs in device.h or ptx.h: nothing else may escape the emulator")
    for path in sources(HOUSES):
        if BACKEND not in path.parents:
            refuse(path, code_of(path), r"\b(cuda|cublas|cusolver)[A-Z]\w*\s*\(|#include\s*<(cuda|cublas|cusolver)", "CUDA's functions are called in kernels/cuda only")
    launched = set()
    for path in sources(["kernels/cuda"]):
        launched |= {m[1].split("::")[-1] for m in re.finditer(r"\bKERNEL\(\s*\(?\s*([\w:]+)", code_of(path))}
    for name, (path, line, bounds) in kernels().items():
        if bounds is None:
            failures.append(f"{path.relative_to(ROOT)}:{line}: {name} has no __launch_bounds__")
        if name not in launched:
            failures.append(f"{path.relative_to(ROOT)}:{line}: nothing launches {name}")
    return len(kernels()), failures


def check_launched(logs):
    most = {}
    for log in logs:
        for line in Path(log).read_text().splitlines():
            name, threads = line.rsplit(" ", 1)
            most[name] = max(most.get(name, 0), int(threads))
    failures = []
    for name, kernel in kernels().items():
        bound = bound_of(kernel)
        if name not in most:
            failures.append(f"{name} ({kernel[0].name}:{kernel[1]}) is not executed by any test")
        elif bound is not None and most[name] > bound:
            failures.append(f"{name} ({kernel[0].name}:{kernel[1]}) was launched with {most[name]} threads, its launch bounds say {bound}")
    return len(kernels()), failures


def check_resources(reports, no_spills):
    bounds = {name: bound_of(kernel) for name, kernel in kernels().items()}
    seen, failures, entry, chip, spilled = set(), [], None, None, 0
    count = 0
    for report in reports:
        for line in Path(report).read_text().splitlines():
            if m := re.search(r"Compiling entry function '(\w+)' for '(\w+)'", line):
                entry, chip, spilled = m[1], m[2], 0
            elif m := re.search(r"(\d+) bytes spill stores, (\d+) bytes spill loads", line):
                spilled = int(m[1]) + int(m[2])
            elif (m := re.search(r"Used (\d+) registers", line)) and entry is not None:
                count += 1
                # Of names within names the longest is meant.
                name = max((n for n in bounds if f"{len(n)}{n}" in entry), key=len, default=None)
                if name is None:
                    failures.append(f"{report}: {entry} is no kernel of kernels/cuda")
                    continue
                seen.add(name)
                threads = bounds[name] or 1024
                per_warp = (int(m[1]) * 32 + 255) // 256 * 256  # registers are given out in such units
                if per_warp * ((threads + 31) // 32) > 65536 and bounds[name] is not None:
                    failures.append(f"{name} for {chip}: {m[1]} registers for each of {threads} threads are more than 65,536")
                shared = re.search(r"(\d+)(?:\+\d+)? bytes smem", line)
                if shared and int(shared[1]) > 48 * 1024:
                    failures.append(f"{name} for {chip}: {shared[1]} bytes of static shared memory")
                if spilled and no_spills:
                    failures.append(f"{name} for {chip}: {spilled} bytes of registers are spilled")
                entry = None
    failures += [f"{name}: no report of ptxas" for name in bounds if name not in seen]
    return count, failures


def run_test(program, **settings):
    """(whether it passed, seconds); a program that hangs has failed."""
    begin = time.monotonic()
    try:
        done = subprocess.run([program, "--abort-after=1"], env={"CAMBIUM_CUDA_CACHING": "0"} | os.environ | {"KEMU_QUIET": "1"} | settings,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=600)
        passed = done.returncode == 0
    except subprocess.TimeoutExpired:
        passed = False
    return passed, time.monotonic() - begin


def check_untested(programs, jobs):
    programs = [str(Path(p).resolve(strict=True)) for p in programs]
    names = sorted(kernels())
    failures, launching = [], {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(jobs) as pool:
        def look(program):
            log = Path(folder) / str(programs.index(program))
            passed, seconds = run_test(program, KEMU_LOG=str(log), KEMU_LEAVE_OUT="")
            return program, passed, seconds, {line.rsplit(" ", 1)[0] for line in log.read_text().splitlines()} if log.exists() else set()
        for program, passed, seconds, launched in pool.map(look, programs):
            if not passed:  # its failure would say nothing about a kernel
                failures.append(f"{Path(program).name} fails with all kernels")
                continue
            for name in launched & launching.keys():
                launching[name].append((seconds, program))

        def leave_out(name):
            for _, program in sorted(launching[name]):
                if not run_test(program, KEMU_LEAVE_OUT=name)[0]:
                    return Path(program).name
            return None
        for name, noticed in zip(names, pool.map(leave_out, names)):
            said = f"noticed by {noticed}" if noticed else "NOT NOTICED" if launching[name] else "not launched"
            print(f"{name}: {said}", flush=True)
            if noticed is None:
                failures.append(f"{name}: the tests pass without it" if launching[name] else f"{name}: no test launches it")
    return len(names), failures


def main(arguments):
    what, rest = (arguments[0], arguments[1:]) if arguments else ("", [])
    if what == "kernels":
        print("\n".join(sorted(kernels())))
        return 0
    if what == "sources" and not rest:
        count, failures = check_sources()
    elif what == "launched" and rest:
        count, failures = check_launched(rest)
    elif what == "resources" and [r for r in rest if r != "--spills"]:
        count, failures = check_resources([r for r in rest if r != "--spills"], "--spills" in rest)
    elif what == "untested" and rest:
        jobs = int(rest[1]) if rest[0] == "-j" and len(rest) > 2 and rest[1].isdigit() and rest[1] != "0" else 1
        count, failures = check_untested(rest[2:] if rest[0] == "-j" else rest, jobs)
    else:
        print(__doc__, file=sys.stderr)
        return 2
    for failure in failures:
        print(failure)
    print(f"{max(0, count - len(failures))} passed, {len(failures)} failed")
    return 1 if failures or count == 0 else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
