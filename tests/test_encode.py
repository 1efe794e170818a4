"""Still -> bytes: lossless when small, visually lossless when large, always under its limit."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import numpy as np
import pytest
from pictures import NAMES, SIZES, decoded, noise, photograph, psnr
from PIL import Image
from runcomfy_kling.nodes.errors import HostingError
from runcomfy_kling.nodes.media.encode import LOSSLESS_PIXELS, encode
from runcomfy_kling.nodes.media.types import Still

MIB = 1 << 20


def still(pixels: np.ndarray) -> Still:
    return Still(pixels, "start_image")


@pytest.mark.parametrize("size", SIZES)
def test_photographs_by_size(size: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Prints the table: what each photograph becomes when it is hosted, and when it goes inline."""
    rows = []
    for name in NAMES[: 2 if size == "8K" else None]:
        for grain in (0, 4):
            pixels = photograph(name, *SIZES[size], grain)
            hosted, inline = encode(still(pixels), None), encode(still(pixels), 6 * MIB)
            quality = psnr(pixels, hosted.data)
            assert quality >= 42
            assert (quality == float("inf")) == (size == "720p")
            assert len(inline.data) <= 6 * MIB
            assert (inline.width, inline.height, inline.note) == (*SIZES[size], None)
            worst = psnr(pixels, inline.data)
            assert worst >= 30
            rows.append(
                f"{size:>6} {name:<10} grain {grain}   "
                f"hosted {hosted.content_type[6:]:<4} {len(hosted.data) / MIB:6.2f} MiB {quality:5.1f} dB   "
                f"inline {len(inline.data) / MIB:5.2f} MiB {worst:5.1f} dB"
            )
    with capsys.disabled():
        print("", *rows, sep="\n")


def test_even_noise_comes_back_as_it_was_when_hosted() -> None:
    pixels = noise(1920, 1080)
    assert psnr(pixels, encode(still(pixels), None).data) >= 42


def test_noise_as_large_as_4k_keeps_its_size_inline() -> None:
    made = encode(still(noise(3840, 2160)), 6 * MIB)
    assert len(made.data) <= 6 * MIB
    assert decoded(made.data).shape == (2160, 3840, 3)
    assert made.note is None


def test_noise_as_large_as_8k_still_goes_out_and_says_that_it_was_scaled() -> None:
    made = encode(still(noise(7680, 4320)), 6 * MIB)
    assert len(made.data) <= 6 * MIB
    assert decoded(made.data).shape == (made.height, made.width, 3)
    assert 3840 < made.width < 7680
    assert made.width / made.height == pytest.approx(16 / 9, rel=0.001)
    assert made.note is not None
    assert f"start_image was scaled from 7680×4320 to {made.width}×{made.height}" in made.note


@pytest.mark.parametrize("limit", [2 * MIB, 300_000, 65_536, 5_000])
def test_any_limit_is_kept(limit: int) -> None:
    for pixels in (photograph("coffee", 1920, 1080, 4), noise(1024, 1024), photograph("rocket", 300, 1500)):
        made = encode(still(pixels), limit)
        assert len(made.data) <= limit
        assert decoded(made.data).shape == (made.height, made.width, 3)
        assert (made.note is None) == ((made.height, made.width) == pixels.shape[:2])


def test_quality_goes_before_size() -> None:
    pixels = photograph("astronaut", 3840, 2160, 4)
    whole, tighter = encode(still(pixels), 6 * MIB), encode(still(pixels), 3 * MIB)
    assert (tighter.width, tighter.height) == (3840, 2160)
    assert psnr(pixels, whole.data) > psnr(pixels, tighter.data)
    assert len(whole.data) > 0.75 * 6 * MIB


def test_a_limit_below_any_picture_is_refused() -> None:
    with pytest.raises(HostingError, match=r"start_image cannot be made to fit into 100 bytes"):
        encode(still(noise(320, 320)), 100)


def test_without_room_for_temporary_files_nothing_is_submitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.raises(HostingError, match=r"temporary files cannot be written .* Nothing was submitted"):
        encode(still(noise(64, 64)), None)


def test_small_stills_are_lossless_and_the_border_is_a_number_of_pixels() -> None:
    small, large = noise(1024, LOSSLESS_PIXELS // 1024), noise(1024, LOSSLESS_PIXELS // 1024 + 1)
    assert encode(still(small), None).content_type == encode(still(small), 6 * MIB).content_type == "image/png"
    assert np.array_equal(decoded(encode(still(small), None).data), small)
    assert encode(still(large), None).content_type == "image/jpeg"


def test_colour_is_not_subsampled_and_nothing_is_said_about_the_maker() -> None:
    checks = np.zeros((1200, 1200, 3), np.uint8)
    checks[::2, ::2] = checks[1::2, 1::2] = (255, 0, 0)
    checks[1::2, ::2] = checks[::2, 1::2] = (0, 0, 255)
    assert psnr(checks, encode(still(checks), None).data) >= 42
    for pixels in (checks, noise(64, 64)):
        picture = Image.open(io.BytesIO(encode(still(pixels), None).data))
        assert not picture.getexif()
        assert set(picture.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}


def test_one_pixel() -> None:
    pixels = np.full((1, 1, 3), 200, np.uint8)
    assert np.array_equal(decoded(encode(still(pixels), None).data), pixels)
