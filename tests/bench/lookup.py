"""Finding a generation among a hundred thousand."""

from __future__ import annotations

import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from figure import Figure, load_pack

ENTRIES = 100_000
LOOKUPS = 300
MODEL = "kling/kling-3.0/pro/text-to-video"


def measure() -> list[Figure]:
    load_pack()
    from runcomfy_kling.nodes.ledger import Ledger

    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder))
        ledger.count()
        _fill(ledger.path)
        assert ledger.count() == ENTRIES
        rng = random.Random(1)
        names = [_name(rng.randrange(ENTRIES)) for _ in range(LOOKUPS)]
        found = _times(lambda name: ledger.find(name), names)
        durations = _times(lambda _: ledger.durations(MODEL, 5, True), names)
        with closing(sqlite3.connect(ledger.path)) as db:
            scan = "SELECT * FROM generations WHERE +fingerprint = ?"
            scanned = _times(lambda name: db.execute(scan, (name,)).fetchone(), names[:20])
    typical, slow = statistics.median(found), statistics.quantiles(found, n=100)[98]
    loop = statistics.median(scanned)
    history = statistics.median(durations)
    return [
        Figure(
            "Look-up among 100 000 entries",
            f"{typical * 1000:.2f} ms, 1 in 100 over {slow * 1000:.2f} ms",
            "< 5 ms",
            slow < 0.005,
            f"{loop * 1000:.1f} ms row after row",
            f"{loop / typical:.0f}",
        ),
        Figure("  how long such clips took", f"{history * 1000:.2f} ms", "< 5 ms", history < 0.005),
    ]


def _fill(path: Path) -> None:
    """Straight into the table: committed one by one, as the ledger does, this would take many minutes."""
    rng = random.Random(2)
    with closing(sqlite3.connect(path)) as db:
        db.executemany(
            "INSERT INTO generations (fingerprint, state, model_id, seconds, audio, request_id, account, created, "
            "submitted, worked, cost_usd) VALUES (?, 'saved', ?, ?, 1, ?, 'account', ?, ?, ?, 0.84)",
            (
                (_name(n), MODEL, rng.randint(3, 15), f"request-{n}", n, n, rng.lognormvariate(4.9, 0.25))
                for n in range(ENTRIES)
            ),
        )
        db.executemany(
            "INSERT INTO files VALUES (?, 0, ?, 20000000, ?)",
            ((n + 1, f"output/video/kling_{n:05}_.mp4", f"{n:064x}") for n in range(ENTRIES)),
        )
        db.commit()


def _name(n: int) -> str:
    return f"{n * 2654435761 % (1 << 32):064x}"


def _times(look_up: Callable[[str], object], names: list[str]) -> list[float]:
    times = []
    for name in names:
        start = time.perf_counter()
        look_up(name)
        times.append(time.perf_counter() - start)
    return times
