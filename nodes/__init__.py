"""The nodes of the pack, one file each. Ids are public: shared workflows rely on them."""

from . import comfy, routes
from .element import Element
from .fetch_video import FetchVideo
from .image_to_video import ImageToVideo
from .shot import Shot
from .storyboard import Storyboard
from .text_to_video import TextToVideo

_NODES = (
    ("RunComfyKlingTextToVideo", "Kling Text to Video (RunComfy)", TextToVideo),
    ("RunComfyKlingImageToVideo", "Kling Image to Video (RunComfy)", ImageToVideo),
    ("RunComfyKlingStoryboard", "Kling Storyboard (RunComfy)", Storyboard),
    ("RunComfyKlingShot", "Kling Shot (RunComfy)", Shot),
    ("RunComfyKlingElement", "Kling Element (RunComfy)", Element),
    ("RunComfyKlingFetchVideo", "Kling Fetch Video (RunComfy)", FetchVideo),
)
NODE_CLASS_MAPPINGS = {node_id: node for node_id, _, node in _NODES}
NODE_DISPLAY_NAME_MAPPINGS = {node_id: name for node_id, name, _ in _NODES}

if comfy.is_here():
    routes.register()
