"""A character or object that a video keeps."""

from __future__ import annotations

from typing import Any

from . import comfy
from .errors import InputError
from .inputs import CATEGORY, ELEMENTS, known, refusal
from .kling.request import UNKNOWN, check_elements, check_url
from .kling.request import Element as KlingElement
from .media.still import still, stills
from .media.types import Clip, Link
from .threads import off_loop


class Element:
    CATEGORY = CATEGORY
    DESCRIPTION = (
        "A character or object that the video keeps, shown by a frontal still, further stills or a video. "
        "Connect up to 3 in a row, then to Kling Image to Video."
    )
    SEARCH_ALIASES = (
        "kling",
        "runcomfy",
        "element",
        "character",
        "reference image",
        "subject",
        "consistency",
    )
    FUNCTION = "run"
    RETURN_TYPES = (ELEMENTS,)
    RETURN_NAMES = ("elements",)
    OUTPUT_TOOLTIPS = ("The elements so far, this one last.",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {},
            "optional": {
                "frontal_image": (
                    "IMAGE",
                    {"tooltip": "The element seen from the front. One still, not a batch."},
                ),
                "reference_images": (
                    "IMAGE",
                    {"tooltip": "The element from other sides: a batch of stills."},
                ),
                "video": ("VIDEO", {"tooltip": "A video of the element, up to 100 MB."}),
                "video_url": (
                    "STRING",
                    {"default": "", "tooltip": "A public https address of such a video, in place of video."},
                ),
                "elements": (ELEMENTS, {"tooltip": "The elements before this one: 3 at most together."}),
            },
        }

    @classmethod
    def VALIDATE_INPUTS(
        cls,
        frontal_image: Any = False,
        reference_images: Any = False,
        video: Any = False,
        video_url: Any = "",
    ) -> bool | str:
        linked = UNKNOWN in map(known, (frontal_image, reference_images, video, video_url))
        return refusal(
            lambda: None if linked else _check_any(video_url or None),
            lambda: check_url("video_url", video_url) if video_url else None,
        )

    async def run(
        self,
        frontal_image: Any = None,
        reference_images: Any = None,
        video: Any = None,
        video_url: str = "",
        elements: tuple[KlingElement, ...] = (),
    ) -> tuple[tuple[KlingElement, ...]]:
        def make() -> tuple[KlingElement, ...]:
            _check_any(video_url.strip() or None, frontal_image, reference_images, video)
            if video is not None and video_url.strip():
                raise InputError("video and video_url are both set: disconnect one or clear the other.")
            source: Clip | Link | None = None
            if video_url.strip():
                source = Link(check_url("video_url", video_url), "video_url")
            elif video is not None:
                source = comfy.clip(video, "video")
            element = KlingElement(
                frontal=None if frontal_image is None else still(frontal_image, "frontal_image"),
                references=() if reference_images is None else tuple(stills(reference_images, "reference_images")),
                video=source,
            )
            return check_elements((*elements, element))

        return (await off_loop(make),)


def _check_any(*parts: Any) -> None:
    if all(part is None for part in parts):
        raise InputError(
            "The element is empty: connect frontal_image, reference_images or video, or fill in video_url."
        )
