"""The graph editor in a real browser, on a real ComfyUI with this pack: tests/browser/editor.mjs does it and looks.

By default once with the frontend that ComfyUI pins and once with the newest, each in one renderer. With
RUNCOMFY_KLING_BROWSER=all in the environment, both frontends in both renderers. A picture of every step is
left in tests/browser/pictures/.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import comfyui as harness
import pytest
from runcomfy_kling.nodes.account import live_ledger
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer

BROWSER = Path(__file__).resolve().parent / "browser"
PICTURES = BROWSER / "pictures"
ALL = [(frontend, renderer) for frontend in ("pinned", "newest") for renderer in ("classic", "nodes2")]
RUNS = ALL if os.environ.get("RUNCOMFY_KLING_BROWSER") == "all" else [ALL[0], ALL[3]]
ENTRIES = 10_000


@dataclass(frozen=True)
class Tools:
    node: str
    chromium: str


@pytest.fixture(scope="module")
def tools() -> Tools:
    node, npm = shutil.which("node"), shutil.which("npm")
    names = (os.environ.get("CHROMIUM"), "chromium", "chromium-browser", "google-chrome")
    chromium = next(filter(None, (shutil.which(name) for name in names if name)), None)
    if not node or not npm:
        pytest.skip("Node.js with npm is not installed")
    if not chromium:
        pytest.skip("no Chromium is installed: install one, or name it in CHROMIUM")
    if not (BROWSER / "node_modules" / "playwright-core").is_dir():
        command = [npm, "install", "--no-package-lock", "--no-save", "--no-audit", "--no-fund"]
        if subprocess.run(command, cwd=BROWSER, capture_output=True).returncode:
            pytest.skip("playwright-core could not be installed by npm")
    return Tools(node, chromium)


@pytest.fixture(scope="module")
def runcomfy() -> Iterator[RehearsalServer]:
    with RehearsalServer(queue_seconds=0.5, base_price_usd=0.1) as server:
        server.start()
        yield server


@pytest.fixture(scope="module")
def newest_frontend(request: pytest.FixtureRequest) -> Callable[[], list[str]]:
    """Arguments that make ComfyUI serve the newest frontend; skips where it cannot be had."""

    def arguments() -> list[str]:
        assert request.config.cache
        folder = request.config.cache.mkdir("comfyui-frontend")
        if not list(folder.glob("*.whl")):
            package = [sys.executable, "-m", "pip", "download", "--no-deps", "comfyui-frontend-package"]
            if subprocess.run([*package, "--dest", str(folder)], capture_output=True).returncode:
                pytest.skip("comfyui-frontend-package could not be downloaded by pip")
        static = folder / "comfyui_frontend_package" / "static"
        if not static.is_dir():
            with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
                wheel.extractall(folder)
        return ["--front-end-root", str(static)]

    return arguments


@pytest.fixture(scope="module")
def comfyuis(
    tools: Tools,
    start_comfyui: Callable[..., harness.ComfyUI],
    newest_frontend: Callable[[], list[str]],
    runcomfy: RehearsalServer,
) -> Callable[[str], harness.ComfyUI]:
    servers: dict[str, harness.ComfyUI] = {}

    def get(frontend: str) -> harness.ComfyUI:
        if frontend not in servers:
            args = newest_frontend() if frontend == "newest" else []
            env = {"RUNCOMFY_MODEL_API_BASE_URL": runcomfy.base_url}
            servers[frontend] = start_comfyui(env=env, args=args)
            fill_ledger(servers[frontend].base / "user" / "__runcomfy_kling")
        return servers[frontend]

    return get


def note_doubt(private: Path, name: str) -> None:
    """A submission whose answer was lost."""
    ledger = live_ledger(private)
    entry = ledger.open_submission(name, model_id="", seconds=5, audio=True, token="none")
    ledger.uncertain(entry.id, "the connection broke")


def fill_ledger(private: Path) -> None:
    """Ten thousand generations of long ago, the first of them with a prompt that is looked for."""
    ledger = live_ledger(private)
    ledger.forget(ledger.open_submission("first", model_id="", seconds=5, audio=True, token="none").id)
    now = time.time()
    rows = [
        (f"old-{i}", "failed", "kling/kling-3.0/4k/text-to-video", 5, 1, "", now - 60 * (ENTRIES - i), f"Take {i}")
        for i in range(ENTRIES)
    ]
    with sqlite3.connect(ledger.path) as database:
        database.executemany(
            "INSERT INTO generations (fingerprint, state, model_id, seconds, audio, account, created, prompt) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
    database.close()


@pytest.mark.parametrize(("frontend", "renderer"), RUNS, ids=["-".join(run) for run in RUNS])
def test_the_editor(
    frontend: str,
    renderer: str,
    tools: Tools,
    comfyuis: Callable[[str], harness.ComfyUI],
    runcomfy: RehearsalServer,
) -> None:
    server = comfyuis(frontend)
    note_doubt(server.base / "user" / "__runcomfy_kling", renderer)
    pictures = PICTURES / f"{frontend}-{renderer}"
    pictures.mkdir(parents=True, exist_ok=True)
    setup = {
        "url": server.url,
        "chromium": tools.chromium,
        "nodes2": renderer == "nodes2",
        "early": (frontend, renderer) == ("pinned", "nodes2"),
        "pack": "comfyui-runcomfy-kling",
        "pictures": str(pictures),
        "variation": ALL.index((frontend, renderer)),
        "oldest": "Take 0",
    }
    play("editor.mjs", setup, tools, runcomfy)


@pytest.mark.skipif(RUNS is not ALL, reason="a measurement: set RUNCOMFY_KLING_BROWSER=all and see it with -rP")
@pytest.mark.parametrize("scale", [0.3, 0.7, 1])
@pytest.mark.parametrize(("frontend", "renderer"), ALL, ids=["-".join(run) for run in ALL])
def test_fifty_nodes(
    frontend: str,
    renderer: str,
    scale: float,
    tools: Tools,
    comfyuis: Callable[[str], harness.ComfyUI],
    runcomfy: RehearsalServer,
) -> None:
    setup = {
        "url": comfyuis(frontend).url,
        "chromium": tools.chromium,
        "nodes2": renderer == "nodes2",
        "pack": "comfyui-runcomfy-kling",
        "variation": len(ALL) + ALL.index((frontend, renderer)) * 10 + round(scale * 10),
        "scale": scale,
    }
    print(play("drawing.mjs", setup, tools, runcomfy))


def play(script: str, setup: dict[str, object], tools: Tools, runcomfy: RehearsalServer) -> str:
    """What a script of tests/browser prints. A line `runcomfy: hold` asks for a call of the server, and is answered."""
    scenario = subprocess.Popen(
        [tools.node, script, json.dumps(setup)],
        cwd=BROWSER,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    )
    said = ""
    with scenario:
        assert scenario.stdin and scenario.stdout
        for line in scenario.stdout:
            said += line
            if line.startswith("runcomfy: "):
                getattr(runcomfy, line.split()[1])()
                scenario.stdin.write("done\n")
                scenario.stdin.flush()
    assert scenario.returncode == 0, said
    return said
