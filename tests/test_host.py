"""The door: which way is chosen, what inline carries, and that each medium goes out once."""

from __future__ import annotations

import base64
import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from films import film
from pictures import decoded, noise, photograph
from runcomfy_kling.nodes.errors import HostingError, InputError
from runcomfy_kling.nodes.media.host import Inline, choose, host_all, needs_hosting
from runcomfy_kling.nodes.media.served import Store
from runcomfy_kling.nodes.media.types import Clip, Link, Still
from runcomfy_kling.nodes.media.way import Payload, Way
from runcomfy_kling.nodes.runcomfy.client import to_json
from runcomfy_kling.nodes.settings import Settings

MIB = 1 << 20


class Shelf(Way):
    """Keeps what it is given, and lets the first ones go only once `expected` have come."""

    def __init__(self, expected: int = 1) -> None:
        self.payloads: list[Payload] = []
        self._lock = threading.Lock()
        self._barrier = threading.Barrier(expected)

    def put(self, payload: Payload) -> str:
        self._barrier.wait(30)
        with self._lock:
            self.payloads.append(payload)
            return f"https://shelf.test/{len(self.payloads)}-{payload.name}.{payload.suffix}"


def read(uri: bytes) -> tuple[str, bytes]:
    head, data = uri.split(b";base64,")
    return head.decode().removeprefix("data:"), base64.b64decode(data, validate=True)


@pytest.fixture
def still() -> Still:
    return Still(photograph("astronaut", 640, 480), "start_image")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "media")


def test_a_body_goes_out_inline_with_everything_else_untouched(still: Still, tmp_path: Path) -> None:
    path = film(tmp_path / "clip.mp4", width=320, height=320, frames=3)
    body = {
        "prompt": "a walk",
        "duration": 5,
        "cfg_scale": 0.5,
        "generate_audio": True,
        "start_image_url": still,
        "elements": [{"video_url": Clip(path, "video"), "frontal_image_url": Link("https://a.test/b.png", "url")}],
        "multi_prompt": [{"prompt": "a", "duration": 5}],
    }
    hosted, notes = host_all(body, Inline())
    assert notes == []
    assert read(hosted["start_image_url"])[0] == "image/png"
    assert np.array_equal(decoded(read(hosted["start_image_url"])[1]), still.pixels)
    assert read(hosted["elements"][0]["video_url"]) == ("video/mp4", path.read_bytes())
    assert hosted["elements"][0]["frontal_image_url"] == "https://a.test/b.png"
    media = {"start_image_url", "elements"}
    assert {k: v for k, v in hosted.items() if k not in media} == {k: v for k, v in body.items() if k not in media}
    assert body["start_image_url"] is still
    assert json.loads(to_json(hosted))["start_image_url"].encode() == hosted["start_image_url"]


def test_media_go_out_side_by_side_and_each_once(still: Still, tmp_path: Path) -> None:
    other = Still(photograph("chelsea", 1920, 1080), "end_image")
    clip = Clip(film(tmp_path / "clip.mp4", width=320, height=320, frames=3), "video")
    shelf = Shelf(expected=3)
    body = {"a": still, "b": [still, {"c": other}], "d": still, "e": clip, "f": clip}
    hosted, _ = host_all(body, shelf)
    assert sorted(payload.content_type for payload in shelf.payloads) == ["image/jpeg", "image/png", "video/mp4"]
    assert hosted["a"] == hosted["b"][0] == hosted["d"]
    assert hosted["e"] == hosted["f"]
    assert len({hosted["a"], hosted["b"][1]["c"], hosted["e"]}) == 3


def test_a_clip_that_is_an_mp4_is_not_read_into_memory(tmp_path: Path) -> None:
    path = film(tmp_path / "clip.mp4", width=320, height=320, frames=3)
    shelf = Shelf()
    host_all({"video_url": Clip(path, "video")}, shelf)
    assert shelf.payloads[0].data == path


def test_a_failed_upload_is_reported_only_when_all_have_ended(still: Still) -> None:
    class Half(Shelf):
        def put(self, payload: Payload) -> str:
            if payload.name == "start_image":
                self._barrier.wait(30)
                raise HostingError("start_image could not be hosted.")
            return super().put(payload)

    way = Half(expected=2)
    with pytest.raises(HostingError, match="start_image could not be hosted"):
        host_all([still, Still(still.pixels, "end_image")], way)
    assert [payload.name for payload in way.payloads] == ["end_image"]


def test_a_request_full_of_references_stays_under_64_mib() -> None:
    pixels = noise(2600, 1500)
    references = [Still(pixels, f"reference {number}") for number in range(14)]
    body = {"elements": [{"reference_image_urls": references}], "start_image_url": references[0]}
    hosted, _ = host_all(body, Inline())
    assert len(to_json(hosted)) < 64 * MIB
    sizes = [len(read(uri)[1]) for uri in hosted["elements"][0]["reference_image_urls"]]
    assert min(sizes) > 2 * MIB


