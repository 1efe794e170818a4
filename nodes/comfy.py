"""The one door to ComfyUI: folders, Stop, progress, its VIDEO and IMAGE types, its server.

Everything is imported when first used, so that the nodes load without ComfyUI,
and outside ComfyUI a plain workspace takes its place.
"""

from __future__ import annotations

import io
import os
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import plain
from .errors import InputError
from .graph import signature
from .media.types import Clip
from .progress import fraction
from .workspace import Names, Workspace

EVENT = "runcomfy_kling.progress"
FOLDER = "runcomfy_kling"
# What nodes showed last, for a page that is reloaded in the middle of a run.
SHOWN_NODES = 500

_shown: dict[str, dict[str, Any]] = {}
_shown_lock = threading.Lock()


def is_here() -> bool:
    """Whether this process is ComfyUI."""
    return "folder_paths" in sys.modules and "execution" in sys.modules


def workspace(node_id: str, graph: Mapping[str, Any] | None, extra: Mapping[str, Any] | None) -> Workspace:
    """Where one node works.

    node_id, graph, extra: ComfyUI's UNIQUE_ID, PROMPT and EXTRA_PNGINFO; the last is None in a bare API call.
    """
    if not is_here():
        return plain.workspace(Path.cwd() / "output")
    return Workspace(
        private=private_folder(),
        names=_names,
        show=_Shower(node_id, ((extra or {}).get("workflow") or {}).get("id")).show,
        stopped=_stopped,
        metadata=_metadata(graph, extra),
        signature=lambda: signature(graph or {}, node_id, changes),
        clips=clips,
    )


def background_workspace() -> Workspace:
    """Where a clip is brought that no node asked for: nothing shows it, and Stop does not reach it."""
    return Workspace(
        private=private_folder(), names=_names, show=lambda facts: None, stopped=lambda: False, metadata={}
    )


def private_folder() -> Path:
    """A folder of ours in ComfyUI's user data that its web server does not serve."""
    if not is_here():
        return plain.private_folder()
    import folder_paths

    # ComfyUI keeps users whose name begins with __ from its web server; older versions know no such user at all.
    return Path(folder_paths.get_user_directory()) / f"__{FOLDER}"


def _metadata(graph: Mapping[str, Any] | None, extra: Mapping[str, Any] | None) -> dict[str, Any]:
    """What Save Video embeds, under the same keys, so that dropping the clip on the canvas brings the graph back."""
    from comfy.cli_args import args

    if args.disable_metadata:
        return {}
    return dict(extra or {}) | ({"prompt": graph} if graph else {})


def _names(prefix: str, width: int, height: int) -> Names:
    import folder_paths

    output = folder_paths.get_output_directory()
    try:
        folder, stem, counter, *_ = folder_paths.get_save_image_path(prefix, output, width, height)
    except Exception as error:
        raise InputError(
            f"filename_prefix {prefix!r} cannot be used: it must name a place inside ComfyUI's output folder that "
            f"can be written ({type(error).__name__})."
        ) from None
    return Names(Path(folder), stem, counter)


def _stopped() -> bool:
    from comfy.model_management import processing_interrupted

    return processing_interrupted() or _ended_by_stop()


def _ended_by_stop() -> bool:
    """Whether the prompt that this code runs under has already been reported as interrupted.

    ComfyUI clears its flag at the first exception, and our nodes then get a bare CancelledError, the same as
    when another node failed. What tells the two apart is the executor, a few frames up, which has noted why.
    """
    frame = sys._getframe()
    while frame := frame.f_back:  # type: ignore[assignment]
        messages = getattr(frame.f_locals.get("self"), "status_messages", None)
        if isinstance(messages, list):
            return any(message[0] == "execution_interrupted" for message in messages)
    return False


def interrupted() -> BaseException:
    """ComfyUI's own exception for Stop. Raised by ourselves it leaves the flag set, so every other wait sees it."""
    if not is_here():
        return KeyboardInterrupt()
    from comfy.model_management import InterruptProcessingException

    return InterruptProcessingException()


