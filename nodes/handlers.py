"""What the editor asks of this pack; see routes.py. Loaded when it first asks."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from . import account, comfy
from .corridor import log
from .errors import AccountError, KlingError
from .fetch import fetch
from .graph import signature
from .inputs import DEFAULT_PREFIX
from .kling.endpoints import ENDPOINTS
from .ledger import Entry, Ledger
from .media.served import RateLimit, Store, route_handler
from .media.video import metadata
from .pricing import estimate
from .runcomfy.client import GENERATIONS_URL, NotNow
from .settings import Settings
from .threads import off_loop

if TYPE_CHECKING:
    from aiohttp import web

PROFILE_URL = "https://www.runcomfy.com/profile"
# A machine of RunComfy's: https://<server-id>-comfyui.runcomfy.com
HOSTED_SUFFIX = "-comfyui.runcomfy.com"
MOST_ENTRIES = 500
# No request of RunComfy has this id: whether a token is accepted shows in how it is refused.
NOBODYS_REQUEST = "00000000-0000-0000-0000-000000000000"

_store = Store(comfy.private_folder() / "media")
_store.sweep()
media = route_handler(_store, RateLimit())
_fetches: dict[int, asyncio.Task[Any]] = {}  # those under way, by entry
_failures: dict[int, str] = {}  # why the last fetch of an entry failed


def _settings() -> Settings:
    return Settings.read(os.environ, account.read_token(comfy.private_folder()))


def _ledger() -> Ledger:
    return account.live_ledger(comfy.private_folder())


async def progress(request: web.Request) -> Any:
    return {"nodes": comfy.shown(), "now": time.time()}


async def quote(request: web.Request) -> Any:
    query = request.query
    model_id = ENDPOINTS[query["task"], query["tier"]].model_id  # type: ignore[index]
    seconds, audio = int(query["seconds"]), query["audio"] == "true"

    def estimated() -> Any:
        try:
            payer = account.live(_settings(), comfy.private_folder())
        except AccountError:
            return {"usd": None, "from": False, "source": None, "note": None}
        found = estimate(payer.client, payer.ledger, model_id, seconds, audio)
        return {
            "usd": found.usd,
            "from": found.at_least,
            "source": found.source or None,
            "note": found.note or None,
        }

    return await off_loop(estimated)


async def paid(request: web.Request) -> Any:
    asked = await request.json()

    def known() -> Any:
        key = signature(asked["prompt"], str(asked["node"]), comfy.changes)
        entry = _ledger().find_graph(key) if key else None
        return {"state": entry.state if entry else None}

    return await off_loop(known)


async def account_state(request: web.Request) -> Any:
    settings = await off_loop(_settings)
    return {
        "source": settings.token_source or None,
        "hosted_machine": (urlsplit(f"//{request.host}").hostname or "").endswith(HOSTED_SUFFIX),
        "profile_url": PROFILE_URL,
        "generations_url": GENERATIONS_URL,
    }


async def set_token(request: web.Request) -> Any:
    token = (await request.json())["token"].strip()
    Settings(token=token, token_source="settings").require_token()
    await off_loop(account.save_token, comfy.private_folder(), token)
    return await account_state(request)


async def clear_token(request: web.Request) -> Any:
    await off_loop(account.save_token, comfy.private_folder(), "")
    return await account_state(request)


async def test_account(request: web.Request) -> Any:
    def tested() -> Any:
        try:
            account.live(_settings(), comfy.private_folder()).client.status(NOBODYS_REQUEST)
        except (AccountError, NotNow) as error:
            return {"ok": False, "message": str(error)}
        except KlingError:
            pass  # that request is nobody's, so the refusal means that the token was accepted
        return {"ok": True, "message": "RunComfy accepts the token."}

    return await off_loop(tested)


async def generations(request: web.Request) -> Any:
    before = int(request.query["before"]) if "before" in request.query else None
    limit = min(int(request.query.get("limit", 200)), MOST_ENTRIES)

    def page() -> Any:
        ledger = _ledger()
        return {"entries": [_described(entry) for entry in ledger.page(before, limit)], "total": ledger.count()}

    return await off_loop(page)


async def fetch_entry(request: web.Request) -> Any:
    """Bring an unfinished clip. Answers at once: it may take as long as a generation does."""
    entry = await off_loop(_entry, request)
    if not entry.request_id:
        raise LookupError(entry.id)
    payer = await off_loop(lambda: account.live(_settings(), comfy.private_folder()))
    if entry.id in _fetches:
        return {"started": True}
    task = asyncio.create_task(
        fetch(entry.request_id, prefix=DEFAULT_PREFIX, account=payer, workspace=comfy.background_workspace())
    )
    _failures.pop(entry.id, None)
    _fetches[entry.id] = task
    task.add_done_callback(lambda task: _fetched(entry.id, task))
    return {"started": True}


def _fetched(entry_id: int, task: asyncio.Task[Any]) -> None:
    del _fetches[entry_id]
    if not task.cancelled() and (error := task.exception()):
        _failures[entry_id] = str(error)
        log.warning("%s", error)


async def settle(request: web.Request) -> Any:
    entry = await off_loop(_entry, request)
    await off_loop(_ledger().settle, entry.id)
    return {"settled": True}


async def reveal(request: web.Request) -> Any:
    """Show a clip in the file manager of the machine that ComfyUI runs on."""
    entry = await off_loop(_entry, request)
    path = next((file.path for file in entry.files if file.path.is_file()), None)
    if path is None:
        raise KlingError("The file is no longer where it was saved. Fetch it again.")
    command = {
        "win32": ["explorer", f"/select,{path}"],
        "darwin": ["open", "-R", str(path)],
    }.get(sys.platform, ["xdg-open", str(path.parent)])
    try:
        subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    except OSError:
        raise KlingError(f"This machine has no file manager to show it in. The clip is {path}.") from None
    return {"message": str(path)}


async def workflow(request: web.Request) -> Any:
    """The graph that a clip was made with, from the clip itself."""

    entry = await off_loop(_entry, request)
    for file in entry.files:
        if file.path.is_file():
            tags = await off_loop(metadata, file.path)
            if "workflow" in tags:
                return {"workflow": json.loads(tags["workflow"])}
    raise KlingError("No workflow is known of this clip: its file is gone, or was saved without metadata.")


def _entry(request: web.Request) -> Entry:
    entry = _ledger().get(int(request.match_info["id"]))
    if entry is None:
        raise LookupError(request.match_info["id"])
    return entry


def _described(entry: Entry) -> dict[str, Any]:
    *_, tier, task = ("", *entry.model_id.split("/")) if entry.model_id else ("", None, None)
    there = [file.path for file in entry.files if file.path.is_file()]
    shown = comfy.clips(there)
    return {
        "id": entry.id,
        "state": entry.state,
        "request_id": entry.request_id,
        "model_id": entry.model_id or None,
        "task": task,
        "tier": tier,
        "seconds": entry.seconds,
        "audio": entry.audio,
        "cost_usd": entry.cost_usd,
        "created": entry.created,
        "prompt": entry.prompt,
        "path": str(there[0]) if there else None,
        "view": shown[0] if shown else None,
        "message": entry.message or None,
        "fetching": entry.id in _fetches and not there,
        "fetch_error": _failures.get(entry.id),
    }
