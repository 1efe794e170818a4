"""The calls of RunComfy's Model API, each asked once. Repeating is for those who know what may be repeated.

Where the published facts are silent this is liberal in what it reads (names of
error fields, shapes of an output) and strict in what it sends.
"""

from __future__ import annotations

import email.utils
import functools
import http.client
import itertools
import json
import os
import re
import secrets
import ssl
import time
from concurrent.futures import TimeoutError
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import requests
import urllib3.exceptions

from ..errors import AccountError, RefusedError, UnavailableError, UncertainError
from ..threads import start

GENERATIONS_URL = "https://www.runcomfy.com/models"
USER_AGENT = "comfyui-runcomfy-kling"
CONNECT_SECONDS = 10
READ_SECONDS = 30
# A submission may carry 64 MiB of stills over a slow line, and its answer must not be given up early.
SUBMIT_SECONDS = 180
# Only with RunComfy's own JSON error do these mean that a submission was not accepted.
CLEAR_REFUSALS = frozenset({400, 401, 402, 403, 404, 413, 422, 429})
# How http.client begins its error when a proxy does not let an https call through.
NO_TUNNEL = "Tunnel connection failed"
# requests raises a bare ValueError for a redirect to a malformed address, even though none is followed.
BROKEN = (requests.RequestException, ValueError)
NO_BALANCE, BAD_TOKEN, FOREIGN_REQUEST, UNKNOWN_REQUEST = 400002, 400004, 403001, 404001


