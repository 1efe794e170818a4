"""The corridor in plain folders: an account at a server of the test's choice, requests, and clips made at once."""

from __future__ import annotations

import asyncio
import functools
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import skimage.data
from runcomfy_kling.nodes import plain
from runcomfy_kling.nodes.account import Account, live
from runcomfy_kling.nodes.corridor import Delivery
from runcomfy_kling.nodes.fetch import fetch as fetch_clip
from runcomfy_kling.nodes.generation import generate
from runcomfy_kling.nodes.kling.request import Request, build
from runcomfy_kling.nodes.media.types import Still
from runcomfy_kling.nodes.settings import Settings
from runcomfy_kling.nodes.workspace import Workspace

TOKEN = "test-token-that-no-message-may-hold"


@functools.cache
def tiny_clip() -> bytes:
    """An MP4 of a photograph, 320 x 180 pixels, 1 s."""
    file = io.BytesIO()
    picture = np.ascontiguousarray(skimage.data.chelsea()[:180, :320])
    with av.open(file, "w", format="mp4") as output:
        stream = output.add_stream("h264", rate=12, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for shift in range(12):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 4 * shift, axis=1), "rgb24")
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return file.getvalue()


def render(plan: Any, path: Path) -> None:
    """For RehearsalServer: every job's clip is the tiny one, so that it ends at once."""
    path.write_bytes(tiny_clip())


def live_account(base_url: str, folder: Path, token: str = TOKEN, **settings: Any) -> Account:
    """An account whose ledger lies below `folder`. settings: fields of Settings."""
    return live(Settings(token=token, token_source="settings", base_url=base_url, **settings), folder / "private")


def plain_workspace(
    folder: Path,
    show: Callable[[dict[str, Any]], None] = lambda facts: None,
    stopped: Callable[[], bool] = lambda: False,
) -> Workspace:
    """Clips are saved below folder / "output"."""
    return plain.workspace(folder / "output", private=folder / "private", show=show, stopped=stopped)


def text_request(prompt: str = "A train crosses a viaduct.", tier: str = "pro", **values: Any) -> Request:
    return build("text-to-video", tier, {"prompt": prompt, "duration": 3, **values})


def image_request(prompt: str = "She looks up.", tier: str = "standard", **values: Any) -> Request:
    start = Still(np.ascontiguousarray(skimage.data.astronaut()), "start_image")
    return build("image-to-video", tier, {"prompt": prompt, "duration": 3, "start_image_url": start, **values})


def run(
    request: Request, account: Account, workspace: Workspace, variation: int = 0, adopt: str = "", prefix: str = "clip"
) -> Delivery:
    """One generation from its inputs to a clip on disk. Raises KlingError or Stopped."""
    return asyncio.run(
        generate(request, variation=variation, prefix=prefix, adopt=adopt, account=account, workspace=workspace)
    )


def fetch(request_id: str, account: Account, workspace: Workspace, prefix: str = "clip") -> Delivery:
    """The clip of any request of the account. Raises KlingError or Stopped."""
    return asyncio.run(fetch_clip(request_id, prefix=prefix, account=account, workspace=workspace))
