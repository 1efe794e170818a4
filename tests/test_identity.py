"""What a generation is, held still for ever: a change here makes people pay again for what they have."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from runcomfy_kling.nodes.identity import fingerprint
from runcomfy_kling.nodes.kling.request import Element, Request, build
from runcomfy_kling.nodes.kling.storyboard import Shot
from runcomfy_kling.nodes.media.types import Clip, Link, Still

RAMP = Still(np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3), "start_image")


def text(**fields: Any) -> Request:
    return build("text-to-video", "pro", {"prompt": "A river at dawn"} | fields)


def image(**fields: Any) -> Request:
    return build("image-to-video", "pro", {"prompt": "A river at dawn", "start_image_url": RAMP} | fields)


FULL = image(
    end_image_url=RAMP,
    elements=(Element(RAMP, (RAMP,), Clip(b"source", "video")), Element(video=Link("https://a.b/c.mp4", "video_url"))),
    multi_prompt=(Shot("One", 4), Shot("Zwei — 二", 5)),
    negative_prompt="rain",
)
GOLDEN = [
    (text(), 0, "9a02629359a95db3c0175e09a3cc8fa40eb649fdd8c3fde8b1774f8cde8bec40"),
    (text(), 1, "f9affe984085775e5e53834d94694b00cbd26f7aa78540527c7eb618acc47178"),
    (
        text(duration=15, aspect_ratio="9:16", cfg_scale=0.25, sound=False, negative_prompt="fog"),
        0,
        "febde6f47c7cabd3ffef488503c4c2cd81bc70968e13380758e21bcac399280b",
    ),
    (
        build("text-to-video", "standard", {"prompt": "x", "shot_type": "intelligent"}),
        2147483647,
        "284dc2411de383535f4465e773312eefa998bf84bde771390078a6a749de9b9a",
    ),
    (image(), 0, "cfe345dfb79a264311cb39dc93170ea4c5321dfd4670b2064d688c85744ce885"),
    (FULL, 3, "c75e406deabc1786511e7769af24a7b890fce127645ce95c42477c22e5dbaf07"),
]


@pytest.mark.parametrize(("request_", "variation", "golden"), GOLDEN)
def test_golden_vectors(request_: Request, variation: int, golden: str) -> None:
    assert fingerprint(request_, variation) == golden


def test_the_plainest_vector_by_hand() -> None:
    written = (
        '{"body":{"aspect_ratio":"16:9","cfg_scale":0.5,"duration":5,"prompt":"A river at dawn",'
        '"shot_type":"customize","sound":true},"model":"kling/kling-3.0/pro/text-to-video","variation":0}'
    )
    assert fingerprint(text(), 0) == hashlib.sha256(written.encode()).hexdigest()


def test_everything_that_is_part_of_it_changes_it() -> None:
    turned = Still(np.ascontiguousarray(RAMP.pixels.reshape(3, 2, 3)), "start_image")
    brighter = Still(RAMP.pixels + np.uint8(1), "start_image")
    others = [
        (text(), 0),
        (text(), 1),
        (text(prompt="A river at dusk"), 0),
        (text(cfg_scale=0.51), 0),
        (text(sound=False), 0),
        (build("text-to-video", "4k", {"prompt": "A river at dawn"}), 0),
        (image(), 0),
        (image(start_image_url=turned), 0),
        (image(start_image_url=brighter), 0),
        (image(start_image_url=Link("https://a.b/c.png", "start_image_url")), 0),
        (image(elements=(Element(video=Clip(b"one", "video")),)), 0),
        (image(elements=(Element(video=Clip(b"two", "video")),)), 0),
        (image(elements=(Element(frontal=RAMP),)), 0),
        (image(elements=(Element(references=(RAMP,)),)), 0),
        (image(multi_prompt=(Shot("a", 5), Shot("b", 4))), 0),
        (image(multi_prompt=(Shot("a", 4), Shot("b", 5))), 0),
    ]
    assert len({fingerprint(request, variation) for request, variation in others}) == len(others)


def test_what_is_not_part_of_it(tmp_path: Path) -> None:
    file = tmp_path / "clip.mp4"
    file.write_bytes(b"source")
    same_pixels = Still(RAMP.pixels.copy(), "another name")
    assert fingerprint(image(), 0) == fingerprint(image(start_image_url=same_pixels), 0)
    assert fingerprint(image(elements=(Element(video=Clip(b"source", "video")),)), 0) == fingerprint(
        image(elements=(Element(video=Clip(file, "element")),)), 0
    )
    assert fingerprint(text(), 0) == fingerprint(text(negative_prompt=" ", multi_prompt=None, duration=5.0), 0)
