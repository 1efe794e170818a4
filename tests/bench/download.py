"""A large clip brought here, against the barest way to bring it."""

from __future__ import annotations

import tempfile
import urllib.request
from pathlib import Path

from figure import MIB, Figure, load_pack, median_seconds, watched
from standin import standin

SIZE = 200_000_000


def measure() -> list[Figure]:
    load_pack()
    from runcomfy_kling.nodes.runcomfy.download import Download

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = folder / "clip.mp4"
        with clip.open("wb") as file:
            file.truncate(SIZE)
        with standin(clip) as base_url:
            url = f"{base_url}/clip.mp4"

            def bare() -> None:
                with urllib.request.urlopen(url) as answer, (folder / "bare").open("wb") as file:
                    while block := answer.read(MIB):
                        file.write(block)

            def ours() -> None:
                Download(folder / "ours", allow_loopback=True, show=lambda received, total: None).fetch(url)

            with watched() as watch:
                ours()
            assert (folder / "ours").stat().st_size == SIZE
            seconds, wire = median_seconds(ours), median_seconds(bare)
    speed, ratio = SIZE / MIB / seconds, wire / seconds
    return [
        Figure(
            "Download of 200 MB",
            f"{speed:.0f} MiB/s",
            "the wire's speed",
            ratio >= 0.8,
            f"{SIZE / MIB / wire:.0f} MiB/s bare socket to file",
            f"{ratio:.2f}",
        ),
        Figure("  its peak memory", f"{watch.bytes / MIB:.1f} MiB", "< 16 MiB", watch.bytes < 16 * MIB),
    ]
