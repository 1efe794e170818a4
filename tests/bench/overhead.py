"""What a node adds to a generation: everything but the server's work and the notice of its end."""

from __future__ import annotations

import asyncio
import base64
import io
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from clips import make_clip
from figure import Figure, load_pack, median_seconds
from photographs import photograph
from standin import standin, times

ROUNDS = 3
WORK_SECONDS = 0.5

_variations = itertools.count()  # a second take of the same variation would be the first one's clip


def measure() -> list[Figure]:
    load_pack()
    from runcomfy_kling.nodes.media.video import last_frame

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # Outside ComfyUI a node saves below the working directory and keeps its ledger in the home folder.
        os.chdir(folder)
        os.environ |= {"HOME": name, "USERPROFILE": name}
        image = photograph(1920, 1080)
        figures = []
        # The last frame takes the longer, the farther before it the last key frame lies.
        for kind, key_every in (("a key frame every 2 s", 48), ("one key frame", 1000)):
            clip = make_clip(folder / "clip.mp4", 1920, 1080, seconds=10, megabytes=20, key_every=key_every)
            with standin(clip, work=WORK_SECONDS) as base_url:
                ours = _median(base_url, partial(_node, base_url, image))
                theirs = _median(base_url, partial(_by_hand, base_url, image, folder / "by-hand.mp4"))
            decoding = median_seconds(partial(last_frame, clip), rounds=ROUNDS)
            # From one key frame FFmpeg decodes half of ten seconds before it has the last frame.
            beside = decoding if key_every > 48 else 0.0
            figures += [
                Figure(
                    f"Overhead, {clip.stat().st_size / 1e6:.0f} MB clip, {kind}",
                    f"{ours:.2f} s",
                    "< 0.5 s beside decoding" if beside else "< 0.5 s",
                    ours - beside < 0.5,
                    f"{theirs:.2f} s PNG, one read, all frames decoded",
                    f"{theirs / ours:.1f}",
                ),
                Figure("  of that, decoding up to the last frame", f"{decoding:.2f} s", "", None),
            ]
        return figures


def _median(base_url: str, run: Callable[[], str]) -> float:
    """Seconds of overhead of run(), which returns the request id; the first round only imports."""
    overheads = []
    for _ in range(ROUNDS + 1):
        start = time.time()
        request_id = run()
        seconds = time.time() - start
        job = times(base_url)[request_id]
        assert job.noticed
        overheads.append(seconds - (job.noticed - job.accepted))
    return statistics.median(overheads[1:])


def _node(base_url: str, image: np.ndarray) -> str:
    from runcomfy_kling.nodes.image_to_video import ImageToVideo

    os.environ |= {
        "RUNCOMFY_API_TOKEN": "benchmark",
        "RUNCOMFY_MODEL_API_BASE_URL": base_url,
        "RUNCOMFY_KLING_HOSTING": "inline",
    }
    run: Any = ImageToVideo().run(
        prompt="Slow push in.",
        tier="standard",
        duration=5,
        generate_audio=True,
        cfg_scale=0.5,
        start_image=image,
        variation=next(_variations),
        unique_id="1",
        prompt_graph=None,
        extra_pnginfo=None,
    )
    path, _, frame, request_id = asyncio.run(run)["result"]
    assert Path(path).is_file()
    assert frame.shape[0] == 1
    return str(request_id)


def _by_hand(base_url: str, image: np.ndarray, path: Path) -> str:
    """As a first version of such a node is written: correct, and nothing else."""
    import av
    import requests
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray((image[0] * 255).round().astype(np.uint8)).save(file, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
    model = "kling/kling-3.0/standard/image-to-video"
    body = {"prompt": "Slow push in.", "start_image_url": uri, "duration": 5}
    request_id = requests.post(f"{base_url}/v1/models/{model}", json=body).json()["request_id"]
    while requests.get(f"{base_url}/v1/requests/{request_id}/status").json()["status"] != "completed":
        time.sleep(0.1)
    result = requests.get(f"{base_url}/v1/requests/{request_id}/result").json()
    path.write_bytes(requests.get(result["output"]["video"]).content)
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            last = frame.to_ndarray(format="rgb24")
    assert last.shape == (1080, 1920, 3)
    return str(request_id)
