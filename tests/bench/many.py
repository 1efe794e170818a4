"""A hundred generations waiting in one process."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from statistics import fmean

from clips import make_clip
from crowd import Crowd, text_request
from figure import MIB, Figure, load_pack, watched
from simulation import fixed
from standin import standin, times

COUNT = 100
# Long enough that waiting outweighs starting and saving, short enough for a benchmark.
WORK_SECONDS = 60.0
SIGMA = 0.05


def measure() -> list[Figure]:
    load_pack()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clip = make_clip(folder / "clip.mp4", 320, 180, seconds=2, megabytes=0.2)
        request = text_request()
        with standin(clip) as base_url:
            Crowd(folder / "first", base_url).run([request])  # so that idle has everything imported
        with standin(clip, work=WORK_SECONDS, sigma=SIGMA) as base_url:
            crowd = Crowd(folder / "many", base_url)
            crowd.remember(request, WORK_SECONDS, SIGMA)
            with watched(interval=0.1) as watch:
                began = time.time()
                saved = crowd.run([request] * COUNT)
                seconds = time.time() - began
            jobs = times(base_url)
    waiting = watch.cpu_share(max(job.accepted for job in jobs.values()), min(job.ends for job in jobs.values()))
    worked = [jobs[request_id].ends - jobs[request_id].accepted for request_id in saved]
    late = [at - jobs[request_id].ends for request_id, at in saved.items()]
    notice = [(job.noticed or at) - job.ends for job, at in ((jobs[name], at) for name, at in saved.items())]
    poller = fixed(3, worked).mean_delay
    return [
        Figure(
            f"{COUNT} waiting at once, all saved",
            f"{seconds:.0f} s",
            "",
            None,
            f"{sum(worked) / 60:.0f} min one after another",
            f"{sum(worked) / seconds:.0f}",
        ),
        Figure(
            "  saved after their servers' ends",
            f"{fmean(late):.2f} s, the last {max(late):.2f} s",
            "all < 1.5 s",
            max(late) < 1.5,
            f"{poller:.2f} s polling every 3 s, before saving",
            f"{poller / fmean(late):.1f}",
        ),
        Figure("  of that, until noticed", f"{fmean(notice):.2f} s, the last {max(notice):.2f} s", "", None),
        Figure("  memory above idle", f"{watch.bytes / MIB:.0f} MiB", "< 150 MiB", watch.bytes < 150 * MIB),
        Figure("  CPU while all wait", f"{waiting:.1%} of a core", "< 5 %", waiting < 0.05),
        Figure("  CPU with submitting and saving", f"{watch.cpu_share():.1%} of a core", "", None),
    ]
