"""Painted grounds for shots without a still: a graded sky over ridges, another for every prompt."""

from __future__ import annotations

import hashlib
from typing import NamedTuple

import numpy as np
from PIL import Image


class Light(NamedTuple):
    """The colours of one hour, from the zenith to the nearest ridge, as RGB hex."""

    zenith: str
    sky: str
    horizon: str
    sun: str
    ridge: str
    stars: bool = False


LIGHTS = (
    Light("#26395f", "#b9697a", "#ffb778", "#fff0d0", "#1d1a33"),  # sunset
    Light("#3f7cac", "#95c4dc", "#f4e9d6", "#ffffff", "#1c3944"),  # clear morning
    Light("#0b1030", "#1c2c5c", "#4a6496", "#f0f4ff", "#060a1a", stars=True),  # moonlit night
    Light("#54406f", "#c98aa0", "#ffd9b8", "#fff6e2", "#2b2140"),  # pink dawn
    Light("#1f4e4a", "#6ea893", "#f2dfa4", "#fffbe0", "#12302c"),  # green valley
    Light("#6b4a36", "#d08a52", "#ffd796", "#fff3d6", "#33211a"),  # desert
    Light("#41566e", "#8ea0ae", "#d8dcda", "#fbfbf5", "#232e3a"),  # overcast
    Light("#14213d", "#5b3f74", "#f2747d", "#ffe2c4", "#0d1224", stars=True),  # blue hour
)
RIDGES = 5


def scenery(content: str, shot: int, size: tuple[int, int]) -> Image.Image:
    """A ground of `size` (width, height), its own for every content and shot; the light changes at a cut."""
    seed = int.from_bytes(hashlib.sha256(content.encode()).digest()[:8], "big")
    random = np.random.default_rng((seed, shot))
    light = LIGHTS[(seed + shot) % len(LIGHTS)]
    width, height = size
    unit = min(size)
    x = np.arange(width, dtype=np.float32)
    y = np.arange(height, dtype=np.float32)[:, None]
    horizon = height * random.uniform(0.52, 0.64)

    picture = np.repeat(_gradient(y / horizon, light), width, axis=1)
    sun_x, sun_y = width * random.uniform(0.2, 0.7), horizon - unit * random.uniform(0.08, 0.34)
    if light.stars:
        _add_stars(picture, random, int(horizon), unit)
    distance = np.hypot(x - sun_x, y - sun_y)
    glow = np.exp(-distance / (unit * 0.16)) * 0.55 + np.exp(-distance / (unit * 0.6)) * 0.3
    disc = np.clip(unit * 0.048 - distance, 0, 1.5) / 1.5
    _mix(picture, _rgb(light.sun), np.maximum(glow, disc))

    haze, dark = _rgb(light.horizon), _rgb(light.ridge)
    for layer in range(RIDGES):
        nearness = layer / (RIDGES - 1)
        crest = horizon + height * (nearness**1.3 * 0.34 - 0.03)
        crest = crest - unit * (0.05 + 0.075 * nearness) * _ridge(random, x / unit, 1.4 + layer * 0.35)
        cover = np.clip(y - crest, 0, 1.5) / 1.5
        colour = haze + (dark - haze) * (0.25 + 0.75 * nearness**0.8)
        # Mist gathers at the foot of a ridge and sets it off from the next.
        foot = np.clip((y - crest) / (height * 0.22), 0, 1)[..., None] * (0.32 * (1 - nearness))
        _mix(picture, colour + (haze - colour) * foot, cover)

    # Grain hides the steps that 8 bits and H.264 would show in a slow gradient.
    picture += random.normal(0, 1.6, (height, width, 1)).astype(np.float32)
    return Image.fromarray(np.clip(picture + 0.5, 0, 255).astype(np.uint8))


def _rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)], np.float32)


def _gradient(down: np.ndarray, light: Light) -> np.ndarray:
    stops = np.stack([_rgb(light.zenith), _rgb(light.sky), _rgb(light.horizon)])
    column = np.stack([np.interp(down[:, 0], (0, 0.62, 1), channel) for channel in stops.T], -1)
    return column.astype(np.float32)[:, None, :]


def _mix(picture: np.ndarray, colour: np.ndarray, amount: np.ndarray) -> None:
    picture += (colour - picture) * amount[..., None]


def _ridge(random: np.random.Generator, x: np.ndarray, rough: float) -> np.ndarray:
    """Heights of about -1 to 1 along x: waves of ever shorter length, seen as peaks rather than swells."""
    heights = np.zeros_like(x)
    for octave in range(7):
        wave = np.sin(x * rough * 1.9**octave * random.uniform(0.8, 1.2) + random.uniform(0, 6.3))
        heights += (1 - 2 * np.abs(wave) if octave < 4 else wave) * 0.5**octave
    return heights


def _add_stars(picture: np.ndarray, random: np.random.Generator, horizon: int, unit: int) -> None:
    count = unit // 3
    rows = (random.beta(1, 1.8, count) * horizon * 0.9).astype(int)
    columns = random.integers(0, picture.shape[1], count)
    picture[rows, columns] += (255 - picture[rows, columns]) * random.beta(1, 3, (count, 1)).astype(np.float32)
