"""The one door through which stills and videos become URLs that RunComfy can read.

s3       a bucket, by pre-signed links         (s3.py)
comfyui  this ComfyUI's own public address     (served.py)
inline   the bytes themselves, as data: URIs
"""

from __future__ import annotations

import base64
import functools
import ipaddress
import threading
from collections.abc import Iterator
from concurrent.futures import wait
from typing import Any
from urllib.parse import urlsplit

from ..errors import HostingError
from ..settings import LOOPBACK, Settings
from ..threads import cores, start
from .encode import encode
from .s3 import MOST_UPLOADS, Bucket
from .served import OwnAddress, Store
from .still import warnings
from .types import Clip, Link, Media, Still
from .video import mp4_of
from .way import Payload, Way

MIB = 1 << 20
MB = 1_000_000
# What RunComfy recommends for videos, and what its own pack keeps to for data: URIs.
CLIP_BYTES = 100 * MB
INLINE_STILL_BYTES = 6 * MIB
INLINE_REQUEST_BYTES = 64 * MIB
# Of those 64 MiB, what prompts and JSON may take.
TEXT_BYTES = MIB
# A job may stay queued for longer than a node waits, and its link has to outlast both.
LINK_SECONDS = 24 * 3600.0

_uploading = threading.BoundedSemaphore(MOST_UPLOADS)


class Inline(Way):
    still_bytes = INLINE_STILL_BYTES
    total_bytes = (INLINE_REQUEST_BYTES - TEXT_BYTES) * 3 // 4  # base64 makes four bytes of three

    def __init__(self, note: str = "") -> None:
        self.note = note

    def put(self, payload: Payload) -> bytes:
        with payload.open() as file:
            return f"data:{payload.content_type};base64,".encode() + base64.b64encode(file.read())


def choose(settings: Settings, store: Store, owner: str, *, free: bool) -> Way:
    """The way that the settings ask for; `auto` takes the first that is configured, and inline where none is.

    owner: the generation's fingerprint, under which the store keeps its files. free: a rehearsal, which sends
    nothing anywhere. Raises HostingError where a configured way cannot work.
    """
    if free or settings.hosting == "inline":
        return Inline()
    local = urlsplit(settings.base_url).hostname in LOOPBACK
    if settings.hosting == "s3" or (settings.hosting == "auto" and settings.s3_bucket):
        if not settings.s3_bucket:
            raise HostingError("RUNCOMFY_KLING_HOSTING is s3, but no bucket is named: set RUNCOMFY_KLING_S3_BUCKET.")
        bucket = _bucket(
            settings.s3_bucket,
            settings.s3_endpoint_url,
            settings.s3_prefix,
            max(settings.timeout, LINK_SECONDS),
        )
        if why := _unreachable(bucket.endpoint_url, local):
            raise HostingError(
                f"RunComfy cannot read from the bucket's endpoint: {why}. Correct RUNCOMFY_KLING_S3_ENDPOINT_URL."
            )
        return bucket
    if settings.hosting == "comfyui" and not settings.public_origin:
        raise HostingError(
            "RUNCOMFY_KLING_HOSTING is comfyui, but this ComfyUI has no public address: "
            "set RUNCOMFY_KLING_PUBLIC_ORIGIN."
        )
    if not settings.public_origin:
        return Inline()
    address = OwnAddress(settings.public_origin, store, owner)
    why = _unreachable(settings.public_origin, local) or address.why_not()
    if not why:
        return address
    trouble = f"This ComfyUI does not answer the internet at RUNCOMFY_KLING_PUBLIC_ORIGIN: {why}."
    if settings.hosting == "comfyui":
        raise HostingError(f"{trouble} Nothing was submitted. Correct it, or set RUNCOMFY_KLING_HOSTING to auto.")
    return Inline(f"{trouble} The media are sent inside the request instead.")


def needs_hosting(body: Any) -> bool:
    """Whether the body holds anything but URLs: if not, no way has to work."""
    return any(not isinstance(media, Link) for media in _media(body))


