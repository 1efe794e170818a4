"""What was submitted, what it cost and where it lies: the memory that outlives a restart.

A clip costs up to several dollars and RunComfy publishes no idempotency key, so
an entry is committed before the submission, and nothing is submitted that
cannot be written down. SQLite, because several ComfyUI processes may share the
folder and any of them may be killed at any moment.

    submitting ─▶ submitted ─▶ saved
        │             ├─▶ failed        RunComfy said so: the next run submits anew
        │             └─▶ cancelled     RunComfy confirmed it: the next run submits anew
        ├─▶ uncertain  it may have been accepted: nothing is submitted until that is settled
        └─▶ (forgotten)  it was clearly refused: nothing happened

It holds no token and no image, and a prompt only where the clip's own metadata holds it too.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock

from .errors import LedgerError

FILE = "generations.sqlite3"
DAMAGED = "generations-damaged"
LIVE = ("submitting", "submitted", "saved", "uncertain")
BUSY_SECONDS = 30
# File systems on which several machines share files: SQLite's WAL needs shared memory and fails on them.
NETWORK_SYSTEMS = {
    "nfs",
    "nfs4",
    "cifs",
    "smb",
    "smb2",
    "smb3",
    "smbfs",
    "afpfs",
    "9p",
    "ncpfs",
    "afs",
    "webdav",
}

SCHEMA = f"""
CREATE TABLE secret (key TEXT NOT NULL);
CREATE TABLE generations (
    id INTEGER PRIMARY KEY,
    fingerprint TEXT,
    state TEXT NOT NULL,
    model_id TEXT NOT NULL DEFAULT '',
    seconds INTEGER,
    audio INTEGER,
    request_id TEXT UNIQUE,
    account TEXT NOT NULL,
    created REAL NOT NULL,
    submitted REAL,
    worked REAL,
    cost_usd REAL,
    message TEXT NOT NULL DEFAULT '',
    prompt TEXT
);
CREATE UNIQUE INDEX one_live_entry ON generations (fingerprint) WHERE state IN {LIVE};
CREATE INDEX by_fingerprint ON generations (fingerprint);
CREATE INDEX by_model ON generations (model_id, id) WHERE worked IS NOT NULL OR cost_usd IS NOT NULL;
CREATE TABLE files (
    generation INTEGER NOT NULL REFERENCES generations (id),
    position INTEGER NOT NULL,
    path TEXT NOT NULL,
    size INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (generation, position)
);
CREATE TABLE graphs (signature TEXT PRIMARY KEY, generation INTEGER NOT NULL REFERENCES generations (id));
"""

_turn = threading.Lock()


@dataclass(frozen=True)
class SavedFile:
    """A clip on disk. size: bytes. sha256: hex, of the whole file."""

    path: Path
    size: int
    sha256: str

    @classmethod
    def of(cls, path: Path) -> SavedFile:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return cls(path, path.stat().st_size, digest.hexdigest())

    def is_intact(self) -> bool:
        """Whether the file is still this clip: a counter may have been given to another since."""
        try:
            return self.path.stat().st_size == self.size and SavedFile.of(self.path).sha256 == self.sha256
        except OSError:
            return False


@dataclass(frozen=True)
class Entry:
    """One generation. fingerprint: None for a clip that was only fetched by its id. Times: Unix seconds.

    seconds: the clip's length. worked: how long RunComfy took. account: a keyed hash of the token.
    """

    id: int
    fingerprint: str | None
    state: str
    model_id: str
    seconds: int | None
    audio: bool | None
    request_id: str | None
    account: str
    created: float
    submitted: float | None
    worked: float | None
    cost_usd: float | None
    message: str
    prompt: str | None
    files: tuple[SavedFile, ...] = ()


class Ledger:
    """One ledger in one folder. Safe to share between threads and processes: every call is a transaction."""

    def __init__(self, folder: Path, *, shared: bool | None = None) -> None:
        """shared: whether the folder lies on a network share; None finds out."""
        self.folder = folder
        self._shared = shared

    @property
    def path(self) -> Path:
        return self.folder / FILE

    def find(self, fingerprint: str) -> Entry | None:
        """The live entry of a generation: submitting, submitted, saved or uncertain."""
        return self._one(f"fingerprint = ? AND state IN {LIVE}", fingerprint)

    def find_request(self, request_id: str) -> Entry | None:
        return self._one("request_id = ?", request_id)

    def get(self, entry_id: int) -> Entry | None:
        return self._one("id = ?", entry_id)

    def newest(self, fingerprint: str) -> Entry | None:
        """The last entry of a generation, whatever became of it."""
        return self._one("fingerprint = ? ORDER BY id DESC LIMIT 1", fingerprint)

    def open_submission(self, fingerprint: str, *, model_id: str, seconds: int, audio: bool, token: str) -> Entry:
        """Note that a submission is about to leave. Committed when this returns. Raises LedgerError."""
        with self._transaction() as db:
            cursor = db.execute(
                "INSERT INTO generations (fingerprint, state, model_id, seconds, audio, account, created) "
                "VALUES (?, 'submitting', ?, ?, ?, ?, ?)",
                (fingerprint, model_id, seconds, audio, _mark(db, token), time.time()),
            )
            return _entry(db, "id = ?", cursor.lastrowid)

    def submitted(self, entry_id: int, request_id: str) -> Entry:
        with self._transaction() as db:
            db.execute(
                "UPDATE generations SET state = 'submitted', request_id = ?, submitted = ? WHERE id = ?",
                (request_id, time.time(), entry_id),
            )
            return _entry(db, "id = ?", entry_id)

    def forget(self, entry_id: int) -> None:
        """The submission was clearly refused: nothing happened."""
        with self._transaction() as db:
            db.execute("DELETE FROM generations WHERE id = ? AND state = 'submitting'", (entry_id,))

    def uncertain(self, entry_id: int, message: str) -> None:
        self._update(entry_id, state="uncertain", message=message)

    def failed(self, entry_id: int, message: str, cost_usd: float | None) -> None:
        self._update(entry_id, state="failed", message=message, cost_usd=cost_usd)

    def cancelled(self, entry_id: int, message: str = "") -> None:
        self._update(entry_id, state="cancelled", message=message)

    def settle(self, entry_id: int) -> None:
        """The user looked at RunComfy: nothing came of this uncertain submission, so the next run may submit."""
        with self._transaction() as db:
            db.execute(
                "UPDATE generations SET state = 'cancelled', message = 'settled' WHERE id = ? AND state = 'uncertain'",
                (entry_id,),
            )

    def saved(
        self,
        entry_id: int,
        files: Sequence[SavedFile],
        *,
        cost_usd: float | None = None,
        worked: float | None = None,
        prompt: str | None = None,
    ) -> None:
        """Note where the clips lie. What is not known this time keeps its earlier value.

        A clip that ended after its inputs had been submitted anew stays on record without them.
        """
        with self._transaction() as db:
            db.execute(
                "UPDATE generations SET fingerprint = NULL WHERE id = ? AND fingerprint IN "
                f"(SELECT fingerprint FROM generations WHERE id != ? AND state IN {LIVE})",
                (entry_id, entry_id),
            )
            db.execute(
                "UPDATE generations SET state = 'saved', cost_usd = coalesce(?, cost_usd), "
                "worked = coalesce(?, worked), prompt = coalesce(?, prompt), message = '' WHERE id = ?",
                (cost_usd, worked, prompt, entry_id),
            )
            db.execute("DELETE FROM files WHERE generation = ?", (entry_id,))
            db.executemany(
                "INSERT INTO files VALUES (?, ?, ?, ?, ?)",
                [(entry_id, n, str(file.path), file.size, file.sha256) for n, file in enumerate(files)],
            )

    def adopt(
        self, fingerprint: str, request_id: str, *, model_id: str, seconds: int, audio: bool, token: str
    ) -> Entry:
        """Bind a request of the account to these inputs. Raises LedgerError if it is bound to others.

        An uncertain submission of the same inputs is taken to be this request. Any other clip of theirs stays on
        record, no longer bound to them.
        """
        with self._transaction() as db:
            known = _entry(db, "request_id = ?", request_id)
            if known and known.fingerprint not in (None, fingerprint):
                raise LedgerError(
                    f"Request {request_id} is already the clip of other inputs. To use it here too, load it with "
                    "Kling Fetch Video (RunComfy). Nothing was submitted."
                )
            if known and known.fingerprint == fingerprint:
                return known
            since = time.time()
            live = _entry(db, f"fingerprint = ? AND state IN {LIVE}", fingerprint)
            if live and live.state in ("submitting", "uncertain"):
                # The lost submission is found: it is this request.
                since = live.created
                db.execute("DELETE FROM generations WHERE id = ?", (live.id,))
            elif live:
                db.execute("UPDATE generations SET fingerprint = NULL WHERE id = ?", (live.id,))
            if known:
                state = "saved" if known.files else "submitted"
                db.execute(
                    "UPDATE generations SET fingerprint = ?, state = ?, model_id = ?, seconds = ?, audio = ? "
                    "WHERE id = ?",
                    (fingerprint, state, model_id, seconds, audio, known.id),
                )
                return _entry(db, "id = ?", known.id)
            cursor = db.execute(
                "INSERT INTO generations "
                "(fingerprint, state, model_id, seconds, audio, request_id, account, created, submitted) "
                "VALUES (?, 'submitted', ?, ?, ?, ?, ?, ?, ?)",
                (fingerprint, model_id, seconds, audio, request_id, _mark(db, token), since, since),
            )
            return _entry(db, "id = ?", cursor.lastrowid)

    def note_request(self, request_id: str, token: str) -> Entry:
        """The entry of a request fetched by its id; a new one where it was not known."""
        with self._transaction() as db:
            now = time.time()
            db.execute(
                "INSERT OR IGNORE INTO generations (state, request_id, account, created, submitted) "
                "VALUES ('submitted', ?, ?, ?, ?)",
                (request_id, _mark(db, token), now, now),
            )
            return _entry(db, "request_id = ?", request_id)

    def note_graph(self, signature: str, entry_id: int) -> None:
        """Note that this part of a prompt (see graph.py) asks for the clip of this entry."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO graphs VALUES (?, ?)", (signature, entry_id))

    def find_graph(self, signature: str) -> Entry | None:
        """The live entry of the clip that this part of a prompt asked for, where one was noted."""
        return self._one(
            f"id = (SELECT generation FROM graphs WHERE signature = ?) AND fingerprint NOT NULL AND state IN {LIVE}",
            signature,
        )

    def is_account(self, entry: Entry, token: str) -> bool:
        """Whether the entry was made with this token."""
        with self._reading() as db:
            return hmac.compare_digest(entry.account, _mark(db, token))

    def durations(self, model_id: str, seconds: int, audio: bool, most: int = 50) -> list[float]:
        """How long clips like this took, newest first, in seconds."""
        return self._column(
            "SELECT worked FROM generations WHERE model_id = ? AND seconds = ? AND audio = ? AND worked IS NOT NULL "
            "ORDER BY id DESC LIMIT ?",
            (model_id, seconds, audio, most),
        )

    def rates(self, model_id: str, audio: bool, most: int = 10) -> list[float]:
        """What a second of such a clip cost, newest first, in USD."""
        return self._column(
            "SELECT cost_usd / seconds FROM generations WHERE model_id = ? AND audio = ? AND cost_usd > 0 "
            "AND seconds > 0 AND state = 'saved' ORDER BY id DESC LIMIT ?",
            (model_id, audio, most),
        )

    def page(self, before: int | None, limit: int) -> list[Entry]:
        """Entries with an id below `before`, newest first."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT * FROM generations WHERE id < ? ORDER BY id DESC LIMIT ?", (before or 1 << 62, limit)
            ).fetchall()
            return [_with_files(db, row) for row in rows]

    def count(self) -> int:
        with self._reading() as db:
            return int(db.execute("SELECT count(*) FROM generations").fetchone()[0])

    def check_not_damaged(self) -> None:
        """Raises LedgerError where this ledger is damaged, or one lies beside it: what it paid for is not known here.

        Looks at every page: a misplaced one makes an index say that a clip was never bought.
        """
        with self._reading() as db:
            found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found != "ok":
                raise sqlite3.DatabaseError(found)
        self._refuse_damaged()

    def _refuse_damaged(self) -> None:
        for path in sorted(self.folder.glob(f"{DAMAGED}-*.sqlite3")):
            raise LedgerError(
                f"The record of paid generations was damaged and set aside as {path}. Nothing is submitted while it "
                "lies there, since clips in it could be paid twice. Clips can still be loaded by their request id "
                f"with Kling Fetch Video (RunComfy). Move or delete {path.name} to go on with a new record."
            )

    def _update(self, entry_id: int, **values: Any) -> None:
        columns = ", ".join(f"{name} = ?" for name in values)
        with self._transaction() as db:
            db.execute(f"UPDATE generations SET {columns} WHERE id = ?", (*values.values(), entry_id))

    def _one(self, where: str, *values: Any) -> Entry | None:
        with self._reading() as db:
            return _entry(db, where, *values)

    def _column(self, query: str, values: tuple[Any, ...]) -> list[float]:
        with self._reading() as db:
            return [float(row[0]) for row in db.execute(query, values)]

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        # The threads of one process take turns here: SQLite lets them sleep and try again, up to a tenth of a second.
        # Locked from its start: a transaction that reads before it writes could otherwise not be granted the write.
        with _turn, self._connection("BEGIN IMMEDIATE") as db:
            yield db

    def _reading(self) -> contextlib.AbstractContextManager[sqlite3.Connection]:
        return self._connection("BEGIN")

    @contextlib.contextmanager
    def _connection(self, begin: str) -> Iterator[sqlite3.Connection]:
        """One connection for one transaction: nothing is shared between threads, nothing is left open."""
        try:
            self._create()
            with contextlib.closing(sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)) as db:
                db.row_factory = sqlite3.Row
                # A submission may follow at once, so a commit has to survive a power cut.
                db.execute("PRAGMA synchronous = FULL")
                db.execute(begin)
                yield db
                db.execute("COMMIT")
        except (OSError, NotImplementedError, sqlite3.Error) as error:
            if type(error) is sqlite3.DatabaseError or "no such table" in str(error):
                with contextlib.suppress(OSError):  # Windows moves no file that another process has open
                    self._set_aside()
                self._refuse_damaged()
            raise LedgerError(
                f"The record of paid generations, {self.path}, cannot be used ({error}). Nothing is submitted without "
                "it, since a clip could be paid twice. Make its folder writable, or free disk space, and run again."
            ) from None

    def _create(self) -> None:
        """Make a new ledger whole under another name first: an empty file in its place is damage, not newness."""
        if self._is_there():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with FileLock(self.folder / "creating.lock"):
            if self._is_there():
                return
            self._set_aside()  # a journal that outlived its ledger would be read into the new one
            fresh = self.folder / f"{FILE}.{secrets.token_hex(8)}.new"
            try:
                with contextlib.closing(sqlite3.connect(fresh)) as db:
                    db.executescript(SCHEMA)
                    db.execute("INSERT INTO secret VALUES (?)", (secrets.token_hex(32),))
                    db.commit()
                    shared = on_network(self.folder) if self._shared is None else self._shared
                    db.execute(f"PRAGMA journal_mode = {'DELETE' if shared else 'WAL'}")
                fresh.replace(self.path)
            finally:
                fresh.unlink(missing_ok=True)

    def _is_there(self) -> bool:
        return self.path.exists() and self.path.stat().st_size > 0

    def _set_aside(self) -> None:
        name = f"{DAMAGED}-{time.strftime('%Y-%m-%d-%H%M%S')}-{secrets.token_hex(2)}.sqlite3"
        # The file itself last: a new ledger made in its place must not find the old one's journal.
        for suffix in ("-wal", "-shm", "-journal", ""):
            with contextlib.suppress(FileNotFoundError):
                Path(f"{self.path}{suffix}").replace(self.folder / f"{name}{suffix}")


def on_network(folder: Path) -> bool:
    """Whether a folder lies on a network share, as far as psutil, which ComfyUI brings, can tell."""
    try:
        import psutil
    except ImportError:
        return False
    return is_shared(folder, {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)})


def is_shared(folder: Path, mounts: Mapping[Path, str]) -> bool:
    """Whether a folder lies on a file system of the network. mounts: the file system's type by mount point."""
    folder = folder.resolve()
    if str(folder).startswith("\\\\"):
        return True
    kind = next((mounts[above].lower() for above in (folder, *folder.parents) if above in mounts), "")
    return kind in NETWORK_SYSTEMS or kind.startswith("fuse.ssh")


def _mark(db: sqlite3.Connection, token: str) -> str:
    """A hash of the token that is worth nothing without this ledger."""
    row = db.execute("SELECT key FROM secret").fetchone()
    if row is None:
        raise sqlite3.DatabaseError("its key is gone")
    return hmac.new(bytes.fromhex(row["key"]), token.encode(), hashlib.sha256).hexdigest()


def _entry(db: sqlite3.Connection, where: str, *values: Any) -> Any:
    row = db.execute(f"SELECT * FROM generations WHERE {where}", values).fetchone()
    return _with_files(db, row) if row else None


def _with_files(db: sqlite3.Connection, row: sqlite3.Row) -> Entry:
    files = db.execute("SELECT path, size, sha256 FROM files WHERE generation = ? ORDER BY position", (row["id"],))
    fields = dict(row)
    fields["audio"] = None if row["audio"] is None else bool(row["audio"])
    try:
        return Entry(**fields, files=tuple(SavedFile(Path(path), size, sha256) for path, size, sha256 in files))
    except TypeError:  # a page of another table in the place of this one's
        raise sqlite3.DatabaseError("a clip on record has no path") from None
