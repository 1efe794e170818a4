"""Video files: what one holds, its last frame, the workflow inside it, and MP4 for elements."""

from __future__ import annotations

import io
import itertools
import json
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import DownloadError, InputError, SaveError
from ..threads import cores
from .types import Clip

if TYPE_CHECKING:
    from av import VideoFrame
    from av.container import InputContainer, OutputContainer
    from av.video.stream import VideoStream

# AVColorSpace numbers -> the scale filter's names.
MATRICES = {1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 9: "bt2020"}
UNSPECIFIED_MATRIX = 2
FULL_RANGE = 2

# While a container is opened FFmpeg decodes some frames to describe its streams; an MP4 says all that is needed here.
HEADERS_ALONE = {"skip_frame": "all"}
# Of frames that refer to one another few can be decoded at once; more threads find more of them, up to FFmpeg's limit.
DECODERS = min(4 * (os.cpu_count() or 1), 16)

# Codecs that players expect inside an MP4; anything else is encoded again.
MP4_CODECS = {"h264", "hevc", "av1", "aac", "mp3"}


@dataclass(frozen=True)
class VideoInfo:
    """width, height: pixels as displayed. seconds: duration. frames: count. fps: average. codec: FFmpeg's name."""

    width: int
    height: int
    seconds: float
    frames: int
    fps: float
    has_audio: bool
    codec: str


def probe(path: Path) -> VideoInfo:
    """What the video at `path` holds. Raises DownloadError unless it is whole and its first frame decodes."""
    import av

    try:
        with av.open(str(path)) as container:
            stream = _video_stream(container)
            if "mp4" in container.format.name and _ends_early(path):
                raise ValueError("it ends before its last box")
            first = next(container.decode(stream))
            fps = float(stream.average_rate or 0)
            frames = stream.frames or _count(container, stream)
            seconds = container.duration / av.time_base if container.duration else frames / fps
            sideways = _quarter_turns(first) % 2
            return VideoInfo(
                width=first.height if sideways else first.width,
                height=first.width if sideways else first.height,
                seconds=seconds,
                frames=frames,
                fps=fps,
                has_audio=bool(container.streams.audio),
                codec=stream.codec_context.name,
            )
    except (av.FFmpegError, OSError, ValueError, StopIteration, ZeroDivisionError) as error:
        raise _not_playable(path, error) from error


def last_frame(path: Path) -> np.ndarray:
    """The frame shown last, as float32 RGB in [0, 1], shape [1, H, W, 3]. Raises DownloadError."""
    import av

    try:
        with cores, av.open(str(path), stream_options=[HEADERS_ALONE]) as container:
            stream = _video_stream(container)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = DECODERS
            # Seeking past the end lands on the last key frame; a file without an index is decoded whole.
            end = (stream.start_time or 0) + (stream.duration or 0)
            if end:
                container.seek(end, stream=stream)
            packets = list(container.demux(stream))
            shown = max((p.pts for p in packets if p.pts is not None and not p.is_discard), default=None)
            last = None
            for packet in packets:
                # What is neither shown last nor referred to need not be decoded.
                wanted = packet.pts is None or packet.pts == shown
                stream.codec_context.skip_frame = "DEFAULT" if wanted else "NONREF"
                for frame in packet.decode():
                    if last is None or (frame.pts or 0) >= (last.pts or 0):
                        last = frame
            if last is None:
                raise ValueError("it has no frames")
            pixels = np.rot90(_rgb(last), _quarter_turns(last))
            return np.ascontiguousarray(pixels[None], np.float32) / np.float32(255)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise _not_playable(path, error) from error


def embed(source: Path, destination: Path, metadata: Mapping[str, object]) -> None:
    """Copies the streams of `source` into the MP4 `destination`, with `metadata` where ComfyUI looks for it.

    Strings stay as they are and everything else becomes JSON, as in ComfyUI's Save Video. Raises SaveError.
    """
    import av

    # ComfyUI reads the first 64 MiB of a dropped file only, so that the index goes to the front.
    options = {"movflags": "use_metadata_tags+faststart"}
    try:
        with (
            av.open(str(source)) as container,
            av.open(str(destination), "w", format="mp4", options=options) as output,
        ):
            output.metadata.update(container.metadata)
            for key, value in metadata.items():
                output.metadata[key] = value if isinstance(value, str) else json.dumps(value)
            _copy(container, output)
    except (av.FFmpegError, OSError, ValueError) as error:
        raise SaveError(f"The clip could not be written to {destination}: {_words(error)}.") from error


def metadata(path: Path) -> dict[str, str]:
    """What a file's container says of it, such as ComfyUI's `workflow` and `prompt`, as written by embed()."""
    import av

    with av.open(str(path)) as container:
        return dict(container.metadata)


