"""What the environment says, read afresh at each run so that a change needs no restart."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from .errors import AccountError, InputError

TOKEN_NAMES = ("RUNCOMFY_API_TOKEN", "RUNCOMFY_TOKEN")
BASE_URL = "https://model-api.runcomfy.net"
HOSTINGS = ("auto", "inline", "comfyui", "s3")
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Settings:
    """token: "" where there is none. token_source: "settings" or the variable's name. timeout: seconds."""

    token: str = field(default="", repr=False)
    token_source: str = ""
    base_url: str = BASE_URL
    hosting: str = "auto"
    public_origin: str = ""
    s3_bucket: str = ""
    s3_endpoint_url: str = ""
    s3_prefix: str = ""
    timeout: float = 3600.0
    budget_usd: float | None = None

    @classmethod
    def read(cls, environ: Mapping[str, str], saved_token: str = "") -> Settings:
        """Raises InputError on a value that cannot be meant."""

        def value(name: str) -> str:
            return environ.get(f"RUNCOMFY_{name}", "").strip()

        tokens = {"settings": saved_token.strip()} | {name: environ.get(name, "").strip() for name in TOKEN_NAMES}
        source = next((name for name, token in tokens.items() if token), "")
        hosting = value("KLING_HOSTING").lower() or "auto"
        if hosting not in HOSTINGS:
            raise InputError(f"RUNCOMFY_KLING_HOSTING is {hosting!r}: set it to {', '.join(HOSTINGS)}.")
        minutes = _number("RUNCOMFY_KLING_TIMEOUT_MINUTES", value("KLING_TIMEOUT_MINUTES"))
        return cls(
            token=tokens.get(source, ""),
            token_source=source,
            base_url=_origin("RUNCOMFY_MODEL_API_BASE_URL", value("MODEL_API_BASE_URL")) or BASE_URL,
            hosting=hosting,
            public_origin=_origin("RUNCOMFY_KLING_PUBLIC_ORIGIN", value("KLING_PUBLIC_ORIGIN")),
            s3_bucket=value("KLING_S3_BUCKET"),
            s3_endpoint_url=value("KLING_S3_ENDPOINT_URL"),
            s3_prefix=value("KLING_S3_PREFIX"),
            timeout=60 * (minutes or 60),
            budget_usd=_number("RUNCOMFY_KLING_SESSION_BUDGET_USD", value("KLING_SESSION_BUDGET_USD")),
        )

    def require_token(self) -> str:
        """Raises AccountError where there is none, or one that cannot be sent."""
        if not self.token:
            raise AccountError(
                "No RunComfy account is set, so nothing was submitted. Put your API token into Settings → RunComfy "
                "Kling, or into the environment variable RUNCOMFY_API_TOKEN. To try the graph without an account, "
                "turn on rehearsal: it is free."
            )
        if not (self.token.isascii() and self.token.isprintable()) or " " in self.token:
            raise AccountError(
                f"The RunComfy token from {self.token_source} holds characters that no token has, so nothing was "
                "submitted. Copy it again from your RunComfy profile."
            )
        return self.token


def _origin(name: str, url: str) -> str:
    """An https address, or plain http on loopback, without a trailing slash. Raises InputError, never quoting it."""
    parts = urlsplit(url)
    secure = parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in LOOPBACK)
    if url and not (secure and parts.hostname):
        raise InputError(f"{name} is not an https address (plain http works for loopback only).")
    if parts.username or parts.password or parts.query:
        raise InputError(f"{name} must hold no user name, password or query.")
    return url.rstrip("/")


def _number(name: str, text: str) -> float | None:
    try:
        number = float(text) if text else None
    except ValueError:
        number = -1.0
    if number is not None and not 0 <= number < float("inf"):
        raise InputError(f"{name} is {text!r}: set it to a number, or leave it out.")
    return number