def host_all(body: Any, way: Way) -> tuple[Any, list[str]]:
    """The body with a URL for each of its media (see Way.put), and what the user should know, a sentence each.

    Encodes and uploads side by side, each distinct still or clip once. Returns or raises only when all
    of it has ended. Raises HostingError, or InputError for a clip that is no video.
    """
    leaves = list(_media(body))
    distinct = {id(media): media for media in leaves}
    clips = _together(_clip, {key: media for key, media in distinct.items() if isinstance(media, Clip)})
    share = _still_bytes(way, leaves, clips)
    notes = [way.note, *(_long_clip(clip) for clip in clips.values())]
    for media in distinct.values():
        if isinstance(media, Still):
            notes += warnings(media)

    def url(media: Media) -> str | bytes:
        if isinstance(media, Link):
            return media.url
        if isinstance(media, Clip):
            payload = clips[id(media)]
        else:
            with cores:
                encoded = encode(media, share)
            notes.append(encoded.note or "")
            payload = Payload(encoded.data, encoded.content_type, media.name)
        with _uploading:
            return way.put(payload)

    urls = _together(url, distinct)
    return _replaced(body, urls), list(dict.fromkeys(filter(None, notes)))


def _media(part: Any) -> Iterator[Media]:
    if isinstance(part, (Still, Clip, Link)):
        yield part
    elif isinstance(part, (dict, list)):
        for value in part.values() if isinstance(part, dict) else part:
            yield from _media(value)


def _replaced(part: Any, urls: dict[int, str | bytes]) -> Any:
    if isinstance(part, (Still, Clip, Link)):
        return urls[id(part)]
    if isinstance(part, dict):
        return {key: _replaced(value, urls) for key, value in part.items()}
    if isinstance(part, list):
        return [_replaced(value, urls) for value in part]
    return part


def _together(work: Any, items: dict[int, Any]) -> dict[int, Any]:
    """work(item) for all items side by side; nothing still runs when this returns or raises."""
    if len(items) == 1:  # as in most requests: this thread will do
        return {key: work(item) for key, item in items.items()}
    futures = {key: start(work, item) for key, item in items.items()}
    wait(futures.values())
    return {key: future.result() for key, future in futures.items()}


def _clip(clip: Clip) -> Payload:
    with cores:
        return Payload(mp4_of(clip), "video/mp4", clip.name)


def _long_clip(clip: Payload) -> str:
    if clip.size <= CLIP_BYTES:
        return ""
    return f"{clip.name} has {clip.size / MB:.0f} MB; RunComfy recommends videos of at most 100 MB."


def _still_bytes(way: Way, leaves: list[Media], clips: dict[int, Payload]) -> int:
    """What each still may have, so that all media fit together."""
    if way.total_bytes is None:
        return way.still_bytes
    stills = sum(isinstance(media, Still) for media in leaves)
    taken = sum(clips[id(media)].size for media in leaves if isinstance(media, Clip))
    # Below this, what is left is no picture worth paying for.
    if way.total_bytes - taken < stills * 64 * 1024:
        raise HostingError(
            f"The videos of the elements have {taken / MIB:.0f} MiB, and a request can carry "
            f"{way.total_bytes / MIB:.0f} MiB of media: shorten them, give a video_url, or set up a bucket "
            "(RUNCOMFY_KLING_S3_BUCKET) or a public address (RUNCOMFY_KLING_PUBLIC_ORIGIN)."
        )
    return min(way.still_bytes, (way.total_bytes - taken) // max(stills, 1))


@functools.lru_cache(maxsize=4)
def _bucket(name: str, endpoint_url: str, prefix: str, seconds: float) -> Bucket:
    """One client per bucket: making one takes longer than an upload."""
    return Bucket(name, endpoint_url, prefix, seconds)


def _unreachable(url: str, local: bool) -> str:
    """Why RunComfy could not read from this address, or "". local: the API itself is on this machine."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.username or parts.password or parts.query:
        return "the address must hold no credentials and no query"
    if host in LOOPBACK:
        return "" if local else f"{host} means this machine alone"
    if parts.scheme != "https":
        return "the address must begin with https"
    try:
        private = not ipaddress.ip_address(host).is_global
    except ValueError:
        private = False
    return f"{host} belongs to a private network" if private else ""
