"""What the pack itself adds to a generation, measured: one table.

python3 run.py bench             everything, in under five minutes
python3 run.py bench NAME ...    only these figures
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

from figure import Figure  # noqa: E402

FIGURES = ("stills", "waiting", "download", "many", "submitting", "start", "overhead", "rehearsal", "lookup")
COLUMNS = ("figure", "measured", "target", "baseline", "ratio", "")


def main(argv: list[str]) -> int:
    if argv[:1] == ["--measure"]:
        print(json.dumps([dataclasses.asdict(figure) for figure in importlib.import_module(argv[1]).measure()]))
        return 0
    unknown = [name for name in argv if name not in FIGURES]
    if unknown:
        print(f"There is no figure {unknown[0]!r}; the figures are {', '.join(FIGURES)}.", file=sys.stderr)
        return 2
    began = time.monotonic()
    print(machine(), flush=True)
    figures: list[Figure] = []
    broken = []
    for name in argv or FIGURES:
        print(f"measuring {name} …", file=sys.stderr, flush=True)
        measured = measure(name)
        figures += measured
        if not measured:
            broken.append(name)
    print(table(figures))
    print(summary(figures, broken, time.monotonic() - began))
    return 0


def measure(name: str) -> list[Figure]:
    """In a process of its own, so that no figure pays for the memory and imports of another. [] if it broke."""
    command = [sys.executable, str(HERE / "bench.py"), "--measure", name]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=os.environ | {"PYTHONIOENCODING": "utf-8"}
    )
    if done.returncode:
        return []
    return [Figure(**fields) for fields in json.loads(done.stdout.splitlines()[-1])]


def machine() -> str:
    versions = " ".join(
        f"{name} {importlib.metadata.version(name)}"
        for name in ("torch", "numpy", "pillow", "av")
        if importlib.util.find_spec({"pillow": "PIL"}.get(name, name))
    )
    return (
        f"{os.cpu_count()} cores, {processor()}, {platform.system()} {platform.release()}, "
        f"{platform.python_implementation()} {platform.python_version()}, {versions}"
    )


def processor() -> str:
    """The CPU's name; Python itself knows it on some systems only."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def table(figures: list[Figure]) -> str:
    verdicts = {True: "ok", False: "SHORT", None: ""}
    rows = [COLUMNS, *((f.name, f.measured, f.target, f.baseline, f.ratio, verdicts[f.ok]) for f in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(COLUMNS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths).rstrip(), *lines[1:]])


def summary(figures: list[Figure], broken: list[str], seconds: float) -> str:
    short = [
        f"{figure.name.strip()} ({figure.measured}, wanted {figure.target})" for figure in figures if figure.ok is False
    ]
    met = sum(figure.ok is True for figure in figures)
    lines = [f"{met} of {met + len(short)} targets met, in {seconds:.0f} s."]
    lines += [f"SHORT: {line}" for line in short]
    lines += [f"NOT MEASURED: {name}; its own words are above" for name in broken]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
