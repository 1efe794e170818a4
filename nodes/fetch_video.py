"""The clip of any request of the account, by its id."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import InputError
from .inputs import DEFAULT_PREFIX, FILENAME_PREFIX, HIDDEN, known, refusal
from .kling.request import UNKNOWN, check_request_id
from .outputs import BringsClip, delivered

if TYPE_CHECKING:
    from .account import Account
    from .corridor import Delivery
    from .workspace import Workspace


class FetchVideo(BringsClip):
    DESCRIPTION = (
        "Brings the clip of a request that your RunComfy account already made, by its id, and plays it here. "
        "Waits if it still runs. It never starts a generation and never costs anything."
    )
    SEARCH_ALIASES = ("kling", "runcomfy", "fetch", "download", "recover", "request id", "lost video")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "request_id": (
                    "STRING",
                    {
                        "default": "",
                        "tooltip": "The id of the request: an output of the generation nodes, shown on the node, in "
                        "the log, in the clip's metadata and under Generations in RunComfy.",
                    },
                )
            },
            "optional": {"filename_prefix": FILENAME_PREFIX},
            "hidden": dict(HIDDEN),
        }

    @classmethod
    def VALIDATE_INPUTS(cls, request_id: Any = UNKNOWN) -> bool | str:
        return refusal(lambda: known(request_id) is UNKNOWN or _check(request_id))

    async def run(self, request_id: str, filename_prefix: str = DEFAULT_PREFIX, **hidden: Any) -> dict[str, Any]:
        request_id = _check(request_id)

        async def bring(account: Account, workspace: Workspace) -> Delivery:
            from .fetch import fetch

            return await fetch(request_id, prefix=filename_prefix, account=account, workspace=workspace)

        return await delivered(bring, **hidden)


def _check(request_id: Any) -> str:
    if not (checked := check_request_id(request_id)):
        raise InputError("request_id is empty: paste the id of a request of your RunComfy account.")
    return checked
