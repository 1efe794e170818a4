"""Still -> the bytes of a PNG or JPEG, without metadata."""

from __future__ import annotations

import bisect
import math
import tempfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import HostingError
from .types import Still

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

# Up to a megapixel PNG is quick and small enough; above, JPEG is 20-60 times faster.
LOSSLESS_PIXELS = 1 << 20


def _even(luma: int, chroma: int) -> dict[str, Any]:
    """Every frequency in the same steps: of all tables those that keep most decibels for the bytes."""
    return {"qtables": [[luma] * 64, [chroma] * 64], "subsampling": "4:4:4"}


# How a JPEG is made, best first. With the first no picture comes back under 42 dB, pure noise included: a step of s
# is off by at most s²/12 on average. Where even 8 is too fine, what the eye hardly sees is given up first.
STEPS = [(3, 4), (3, 5), (4, 5), (4, 6), (5, 6), (5, 7), (6, 8), (7, 9), (8, 10)]
LADDER = [_even(luma, chroma) for luma, chroma in STEPS] + [
    {"quality": quality, "subsampling": "4:2:0"} for quality in (94, 93, 92, 90, 88, 86, 84, 82, 80, 77, 74, 70, 65, 60)
]

# A size is estimated from this share of the rows, and aimed this far under the limit.
SAMPLE_BANDS = 16
BAND_ROWS = 16
AIM = 0.96


@dataclass(frozen=True)
class Encoded:
    """data: the file. note: a sentence when the picture had to be scaled. width, height: as encoded."""

    data: bytes
    content_type: str
    note: str | None
    width: int
    height: int


def encode(still: Still, limit: int | None) -> Encoded:
    """The still as a file.

    limit: the most bytes it may have; met by lowering the quality first and the size in pixels last.
    None: PNG for small stills, JPEG of at least 42 dB PSNR on photographs for large ones.

    Raises HostingError if the limit is too low for any picture, or no temporary file can be written.
    """
    from PIL import Image

    height, width = still.pixels.shape[:2]
    picture = Image.fromarray(still.pixels)
    if width * height <= LOSSLESS_PIXELS and (limit is None or _png_bound(width, height) <= limit):
        return Encoded(_png(picture), "image/png", None, width, height)
    # Hardly any picture is larger as a JPEG than as raw pixels: where those fit, there is nothing to search.
    if limit is None or 3 * width * height <= limit:
        data = _jpeg(picture, LADDER[0])
        if limit is None or len(data) <= limit:
            return Encoded(data, "image/jpeg", None, width, height)
    data, size = _fit(picture, still.name, limit)
    note = None
    if size != (width, height):
        note = (
            f"{still.name} was scaled from {width}×{height} to {size[0]}×{size[1]} to fit into "
            f"{limit / 2**20:.1f} MiB: a bucket (RUNCOMFY_KLING_S3_BUCKET) or a public address "
            "(RUNCOMFY_KLING_PUBLIC_ORIGIN) would carry it whole."
        )
    return Encoded(data, "image/jpeg", note, *size)


def _fit(picture: Picture, name: str, limit: int) -> tuple[bytes, tuple[int, int]]:
    """The best JPEG of at most `limit` bytes, and its size in pixels."""
    from PIL import Image

    scaled = picture
    while True:
        sample, share = _sample(scaled)
        rungs = range(len(LADDER))
        likely = bisect.bisect_left(
            rungs, True, key=lambda rung: len(_jpeg(sample, LADDER[rung])) <= AIM * limit * share
        )
        for rung in rungs[likely:]:
            data = _jpeg(scaled, LADDER[rung])
            if len(data) <= limit:
                return data, scaled.size
        smallest = len(_jpeg(sample, LADDER[-1])) / share
        factor = min(0.9, math.sqrt(AIM * limit / smallest)) * scaled.width / picture.width
        size = (max(1, round(picture.width * factor)), max(1, round(picture.height * factor)))
        if max(size) < 16:
            raise HostingError(f"{name} cannot be made to fit into {limit} bytes: send fewer or smaller media.")
        scaled = picture.resize(size, Image.Resampling.LANCZOS)


def _sample(picture: Picture) -> tuple[Picture, float]:
    """Bands of rows spread over the picture, and the share of it that they are."""
    from PIL import Image

    if picture.height <= 2 * SAMPLE_BANDS * BAND_ROWS:
        return picture, 1.0
    sample = Image.new("RGB", (picture.width, SAMPLE_BANDS * BAND_ROWS))
    for band in range(SAMPLE_BANDS):
        top = band * (picture.height - BAND_ROWS) // (SAMPLE_BANDS - 1)
        sample.paste(picture.crop((0, top, picture.width, top + BAND_ROWS)), (0, band * BAND_ROWS))
    return sample, sample.height / picture.height


def _jpeg(picture: Picture, how: dict[str, Any]) -> bytes:
    return _saved(picture, "JPEG", **how)


def _png(picture: Picture) -> bytes:
    # After PNG's row filters run lengths are worth finding, longer matches are not: as small, a quarter faster.
    return _saved(picture, "PNG", compress_level=1, compress_type=zlib.Z_RLE)


def _saved(picture: Picture, kind: str, **options: Any) -> bytes:
    # Not into memory: only while it writes to a real file does Pillow let other threads run.
    try:
        with tempfile.TemporaryFile() as file:
            picture.save(file, kind, **options)
            file.seek(0)
            return file.read()
    except OSError as error:
        raise HostingError(
            f"A still could not be encoded, since temporary files cannot be written ({error.strerror or error}). "
            "Nothing was submitted. Free disk space, or set TMPDIR to a folder that can be written."
        ) from None


def _png_bound(width: int, height: int) -> int:
    return (3 * width + 1) * height * 1001 // 1000 + 4096