def test_scaling_is_noted_by_the_name_of_the_still() -> None:
    hosted, notes = host_all({"end_image_url": Still(noise(7680, 4320), "end_image")}, Inline())
    assert len(read(hosted["end_image_url"])[1]) <= 6 * MIB
    assert len(notes) == 1
    assert "end_image was scaled from 7680×4320" in notes[0]


def test_a_still_that_kling_may_not_like_goes_out_with_a_warning() -> None:
    small = Still(noise(900, 299), "end_image")
    hosted, notes = host_all({"start_image_url": small, "end_image_url": small}, Inline())
    assert np.array_equal(decoded(read(hosted["end_image_url"])[1]), small.pixels)
    assert [note.split(":")[0] for note in notes] == ["end_image is 900×299"] * 2


def padded(path: Path, size: int) -> Path:
    """A film made as long as `size` bytes by a box that players skip; the file is sparse."""
    film(path, width=320, height=320, frames=3)
    free = size - path.stat().st_size
    with path.open("ab") as file:
        file.write(free.to_bytes(4, "big") + b"free")
        file.truncate(size)
    return path


def test_a_video_that_no_request_can_carry_is_refused_with_the_numbers(still: Still, tmp_path: Path) -> None:
    body = {"start_image_url": still, "video_url": Clip(padded(tmp_path / "a.mp4", 60 * MIB), "video")}
    with pytest.raises(HostingError, match=r"60 MiB, and a request can carry 47 MiB .*RUNCOMFY_KLING_S3_BUCKET"):
        host_all(body, Inline())


def test_a_video_beyond_the_recommendation_is_hosted_with_a_note(tmp_path: Path) -> None:
    shelf = Shelf()
    _, notes = host_all({"video_url": Clip(padded(tmp_path / "a.mp4", 120_000_000), "video")}, shelf)
    assert notes == ["video has 120 MB; RunComfy recommends videos of at most 100 MB."]
    assert shelf.payloads[0].size == 120_000_000


def test_a_clip_that_is_no_video_is_refused_before_anything_is_put(still: Still) -> None:
    shelf = Shelf()
    with pytest.raises(InputError, match="video cannot be read as a video"):
        host_all({"a": still, "b": Clip(b"no film", "video")}, shelf)
    assert shelf.payloads == []


@pytest.mark.parametrize("hosting", ["auto", "inline"])
def test_without_anything_configured_media_go_inline_in_silence(store: Store, hosting: str) -> None:
    way = choose(Settings(hosting=hosting), store, "job", free=False)
    assert isinstance(way, Inline)
    assert way.note == ""


def test_a_rehearsal_is_always_inline(store: Store) -> None:
    settings = Settings(hosting="s3", s3_bucket="stills", public_origin="https://comfy.test")
    assert isinstance(choose(settings, store, "job", free=True), Inline)


@pytest.mark.parametrize(
    ("hosting", "name"), [("s3", "RUNCOMFY_KLING_S3_BUCKET"), ("comfyui", "RUNCOMFY_KLING_PUBLIC_ORIGIN")]
)
def test_a_way_that_is_asked_for_but_not_set_up_names_what_is_missing(store: Store, hosting: str, name: str) -> None:
    with pytest.raises(HostingError, match=name):
        choose(Settings(hosting=hosting), store, "job", free=False)


@pytest.mark.parametrize(
    ("origin", "words"),
    [
        ("http://127.0.0.1:8188", "127.0.0.1 means this machine alone"),
        ("http://localhost:8188", "localhost means this machine alone"),
        ("http://comfy.test", "must begin with https"),
        ("https://192.168.1.5:8188", "192.168.1.5 belongs to a private network"),
        ("https://10.0.0.1", "10.0.0.1 belongs to a private network"),
        ("https://[fd00::1]", "fd00::1 belongs to a private network"),
        ("https://me:hush@comfy.test", "must hold no credentials"),
    ],
)
def test_an_address_that_runcomfy_cannot_reach(store: Store, origin: str, words: str) -> None:
    way = choose(Settings(public_origin=origin), store, "job", free=False)
    assert isinstance(way, Inline)
    assert words in way.note
    assert "hush" not in way.note
    _, notes = host_all({}, way)
    assert notes == [way.note]
    with pytest.raises(HostingError, match=words) as raised:
        choose(Settings(hosting="comfyui", public_origin=origin), store, "job", free=False)
    assert "hush" not in str(raised.value)


def test_a_body_without_media_comes_back_as_it_is() -> None:
    body: dict[str, Any] = {"prompt": "a walk", "multi_prompt": [], "shot_type": None}
    assert host_all(body, Shelf()) == (body, [])


def test_only_stills_and_clips_need_a_place(still: Still) -> None:
    links = {
        "start_image_url": Link("https://a.test/b.png", "start_image_url"),
        "elements": [{"video_url": Link("", "")}],
    }
    assert not needs_hosting({"prompt": "a walk", **links})
    assert needs_hosting({**links, "elements": [{"reference_image_urls": [still]}]})
    assert needs_hosting({"elements": [{"video_url": Clip(b"", "video")}]})