class NotNow(Exception):
    """The call may be asked again: nothing was accepted, nothing is final.

    retry_after: seconds the server asked to wait, or None.
    """

    def __init__(self, reason: str, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


@dataclass(frozen=True)
class Problem:
    """An error of RunComfy, read defensively: the names of its fields are not published."""

    status: int
    code: int | None
    message: str

    def __str__(self) -> str:
        code = self.code or f"HTTP {self.status}"
        return f"“{self.message}” ({code})" if self.message else f"({code})"


@dataclass(frozen=True)
class Status:
    """ended: nothing more will happen; only the result says how it went."""

    ended: bool
    working: bool
    queue_position: int | None


@dataclass(frozen=True)
class Result:
    """state: `pending`, `succeeded`, `failed` or `cancelled`. cost_usd: None while RunComfy does not say."""

    state: str
    videos: tuple[str, ...] = ()
    cost_usd: float | None = None
    error: str = ""


@dataclass(frozen=True)
class Price:
    """What the catalogue says of a model. usd: the base price of one unit."""

    usd: float
    unit: str
    note: str


class BearerToken(requests.auth.AuthBase):
    """As an auth object, because requests lets a ~/.netrc entry replace a plain header."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Client:
    """One account at one base URL. Safe to share between threads."""

    def __init__(self, base_url: str, token: str) -> None:
        self.base_url = base_url.rstrip("/")
        self._auth = BearerToken(token)
        self._session = self._new_session()
        # A poll is the same call every time, and preparing it takes longer than sending it.
        self._get = functools.lru_cache(maxsize=16)(self._prepared)

    def _new_session(self) -> requests.Session:
        session = requests.Session()
        session.auth = self._auth
        # What requests would read from the environment again at every poll. Loopback is never asked through a
        # proxy: a rehearsal sends nothing off this machine.
        session.proxies = {} if is_loopback(self.base_url) else requests.utils.get_environ_proxies(self.base_url)
        session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
        session.trust_env = False
        session.headers["User-Agent"] = USER_AGENT
        session.headers["Accept"] = "application/json"
        return session

    def submit(self, model_id: str, body: dict[str, Any]) -> str:
        """Start a generation, which costs money, and return its request id. Never repeats anything.

        body: as to_json takes it.
        Raises NotNow (nothing was accepted), RefusedError or AccountError (clearly
        refused), UncertainError (it may have been accepted and charged).
        """
        payload = to_json(body)
        try:
            # A fresh connection: a kept one may have died unnoticed, which would leave this call in doubt.
            with self._new_session() as session:
                answer = session.post(
                    f"{self.base_url}/v1/models/{quote(model_id)}",
                    data=payload,
                    headers={"Content-Type": "application/json", "Connection": "close"},
                    timeout=(CONNECT_SECONDS, SUBMIT_SECONDS),
                    allow_redirects=False,
                )
        except BROKEN as error:
            if never_connected(error):
                raise NotNow(f"RunComfy could not be reached ({_cause(error)}).") from None
            raise UncertainError(f"the connection broke before RunComfy's answer was read ({_cause(error)})") from None
        if answer.status_code in CLEAR_REFUSALS and (problem := read_problem(answer)):
            if answer.status_code == 429:
                raise NotNow(f"RunComfy asks to wait {problem}.", retry_after(answer))
            raise _refusal(problem)
        request_id = _as_dict(answer).get("request_id") if answer.ok else None
        if isinstance(request_id, (str, int)) and str(request_id).strip():
            return str(request_id).strip()
        raise UncertainError(f"RunComfy answered HTTP {answer.status_code} without a request id")

    def status(self, request_id: str) -> Status:
        """Raises NotNow, or UnavailableError and AccountError, which are final."""
        answer = self._read(f"/v1/requests/{quote(request_id, safe='')}/status")
        state = str(answer.get("status") or "").lower()
        if not state:
            raise NotNow("RunComfy's answer names no status.")
        position = answer.get("queue_position")
        return Status(
            ended=state in ENDED,
            working=state in WORKING,
            queue_position=position if isinstance(position, int) and not isinstance(position, bool) else None,
        )

    def result(self, request_id: str) -> Result:
        """Raises NotNow, or UnavailableError and AccountError, which are final."""
        answer = self._read(f"/v1/requests/{quote(request_id, safe='')}/result?include_cost=true")
        state = str(answer.get("status") or "").lower()
        if not state:
            raise NotNow("RunComfy's answer names no status.")
        return Result(
            state=ENDED.get(state, "pending"),
            videos=_videos(answer.get("output")),
            cost_usd=_usd(answer.get("cost")),
            error=_words(answer.get("error")),
        )

    def cancel(self, request_id: str, seconds: float = 5) -> bool | None:
        """Ask to cancel, within so many seconds. True: confirmed. False: it cannot be. None: no clear answer."""
        try:
            # In a thread, since looking up a name and an answer that trickles know no time limit.
            return start(self._cancel, request_id, seconds).result(seconds)
        except (*BROKEN, TimeoutError):
            return None

    def _cancel(self, request_id: str, seconds: float) -> bool | None:
        answer = self._session.post(
            f"{self.base_url}/v1/requests/{quote(request_id, safe='')}/cancel", timeout=seconds, allow_redirects=False
        )
        outcome = _as_dict(answer).get("outcome") if answer.ok else None
        return {"cancelled": True, "not_cancellable": False}.get(str(outcome))

    def price(self, model_id: str) -> Price | None:
        """The catalogue's price, or None where it gives none. Raises NotNow, UnavailableError, AccountError."""
        answer = self._read(f"/v1/models/{quote(model_id)}")
        usd = _usd(answer.get("base_price_usd"))
        if not usd:
            return None
        return Price(usd, str(answer.get("price_unit") or ""), _words(answer.get("pricing_note")))

    def _prepared(self, path: str) -> requests.PreparedRequest:
        return self._session.prepare_request(requests.Request("GET", self.base_url + path))

    def _read(self, path: str) -> dict[str, Any]:
        """One GET of a JSON object; a redirect is not followed, since the token must not travel."""
        try:
            answer = self._session.send(self._get(path), timeout=(CONNECT_SECONDS, READ_SECONDS), allow_redirects=False)
        except BROKEN as error:
            raise NotNow(f"RunComfy could not be read ({_cause(error)}).") from None
        if answer.ok:
            if (body := _as_dict(answer)) and answer.status_code < 300:
                return body
            raise NotNow("RunComfy's answer is no JSON object.")
        problem = read_problem(answer)
        if problem and answer.status_code in (400, 401, 402, 403, 404):
            raise _unavailable(problem)
        raise NotNow(f"RunComfy answered HTTP {answer.status_code}.", retry_after(answer))


# Only published words: an entry that ended as failed is paid anew by the next run.
ENDED = {
    "completed": "succeeded",
    "succeeded": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}
WORKING = frozenset({"in_progress", "running", "processing"})


def to_json(body: Any) -> bytes:
    """The body as JSON. bytes in it are strings of ASCII with nothing to escape, such as base64.

    These are spliced in: looking through megabytes for something to escape would hold up all other threads.
    """
    hole = secrets.token_hex(16)
    spliced: list[bytes] = []

    def leave_out(part: bytes) -> str:
        spliced.append(part)
        return hole

    pieces = json.dumps(body, allow_nan=False, default=leave_out).encode().split(hole.encode())
    return b"".join(itertools.chain(*itertools.zip_longest(pieces, spliced, fillvalue=b"")))


def is_loopback(url: str) -> bool:
    return urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")


def never_connected(error: Exception) -> bool:
    """Whether no byte of the request can have left: only then is a failed submission no doubt.

    A ProxyError alone says nothing: urllib3 raises it for a proxy that broke off after it had the request, too.
    """
    return any(
        isinstance(
            link,
            (
                urllib3.exceptions.NewConnectionError,
                urllib3.exceptions.ConnectTimeoutError,
                ssl.SSLCertVerificationError,
            ),
        )
        or str(link).startswith(NO_TUNNEL)
        for link in _causes(error)
    )


def retry_after(answer: requests.Response) -> float | None:
    """Retry-After in seconds. A date counts from the answer's own Date: the two clocks may differ."""
    value = answer.headers.get("Retry-After", "").strip()
    if re.fullmatch(r"\d{1,6}", value):
        return float(value)
    until = _http_date(value)
    if until is None:
        return None
    now = _http_date(answer.headers.get("Date", ""))
    return max(0.0, until - (time.time() if now is None else now))


def read_problem(answer: requests.Response) -> Problem | None:
    """RunComfy's JSON error, or None where the answer is something else, such as a proxy's page."""
    body = _as_dict(answer)
    envelopes = [part for part in (body, body.get("error"), body.get("detail")) if isinstance(part, dict)]
    code = _first(envelopes, ("code", "error_code", "errorCode"))
    message = _first(envelopes, ("message", "error_message", "msg", "error", "title"))
    detail = body.get("detail")
    if code is None and message is None and not detail:
        return None
    # A message about the token may repeat it.
    token = answer.request.headers.get("Authorization", "").removeprefix("Bearer ")
    words = [_words(part, token) for part in (message, detail) if not isinstance(part, dict)]
    return Problem(
        answer.status_code,
        int(code) if str(code).isdecimal() else None,
        ": ".join(dict.fromkeys(word for word in words if word)),
    )


def _refusal(problem: Problem) -> Exception:
    if problem.code == NO_BALANCE or problem.status == 402:
        return RefusedError(f"RunComfy's balance is used up {problem}. Nothing was spent. Top up, then run again.")
    if problem.code == BAD_TOKEN or problem.status == 401:
        return AccountError(_bad_token(problem) + " Nothing was spent.")
    if problem.status == 422:
        return RefusedError(f"RunComfy refused a field of the request {problem}. Nothing was spent.")
    return RefusedError(f"RunComfy refused the request {problem}. Nothing was spent.")


def _unavailable(problem: Problem) -> Exception:
    if problem.code == BAD_TOKEN or problem.status == 401:
        return AccountError(_bad_token(problem))
    if problem.code == FOREIGN_REQUEST or problem.status == 403:
        return UnavailableError(f"RunComfy says that this request belongs to another account {problem}.")
    if problem.code == UNKNOWN_REQUEST or problem.status == 404:
        return UnavailableError(f"RunComfy does not know this request, or no longer {problem}.")
    return UnavailableError(f"RunComfy refused {problem}.")


def _bad_token(problem: Problem) -> str:
    return (
        f"RunComfy does not accept the token {problem}. Set another in Settings → RunComfy Kling, or in the "
        "environment variable RUNCOMFY_API_TOKEN."
    )


def _as_dict(answer: requests.Response) -> dict[str, Any]:
    try:
        body = answer.json()
    except ValueError:
        return {}
    return body if isinstance(body, dict) else {}


def _videos(output: Any) -> tuple[str, ...]:
    """The URLs of an output's video and videos, each once; entries may be strings or objects with a url."""
    if not isinstance(output, dict):
        return ()
    found = [output.get("video"), *_listed(output.get("videos"))]
    urls = [entry.get("url") if isinstance(entry, dict) else entry for entry in found]
    return tuple(dict.fromkeys(url for url in urls if isinstance(url, str) and url))


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _usd(value: Any) -> float | None:
    try:
        usd = float(value)
    except (TypeError, ValueError):
        return None
    return usd if 0 <= usd < float("inf") and not isinstance(value, bool) else None


def _words(value: Any, secret: str = "") -> str:
    """Whatever RunComfy says, as one line of bounded length, without the secret."""
    if value is None:
        return ""
    if isinstance(value, dict) and isinstance(value.get("message"), str):
        value = value["message"]
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    line = " ".join(text.split())
    return (line.replace(secret, "…") if secret else line)[:500]


def _first(envelopes: list[dict[str, Any]], names: tuple[str, ...]) -> Any:
    for name in names:
        for envelope in envelopes:
            if isinstance(value := envelope.get(name), (str, int)) and not isinstance(value, bool):
                return value
    return None


def _cause(error: BaseException) -> str:
    """The innermost cause by its kind alone: messages of the HTTP library hold whole URLs."""
    network = (OSError, http.client.HTTPException)
    return type(next((link for link in reversed(_causes(error)) if isinstance(link, network)), error)).__name__


def _causes(error: BaseException) -> list[BaseException]:
    """The error and all that led to it: requests and urllib3 nest them in arguments as well."""
    links = [error]
    for link in links:  # grows while it is read
        nearer = (*link.args, getattr(link, "reason", None), link.__cause__, link.__context__)
        links += [cause for cause in nearer if isinstance(cause, BaseException) and cause not in links]
    return links


def _http_date(value: str) -> float | None:
    try:
        return email.utils.parsedate_to_datetime(value).timestamp()
    except (TypeError, ValueError, IndexError):
        return None
