"""What a node that brings a clip does around the corridor: workspace, account, Stop, and the four outputs."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import comfy
from .inputs import CATEGORY, OUTPUT_TOOLTIPS, RETURN_NAMES, RETURN_TYPES
from .kling.request import Request, check_request_id, check_variation
from .settings import Settings
from .threads import off_loop, start
from .workspace import Stopped, Workspace

if TYPE_CHECKING:
    from .account import Account
    from .corridor import Delivery

Bring = Callable[["Account", "Workspace"], Awaitable["Delivery"]]


class BringsClip:
    """Base of the nodes that save a clip. ComfyUI reads these attributes; a subclass has the inputs."""

    CATEGORY = CATEGORY
    FUNCTION = "run"
    RETURN_TYPES = RETURN_TYPES
    RETURN_NAMES = RETURN_NAMES
    OUTPUT_TOOLTIPS = OUTPUT_TOOLTIPS
    OUTPUT_NODE = True

    @classmethod
    def IS_CHANGED(cls, unique_id: str = "", **_: Any) -> int:
        """Changes only when a clip that this node delivered is gone: ComfyUI's cache must not hide that."""
        return _delivered.times_missing(unique_id)


async def generated(
    make_request: Callable[[], Request],
    *,
    variation: int,
    rehearsal: bool,
    filename_prefix: str,
    request_id: str,
    hidden: Mapping[str, Any],
) -> dict[str, Any]:
    """The outputs of a generation node. make_request: may take a while, so it is called in a thread."""
    variation, adopt = check_variation(variation), check_request_id(request_id)
    request = await off_loop(make_request)

    async def bring(account: Account, workspace: Workspace) -> Delivery:
        from .generation import generate

        return await generate(
            request,
            variation=variation,
            prefix=filename_prefix,
            adopt=adopt,
            account=account,
            workspace=workspace,
        )

    return await delivered(bring, rehearsal=rehearsal, **hidden)


async def delivered(
    bring: Bring,
    *,
    rehearsal: bool = False,
    unique_id: str = "",
    prompt_graph: Mapping[str, Any] | None = None,
    extra_pnginfo: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Bring a clip and return what ComfyUI expects of an output node. Raises KlingError, or ComfyUI's own on Stop."""
    # Here and not at the top: the HTTP library is loaded when a clip is first made, not when ComfyUI starts.
    from . import account
    from .media.video import last_frame

    workspace = comfy.workspace(unique_id, prompt_graph, extra_pnginfo)
    settings = Settings.read(os.environ, account.read_token(workspace.private))
    try:
        if rehearsal:
            delivery = await bring(await off_loop(account.rehearsal, settings), workspace)
        else:
            delivery = await bring(account.live(settings, workspace.private), workspace)
    except Stopped:
        raise comfy.interrupted() from None
    first = delivery.files[0].path
    _delivered.note(unique_id, comfy.list_item(), [file.path for file in delivery.files])
    frame = comfy.image(await asyncio.wrap_future(delivery.last_frame or start(last_frame, first)))
    return {
        "ui": comfy.preview([file.path for file in delivery.files]),
        "result": (str(first), comfy.video(first), frame, delivery.request_id),
    }


class _Delivered:
    """Which files each node delivered last, for each item of a list, and how often one was found missing."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: dict[str, dict[int, list[Path]]] = {}
        self._missing: dict[str, int] = {}

    def note(self, node_id: str, item: int, paths: list[Path]) -> None:
        with self._lock:
            self._paths.setdefault(node_id, {})[item] = paths

    def times_missing(self, node_id: str) -> int:
        with self._lock:
            items = self._paths.get(node_id, {})
            if not all(path.is_file() for paths in items.values() for path in paths):
                del self._paths[node_id]
                self._missing[node_id] = self._missing.get(node_id, 0) + 1
            return self._missing.get(node_id, 0)


_delivered = _Delivered()
