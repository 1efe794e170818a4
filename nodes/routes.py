"""The routes of this pack on ComfyUI's server, below /runcomfy_kling: which there are, and who may ask.

No answer holds a token. Pages of other origins are refused, and a write needs an origin: ComfyUI itself checks
it on loopback only, and lets a missing or null one pass.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from .errors import KlingError

PREFIX = "/runcomfy_kling"
ROUTES = (
    ("GET", "/progress", "progress"),
    ("GET", "/quote", "quote"),
    ("POST", "/paid", "paid"),
    ("GET", "/account", "account_state"),
    ("PUT", "/account", "set_token"),
    ("DELETE", "/account", "clear_token"),
    ("POST", "/account/test", "test_account"),
    ("GET", "/generations", "generations"),
    ("POST", r"/generations/{id:\d+}/fetch", "fetch_entry"),
    ("POST", r"/generations/{id:\d+}/settle", "settle"),
    ("POST", r"/generations/{id:\d+}/reveal", "reveal"),
    ("GET", r"/generations/{id:\d+}/workflow", "workflow"),
)


def register() -> None:
    """Add the routes while ComfyUI loads the pack. ComfyUI serves each below /api as well."""
    from server import PromptServer

    routes = PromptServer.instance.routes
    for method, path, name in ROUTES:
        routes.route(method, PREFIX + path)(_guarded(name))
    # Open to everyone: it answers for the stills of running generations, under names that cannot be guessed.
    routes.get(PREFIX + "/media/{name}")(_media)


async def _media(request: Any) -> Any:
    from . import handlers

    return await handlers.media(request)


def _guarded(name: str) -> Callable[[Any], Awaitable[Any]]:
    async def guarded(request: Any) -> Any:
        from aiohttp import web

        # Here and not at the top: the HTTP library is loaded when the page first asks, not when ComfyUI starts.
        from . import handlers

        if not _same_origin(request):
            return web.json_response({"error": "This address answers ComfyUI's own page only."}, status=403)
        try:
            answer = await getattr(handlers, name)(request)
        except KlingError as error:
            return web.json_response({"error": str(error)}, status=409)
        except (LookupError, ValueError, TypeError, AttributeError):
            return web.json_response({"error": "The request is not understood."}, status=400)
        return web.json_response(answer, headers={"Cache-Control": "no-store"})

    return guarded


def _same_origin(request: Any) -> bool:
    origin = request.headers.get("Origin")
    if origin is None:
        elsewhere = ("cross-site", "same-site")
        return request.method in ("GET", "HEAD") and request.headers.get("Sec-Fetch-Site") not in elsewhere
    # Behind a proxy the Host may be another name; RunComfy's machines say in this variable which one browsers see.
    ours = {request.host, urlsplit(os.environ.get("RUNCOMFY_PUBLIC_ORIGIN", "")).netloc} - {""}
    return urlsplit(origin).netloc in ours
