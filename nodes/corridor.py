"""From a request that RunComfy has to a clip on disk: one worker at a time, then wait, download, save.

Nothing here knows ComfyUI: a Workspace says where it happens.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from .account import Account
from .errors import (
    AccountError,
    CancelledRequestError,
    DownloadError,
    FailedError,
    KlingError,
    NoOutputError,
    UnavailableError,
)
from .lease import Lease
from .ledger import Entry, SavedFile
from .media import video
from .progress import Progress
from .runcomfy.client import GENERATIONS_URL, NotNow, Result, is_loopback
from .runcomfy.download import Download
from .runcomfy.pace import Pace
from .runcomfy.wait import CALL_SECONDS, asked, wait
from .save import part, publish
from .threads import off_loop, start
from .workspace import Names, Stopped, Workspace, until_stopped

log = logging.getLogger("runcomfy-kling")

FOLLOW_SECONDS = 0.3
DOWNLOAD_TRIES = 6
DOWNLOAD_PAUSE_SECONDS = 15.0


@dataclass(frozen=True)
class Delivery:
    """What was brought. files: the first is the output. reused: it lay there already.

    last_frame: of the first file, float32 [1, H, W, 3], where it was decoded while the file was saved.
    """

    request_id: str
    files: tuple[SavedFile, ...]
    cost_usd: float | None
    reused: bool
    last_frame: Future[np.ndarray] | None = None


class Corridor(ABC):
    """name: what the lease is for: one holder of it works, the others follow."""

    again: str
    """What running the node again does once a request has ended without a clip."""

    def __init__(self, name: str, prefix: str, account: Account, workspace: Workspace) -> None:
        self.name = name
        self.prefix = prefix
        self.account = account
        self.ledger = account.ledger
        self.workspace = workspace
        self.progress = Progress(workspace.show, rehearsal=account.free)

    async def run(self) -> Delivery:
        """Raises a KlingError, or Stopped."""
        self.progress.update(stage="preparing")
        try:
            return await until_stopped(self._run(), self.workspace.stopped)
        except KlingError as error:
            self.progress.update(stage="failed", message=str(error))
            raise
        except Stopped:
            self.progress.update(stage="stopped")
            raise

    async def _run(self) -> Delivery:
        self.lease = await off_loop(self._enter)
        try:
            entry = await self._entry(await self._lead())
            start(self._found, entry)
            delivery = await self._deliver(entry)
        except asyncio.CancelledError:
            # Not awaited: the loop may be closing, and a submission under way must still be noted.
            start(self._leave, self.workspace.stopped())
            raise
        except BaseException:
            await off_loop(self._leave, False)
            raise
        await off_loop(self._leave, False)
        return delivery

    @abstractmethod
    async def _entry(self, followed: bool) -> Entry:
        """The entry to deliver. followed: somebody else worked on it while we waited."""

    def _found(self, entry: Entry) -> None:  # noqa: B027 - a request fetched by its id has no graph
        """Called in a thread of its own, once it is known which entry this is."""

    @abstractmethod
    def _leave(self, stopped: bool) -> None:
        """Let others take over. Blocks; called once. stopped: the user pressed Stop."""

    def _enter(self) -> Lease:
        """Join those who want this clip, and lead them if nobody does."""
        # Whether a clip can be saved is known before it is paid.
        part(self.workspace.names(self.prefix, 0, 0).folder).unlink()
        lease = Lease(self.ledger.folder / "leases", self.name)
        lease.try_lead()
        return lease

    async def _lead(self) -> bool:
        """Wait until nobody else works on this. Returns whether somebody did."""
        followed = False
        while not (self.lease.leads or await off_loop(self.lease.try_lead)):
            followed = True
            self.progress.update(stage="sharing")
            await asyncio.sleep(FOLLOW_SECONDS)
        return followed

    async def _deliver(self, entry: Entry) -> Delivery:
        request_id = entry.request_id or ""
        self.progress.since = entry.submitted or entry.created
        if entry.state == "saved" and await off_loop(_all_intact, entry.files):
            self.progress.update(request_id=request_id, reused=True)
            self._show_saved(entry.files, entry.cost_usd)
            return Delivery(request_id, entry.files, entry.cost_usd, reused=True)
        self.result, worked = await self._wait(entry, request_id)
        await off_loop(self._ended, entry, self.result)
        if not self.result.videos:
            raise NoOutputError(
                f"Request {request_id} succeeded, but RunComfy's result names no video. It is paid and kept: run the "
                f"node again to read the result again, or look for it under Generations: {GENERATIONS_URL}"
            )
        brought = [await self._bring(request_id, n) for n in range(len(self.result.videos))]
        files = tuple(file for file, _ in brought)
        cost_usd = self.result.cost_usd
        await off_loop(self._saved, entry, files, cost_usd, worked)
        self._show_saved(files, cost_usd)
        return Delivery(request_id, files, cost_usd, reused=False, last_frame=brought[0][1])

    def _show_saved(self, files: Sequence[SavedFile], cost_usd: float | None) -> None:
        clips = self.workspace.clips([file.path for file in files])
        self.progress.update(stage="saved", cost_usd=cost_usd, clips=clips)

    def _durations(self) -> Sequence[float]:
        """How long such clips took before, newest first; nothing is known of a request fetched by its id."""
        return ()

    def _prompt(self) -> str | None:
        """What the record may hold of the prompt, once the clip's own metadata holds it."""
        return None

    async def _wait(self, entry: Entry, request_id: str) -> tuple[Result, float | None]:
        try:
            return await wait(
                self.account.client,
                request_id,
                pace=Pace(await off_loop(self._durations)),
                submitted=self.progress.since,
                timeout=self.account.settings.timeout,
                show=lambda **facts: self.progress.update(request_id=request_id, **facts),
            )
        except (UnavailableError, AccountError) as error:
            await self._explain(entry, request_id, error)

    async def _explain(self, entry: Entry, request_id: str, error: KlingError) -> NoReturn:
        """Add to RunComfy's refusal what it means for this clip, which is paid."""
        if isinstance(error, AccountError):
            raise AccountError(f"Request {request_id}: {error} The clip is not lost: run again with a valid token.")
        if not await off_loop(self.ledger.is_account, entry, self.account.token):
            raise UnavailableError(
                f"Request {request_id}: {error} It was submitted with another token than the one in force: set that "
                "account's token and run again. Nothing was submitted anew."
            )
        raise UnavailableError(
            f"Request {request_id}: {error} Its clip cannot be fetched with this account. Look for it under "
            f"Generations ({GENERATIONS_URL}), or choose another variation to pay for a new take. "
            "Nothing was submitted anew."
        )

    def _ended(self, entry: Entry, result: Result) -> None:
        """Note how a request ended. Raises FailedError or CancelledRequestError where that is final."""
        if result.state == "failed":
            self.ledger.failed(entry.id, result.error, result.cost_usd)
            raise FailedError(
                f"Request {entry.request_id} failed at RunComfy: “{result.error or 'no reason given'}”. "
                f"{_cost_sentence(result.cost_usd)} {self.again}"
            )
        if result.state == "cancelled":
            self.ledger.cancelled(entry.id)
            raise CancelledRequestError(f"Request {entry.request_id} was cancelled. {self.again}")

    def _saved(self, entry: Entry, files: Sequence[SavedFile], cost_usd: float | None, worked: float | None) -> None:
        prompt = self._prompt() if self.workspace.metadata else None
        self.ledger.saved(entry.id, files, cost_usd=cost_usd, worked=worked, prompt=prompt)
        log.info("RunComfy request %s saved as %s", entry.request_id, files[0].path)

    async def _bring(self, request_id: str, position: int) -> tuple[SavedFile, Future[np.ndarray]]:
        """Download one video of a result, embed the workflow and save it under the next free name.

        Returns its last frame as well, decoded beside that: only its error, if any, is left to the caller.
        """
        folder = (await off_loop(self.workspace.names, self.prefix, 0, 0)).folder
        raw, tagged = await off_loop(part, folder), await off_loop(part, folder)
        download = Download(
            raw,
            allow_loopback=is_loopback(self.account.client.base_url),
            show=self.progress.received,
        )
        try:
            info, last_frame = await self._download(download, request_id, position)
            metadata = dict(self.workspace.metadata) | {"runcomfy_request_id": request_id}
            whole = await off_loop(_embedded, raw, tagged, metadata)
            await asyncio.wait([asyncio.wrap_future(last_frame)])  # Windows moves no file that is being read
            names = await off_loop(self.workspace.names, self.prefix, info.width, info.height)
            return await off_loop(_published, whole, names), last_frame
        except DownloadError as error:
            raise DownloadError(
                f"Request {request_id} is finished and paid, but its clip could not be brought here: {error} "
                "Nothing is lost: run the node again to fetch it; nothing is submitted anew."
            ) from None
        finally:
            download.stop.set()
            start(_discard, raw, tagged)

    async def _download(
        self, download: Download, request_id: str, position: int
    ) -> tuple[video.VideoInfo, Future[np.ndarray]]:
        """Fetch until it is a whole video; a link that no longer answers is asked for again."""
        tries = 0
        while True:
            pause = min(2.0**tries, DOWNLOAD_PAUSE_SECONDS)
            tries += 1
            try:
                await off_loop(download.fetch, self.result.videos[position])
            except NotNow as error:
                trouble = str(error)
                pause = min(error.retry_after or pause, CALL_SECONDS)
            else:
                last_frame = start(video.last_frame, download.path)
                try:
                    return await off_loop(video.probe, download.path), last_frame
                except DownloadError as error:
                    trouble = str(error)
                    download.start_over()
            if tries == DOWNLOAD_TRIES:
                raise DownloadError(trouble)
            await asyncio.sleep(pause)
            with contextlib.suppress(NotNow, KlingError):
                fresh = await asked(self.account.client.result, request_id)
                if len(fresh.videos) >= len(self.result.videos):
                    self.result = fresh


def _all_intact(files: tuple[SavedFile, ...]) -> bool:
    return bool(files) and all(file.is_intact() for file in files)


def _embedded(raw: Path, tagged: Path, metadata: dict[str, Any]) -> Path:
    """The file with its metadata, or the raw one where that cannot be: a paid clip is never lost to a tag."""
    try:
        video.embed(raw, tagged, metadata)
    except Exception as error:
        log.warning("The workflow could not be embedded in the clip (%s).", error)
        return raw
    return tagged


def _published(whole: Path, names: Names) -> SavedFile:
    return SavedFile.of(publish(whole, names))


def _discard(*parts: Path) -> None:
    for path in parts:
        path.unlink(missing_ok=True)


def _cost_sentence(cost_usd: float | None) -> str:
    if cost_usd is None:
        return "RunComfy reports no cost for it."
    return f"RunComfy reports a cost of {cost_usd:.2f} USD for it." if cost_usd else "It cost nothing."
