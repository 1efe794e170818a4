"""A body against the published schema of its model.

schemas.json holds the six endpoints as JSON Schema, limited to the keywords read here.
"""

from __future__ import annotations

import base64
import binascii
import json
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

IMAGE_TYPES = ("image/jpeg", "image/jpg", "image/png", "image/bmp", "image/webp")
IMAGE_BYTES = 6 * 1024 * 1024
LOOPBACK = ("127.0.0.1", "localhost", "::1")

TYPES = {
    "string": lambda value: isinstance(value, str),
    "boolean": lambda value: isinstance(value, bool),
    # In Python a bool is an int; in JSON it is not.
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
}


class Problem(NamedTuple):
    """Where in the body (a path of keys and indices) and what is wrong there."""

    where: tuple[str | int, ...]
    what: str


def _resolved(node: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(node, dict):
        if "$ref" in node:
            return _resolved(definitions[node["$ref"].rpartition("/")[2]], definitions)
        return {key: _resolved(value, definitions) for key, value in node.items()}
    return node


def load_schemas() -> dict[str, dict[str, Any]]:
    """Model id to its input schema, references resolved."""
    published = json.loads(Path(__file__).with_name("schemas.json").read_text(encoding="utf-8"))
    return {model: _resolved(schema, published["$defs"]) for model, schema in published["models"].items()}


def check(schema: dict[str, Any], body: Any) -> list[Problem]:
    """Every way in which `body` breaks `schema`; an empty list for a good body."""
    return _check(schema, body, ()) or _check_shots(schema, body)


def _check(schema: dict[str, Any], value: Any, where: tuple[str | int, ...]) -> list[Problem]:
    if not TYPES[schema["type"]](value):
        return [Problem(where, f"must be of type {schema['type']}")]
    problems: list[str] = []
    if "enum" in schema and value not in schema["enum"]:
        problems.append(f"must be one of {', '.join(schema['enum'])}")
    if "minimum" in schema and not schema["minimum"] <= value <= schema["maximum"]:
        problems.append(f"must be from {schema['minimum']} to {schema['maximum']}")
    if "minLength" in schema and len(value) < schema["minLength"]:
        problems.append("must not be empty")
    if "maxItems" in schema and len(value) > schema["maxItems"]:
        problems.append(f"must hold at most {schema['maxItems']} items")
    if "format" in schema and (problem := _url_problem(value, schema["format"] == "image-url")):
        problems.append(problem)
    found = [Problem(where, problem) for problem in problems]
    if "properties" in schema:
        found += [Problem((*where, key), "is required") for key in schema["required"] if key not in value]
        for key, part in value.items():
            if key in schema["properties"]:
                found += _check(schema["properties"][key], part, (*where, key))
            else:
                found.append(Problem((*where, key), "is not a field of this model"))
    if "items" in schema:
        for index, part in enumerate(value):
            found += _check(schema["items"], part, (*where, index))
    return found


def _check_shots(schema: dict[str, Any], body: dict[str, Any]) -> list[Problem]:
    """The one rule between fields, which JSON Schema cannot say: shots fill the whole duration."""
    shots = body.get("multi_prompt")
    if not shots:
        return []
    fields = schema["properties"]
    default = fields["multi_prompt"]["items"]["properties"]["duration"]["default"]
    total = sum(shot.get("duration", default) for shot in shots)
    duration = body.get("duration", fields["duration"]["default"])
    if total == duration:
        return []
    return [Problem(("multi_prompt",), f"durations sum to {total}, but duration is {duration}")]


def _url_problem(url: str, image: bool) -> str | None:
    if url.startswith("data:"):
        return _data_problem(url, image)
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        host = None
    if not host or (parts.scheme != "https" and not (parts.scheme == "http" and host in LOOPBACK)):
        return "must be a public https URL or a data: URI"
    return None


def _data_problem(uri: str, image: bool) -> str | None:
    head, _, payload = uri[len("data:") :].partition(",")
    kind, _, encoding = head.partition(";")
    if image and kind not in IMAGE_TYPES:
        return f"data: URI must be one of {', '.join(IMAGE_TYPES)}"
    if not image and not kind.startswith("video/"):
        return "data: URI must be a video"
    try:
        if encoding != "base64":
            raise binascii.Error
        size = len(base64.b64decode(payload, validate=True))
    except (binascii.Error, ValueError):
        return "data: URI must be base64"
    if not size:
        return "data: URI is empty"
    if image and size > IMAGE_BYTES:
        return f"data: URI holds {size} bytes, over the limit of {IMAGE_BYTES} for an image"
    return None
