"""Real video files: whole or not, the true last frame, the workflow inside, MP4 for elements."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from films import BT601, BT709, UNSPECIFIED, film, frame
from runcomfy_kling.nodes.errors import DownloadError, InputError, SaveError
from runcomfy_kling.nodes.media.types import Clip
from runcomfy_kling.nodes.media.video import embed, last_frame, mp4_of, probe


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One second of 720p with sound."""
    return film(tmp_path_factory.mktemp("films") / "clip.mp4")


def levels_off(path: Path, expected: np.ndarray) -> float:
    """How far the last frame is from `expected`, in levels of 255, on average."""
    return float(np.abs(last_frame(path)[0] - expected).mean() * 255)


def heard_and_seen(path: Path) -> dict[str, list[tuple[Any, bytes]]]:
    """Every decoded frame of every stream with its time in seconds."""
    with av.open(str(path)) as container:
        found: dict[str, list[tuple[Any, bytes]]] = {}
        for packet in container.demux():
            for one in packet.decode():
                key = f"{packet.stream.type} {packet.stream.index}"
                found.setdefault(key, []).append((one.pts * one.time_base, one.to_ndarray().tobytes()))
        return found


def test_what_a_clip_holds(clip: Path) -> None:
    info = probe(clip)
    assert (info.width, info.height, info.frames, info.fps) == (1280, 720, 24, 24.0)
    assert info.seconds == pytest.approx(1, abs=0.05)
    assert (info.has_audio, info.codec) == (True, "h264")


def test_a_silent_clip_in_fragments(tmp_path: Path) -> None:
    info = probe(film(tmp_path / "clip.mp4", sound=None, fragmented=True, key_frame_every=5))
    assert (info.frames, info.has_audio) == (24, False)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.9, 0.999999])
@pytest.mark.parametrize("index_first", [True, False])
def test_a_part_of_a_clip_is_not_a_clip(clip: Path, tmp_path: Path, share: float, index_first: bool) -> None:
    if index_first:
        embed(clip, tmp_path / "whole.mp4", {})
        clip = tmp_path / "whole.mp4"
    data = clip.read_bytes()
    part = tmp_path / "part.mp4"
    part.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DownloadError, match=r"^part\.mp4 is not a whole, playable video \(.+\)\.$"):
        probe(part)