def mp4_of(clip: Clip) -> Path | bytes:
    """The clip as MP4: its own source if it is one, else copied into an MP4 or, failing that, encoded again.

    Raises InputError if it is no video.
    """
    import av

    source = str(clip.source) if isinstance(clip.source, Path) else io.BytesIO(clip.source)
    try:
        with av.open(source) as container:
            _video_stream(container)
            if _is_mp4(container):
                return clip.source
            file = io.BytesIO()
            with av.open(file, "w", format="mp4") as output:
                if _fits_mp4(container):
                    _copy(container, output)
                else:
                    _encode(container, output)
            return file.getvalue()
    except (av.FFmpegError, OSError, ValueError) as error:
        raise InputError(
            f"{clip.name} cannot be read as a video ({_words(error)}): connect an MP4, MOV or WebM."
        ) from error


def _video_stream(container: InputContainer) -> VideoStream:
    if not container.streams.video:
        raise ValueError("it has no video stream")
    return container.streams.video[0]


def _not_playable(path: Path, reason: Exception) -> DownloadError:
    return DownloadError(f"{path.name} is not a whole, playable video ({_words(reason)}).")


def _words(reason: Exception) -> str:
    # PyAV's own text repeats the whole path.
    return getattr(reason, "strerror", None) or str(reason) or "it has no frames"


def _ends_early(path: Path) -> bool:
    """Whether the last of an MP4's top-level boxes claims more bytes than the file has."""
    length = path.stat().st_size
    position = 0
    with path.open("rb") as file:
        while position + 8 <= length:
            file.seek(position)
            header = file.read(16)
            size = struct.unpack(">I", header[:4])[0]
            if size == 1 and len(header) == 16:
                size = struct.unpack(">Q", header[8:])[0]
            if size < 8:  # 0: to the end of the file
                return False
            position += size
    return position > length


def _count(container: InputContainer, stream: VideoStream) -> int:
    container.seek(0)
    return sum(1 for packet in container.demux(stream) if packet.size)


def _quarter_turns(frame: VideoFrame) -> int:
    """Counterclockwise, from the frame's display matrix."""
    return round(frame.rotation / 90)


def _rgb(frame: VideoFrame) -> np.ndarray:
    """uint8 [H, W, 3]. Through the scale filter: PyAV's own reformat truncates, darkening every chained clip."""
    import av

    matrix = MATRICES.get(frame.colorspace, "auto")
    if frame.colorspace == UNSPECIFIED_MATRIX:
        matrix = "bt709" if frame.width >= 1280 or frame.height > 576 else "bt601"
    full = frame.color_range == FULL_RANGE or frame.format.name.startswith("yuvj")
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000))
    scale = graph.add(
        "scale",
        f"in_color_matrix={matrix}:in_range={'full' if full else 'limited'}:out_range=full"
        ":flags=bicubic+accurate_rnd+full_chroma_int",
    )
    rgb = graph.add("format", "rgb24")
    sink = graph.add("buffersink")
    source.link_to(scale)
    scale.link_to(rgb)
    rgb.link_to(sink)
    graph.configure()
    graph.push(frame)
    return graph.pull().to_ndarray()


def _is_mp4(container: InputContainer) -> bool:
    return "mp4" in container.format.name and not container.metadata.get("major_brand", "").startswith("qt")


def _fits_mp4(container: InputContainer) -> bool:
    # Other containers leave out decoding times, and an MP4 made from them would miss frames.
    streams = (*container.streams.video, *container.streams.audio)
    return "mov" in container.format.name and all(s.codec_context.name in MP4_CODECS for s in streams)


def _copy(container: InputContainer, output: OutputContainer) -> None:
    copies = {
        stream.index: output.add_stream_from_template(stream, opaque=True)
        for stream in (*container.streams.video, *container.streams.audio)
    }
    for packet in container.demux():
        if packet.stream.index in copies and packet.dts is not None:
            packet.stream = copies[packet.stream.index]
            output.mux(packet)


def _encode(container: InputContainer, output: OutputContainer) -> None:
    import av

    video = container.streams.video[0]
    picture = output.add_stream("h264", rate=video.average_rate or 30, options={"crf": "16"})
    # H.264 with halved chroma wants even sides.
    picture.width, picture.height = video.width & ~1, video.height & ~1
    picture.pix_fmt = "yuv420p"
    audio = container.streams.audio[0] if container.streams.audio else None
    sound = output.add_stream("aac", rate=audio.rate) if audio else None
    for frame in container.decode(video):
        output.mux(picture.encode(frame.reformat(picture.width, picture.height, "yuv420p")))
    output.mux(picture.encode(None))
    if audio and sound:
        container.seek(0)
        resampler = av.AudioResampler("fltp", "stereo", audio.rate, frame_size=1024)  # what AAC takes at a time
        for heard in itertools.chain(container.decode(audio), [None]):
            if heard is not None and heard.pts is not None and heard.time_base is not None:
                # In samples: AVI counts in packets, too coarse to cut AAC's frames by.
                heard.pts = round(heard.pts * heard.time_base * audio.rate)
                heard.time_base = Fraction(1, audio.rate)
            for part in resampler.resample(heard):
                output.mux(sound.encode(part))
        output.mux(sound.encode(None))
