"""What the editor asks of the pack, asked of a real ComfyUI: who is answered, with what, and never with a secret."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from typing import Any

import comfyui as harness
import pytest
import requests
from corridor import TOKEN, render
from runcomfy_kling.nodes.ledger import Ledger
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer

PREFIX = "/runcomfy_kling"
NODE = {
    "class_type": "RunComfyKlingTextToVideo",
    "inputs": {
        "prompt": "routes: a lighthouse",
        "tier": "pro",
        "duration": 5,
        "aspect_ratio": "16:9",
        "generate_audio": False,
        "cfg_scale": 0.5,
    },
}
WORKFLOW = {"nodes": [], "links": [], "version": 0.4, "extra": {"made": "by the test"}}


class Page:
    """ComfyUI's own page, or another that tries to be it. Every answer is looked through for the token."""

    def __init__(self, comfyui: harness.ComfyUI) -> None:
        self.comfyui = comfyui
        self.base = comfyui.base

    def ask(self, method: str, path: str, origin: str | None = "own", **options: Any) -> requests.Response:
        headers = {"Origin": self.comfyui.url if origin == "own" else origin} if origin is not None else {}
        answer = requests.request(method, self.comfyui.url + PREFIX + path, headers=headers, timeout=60, **options)
        assert TOKEN not in answer.text
        assert TOKEN not in str(answer.headers)
        return answer

    def json(self, method: str, path: str, **options: Any) -> Any:
        answer = self.ask(method, path, **options)
        assert answer.status_code == 200, answer.text
        return answer.json()

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.base / "user" / "__runcomfy_kling" / "ledger")


@pytest.fixture(scope="module")
def server() -> Iterator[RehearsalServer]:
    with RehearsalServer(token=TOKEN, base_price_usd=0.1, render=render) as server:
        yield server


@pytest.fixture(scope="module")
def page(start_comfyui: Any, server: RehearsalServer) -> Page:
    return Page(start_comfyui(env={"RUNCOMFY_MODEL_API_BASE_URL": server.base_url}))


@pytest.fixture
def account(page: Page) -> Iterator[Page]:
    page.json("PUT", "/account", json={"token": TOKEN})
    yield page
    page.json("DELETE", "/account")


@pytest.mark.parametrize("origin", [None, "null", "https://evil.example", "http://127.0.0.1:1", ""])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/account"),
        ("DELETE", "/account"),
        ("POST", "/account/test"),
        ("POST", "/paid"),
        ("POST", "/generations/1/settle"),
        ("POST", "/generations/1/fetch"),
        ("POST", "/generations/1/reveal"),
    ],
)
def test_no_other_origin_writes(page: Page, method: str, path: str, origin: str | None) -> None:
    # The Host is what an attacker's page cannot choose; ComfyUI's own check is told that it is not loopback.
    host = {"Host": "studio.example:8188"}
    headers = host if origin is None else host | {"Origin": origin}
    url = page.comfyui.url + PREFIX + path
    assert requests.request(method, url, headers=headers, json={"token": "x"}, timeout=60).status_code == 403
    assert page.json("GET", "/account")["source"] is None


