"""Many generations in one process, each with the account and workspace of a node of its own."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from photographs import photograph


class Crowd:
    """base_url: the server that works for it. Everything it saves lies in `folder`."""

    def __init__(self, folder: Path, base_url: str) -> None:
        from runcomfy_kling.nodes.settings import Settings

        self._folder = folder
        self._settings = Settings(token="benchmark", base_url=base_url, hosting="inline")
        self._variations = 0

    def run(self, requests: Sequence[Any]) -> dict[str, float]:
        """Generate all at once. Returns when each was saved, in Unix seconds, by request id."""
        return dict(asyncio.run(self._run(requests)))

    async def _run(self, requests: Sequence[Any]) -> list[tuple[str, float]]:
        return await asyncio.gather(*(self._one(request) for request in requests))

    async def _one(self, request: Any) -> tuple[str, float]:
        from runcomfy_kling.nodes import account, plain
        from runcomfy_kling.nodes.generation import generate

        self._variations += 1
        delivery = await generate(
            request,
            variation=self._variations,
            prefix="video/kling",
            adopt="",
            account=account.live(self._settings, self._folder),
            workspace=plain.workspace(self._folder / "output", private=self._folder),
        )
        return delivery.request_id, time.time()

    def remember(self, request: Any, median: float, sigma: float, count: int = 40) -> None:
        """Put clips like this one into the ledger, as if they had been made before."""
        from runcomfy_kling.nodes import account

        ledger = account.live(self._settings, self._folder).ledger
        facts = {"model_id": request.endpoint.model_id, "seconds": request.seconds, "audio": request.audio}
        rng = random.Random(2)
        for number in range(count):
            entry = ledger.open_submission(f"before-{number}", token="benchmark", **facts)
            ledger.submitted(entry.id, f"before-{number}")
            ledger.saved(entry.id, [], worked=median * rng.lognormvariate(0, sigma))


def text_request() -> Any:
    from runcomfy_kling.nodes.kling.request import build

    return build("text-to-video", "pro", {"prompt": "Dusk over terraced hills."})


def image_request(seed: int) -> Any:
    """A 1080p still of its own for every seed."""
    from runcomfy_kling.nodes.kling.request import build
    from runcomfy_kling.nodes.media.still import still

    picture = still(photograph(1920, 1080, seed), "start_image")
    return build("image-to-video", "standard", {"prompt": "Slow push in.", "start_image_url": picture})