@pytest.mark.parametrize("data", [b"<html><body>Sign in</body></html>", b'{"error": 1}', bytes(5000)])
def test_something_else_is_not_a_clip(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(data)
    for ask in (probe, last_frame):
        with pytest.raises(DownloadError, match=r"clip\.mp4 is not a whole, playable video"):
            ask(path)


def test_sound_alone_is_not_a_clip(tmp_path: Path, clip: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(clip)) as source, av.open(str(path), "w") as output:
        copy = output.add_stream_from_template(source.streams.audio[0], opaque=True)
        for packet in source.demux(audio=0):
            if packet.size:
                packet.stream = copy
                output.mux(packet)
    with pytest.raises(DownloadError, match="no video stream"):
        probe(path)


@pytest.mark.parametrize("frames", [1, 2, 23, 48])
@pytest.mark.parametrize("key_frame_every", [1, 7, 250])
def test_the_last_frame_is_the_one_shown_last(tmp_path: Path, frames: int, key_frame_every: int) -> None:
    path = film(
        tmp_path / "clip.mp4", width=640, height=360, frames=frames, key_frame_every=key_frame_every, sound=None
    )
    shown = frame(frames - 1, 640, 360)
    neighbours = [frame(number, 640, 360) for number in (frames - 2, frames)]
    assert levels_off(path, shown) < min(2, *(levels_off(path, other) for other in neighbours))


@pytest.mark.parametrize("shown", range(17, 24))
def test_what_an_edit_list_cuts_off_is_not_shown_last(tmp_path: Path, shown: int) -> None:
    path = film(tmp_path / "clip.mp4", width=640, height=360, frames=24, sound=None)
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 4
    assert struct.unpack(">II", data[at : at + 8]) == (0, 1)  # version and flags, number of edits
    data[at + 8 : at + 12] = struct.pack(">I", 1000 * shown // 24)  # the edit's duration, in milliseconds
    path.write_bytes(data)
    with av.open(str(path)) as container:
        last = max(round(one.time * 24) for one in container.decode(video=0))
    assert last < 23
    assert levels_off(path, frame(last, 640, 360)) < min(2, levels_off(path, frame(last + 1, 640, 360)))


@pytest.mark.parametrize("full", [False, True], ids=["limited", "full"])
@pytest.mark.parametrize(
    ("matrix", "height"),
    [(BT709, 720), (BT601, 720), (UNSPECIFIED, 720), (UNSPECIFIED, 480)],
    ids=["bt709", "bt601", "hd", "sd"],
)
def test_colours_are_what_was_filmed(tmp_path: Path, matrix: int, height: int, full: bool) -> None:
    path = film(
        tmp_path / "clip.mp4", width=height * 16 // 9 // 2 * 2, height=height, frames=3, matrix=matrix, full=full
    )
    pixels = last_frame(path)
    assert pixels.dtype == np.float32
    assert pixels.flags.c_contiguous
    error = (pixels[0] - frame(2, pixels.shape[2], pixels.shape[1])) * 255
    assert np.abs(error).mean() < 1
    # No channel may drift: chained clips would carry it on.
    assert np.abs(error.mean(axis=(0, 1))).max() < 0.3


@pytest.mark.parametrize("turned", [90, 180, -90])
def test_a_turned_clip_is_seen_upright(tmp_path: Path, turned: int) -> None:
    path = film(tmp_path / "clip.mp4", width=640, height=360, frames=3, turned=turned, sound=None)
    info = probe(path)
    pixels = last_frame(path)
    assert pixels.shape == (1, info.height, info.width, 3)
    assert (info.width, info.height) == ((640, 360) if turned == 180 else (360, 640))
    assert levels_off(path, np.rot90(frame(2, 640, 360), turned // 90)) < 2


@pytest.mark.parametrize("turned", [0, 90])
def test_the_workflow_is_embedded_and_nothing_else_changes(tmp_path: Path, turned: int) -> None:
    source = film(tmp_path / "clip.mp4", width=640, height=360, turned=turned)
    workflow = {"nodes": [{"title": "Größe 크기 📷", "value": None}], "version": 0.4}
    out = tmp_path / "out" / "clip.mp4"
    out.parent.mkdir()
    embed(source, out, {"prompt": {"1": {"inputs": {}}}, "workflow": workflow, "runcomfy_request_id": "ab-12"})
    with av.open(str(out)) as container:
        assert json.loads(container.metadata["workflow"]) == workflow
        assert json.loads(container.metadata["prompt"]) == {"1": {"inputs": {}}}
        assert container.metadata["runcomfy_request_id"] == "ab-12"
    assert probe(out) == probe(source)
    before, after = heard_and_seen(source), heard_and_seen(out)
    assert len(after) == 2
    assert after == before
    data = out.read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_a_clip_that_cannot_be_written_says_where(clip: Path, tmp_path: Path) -> None:
    with pytest.raises(SaveError, match="no-such-folder"):
        embed(clip, tmp_path / "no-such-folder" / "clip.mp4", {})


def test_an_mp4_is_sent_as_it_is(clip: Path) -> None:
    data = clip.read_bytes()
    assert mp4_of(Clip(clip, "video")) == clip
    assert mp4_of(Clip(data, "video")) is data


def test_quicktime_becomes_mp4_without_losing_a_bit(tmp_path: Path) -> None:
    source = film(tmp_path / "clip.mov", width=640, height=360)
    made = mp4_of(Clip(source, "video"))
    assert isinstance(made, bytes)
    copy = tmp_path / "copy.mp4"
    copy.write_bytes(made)
    assert heard_and_seen(copy) == heard_and_seen(source)


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("clip.webm", "libvpx-vp9", "libopus"),
        ("clip.mkv", "h264", "aac"),
        ("clip.avi", "mpeg4", "libmp3lame"),
        ("silent.webm", "libvpx-vp9", None),
    ],
)
def test_any_other_video_becomes_mp4(tmp_path: Path, name: str, codec: str, sound: str | None) -> None:
    source = film(tmp_path / name, width=320, height=180, frames=12, codec=codec, sound=sound)
    copy = tmp_path / "copy.mp4"
    for clip in (Clip(source, "video"), Clip(source.read_bytes(), "video")):
        made = mp4_of(clip)
        assert isinstance(made, bytes)
        copy.write_bytes(made)
        info = probe(copy)
        assert (info.width, info.height, info.codec, info.has_audio) == (320, 180, "h264", sound is not None)
        assert info.seconds == pytest.approx(0.5, abs=0.1)
        assert levels_off(copy, last_frame(source)[0]) < 3


@pytest.mark.parametrize("data", [b"", b"no video at all", bytes(4000)])
def test_what_is_no_video_is_refused_by_the_input_it_came_from(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^video cannot be read as a video .* connect an MP4, MOV or WebM\.$"):
        mp4_of(Clip(data, "video"))
