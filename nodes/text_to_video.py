"""Kling 3.0 text to video."""

from __future__ import annotations

from typing import Any

from . import inputs
from .inputs import known, refusal
from .kling.request import UNKNOWN, build, check_prompt, check_request_id, check_shot_type, check_tier
from .kling.storyboard import Storyboard
from .outputs import BringsClip, generated


class TextToVideo(BringsClip):
    DESCRIPTION = (
        "Makes a video from a prompt or a storyboard with Kling 3.0 on RunComfy, saves it as MP4 and plays it here. "
        "Each new combination of inputs is paid once; running it again brings the same clip. rehearsal is free."
    )
    SEARCH_ALIASES = (
        "kling",
        "kling 3.0",
        "runcomfy",
        "text to video",
        "t2v",
        "video generation",
        "multi shot",
    )

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return inputs.text_to_video()

    @classmethod
    def VALIDATE_INPUTS(
        cls,
        prompt: Any = UNKNOWN,
        tier: Any = UNKNOWN,
        shot_type: Any = "customize",
        storyboard: Any = (),
        request_id: Any = "",
    ) -> bool | str:
        return refusal(
            lambda: check_tier(known(tier)),
            lambda: check_prompt(known(prompt), known(storyboard)),
            lambda: check_shot_type("text-to-video", known(tier), known(shot_type)),
            lambda: check_request_id(known(request_id)),
        )

    async def run(
        self,
        prompt: str,
        tier: str,
        duration: int,
        aspect_ratio: str,
        generate_audio: bool,
        cfg_scale: float,
        negative_prompt: str = "",
        storyboard: Storyboard | None = None,
        shot_type: str = "customize",
        variation: int = 0,
        rehearsal: bool = False,
        filename_prefix: str = inputs.DEFAULT_PREFIX,
        request_id: str = "",
        **hidden: Any,
    ) -> dict[str, Any]:
        fields = {
            "prompt": prompt,
            "negative_prompt": negative_prompt,
            "duration": duration,
            "aspect_ratio": aspect_ratio,
            "cfg_scale": cfg_scale,
            "sound": generate_audio,
            "multi_prompt": storyboard,
            "shot_type": shot_type,
        }
        return await generated(
            lambda: build("text-to-video", tier, fields),
            variation=variation,
            rehearsal=rehearsal,
            filename_prefix=filename_prefix,
            request_id=request_id,
            hidden=hidden,
        )
