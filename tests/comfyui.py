"""A real ComfyUI, started with this pack in its custom_nodes, and a small client for it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import requests
from workflow import to_prompt

ROOT = Path(__file__).resolve().parent.parent
READY = "To see the GUI go to:"

running: list[ComfyUI] = []


class Refused(Exception):
    """ComfyUI did not queue the prompt. `error` is the JSON it answered."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(json.dumps(error, indent=1))
        self.error = error


class Failed(Exception):
    """The prompt ended without success. `entry` is its history."""

    def __init__(self, entry: dict[str, Any]) -> None:
        super().__init__(json.dumps(entry["status"], indent=1))
        self.entry = entry


@dataclass(frozen=True)
class Installation:
    folder: Path
    python: str


def find() -> Installation | str:
    """The ComfyUI to test with, or the reason why there is none."""
    if os.environ.get("COMFYUI_PATH"):
        folders = [Path(os.environ["COMFYUI_PATH"]).expanduser()]
    else:
        folders = [ROOT.parents[1], ROOT.parent, ROOT.parent / "ComfyUI", Path.home() / "comfy" / "ComfyUI"]
    for folder in folders:
        if (folder / "main.py").is_file() and (folder / "comfy").is_dir():
            python = find_python(folder)
            if python:
                return Installation(folder, python)
            return f"no Python for the ComfyUI in {folder}: set COMFYUI_PYTHON to the one that runs it"
    return f"no ComfyUI in {', '.join(map(str, folders))}: set COMFYUI_PATH to the folder of one"


def find_python(folder: Path) -> str | None:
    name = "Scripts/python.exe" if os.name == "nt" else "bin/python"
    candidates = [
        os.environ.get("COMFYUI_PYTHON"),
        folder / ".venv" / name,
        folder / "venv" / name,
        sys.executable,
    ]
    needed = "import aiohttp, comfyui_frontend_package, sqlalchemy, torch"
    for candidate in candidates:
        if candidate and Path(candidate).exists() and subprocess.call([str(candidate), "-c", needed]) == 0:
            return str(candidate)
    return None


