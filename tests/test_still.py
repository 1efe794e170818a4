"""IMAGE -> Still: exact, whatever kind of tensor arrives, or refused in a sentence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pictures import photograph
from runcomfy_kling.nodes.errors import InputError
from runcomfy_kling.nodes.media.still import still, stills, warnings
from runcomfy_kling.nodes.media.types import Still

FLOATS = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


def rounded(image: Any) -> np.ndarray:
    """To the nearest of 256 levels, by the definition, in double precision."""
    return np.floor(np.clip(np.asarray(image, np.float64), 0, 1) * 255 + 0.5).astype(np.uint8)


def random(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(7))


def test_a_photograph_comes_back_to_the_bit() -> None:
    pixels = photograph("astronaut", 1280, 720)
    image = torch.from_numpy(pixels.astype(np.float32) / 255)[None]
    assert np.array_equal(still(image, "start_image").pixels, pixels)


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_value_goes_to_the_nearest_level(dtype: torch.dtype, channels: int) -> None:
    image = (random(1, 301, 257, channels) * 1.2 - 0.1).to(dtype)
    exact = image[0].double().numpy().clip(0, 1)
    if channels == 4:
        exact = exact[..., :3] * exact[..., 3:]
    expected = np.broadcast_to(rounded(exact), (301, 257, 3))
    assert np.array_equal(still(image, "start_image").pixels, expected)


def test_numbers_just_beside_the_middle_of_two_levels() -> None:
    middle = ((np.arange(255) + 0.5) / 255).astype(np.float32)
    near = np.concatenate([np.nextafter(middle, np.float32(0)), middle, np.nextafter(middle, np.float32(1))])
    image = np.repeat(near.reshape(1, 1, -1, 1), 3, axis=3)
    assert np.array_equal(still(image, "start_image").pixels, rounded(image[0]))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(FLOATS),
    st.tuples(st.integers(1, 3), st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3, 4])),
    st.sampled_from(["plain", "transposed", "strided", "flipped", "expanded", "gradient"]),
    st.integers(0, 2**31),
)
def test_any_layout_of_any_type(dtype: torch.dtype, shape: tuple[int, ...], layout: str, seed: int) -> None:
    batch, height, width, channels = shape
    rand = torch.Generator().manual_seed(seed)
    image = torch.rand(shape, generator=rand).to(dtype)
    if layout == "transposed":
        image = torch.rand((batch, channels, width, height), generator=rand).to(dtype).permute(0, 3, 2, 1)
    elif layout == "strided":
        image = torch.rand((batch, height * 2, width * 3, channels), generator=rand).to(dtype)[:, ::2, ::3]
    elif layout == "flipped":
        image = image.flip(1)
    elif layout == "expanded":
        image = image[:, :1, :1].expand(shape)
    elif layout == "gradient":
        image.requires_grad_()
    before = image.detach().clone()
    made = stills(image, "reference_images")
    values = before.double().numpy()
    colour = values[..., :3] * values[..., 3:] if channels == 4 else values
    assert len(made) == batch
    for one, exact in zip(made, colour, strict=True):
        assert one.pixels.dtype == np.uint8
        assert one.pixels.flags.c_contiguous
        assert np.array_equal(one.pixels, np.broadcast_to(rounded(exact), (height, width, 3)))
    assert torch.equal(image.detach(), before)


def test_uint8_stays_as_it_is() -> None:
    pixels = photograph("chelsea", 320, 300)
    for image in (pixels[None], torch.from_numpy(pixels.copy())[None]):
        assert np.array_equal(still(image, "start_image").pixels, pixels)
    alpha = np.full((300, 320, 1), 255, np.uint8)
    alpha[:, :160] = 0
    flat = still(np.concatenate([pixels, alpha], axis=2)[None], "start_image").pixels
    assert not flat[:, :160].any()
    assert np.array_equal(flat[:, 160:], pixels[:, 160:])


def test_a_still_does_not_share_memory_with_its_input() -> None:
    image = np.zeros((1, 400, 400, 3), np.uint8)
    made = still(image, "start_image")
    image += 1
    assert not made.pixels.any()


def test_inside_inference_mode_and_out_of_it() -> None:
    with torch.inference_mode():
        image = random(1, 64, 64, 3)
        inside = still(image, "start_image")
    assert np.array_equal(still(image, "start_image").pixels, inside.pixels)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_pixels_that_are_no_numbers_are_counted(bad: float, dtype: torch.dtype) -> None:
    image = random(1, 700, 500, 3).to(dtype)
    image[0, 3, 4, 0] = image[0, 3, 4, 2] = image[0, 690, 499, 1] = bad
    with pytest.raises(InputError, match=r"end_image has 2 of 350000 pixels that are not numbers .*--fp32-vae"):
        still(image, "end_image")


def test_a_batch_is_refused_with_its_count_and_the_remedy() -> None:
    with pytest.raises(InputError, match=r"start_image takes one image but got a batch of 3: .*ImageFromBatch"):
        still(random(3, 32, 32, 3), "start_image")


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (torch.zeros(0, 64, 64, 3), "has no pixels"),
        (torch.zeros(1, 0, 64, 3), "has no pixels"),
        (torch.zeros(1, 64, 0, 3), "has no pixels"),
        (torch.zeros(64, 64, 3), r"shape \[64, 64, 3\]"),
        (torch.zeros(1, 64, 64), r"shape \[1, 64, 64\]"),
        (torch.zeros(1, 3, 64, 64), r"shape \[1, 3, 64, 64\]"),
        (torch.zeros(1, 64, 64, 2), r"shape \[1, 64, 64, 2\]"),
        (torch.zeros(1, 64, 64, 3, dtype=torch.int32), "type int32"),
        (torch.zeros(1, 64, 64, 3, dtype=torch.bool), "type bool"),
        (torch.zeros(1, 64, 64, 3, dtype=torch.complex64), "type complex64"),
        (np.zeros((1, 64, 64, 3), object), "type object"),
        (torch.zeros(1, 64, 64, 3, device="meta"), "without data"),
        (None, "NoneType"),
        ("a path", "str"),
        ([[0.0]], "list"),
    ],
    ids=str,
)
def test_anything_else_is_refused_in_a_sentence(image: Any, words: str) -> None:
    with pytest.raises(InputError, match=rf"^start_image .*{words}.*\.$"):
        still(image, "start_image")


@pytest.mark.parametrize(
    ("width", "height", "words"),
    [
        (300, 300, []),
        (750, 300, []),
        (299, 400, ["at least 300 pixels"]),
        (751, 300, ["between 1:2.5 and 2.5:1"]),
        (100, 400, ["at least 300 pixels", "between 1:2.5 and 2.5:1"]),
    ],
)
def test_what_kling_may_not_like_is_a_warning(width: int, height: int, words: list[str]) -> None:
    found = warnings(Still(np.zeros((height, width, 3), np.uint8), "start_image"))
    assert len(found) == len(words)
    for sentence, word in zip(found, words, strict=True):
        assert sentence.startswith(f"start_image is {width}×{height}")
        assert word in sentence
