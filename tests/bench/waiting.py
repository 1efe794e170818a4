"""How soon the end of a clip is noticed, simulated, against pollers of a fixed interval."""

from __future__ import annotations

from figure import Figure, load_pack
from simulation import Outcome, clips, fixed, learning, unlearned

JOBS = 2000


def measure() -> list[Figure]:
    load_pack()
    from runcomfy_kling.nodes.runcomfy.pace import Pace

    steady = clips(JOBS, 130, 200, 0.25, seed=1)
    erratic = clips(JOBS, 130, 200, 0.59, seed=1)
    doubled = [d * (2 if i >= 200 else 1) for i, d in enumerate(clips(400, 130, 130, 0.25, seed=1))]
    ours, after = learning(Pace, steady), learning(Pace, doubled)
    return [
        _figure("Notice of the end, σ 0.25", ours, steady, 3, most=0.85),
        _figure("  the same", ours, steady, 2),
        _figure("  the same", ours, steady, 5),
        _figure("  σ 0.59", learning(Pace, erratic), erratic, 3, most=1.5),
        _figure(
            "  the first clip ever",
            unlearned(Pace, clips(JOBS, 130, 130, 0.6, seed=2)),
            clips(JOBS, 130, 130, 0.6, seed=2),
            3,
            most=1.5,
        ),
        _figure("  the 20 clips after all doubled", after.part(200, 220), doubled[200:220], 3, most=1.5, calls=1.5),
        _figure("  the 180 after those", after.part(220, 400), doubled[220:], 3, most=0.85),
    ]


def _figure(
    name: str, ours: Outcome, durations: list[float], interval: float, most: float | None = None, calls: float = 1.0
) -> Figure:
    """most: seconds of mean delay to stay under. calls: how many times the baseline's calls may be made."""
    theirs = fixed(interval, durations)
    share = ours.mean_calls / theirs.mean_calls
    return Figure(
        name,
        f"{ours.mean_delay:.2f} s with {share:.2f} × the calls",
        f"≤ {most:g} s, ≤ {calls:g} ×" if most else "",
        ours.mean_delay <= most and share <= calls if most else None,
        f"{theirs.mean_delay:.2f} s polling every {interval:g} s",
        f"{theirs.mean_delay / ours.mean_delay:.1f}",
    )
