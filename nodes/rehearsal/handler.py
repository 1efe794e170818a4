"""The HTTP face of the rehearsal server: paths, codes and shapes of the published API."""

from __future__ import annotations

import json
import re
import shutil
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qs, unquote, urlsplit

from .validation import check

if TYPE_CHECKING:
    from .server import Job, RehearsalServer

BODY_BYTES = 64 * 1024 * 1024

REFUSALS = {
    400001: "InvalidResourceIdentifier: there is no model with this id",
    400002: "InsufficientResources: the balance is used up",
    400004: "UserAccountError: the token is missing, expired or revoked, or the account is inactive",
    403001: "PermissionDeniedError: this request belongs to another account",
    404001: "ResourceNotFound: there is no request with this id",
}

ROUTES = (
    ("POST", r"/v1/models/(.+)", "submit"),
    ("GET", r"/v1/models/(.+)", "catalogue"),
    ("GET", r"/v1/requests/([^/]+)/status", "status"),
    ("GET", r"/v1/requests/([^/]+)/result", "result"),
    ("POST", r"/v1/requests/([^/]+)/cancel", "cancel"),
    ("GET", r"/files/([^/]+)", "send_file"),
    ("HEAD", r"/files/([^/]+)", "send_file"),
)


class Refusal(Exception):
    """An answer that is an error: HTTP status, numeric code, message and, for 422, the fields."""

    def __init__(self, status: int, code: int, message: str, detail: list[dict[str, Any]] | None = None):
        super().__init__(message)
        self.status, self.code, self.message, self.detail = status, code, message, detail


def refuse(code: int) -> NoReturn:
    raise Refusal(code // 1000, code, REFUSALS[code])


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "KlingRehearsal"
    wbufsize = -1  # head and body leave in one packet
    disable_nagle_algorithm = True
    rehearsal: RehearsalServer

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_any(self) -> None:
        self.rehearsal.note_call(self.command, self.path)
        try:
            body = self.read_body()
            self.route(body)
        except Refusal as refusal:
            answer: dict[str, Any] = {"code": refusal.code, "message": refusal.message}
            if refusal.detail is not None:
                answer["detail"] = refusal.detail
            self.send_json(refusal.status, answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = handle_any

    def read_body(self) -> bytes:
        # Read even where it is not wanted: what stays in the socket would be taken for the next call.
        if "Transfer-Encoding" in self.headers:
            self.close_connection = True
            raise Refusal(411, 411, "a body needs a Content-Length")
        length = int(self.headers.get("Content-Length", 0))
        if length > BODY_BYTES:
            self.close_connection = True
            raise Refusal(413, 413, f"the body holds {length} bytes, over the limit of {BODY_BYTES}")
        return self.rfile.read(length)

    def route(self, body: bytes) -> None:
        path = unquote(urlsplit(self.path).path)
        known = [(method, name, match[1]) for method, pattern, name in ROUTES if (match := re.fullmatch(pattern, path))]
        if not known:
            raise Refusal(404, 404, "there is nothing at this path")
        for method, name, argument in known:
            if method == self.command:
                if name == "send_file":
                    return self.send_file(argument)
                token = self.token()
                if name == "submit":
                    return self.submit(token, argument, body)
                if name == "catalogue":
                    return self.catalogue(argument)
                job = self.rehearsal.find(argument)
                if job is None:
                    refuse(404001)
                if job.token != token:
                    refuse(403001)
                return getattr(self, name)(job)
        raise Refusal(405, 405, f"this path does not take {self.command}")

    def token(self) -> str:
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not token or self.rehearsal.token not in (None, token):
            refuse(400004)
        return token

    def submit(self, token: str, model_id: str, body: bytes) -> None:
        schema = self.rehearsal.schemas.get(model_id)
        if schema is None:
            refuse(400001)
        if self.rehearsal.refuse is not None:
            refuse(self.rehearsal.refuse)
        try:
            fields = json.loads(body, parse_constant=_no_constant)
        except ValueError:
            raise Refusal(422, 422, "the body is not JSON", [{"loc": ["body"], "msg": "is not JSON"}]) from None
        if problems := check(schema, fields):
            detail = [{"loc": ["body", *where], "msg": what} for where, what in problems]
            where, what = problems[0]
            raise Refusal(422, 422, f"{'.'.join(map(str, where)) or 'the body'} {what}", detail)
        job = self.rehearsal.accept(token, model_id, fields)
        self.send_json(200, self.links(job, "status", "result", "cancel"))

    def catalogue(self, model_id: str) -> None:
        schema = self.rehearsal.schemas.get(model_id)
        if schema is None:
            refuse(400001)
        self.send_json(
            200,
            {
                "model_id": model_id,
                "base_price_usd": self.rehearsal.base_price_usd,
                "price_unit": "second",
                "input_schema": schema,
            },
        )

    def status(self, job: Job) -> None:
        state, position = self.rehearsal.state_of(job)
        answer = {**self.links(job, "status", "result"), "status": state}
        if position is not None:
            answer["queue_position"] = position
        self.send_json(200, answer)

    def result(self, job: Job) -> None:
        state, _ = self.rehearsal.state_of(job)
        answer: dict[str, Any] = {"request_id": job.request_id, "status": state, "created_at": job.created_at}
        if job.finished_at is not None:
            answer |= {"status": job.ending, "finished_at": job.finished_at, "output": {}}
            urls = [f"{self.rehearsal.base_url}/files/{file.name}" for file in job.files]
            if len(urls) == 1:
                answer["output"] = {"video": urls[0]}
            elif urls:
                answer["output"] = {"videos": urls}
            if job.error:
                answer["error"] = job.error
            if "true" in parse_qs(urlsplit(self.path).query).get("include_cost", []):
                answer["cost"] = job.cost_usd
        self.send_json(200, answer)

    def cancel(self, job: Job) -> None:
        outcome = self.rehearsal.cancel(job)
        state, _ = self.rehearsal.state_of(job)
        self.send_json(202, {"request_id": job.request_id, "status": state, "outcome": outcome})

    def links(self, job: Job, *names: str) -> dict[str, Any]:
        root = f"{self.rehearsal.base_url}/v1/requests/{job.request_id}"
        return {"request_id": job.request_id, **{f"{name}_url": f"{root}/{name}" for name in names}}

    def send_json(self, status: int, answer: dict[str, Any]) -> None:
        body = json.dumps(answer, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_file(self, name: str) -> None:
        file = self.rehearsal.files.get(name)
        if file is None:
            raise Refusal(404, 404, "there is no such file")
        size, tag = file.stat().st_size, f'"{name}"'
        first, last = 0, size - 1
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        partial = wanted is not None and any(wanted.groups()) and self.headers.get("If-Range", tag) == tag
        if wanted and partial:
            if wanted[1]:
                first, last = int(wanted[1]), min(int(wanted[2] or last), last)
            else:
                first = max(size - int(wanted[2]), 0)
            if first > last:
                raise Refusal(416, 416, f"the file holds {size} bytes")
        self.send_response(206 if partial else 200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", tag)
        self.send_header("Content-Length", str(last - first + 1))
        if partial:
            self.send_header("Content-Range", f"bytes {first}-{last}/{size}")
        self.end_headers()
        if self.command == "HEAD":
            return
        with file.open("rb") as source:
            source.seek(first)
            if last == size - 1:
                shutil.copyfileobj(source, self.wfile)
            else:
                self.wfile.write(source.read(last - first + 1))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
