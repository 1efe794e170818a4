"""Kling 3.0 image to video."""

from __future__ import annotations

from typing import Any

from . import inputs
from .inputs import known, refusal
from .kling.request import (
    UNKNOWN,
    Element,
    Request,
    build,
    check_end_image,
    check_prompt,
    check_request_id,
    check_start,
    check_tier,
)
from .kling.storyboard import Storyboard
from .media.still import still
from .media.types import Link
from .outputs import BringsClip, generated


class ImageToVideo(BringsClip):
    DESCRIPTION = (
        "Makes a video that begins with your still, with Kling 3.0 on RunComfy, saves it as MP4 and plays it here. "
        "Takes a storyboard, elements and, with tier pro or 4k, an end still. Each new combination of inputs is paid "
        "once; running it again brings the same clip. rehearsal is free."
    )
    SEARCH_ALIASES = (
        "kling",
        "kling 3.0",
        "runcomfy",
        "image to video",
        "i2v",
        "start frame",
        "end frame",
        "animate",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return inputs.image_to_video()

    @classmethod
    def VALIDATE_INPUTS(
        cls,
        prompt: Any = UNKNOWN,
        tier: Any = UNKNOWN,
        start_image: Any = False,
        end_image: Any = False,
        storyboard: Any = (),
        start_image_url: Any = "",
        request_id: Any = "",
    ) -> bool | str:
        return refusal(
            lambda: check_tier(known(tier)),
            lambda: check_prompt(known(prompt), known(storyboard)),
            lambda: check_start(known(start_image), known(start_image_url)),
            lambda: check_end_image(known(tier), known(end_image)),
            lambda: check_request_id(known(request_id)),
        )

    async def run(
        self,
        prompt: str,
        tier: str,
        duration: int,
        generate_audio: bool,
        cfg_scale: float,
        start_image: Any = None,
        end_image: Any = None,
        elements: tuple[Element, ...] = (),
        negative_prompt: str = "",
        storyboard: Storyboard | None = None,
        start_image_url: str = "",
        variation: int = 0,
        rehearsal: bool = False,
        filename_prefix: str = inputs.DEFAULT_PREFIX,
        request_id: str = "",
        **hidden: Any,
    ) -> dict[str, Any]:
        def make_request() -> Request:
            check_tier(tier)
            check_start(start_image is not None, start_image_url)
            check_end_image(tier, end_image is not None)
            fields = {
                "prompt": prompt,
                "start_image_url": Link(start_image_url.strip(), "start_image_url")
                if start_image is None
                else still(start_image, "start_image"),
                "end_image_url": None if end_image is None else still(end_image, "end_image"),
                "duration": duration,
                "generate_audio": generate_audio,
                "elements": elements,
                "multi_prompt": storyboard,
                "negative_prompt": negative_prompt,
                "cfg_scale": cfg_scale,
            }
            return build("image-to-video", tier, fields)

        return await generated(
            make_request,
            variation=variation,
            rehearsal=rehearsal,
            filename_prefix=filename_prefix,
            request_id=request_id,
            hidden=hidden,
        )