class ComfyUI:
    """One server process on loopback, with its own base folder.

    env: added to the environment, from which everything named RUNCOMFY_… is taken away first.
    args: added to the command line. pack: the name of the pack's folder in custom_nodes.
    """

    def __init__(
        self,
        installation: Installation,
        base: Path,
        *,
        env: dict[str, str] | None = None,
        args: list[str] | None = None,
        pack: str = "comfyui-runcomfy-kling",
    ) -> None:
        self.installation = installation
        self.base = base
        self.input = base / "input"
        self.output = base / "output"
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("RUNCOMFY_")}
        self.environment = {**inherited, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1", **(env or {})}
        self._args = args or []
        self._lines: list[str] = []
        self._news = threading.Condition()
        for folder in (self.input, self.output, base / "custom_nodes"):
            folder.mkdir(parents=True, exist_ok=True)
        put_pack(base / "custom_nodes" / pack)

    def start(self, timeout: float = 120) -> None:
        """Returns when the server answers. After stop() it can be started again in the same folder."""
        self._lines.clear()
        command = [self.installation.python, "main.py", "--cpu", "--disable-auto-launch"]
        command += ["--base-directory", str(self.base), "--port", str(self.port)]
        command += ["--database-url", f"sqlite:///{(self.base / 'comfyui.db').as_posix()}", *self._args]
        self.process = subprocess.Popen(
            command,
            cwd=self.installation.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        running.append(self)
        threading.Thread(target=self._read_log, args=(self.process,), daemon=True).start()
        if not self.wait_for_log(READY, timeout):
            raise RuntimeError(f"ComfyUI did not start:\n{self.log()[-8000:]}")
        self.events = self.listen()

    def stop(self) -> None:
        if self in running:
            running.remove(self)
        if hasattr(self, "events"):
            self.events.close()
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def _read_log(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout
        for line in process.stdout:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._news.notify_all()

    def log(self) -> str:
        return "".join(self._lines)

    def wait_for_log(self, text: str, timeout: float = 30) -> bool:
        """True once the text is in the log; False if the time or the process ends before."""
        with self._news:
            self._news.wait_for(lambda: text in self.log() or self.process.poll() is not None, timeout)
        return text in self.log()

    def listen(self, client_id: str | None = None) -> Events:
        """A further websocket, as another browser tab would open it."""
        return Events(self.url, client_id or uuid.uuid4().hex)

    def get(self, path: str, **params: str) -> Any:
        answer = requests.get(self.url + path, params=params, timeout=60)
        answer.raise_for_status()
        return answer.json()

    def object_info(self) -> dict[str, Any]:
        return self.get("/object_info")

    def queue(
        self, prompt: dict[str, Any], extra_data: dict[str, Any] | None = None, client_id: str | None = None
    ) -> str:
        """Queues an API prompt and returns its id; raises Refused with ComfyUI's validation errors."""
        body = {
            "prompt": prompt,
            "extra_data": extra_data or {},
            "client_id": client_id or self.events.client_id,
        }
        answer = requests.post(self.url + "/prompt", json=body, timeout=60)
        if answer.status_code == 400:
            raise Refused(answer.json())
        answer.raise_for_status()
        return str(answer.json()["prompt_id"])

    def wait(self, prompt_id: str, timeout: float = 120) -> dict[str, Any]:
        """The history of a prompt, once it has ended in whatever way."""
        deadline = time.monotonic() + timeout
        seen = 0
        while True:
            entry = self.history(prompt_id)
            if entry:
                return entry
            # Every change of the queue is broadcast as `status`, whoever queued the prompt.
            seen = self.events.wait_for_type("status", after=seen, timeout=deadline - time.monotonic())

    def run(self, prompt: dict[str, Any], timeout: float = 120, **options: Any) -> dict[str, Any]:
        """Queues, waits, and returns {node id: ui output}; raises Failed unless it succeeded."""
        entry = self.wait(self.queue(prompt, **options), timeout)
        if entry["status"]["status_str"] != "success":
            raise Failed(entry)
        return dict(entry["outputs"])

    def run_workflow(self, workflow: dict[str, Any], timeout: float = 120) -> dict[str, Any]:
        """Runs a workflow saved by the editor and sends it along, as the editor does."""
        prompt = to_prompt(workflow, self.object_info())
        return self.run(prompt, timeout, extra_data={"extra_pnginfo": {"workflow": workflow}})

    def history(self, prompt_id: str) -> dict[str, Any] | None:
        return self.get(f"/history/{prompt_id}").get(prompt_id)

    def interrupt(self) -> None:
        requests.post(self.url + "/interrupt", json={}, timeout=60).raise_for_status()

    def view(self, filename: str, subfolder: str = "", type: str = "output") -> bytes:
        params = {"filename": filename, "subfolder": subfolder, "type": type}
        answer = requests.get(self.url + "/view", params=params, timeout=60)
        answer.raise_for_status()
        return answer.content


class Events:
    """The messages of one websocket, in order, as {"type", "data"}; previews (binary) are left out."""

    def __init__(self, url: str, client_id: str) -> None:
        self.client_id = client_id
        self._messages: list[dict[str, Any]] = []
        self._news = threading.Condition()
        self._open = True
        self._loop = asyncio.new_event_loop()
        self._task = self._loop.create_task(self._listen(f"{url}/ws?clientId={client_id}"))
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        # The server greets with the state of its queue: from here on no message is missed.
        self.wait_for(lambda event: event["type"] == "status")

    def _run(self) -> None:
        try:
            self._loop.run_until_complete(self._task)
        except (asyncio.CancelledError, aiohttp.ClientError):
            pass
        finally:
            with self._news:
                self._open = False
                self._news.notify_all()
            self._loop.close()

    async def _listen(self, url: str) -> None:
        async with aiohttp.ClientSession() as session, session.ws_connect(url, max_msg_size=0) as socket:
            async for message in socket:
                if message.type == aiohttp.WSMsgType.TEXT:
                    with self._news:
                        self._messages.append(json.loads(message.data))
                        self._news.notify_all()

    def all(self, type: str | None = None) -> list[dict[str, Any]]:
        with self._news:
            return [event for event in self._messages if type is None or event["type"] == type]

    def wait_for(self, wanted: Callable[[dict[str, Any]], bool], timeout: float = 60) -> dict[str, Any]:
        """The first message, past or future, that `wanted` accepts; TimeoutError if none comes."""
        with self._news:
            if self._news.wait_for(lambda: any(map(wanted, self._messages)) or not self._open, timeout):
                for event in self._messages:
                    if wanted(event):
                        return event
        raise TimeoutError(f"no such message within {timeout} s" if self._open else "the websocket was closed")

    def wait_for_type(self, type: str, after: int, timeout: float) -> int:
        """Waits until there are more than `after` messages of a type; returns how many there are."""
        with self._news:
            self._news.wait_for(lambda: self._count(type) > after or not self._open, max(timeout, 0))
            if self._count(type) <= after:
                raise TimeoutError(f"ComfyUI sent no further {type!r} in time")
            return self._count(type)

    def _count(self, type: str) -> int:
        return sum(event["type"] == type for event in self._messages)

    def close(self) -> None:
        if self._open:
            self._loop.call_soon_threadsafe(self._task.cancel)
        self._thread.join(10)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def put_pack(target: Path) -> None:
    """Linked, so that what is tested is what is edited; Windows needs rights for links, so a copy there."""
    if os.name == "nt":
        shutil.copytree(ROOT, target, ignore=shutil.ignore_patterns(".*", "__pycache__", "node_modules"))
    else:
        target.symlink_to(ROOT, target_is_directory=True)
