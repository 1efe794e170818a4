"""What importing the pack adds to ComfyUI's start, in a fresh Python each time."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from typing import Any

from figure import ROOT, Figure

ROUNDS = 7
LATE = ("av", "boto3", "torch", "PIL", "runcomfy_kling.nodes.rehearsal.animatic")

# ComfyUI has long imported these when it comes to custom nodes.
COMFYUI_IMPORTS = "import asyncio, json, logging, numpy, requests, torch"
IMPORT = f"""
import json, runpy, sys, time
calls = []
sys.addaudithook(lambda event, args: calls.append(event) if event.startswith("socket.") else None)
load_pack = runpy.run_path({str(ROOT / "run.py")!r})["load_pack"]
calls.clear()
before = set(sys.modules)
start = time.perf_counter()
load_pack()
seconds = time.perf_counter() - start
print(json.dumps([seconds, [name for name in {LATE!r} if name in set(sys.modules) - before], calls]))
"""
EAGER = f"""
import importlib, json, pkgutil, runpy, time
load_pack = runpy.run_path({str(ROOT / "run.py")!r})["load_pack"]
start = time.perf_counter()
load_pack()
import av, boto3
nodes = importlib.import_module("runcomfy_kling.nodes")
for module in pkgutil.walk_packages(nodes.__path__, nodes.__name__ + "."):
    importlib.import_module(module.name)
print(json.dumps(time.perf_counter() - start))
"""


def measure() -> list[Figure]:
    inside = [_run(f"{COMFYUI_IMPORTS}\n{IMPORT}") for _ in range(ROUNDS)]
    bare = [_run(IMPORT) for _ in range(ROUNDS)]
    added = statistics.median(seconds for seconds, _, _ in inside)
    alone = statistics.median(seconds for seconds, _, _ in bare)
    eager = statistics.median(_run(f"{COMFYUI_IMPORTS}\n{EAGER}") for _ in range(3))
    loaded = sorted({name for _, names, _ in bare for name in names})
    calls = sorted({event for _, _, events in [*inside, *bare] for event in events})
    baseline = f"{eager * 1000:.0f} ms importing all of it"
    return [
        Figure(
            "Import inside ComfyUI",
            f"{added * 1000:.1f} ms",
            "< 40 ms",
            added < 0.04,
            baseline,
            f"{eager / added:.0f}",
        ),
        Figure("  in a bare Python, with NumPy and asyncio", f"{alone * 1000:.0f} ms", "", None),
        Figure("  heavy modules it loads", ", ".join(loaded) or "none", "none", not loaded),
        Figure("  network calls it makes", ", ".join(calls) or "none", "none", not calls),
    ]


def _run(code: str) -> Any:
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])
