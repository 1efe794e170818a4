"""A request: the body that is sent, for each endpoint, and what is refused before anything is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from runcomfy_kling.nodes.errors import InputError
from runcomfy_kling.nodes.kling import request as kling
from runcomfy_kling.nodes.kling.endpoints import ENDPOINTS, TIERS
from runcomfy_kling.nodes.kling.request import UNKNOWN, Element, build
from runcomfy_kling.nodes.kling.storyboard import Shot
from runcomfy_kling.nodes.media.types import Clip, Link, Still

STILL = Still(np.zeros((4, 4, 3), np.uint8), "start_image")
SHOTS = (Shot("one", 4), Shot("two", 3))


def image_body(**fields: Any) -> dict[str, Any]:
    return build("image-to-video", "pro", {"prompt": "x", "start_image_url": STILL} | fields).body


def test_six_endpoints() -> None:
    assert {endpoint.model_id for endpoint in ENDPOINTS.values()} == {
        f"kling/kling-3.0/{tier}/{task}" for tier in TIERS for task in ("text-to-video", "image-to-video")
    }


@pytest.mark.parametrize("tier", TIERS)
def test_every_default_of_text_to_video_is_sent(tier: str) -> None:
    request = build("text-to-video", tier, {"prompt": " a river ", "negative_prompt": "  ", "multi_prompt": ()})
    assert request.body == {
        "prompt": "a river",
        "duration": 5,
        "aspect_ratio": "16:9",
        "cfg_scale": 0.5,
        "sound": True,
        "shot_type": "customize",
    }
    assert (request.seconds, request.audio) == (5, True)


@pytest.mark.parametrize("tier", TIERS)
def test_every_default_of_image_to_video_is_sent(tier: str) -> None:
    request = build("image-to-video", tier, {"prompt": "x", "start_image_url": STILL})
    assert request.body == {
        "prompt": "x",
        "start_image_url": STILL,
        "duration": 10,
        "generate_audio": True,
        "shot_type": "customize",
        "cfg_scale": 0.5,
    }


def test_everything_at_once() -> None:
    clip, link = Clip(b"mp4", "video"), Link("https://example.com/a.mp4", "video_url")
    body = image_body(
        prompt="",
        end_image_url=STILL,
        duration=9,
        generate_audio=False,
        elements=(Element(STILL, (STILL, STILL), clip), Element(video=link)),
        multi_prompt=SHOTS,
        negative_prompt="rain",
        cfg_scale=1,
    )
    assert body == {
        "prompt": "one\ntwo",
        "start_image_url": STILL,
        "end_image_url": STILL,
        "duration": 7,
        "generate_audio": False,
        "elements": [
            {"frontal_image_url": STILL, "reference_image_urls": [STILL, STILL], "video_url": clip},
            {"video_url": link},
        ],
        "multi_prompt": [{"prompt": "one", "duration": 4}, {"prompt": "two", "duration": 3}],
        "shot_type": "customize",
        "negative_prompt": "rain",
        "cfg_scale": 1.0,
    }


def test_a_storyboard_leaves_a_written_prompt_alone() -> None:
    assert image_body(prompt="mine", multi_prompt=SHOTS)["prompt"] == "mine"


def test_intelligent_is_for_standard() -> None:
    assert build("text-to-video", "standard", {"prompt": "x", "shot_type": "intelligent"}).body["shot_type"] == (
        "intelligent"
    )


@pytest.mark.parametrize(
    ("task", "tier", "fields", "words"),
    [
        ("text-to-video", "pro", {"prompt": " \n"}, ["prompt is empty", "storyboard"]),
        ("text-to-video", "8k", {"prompt": "x"}, ["tier", "standard, pro, 4k"]),
        ("text-to-video", "pro", {"prompt": "x", "duration": 2}, ["duration is 2", "3 to 15"]),
        ("text-to-video", "pro", {"prompt": "x", "duration": 16}, ["duration is 16", "3 to 15"]),
        ("text-to-video", "pro", {"prompt": "x", "duration": 4.5}, ["duration is 4.5", "whole number"]),
        ("text-to-video", "pro", {"prompt": "x", "duration": "long"}, ["duration is 'long'", "3 to 15"]),
        ("text-to-video", "pro", {"prompt": "x", "cfg_scale": 1.5}, ["cfg_scale is 1.5", "0 to 1"]),
        ("text-to-video", "pro", {"prompt": "x", "cfg_scale": math.nan}, ["cfg_scale is nan", "0 to 1"]),
        ("text-to-video", "pro", {"prompt": "x", "aspect_ratio": "4:3"}, ["aspect_ratio", "16:9 or 9:16 or 1:1"]),
        ("text-to-video", "pro", {"prompt": "x", "shot_type": "intelligent"}, ["intelligent", "tier standard"]),
        ("text-to-video", "4k", {"prompt": "x", "shot_type": "intelligent"}, ["intelligent", "tier standard"]),
        ("text-to-video", "pro", {"multi_prompt": (Shot("a", 8), Shot("b", 8))}, ["16 s", "3 to 15 s"]),
        ("image-to-video", "standard", {"prompt": "x"}, ["start_image is missing"]),
        (
            "image-to-video",
            "standard",
            {"prompt": "x", "start_image_url": STILL, "end_image_url": STILL},
            ["end_image", "tier standard", "pro or 4k"],
        ),
        (
            "image-to-video",
            "pro",
            {"prompt": "x", "start_image_url": STILL, "elements": (Element(STILL),) * 4},
            ["elements", "4", "3 at most"],
        ),
    ],
)
def test_what_is_refused(task: Any, tier: str, fields: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(InputError) as refused:
        build(task, tier, fields)
    for word in words:
        assert word in str(refused.value)


@pytest.mark.parametrize(
    ("image", "url", "words"),
    [
        (False, "", "start_image is missing"),
        (True, "https://example.com/a.png", "both set"),
        (UNKNOWN, "https://example.com/a.png", "both set"),
        (False, "http://example.com/a.png", "not an https address"),
        (False, "https://", "not an https address"),
        (False, "https://exa mple.com/a.png", "not an https address"),
        (False, "data:image/png;base64,AAAA", "not an https address"),
        (False, "https://[half", "not an https address"),
    ],
)
def test_exactly_one_start(image: Any, url: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        kling.check_start(image, url)


@pytest.mark.parametrize(("image", "url"), [(True, ""), (UNKNOWN, " "), (False, "https://a.b/c.png"), (False, UNKNOWN)])
def test_a_start_that_may_be_fine(image: Any, url: Any) -> None:
    kling.check_start(image, url)


@pytest.mark.parametrize("request_id", ["../status", "a b", "ä", "a/b", "?", "x" * 129, "-a"])
def test_odd_request_ids(request_id: str) -> None:
    with pytest.raises(InputError, match="request_id"):
        kling.check_request_id(request_id)


def test_a_request_id_is_trimmed() -> None:
    assert kling.check_request_id(" 7d1c-A_9\n") == "7d1c-A_9"


@pytest.mark.parametrize("variation", [-1, 1 << 31, 0.5, "many", math.inf, None])
def test_odd_variations(variation: Any) -> None:
    with pytest.raises(InputError, match="variation"):
        kling.check_variation(variation)
