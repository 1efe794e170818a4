"""Stills in an S3-compatible bucket, read by RunComfy through pre-signed links."""

from __future__ import annotations

import threading
from typing import Any
from urllib.parse import urlsplit

import requests

from ..errors import HostingError
from .way import Payload, Way

# S3 signs for seven days at most.
LONGEST_LINK_SECONDS = 7 * 24 * 3600
# As many nodes may start at once; each upload keeps a connection.
MOST_UPLOADS = 64
INSTALL = "Install it into ComfyUI's Python: pip install 'boto3>=1.36'."

REMEDIES = {
    "NoSuchBucket": "create the bucket, or correct RUNCOMFY_KLING_S3_BUCKET",
    "InvalidAccessKeyId": "the access key is unknown there; check the AWS credentials",
    "SignatureDoesNotMatch": "the secret key is wrong; check the AWS credentials",
    "ExpiredToken": "the session has expired; log in again",
    "RequestTimeTooSkewed": "set this machine's clock",
}
OTHER_REMEDY = "check the AWS credentials, their rights to get and put objects, and AWS_REGION"


class Bucket(Way):
    """A bucket, shared by all generations and threads.

    endpoint_url: "" for AWS. seconds: for how long a link answers.
    Credentials and region are found by boto3. Raises HostingError without boto3 or credentials.
    Nothing is withdrawn: links expire, and the files stay for the next time.
    """

    def __init__(self, name: str, endpoint_url: str, prefix: str, seconds: float) -> None:
        self._name = name
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        self._seconds = min(int(seconds), LONGEST_LINK_SECONDS)
        self._client = _client(name, endpoint_url)
        self.endpoint_url: str = self._client.meta.endpoint_url
        # One upload at a time per key, so that two nodes with one still send it once; keys share the locks.
        self._locks = [threading.Lock() for _ in range(64)]

    def put(self, payload: Payload) -> str:
        """Upload unless it lies there already; returns a link that has been seen to answer."""
        import botocore.exceptions as trouble

        digest = payload.digest()
        key = f"{self._prefix}{digest}.{payload.suffix}"
        try:
            with self._locks[int(digest[:2], 16) % len(self._locks)]:
                if not self._holds(key, payload.size):
                    with payload.open() as file:
                        self._client.put_object(Bucket=self._name, Key=key, Body=file, ContentType=payload.content_type)
            link = self.link(key)
        except trouble.ClientError as error:
            code = error.response.get("Error", {}).get("Code", "unknown error")
            raise self._error(payload, f"refused it ({code})", REMEDIES.get(code, OTHER_REMEDY)) from None
        except (trouble.BotoCoreError, OSError) as error:
            raise self._error(payload, f"failed ({type(error).__name__})", "check that its endpoint answers") from None
        self._check(payload, link)
        return link

    def link(self, key: str) -> str:
        """The pre-signed link of an object, whether it is there or not."""
        place = {"Bucket": self._name, "Key": key}
        return str(self._client.generate_presigned_url("get_object", Params=place, ExpiresIn=self._seconds))

    def _holds(self, key: str, size: int) -> bool:
        import botocore.exceptions as trouble

        try:
            return bool(self._client.head_object(Bucket=self._name, Key=key)["ContentLength"] == size)
        except trouble.ClientError as error:
            # 403 is what S3 says of a missing key to those who may not list the bucket: the upload will tell.
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (403, 404):
                return False
            raise

    def _check(self, payload: Payload, link: str) -> None:
        """Ask for the first byte as RunComfy will: a wrong region or clock shows only here, and here costs nothing."""
        try:
            with requests.get(
                link, headers={"Range": "bytes=0-0"}, auth=lambda request: request, stream=True, timeout=(10, 30)
            ) as answer:
                status = answer.status_code
        except requests.RequestException as error:
            raise self._error(
                payload, f"gave no answer to its link ({type(error).__name__})", "check that its endpoint answers"
            ) from None
        if status not in (200, 206):
            raise self._error(payload, f"answers its link with HTTP {status}", OTHER_REMEDY)

    def _error(self, payload: Payload, what: str, remedy: str) -> HostingError:
        return HostingError(
            f"{payload.name} could not be hosted: the bucket {self._name!r} at {urlsplit(self.endpoint_url).hostname} "
            f"{what}. "
            f"Nothing was submitted. To do: {remedy}."
        )


def _client(name: str, endpoint_url: str) -> Any:
    try:
        import boto3
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise HostingError(f"A bucket is configured, but boto3 is missing. {INSTALL}") from None
    try:
        config = Config(
            signature_version="s3v4",
            # Only AWS is sure to answer under a host per bucket, and without one it redirects links to its regions.
            # Its certificate covers no name with a dot.
            s3={"addressing_style": "path" if endpoint_url or "." in name else "virtual"},
            retries={"mode": "standard", "total_max_attempts": 4},
            max_pool_connections=MOST_UPLOADS,
            connect_timeout=10,
            read_timeout=60,
            # Other servers than AWS do not know its newer checksums.
            request_checksum_calculation="when_required",
            response_checksum_validation="when_required",
        )
    except TypeError:
        raise HostingError(f"A bucket is configured, but boto3 is too old. {INSTALL}") from None
    try:
        session = boto3.Session()
        if session.get_credentials() is None:
            raise HostingError(
                "A bucket is configured, but boto3 finds no credentials: "
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile."
            )
        return session.client("s3", endpoint_url=endpoint_url or None, config=config)
    except (BotoCoreError, ValueError) as error:
        raise HostingError(
            f"The bucket cannot be used ({type(error).__name__}): check RUNCOMFY_KLING_S3_ENDPOINT_URL, "
            "the AWS profile and AWS_REGION."
        ) from None
