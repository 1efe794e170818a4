"""Short films made for the tests: a wheel of colours that turns, so that every frame differs."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

BT709, BT601, UNSPECIFIED = 1, 5, 2


def frame(number: int, width: int, height: int) -> np.ndarray:
    """float64 RGB [height, width, 3] in [0, 1]: smooth, so that halved chroma costs nothing."""
    y, x = np.mgrid[0:height, 0:width]
    turn = 2 * np.pi * number / 90
    waves = [0.5 + 0.4 * np.sin(2 * np.pi * x / width + turn + phase) for phase in (0, 2, 4)]
    return np.stack([waves[0], waves[1] * (0.5 + y / height / 2), waves[2]], axis=-1)


def film(
    path: Path,
    *,
    width: int = 1280,
    height: int = 720,
    frames: int = 24,
    codec: str = "h264",
    sound: str | None = "aac",
    matrix: int = UNSPECIFIED,
    full: bool = False,
    turned: int = 0,
    key_frame_every: int = 250,
    fragmented: bool = False,
) -> Path:
    """Writes the film at 24 frames per second. matrix, full: how its colours are meant and tagged (full range or not).

    An unspecified matrix means BT.709 from 720 lines and BT.601 below. turned: degrees to turn it for display.
    """
    weights = BT601 if matrix == BT601 or (matrix == UNSPECIFIED and height < 720) else BT709
    options = {"crf": "6", "preset": "veryfast", "bf": "3", "g": str(key_frame_every)} if codec == "h264" else {}
    container_options = {"movflags": "frag_keyframe+empty_moov"} if fragmented else {}
    with av.open(str(path), "w", options=container_options) as container:
        picture = container.add_stream(codec, rate=24, options=options)
        picture.width, picture.height, picture.pix_fmt = width, height, "yuv420p"
        picture.codec_context.colorspace = matrix
        picture.codec_context.color_range = 2 if full else 0
        if turned:
            picture.set_display_rotation(turned)
        voice = container.add_stream(sound, rate=48000, layout="stereo") if sound else None
        for number in range(frames):
            image = av.VideoFrame.from_ndarray(_yuv(frame(number, width, height), weights, full), format="yuv420p")
            image.pts, image.time_base = number, Fraction(1, 24)
            image.colorspace, image.color_range = matrix, 2 if full else 0
            container.mux(picture.encode(image))
        container.mux(picture.encode(None))
        if voice:
            fifo = av.AudioFifo()
            seconds = np.arange(frames * 2000) / 48000
            wave = (0.1 * np.sin(2 * np.pi * 440 * seconds)).astype(np.float32)
            whole = av.AudioFrame.from_ndarray(np.stack([wave, wave]), format="fltp", layout="stereo")
            whole.sample_rate = 48000
            fifo.write(whole)
            resampler = av.AudioResampler(voice.codec_context.format, "stereo", 48000)
            for part in fifo.read_many(voice.codec_context.frame_size or 1024, partial=True):
                for ready in resampler.resample(part):
                    container.mux(voice.encode(ready))
            container.mux(voice.encode(None))
    return path


def _yuv(rgb: np.ndarray, matrix: int, full: bool) -> np.ndarray:
    """Planar 4:2:0 by the definition of the standards."""
    red, blue = (0.2126, 0.0722) if matrix == BT709 else (0.299, 0.114)
    luma = rgb @ [red, 1 - red - blue, blue]
    chroma = [(rgb[..., 2] - luma) / (2 - 2 * blue), (rgb[..., 0] - luma) / (2 - 2 * red)]
    height, width = luma.shape
    halves = [plane.reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3)) for plane in chroma]
    scale = (255, 255, 0) if full else (219, 224, 16)
    planes = [luma * scale[0] + scale[2], *(half * scale[1] + 128 for half in halves)]
    flat = np.concatenate([np.rint(plane).clip(0, 255).astype(np.uint8).ravel() for plane in planes])
    return flat.reshape(height * 3 // 2, width)
