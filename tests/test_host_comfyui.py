"""The own address of a real ComfyUI: who finds a still there, for how long, and what a flood does to a graph."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import comfyui as harness
import numpy as np
import pytest
import requests
import skimage.data
from corridor import TOKEN, render
from pictures import decoded
from PIL import Image
from runcomfy_kling.nodes.media.served import ROUTE
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer


class House:
    """A ComfyUI that is told its own address, spending at a server of ours that fetches what it is pointed at."""

    def __init__(self, comfyui: harness.ComfyUI, server: RehearsalServer) -> None:
        self.comfyui = comfyui
        self.server = server

    def graph(self, prompt: str) -> dict[str, Any]:
        inputs = {"prompt": prompt, "tier": "pro", "duration": 3, "generate_audio": False, "cfg_scale": 0.5}
        return {
            "1": {"class_type": "LoadImage", "inputs": {"image": "coffee.png"}},
            "2": {"class_type": "RunComfyKlingImageToVideo", "inputs": {**inputs, "start_image": ["1", 0]}},
        }

    def job(self, prompt: str, state: str) -> Any:
        """The one submission of that prompt, once it is in that state."""

        def found() -> list[Any]:
            return [job for job in self.server.jobs if job.body["prompt"] == prompt and job.state == state]

        (job,) = self.server.wait_for(found, 60)
        return job


@pytest.fixture(scope="module")
def house(start_comfyui: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    installation = harness.find()
    assert isinstance(installation, harness.Installation)
    with RehearsalServer(token=TOKEN, render=render, fetch_remote=True) as server:
        env = {"RUNCOMFY_MODEL_API_BASE_URL": server.base_url, "RUNCOMFY_API_TOKEN": TOKEN}
        comfyui = harness.ComfyUI(installation, tmp_path_factory.mktemp("house"), env=env)
        comfyui.environment["RUNCOMFY_KLING_PUBLIC_ORIGIN"] = comfyui.url
        Image.fromarray(skimage.data.coffee()).save(comfyui.input / "coffee.png")
        comfyui.start()
        yield House(comfyui, server)
        comfyui.stop()


@pytest.fixture(autouse=True)
def let_go(house: House) -> Iterator[None]:
    yield
    house.server.release()
    house.server.release_work()


def test_a_still_is_there_while_its_job_runs_and_gone_when_the_node_returns(house: House) -> None:
    house.server.hold_work()
    prompt_id = house.comfyui.queue(house.graph("while it runs"))
    url = house.job("while it runs", "in_progress").body["start_image_url"]
    assert url.startswith(f"{house.comfyui.url}{ROUTE}/")
    answer = requests.get(url, timeout=10)
    assert (answer.headers["Content-Type"], answer.headers["Cache-Control"]) == ("image/png", "no-store")
    assert np.array_equal(decoded(answer.content), skimage.data.coffee())
    house.server.release_work()
    assert house.comfyui.wait(prompt_id)["status"]["status_str"] == "success"
    assert requests.get(url, timeout=10).status_code == 404


def test_nothing_else_of_the_machine_is_there(house: House) -> None:
    private = house.comfyui.base / "user" / "__runcomfy_kling"
    assert (private / "media").is_dir()
    (private / "media" / "notes.txt").write_text("not yours")
    for path in (
        "notes.txt",
        "..%2fnotes.txt",
        "..%2f..%2f..%2finput%2fcoffee.png",
        "%2e%2e/media/notes.txt",
        "..%5cnotes.txt",
        f"{'0' * 16}-{'0' * 48}.png",
        "",
    ):
        for root in (ROUTE, f"/api{ROUTE}"):
            with requests.Session() as session:
                request = session.prepare_request(requests.Request("GET", house.comfyui.url))
                request.url = f"{house.comfyui.url}{root}/{path}"
                assert session.send(request, timeout=10).status_code == 404


def test_a_still_that_is_waited_for_survives_the_end_of_comfyui(house: House) -> None:
    house.server.hold()
    house.comfyui.queue(house.graph("survives"))
    job = house.job("survives", "in_queue")
    url = job.body["start_image_url"]
    # Once its state is asked for, its id has been noted.
    house.server.wait_for(lambda: any(path.endswith(f"/{job.request_id}/status") for _, path in house.server.calls))
    house.comfyui.process.kill()
    house.comfyui.stop()
    house.comfyui.start()
    assert np.array_equal(decoded(requests.get(url, timeout=10).content), skimage.data.coffee())
    house.server.release()
    house.job("survives", "completed")
    assert house.comfyui.run(house.graph("survives"))["2"]["images"]
    assert requests.get(url, timeout=10).status_code == 404
    assert sum(job.body["prompt"] == "survives" for job in house.server.jobs) == 1


def test_a_flood_of_guesses_leaves_a_running_graph_alone(house: House) -> None:
    house.server.hold_work()
    prompt_id = house.comfyui.queue(house.graph("in a flood"))
    url = house.job("in a flood", "in_progress").body["start_image_url"]

    async def flood() -> tuple[list[int], list[int]]:
        connector = aiohttp.TCPConnector(limit=200)
        async with aiohttp.ClientSession(connector=connector) as session:

            async def ask(address: str) -> int:
                async with session.get(address) as answer:
                    return answer.status

            guesses = [ask(f"{house.comfyui.url}{ROUTE}/{number}.png") for number in range(400)]
            return await asyncio.gather(*guesses), await asyncio.gather(*(ask(url) for _ in range(20)))

    guessed, known = asyncio.run(flood())
    assert set(guessed) == {404, 429}
    assert known == [200] * 20
    house.server.release_work()
    assert house.comfyui.wait(prompt_id)["status"]["status_str"] == "success"