class _Shower:
    """Sends one node's state to the page: our own event, and ComfyUI's progress bar."""

    def __init__(self, node_id: str, workflow_id: str | None) -> None:
        """workflow_id: node ids repeat between workflows; None where the run came from elsewhere than the editor."""
        from comfy_execution.progress import get_progress_state
        from server import PromptServer

        self._node_id = node_id
        self._workflow_id = workflow_id
        # Bound now: what becomes known after a Stop must not mark a node of the next prompt.
        self._bar = get_progress_state()
        self._server = PromptServer.instance
        self._client_id = self._server.client_id

    def show(self, facts: dict[str, Any]) -> None:
        state = {"node": self._node_id, "workflow": self._workflow_id, **facts}
        with _shown_lock:
            _shown.pop(self._node_id, None)
            _shown[self._node_id] = state
            if len(_shown) > SHOWN_NODES:
                del _shown[next(iter(_shown))]
        self._server.send_sync(EVENT, state, self._client_id)
        if facts["stage"] not in ("stopped", "failed"):
            # Not by ComfyUI's ProgressBar: that raises on Stop and clears the flag the other nodes wait for.
            self._bar.update_progress(self._node_id, fraction(facts), 1.0, None)


def shown() -> dict[str, dict[str, Any]]:
    """The last state of each node, by its id."""
    with _shown_lock:
        return dict(_shown)


def list_item() -> int:
    """Which item of a list this execution of the node is for; 0 where it has none."""
    if not is_here():
        return 0
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    return (context.list_index or 0) if context else 0


# Where ComfyUI itself says what would change the output of a node that reads a file.
READERS = {"LoadImage": "IS_CHANGED", "LoadImageMask": "IS_CHANGED", "LoadVideo": "fingerprint_inputs"}


def changes(class_type: str, inputs: Mapping[str, Any]) -> Any:
    """What may change the output of a node beside its inputs; see graph.signature. Raises LookupError."""
    import nodes

    node = nodes.NODE_CLASS_MAPPINGS[class_type]
    if class_type in READERS:
        return str(getattr(node, READERS[class_type])(**inputs))
    if hasattr(node, "IS_CHANGED") or "fingerprint_inputs" in vars(node):
        raise LookupError(class_type)
    return None


def video(path: Path) -> Any:
    """ComfyUI's VIDEO of a file, or None outside ComfyUI."""
    if not is_here():
        return None
    from comfy_api.latest import InputImpl

    return InputImpl.VideoFromFile(str(path))


def image(pixels: Any) -> Any:
    """ComfyUI's IMAGE, a tensor [1, H, W, 3], of such an array; the array itself where there is no torch."""
    try:
        import torch
    except ImportError:
        return pixels
    return torch.from_numpy(pixels)


def clip(video: Any, name: str) -> Clip:
    """The source of a VIDEO: the file it came from, or its bytes as MP4."""
    source = video.get_stream_source()
    if isinstance(source, (str, os.PathLike)):
        if _is_cut(video, Path(source)):
            buffer = io.BytesIO()
            video.save_to(buffer)
            return Clip(buffer.getvalue(), name)
        return Clip(Path(source), name)
    return Clip(source.getvalue(), name)


def _is_cut(video: Any, source: Path) -> bool:
    """Newer ComfyUI can trim a VIDEO without touching its file."""
    from .media.video import probe

    return abs(video.get_duration() - probe(source).seconds) > 0.1


def clips(paths: Sequence[Path]) -> list[dict[str, str]]:
    """Files as the page addresses them. Those outside the output folder cannot be shown and are left out."""
    import folder_paths

    output = Path(folder_paths.get_output_directory()).resolve()
    shown = []
    for path in map(Path.resolve, paths):
        if path.is_relative_to(output):
            folder = path.parent.relative_to(output).as_posix()
            shown.append({"filename": path.name, "subfolder": "" if folder == "." else folder, "type": "output"})
    return shown


def preview(paths: Sequence[Path]) -> dict[str, Any]:
    """The `ui` output of Save Video: the clips in the node."""
    # Both keys always: ComfyUI takes those of a list's first item for all of its items.
    return {"images": clips(paths), "animated": (True,)} if is_here() else {}