@pytest.mark.parametrize("headers", [{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
def test_no_other_origin_reads(page: Page, headers: dict[str, str]) -> None:
    for path in ("/account", "/progress", "/generations", "/quote?task=text-to-video&tier=pro&seconds=5&audio=true"):
        host = {"Host": "studio.example:8188"}
        assert requests.get(page.comfyui.url + PREFIX + path, headers=host | headers, timeout=60).status_code == 403


def test_a_token_is_kept_where_only_its_owner_reads_it(page: Page) -> None:
    assert page.json("GET", "/account")["source"] is None
    assert page.json("PUT", "/account", json={"token": f" {TOKEN}\n"})["source"] == "settings"
    file = page.base / "user" / "__runcomfy_kling" / "token"
    assert file.read_text() == TOKEN
    if os.name == "posix":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    for path in ("/settings", "/userdata?dir=.", "/userdata/..%2F__runcomfy_kling%2Ftoken", "/v2/userdata?path="):
        for header in ({}, {"comfy-user": "__runcomfy_kling"}):
            answer = requests.get(page.comfyui.url + path, headers=header, timeout=60)
            assert TOKEN not in answer.text
    assert page.json("POST", "/account/test") == {"ok": True, "message": "RunComfy accepts the token."}
    assert page.json("DELETE", "/account")["source"] is None
    assert not file.exists()


def test_a_wrong_token_is_told_in_runcomfys_words(page: Page) -> None:
    page.json("PUT", "/account", json={"token": "somebody-elses"})
    tested = page.json("POST", "/account/test")
    assert tested["ok"] is False
    assert "400004" in tested["message"]
    page.json("DELETE", "/account")


@pytest.mark.parametrize("token", ["", "two words", "line\nbreak", "schlüssel"])
def test_what_is_no_token_is_refused(page: Page, token: str) -> None:
    answer = page.ask("PUT", "/account", json={"token": token})
    assert answer.status_code == 409
    assert answer.json()["error"]
    assert page.json("GET", "/account")["source"] is None


@pytest.mark.parametrize(("method", "path"), [("PUT", "/account"), ("POST", "/paid")])
@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"token": 1, "prompt": 2, "node": 3}'])
def test_what_is_not_understood_is_said(page: Page, method: str, path: str, body: bytes) -> None:
    assert page.ask(method, path, data=body).status_code in (200, 400)
    assert page.json("GET", "/account")["source"] is None


def quote(page: Page, **terms: Any) -> Any:
    query = {"task": "text-to-video", "tier": "pro", "seconds": 10, "audio": "true"} | terms
    return page.json("GET", "/quote", params=query)


def test_a_price_is_never_guessed(page: Page) -> None:
    assert quote(page) == {"usd": None, "from": False, "source": None, "note": None}


def test_a_quote_follows_the_catalogue_and_then_what_was_paid(account: Page, server: RehearsalServer) -> None:
    found = quote(account, tier="4k", seconds=7)
    assert found["usd"] == pytest.approx(0.7)
    assert (found["from"], found["source"]) == (True, "catalogue")
    account.comfyui.run(
        {"1": {**NODE, "inputs": NODE["inputs"] | {"prompt": "routes: quoted", "generate_audio": True}}}
    )
    found = quote(account)
    assert found["usd"] == pytest.approx(1.0)
    assert (found["from"], found["source"]) == (False, "ledger")
    assert account.ask("GET", "/quote?task=text-to-video&tier=hd&seconds=5&audio=true").status_code == 400


def test_a_generation_is_known_as_paid_and_can_be_gone_through(account: Page, server: RehearsalServer) -> None:
    prompt = {"1": NODE}

    def paid(**inputs: Any) -> Any:
        asked = {"1": {**NODE, "inputs": NODE["inputs"] | inputs}}
        return account.json("POST", "/paid", json={"node": "1", "prompt": asked})["state"]

    assert paid() is None
    account.comfyui.run(prompt, extra_data={"extra_pnginfo": {"workflow": WORKFLOW}})
    assert paid() == "saved"
    assert paid(filename_prefix="elsewhere", request_id="") == "saved"
    assert paid(cfg_scale=0.6) is None
    assert paid(prompt=["2", 0]) is None

    listed = account.json("GET", "/generations")
    entry = listed["entries"][0]
    assert listed["total"] == len(listed["entries"])
    assert (entry["state"], entry["tier"], entry["task"], entry["seconds"]) == ("saved", "pro", "text-to-video", 5)
    assert entry["prompt"] == NODE["inputs"]["prompt"]
    assert entry["cost_usd"] == pytest.approx(0.5)
    view = entry["view"]
    clip = account.comfyui.view(view["filename"], view["subfolder"])
    assert clip[4:8] == b"ftyp"
    assert account.json("GET", f"/generations/{entry['id']}/workflow")["workflow"] == WORKFLOW
    assert account.json("GET", f"/generations?before={entry['id']}")["entries"] == listed["entries"][1:]
    assert len(account.json("GET", "/generations?limit=1")["entries"]) == 1
    assert account.ask("GET", "/generations/999999/workflow").status_code == 400


def test_a_generation_under_way_costs_nothing_more_and_its_clip_is_told(account: Page, server: RehearsalServer) -> None:
    prompt = {"1": {**NODE, "inputs": NODE["inputs"] | {"prompt": "routes: under way"}}}
    server.hold_work()

    def state() -> Any:
        return account.json("POST", "/paid", json={"node": "1", "prompt": prompt})["state"]

    queued = account.comfyui.queue(prompt)
    server.wait_for(lambda: any(job.body["prompt"] == "routes: under way" for job in server.jobs))
    # The answer to the submission is on its way; noting it takes no longer than a few questions.
    assert next(filter(None, (state() for _ in range(1000)))) == "submitted"
    server.release_work()
    shown = account.comfyui.wait(queued)["outputs"]["1"]["images"]
    assert state() == "saved"
    assert account.json("GET", "/progress")["nodes"]["1"]["clips"] == shown


def test_a_fetch_that_fails_says_why(account: Page) -> None:
    entry = account.ledger.note_request("known-to-nobody", TOKEN)

    def listed() -> Any:
        return account.json("GET", f"/generations?limit=1&before={entry.id + 1}")["entries"][0]

    assert (listed()["fetching"], listed()["fetch_error"]) == (False, None)
    account.json("POST", f"/generations/{entry.id}/fetch")
    assert account.comfyui.wait_for_log("Request known-to-nobody: RunComfy does not know this request")
    assert listed()["fetching"] is False
    assert listed()["fetch_error"].startswith("Request known-to-nobody: RunComfy does not know this request")


def test_an_unfinished_clip_is_fetched_and_an_uncertain_one_settled(account: Page, server: RehearsalServer) -> None:
    account.comfyui.run({"1": {**NODE, "inputs": NODE["inputs"] | {"prompt": "routes: to fetch"}}})
    (job,) = (job for job in server.jobs if job.body["prompt"] == "routes: to fetch")
    saved = account.ledger.find_request(job.request_id)
    assert saved is not None
    saved.files[0].path.unlink()
    asked = len(server.calls)
    assert account.json("POST", f"/generations/{saved.id}/fetch") == {"started": True}
    server.wait_for(lambda: any("/files/" in path for _, path in server.calls[asked:]))

    doubtful = account.ledger.open_submission("f" * 64, model_id="m", seconds=5, audio=True, token=TOKEN)
    account.ledger.uncertain(doubtful.id, "the answer was lost")
    listed = account.json("GET", "/generations")["entries"][0]
    assert (listed["id"], listed["state"], listed["message"]) == (doubtful.id, "uncertain", "the answer was lost")
    account.json("POST", f"/generations/{doubtful.id}/settle")
    assert account.ledger.find("f" * 64) is None
    account.json("POST", f"/generations/{saved.id}/settle")
    assert account.ledger.get(saved.id).state == "saved"


def test_routes_answer_below_api_too(page: Page) -> None:
    below_api = requests.get(f"{page.comfyui.url}/api{PREFIX}/progress", timeout=60).json()
    assert below_api["nodes"] == page.json("GET", "/progress")["nodes"]


def test_the_ledger_and_the_token_are_in_no_folder_that_is_served(account: Page) -> None:
    for path in ("/view?filename=token&type=output&subfolder=../user/__runcomfy_kling", "/extensions/../user"):
        assert TOKEN not in requests.get(account.comfyui.url + path, timeout=60).text
    assert TOKEN not in json.dumps(account.comfyui.object_info())
    assert TOKEN not in account.comfyui.log()
