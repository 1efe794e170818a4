"""What a generation is, as one fingerprint: the same inputs are one clip, paid once.

It covers the model id, every field of the body with its defaults, each still
by its 8-bit pixels and shape, each video by its source bytes, each URL by its
text, and the variation. Encoder, hosting, base URL, file prefix, version and
account are not part of it. Changing anything here makes people pay again for
what they have: the golden vectors in the tests hold it still.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from .kling.request import Request
from .media.types import Clip, Link, Still
from .threads import cores


def fingerprint(request: Request, variation: int) -> str:
    """SHA-256 in hex. Reads every pixel and every byte of the request's media: run it off the loop."""
    with cores:
        body = _identified(request.body)
    what = {"model": request.endpoint.model_id, "body": body, "variation": variation}
    text = json.dumps(what, sort_keys=True, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _identified(part: Any) -> Any:
    if isinstance(part, dict):
        return {name: _identified(value) for name, value in part.items()}
    if isinstance(part, list):
        return [_identified(value) for value in part]
    if isinstance(part, Still):
        return {"still": list(part.pixels.shape), "sha256": hashlib.sha256(part.pixels.data).hexdigest()}
    if isinstance(part, Clip):
        return {"video": _digest(part)}
    if isinstance(part, Link):
        return {"url": part.url}
    return part


def _digest(clip: Clip) -> str:
    if isinstance(clip.source, bytes):
        return hashlib.sha256(clip.source).hexdigest()
    digest = hashlib.sha256()
    with clip.source.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
