"""The nodes in a real ComfyUI, paying a server that keeps to the published API."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import comfyui as harness
import numpy as np
import pytest
import requests
import skimage.data
from corridor import TOKEN, render
from PIL import Image
from runcomfy_kling.nodes.rehearsal.server import RehearsalServer

# A node that, as ComfyUI's own do, raises on Stop and by that clears the flag that others wait for.
CONSUMER = """
import asyncio, comfy.model_management
class Consumer:
    INPUT_TYPES = classmethod(lambda cls: {"required": {}})
    RETURN_TYPES, FUNCTION, OUTPUT_NODE, CATEGORY = (), "run", True, "test"
    async def run(self):
        while True:
            comfy.model_management.throw_exception_if_processing_interrupted()
            await asyncio.sleep(0.001)
NODE_CLASS_MAPPINGS = {"TestInterruptConsumer": Consumer}
"""


class Studio:
    """A ComfyUI whose nodes spend at a server of ours."""

    def __init__(self, comfyui: harness.ComfyUI, server: RehearsalServer) -> None:
        self.comfyui = comfyui
        self.server = server

    def accepted(self, word: str) -> list[Any]:
        """The submissions whose prompt holds a word of the test's own: the server is shared by all tests."""
        return [job for job in self.server.jobs if word in job.body["prompt"]]

    def asked(self, call: str, job: Any) -> int:
        return sum(path.endswith(f"/{job.request_id}/{call}") for _, path in self.server.calls)

    def saved(self, ui: dict[str, Any]) -> Path:
        (shown,) = ui["images"]
        return self.comfyui.output / shown["subfolder"] / shown["filename"]


@pytest.fixture(scope="module")
def studio(start_comfyui: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    installation = harness.find()
    assert isinstance(installation, harness.Installation)
    with RehearsalServer(token=TOKEN, base_price_usd=0.07, render=render) as server:
        base = tmp_path_factory.mktemp("studio")
        env = {"RUNCOMFY_MODEL_API_BASE_URL": server.base_url, "RUNCOMFY_API_TOKEN": TOKEN}
        comfyui = harness.ComfyUI(installation, base, env=env)
        consumer = base / "custom_nodes" / "consumer"
        consumer.mkdir()
        (consumer / "__init__.py").write_text(CONSUMER)
        Image.fromarray(skimage.data.coffee()).save(comfyui.input / "coffee.png")
        comfyui.start()
        yield Studio(comfyui, server)
        comfyui.stop()


@pytest.fixture(autouse=True)
def let_go(studio: Studio) -> Iterator[None]:
    yield
    studio.server.release()
    studio.server.release_work()
    studio.server.outcome = "succeeded"


def text_node(prompt: str, **inputs: Any) -> dict[str, Any]:
    defaults = {
        "prompt": prompt,
        "tier": "pro",
        "duration": 5,
        "aspect_ratio": "16:9",
        "generate_audio": True,
        "cfg_scale": 0.5,
    }
    return {"class_type": "RunComfyKlingTextToVideo", "inputs": defaults | inputs}


def image_node(prompt: str, **inputs: Any) -> dict[str, Any]:
    defaults = {"prompt": prompt, "tier": "standard", "duration": 10, "generate_audio": True, "cfg_scale": 0.5}
    return {"class_type": "RunComfyKlingImageToVideo", "inputs": defaults | inputs}


LOAD = {"class_type": "LoadImage", "inputs": {"image": "coffee.png"}}


def test_both_named_endpoints_in_one_graph(studio: Studio) -> None:
    graph = {
        "1": text_node("endpoints: a train", negative_prompt="rain", cfg_scale=0.7, variation=3),
        "2": LOAD,
        "3": image_node("endpoints: steam", start_image=["2", 0]),
        "4": {"class_type": "SaveImage", "inputs": {"images": ["1", 2], "filename_prefix": "last"}},
        "5": {
            "class_type": "SaveVideo",
            "inputs": {"video": ["3", 1], "filename_prefix": "again", "format": "auto", "codec": "auto"},
        },
        "6": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
        "7": {"class_type": "PreviewAny", "inputs": {"source": ["3", 3]}},
    }
    workflow = {"nodes": [], "links": [], "version": 0.4, "extra": {"said": "by the test"}}
    outputs = studio.comfyui.run(graph, extra_data={"extra_pnginfo": {"workflow": workflow}})

    train, steam = (studio.accepted(f"endpoints: {word}")[0] for word in ("a train", "steam"))
    assert train.model_id == "kling/kling-3.0/pro/text-to-video"
    assert train.body == {
        "prompt": "endpoints: a train",
        "negative_prompt": "rain",
        "duration": 5,
        "aspect_ratio": "16:9",
        "cfg_scale": 0.7,
        "sound": True,
        "shot_type": "customize",
    }
    assert steam.model_id == "kling/kling-3.0/standard/image-to-video"
    still = steam.body.pop("start_image_url")
    assert steam.body == {
        "prompt": "endpoints: steam",
        "duration": 10,
        "generate_audio": True,
        "shot_type": "customize",
        "cfg_scale": 0.5,
    }
    with requests.Session() as session:
        session.mount("data:", DataAdapter())
        sent = np.asarray(Image.open(io.BytesIO(session.get(still).content)))
    assert np.array_equal(sent, skimage.data.coffee())

    clip = studio.saved(outputs["1"])
    assert outputs["6"]["text"] == [str(clip)]
    assert outputs["7"]["text"] == [steam.request_id]
    assert outputs["1"]["animated"] == [True]
    frames = decoded(clip)
    last = np.asarray(Image.open(studio.saved(outputs["4"])))
    assert last.shape == frames[-1].shape
    assert np.abs(last.astype(int) - frames[-1]).mean() < 3 < np.abs(last.astype(int) - frames[0]).mean()
    assert len(decoded(studio.saved(outputs["5"]))) == len(frames)
    tags = av.open(str(clip)).metadata
    assert json.loads(tags["workflow"]) == workflow
    prompt = json.loads(tags["prompt"])
    assert {node: prompt[node]["inputs"] for node in prompt} == {node: graph[node]["inputs"] for node in graph}
    assert tags["runcomfy_request_id"] == train.request_id
    assert f"RunComfy request {train.request_id} submitted" in studio.comfyui.log()
    assert TOKEN not in studio.comfyui.log()


class DataAdapter(requests.adapters.BaseAdapter):
    def send(self, request: Any, **_: Any) -> requests.Response:
        import urllib.request

        answer = requests.Response()
        answer.status_code = 200
        answer.raw = urllib.request.urlopen(request.url)
        return answer

    def close(self) -> None:
        pass


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def test_nodes_of_a_graph_wait_side_by_side(studio: Studio) -> None:
    studio.server.hold()
    prompt_id = studio.comfyui.queue({"1": text_node("side one"), "2": text_node("side two"), "3": text_node("side 3")})
    studio.server.wait_for(lambda: len(studio.accepted("side ")) == 3)
    studio.server.release()
    assert studio.comfyui.wait(prompt_id)["status"]["status_str"] == "success"


def test_the_page_is_told_how_it_goes(studio: Studio) -> None:
    studio.server.hold()
    prompt_id = studio.comfyui.queue({"told": text_node("telling")})

    def says(stage: str) -> dict[str, Any]:
        return studio.comfyui.events.wait_for(
            lambda event: (
                event["type"] == "runcomfy_kling.progress"
                and event["data"]["node"] == "told"
                and event["data"]["stage"] == stage
            )
        )["data"]

    queued = says("queued")
    (job,) = studio.accepted("telling")
    assert (queued["request_id"], queued["queue_position"], queued["rehearsal"]) == (job.request_id, 1, False)
    assert studio.comfyui.get("/runcomfy_kling/progress")["nodes"]["told"]["stage"] == "queued"
    studio.server.release()
    assert says("saved")["cost_usd"] == pytest.approx(0.35)
    studio.comfyui.wait(prompt_id)
    bars = studio.comfyui.events.all("progress_state")
    assert any("told" in event["data"]["nodes"] for event in bars)


def test_stop_ends_every_wait_and_cancels_what_is_queued(studio: Studio) -> None:
    studio.server.hold()
    prompt_id = studio.comfyui.queue({"1": text_node("stop one"), "2": text_node("stop two")})
    studio.server.wait_for(lambda: len(studio.accepted("stop ")) == 2)
    studio.comfyui.interrupt()
    assert studio.comfyui.wait(prompt_id)["status"]["messages"][-1][0] == "execution_interrupted"
    jobs = studio.accepted("stop ")
    studio.server.wait_for(lambda: all(job.state == "cancelled" for job in jobs))
    assert [studio.asked("cancel", job) for job in jobs] == [1, 1]
    studio.server.release()
    # The worker lives, and a confirmed cancel lets the next run submit.
    studio.comfyui.run({"1": text_node("stop one")})
    assert len(studio.accepted("stop one")) == 2


def test_stop_seen_first_by_another_node_is_a_stop_all_the_same(studio: Studio) -> None:
    studio.server.hold()
    prompt_id = studio.comfyui.queue(
        {"1": text_node("consumed"), "2": {"class_type": "TestInterruptConsumer", "inputs": {}}}
    )
    studio.server.wait_for(lambda: studio.accepted("consumed"))
    studio.comfyui.interrupt()
    assert studio.comfyui.wait(prompt_id)["status"]["messages"][-1][0] == "execution_interrupted"
    (job,) = studio.accepted("consumed")
    studio.server.wait_for(lambda: job.state == "cancelled")


def test_a_running_request_survives_stop_and_is_taken_up(studio: Studio) -> None:
    studio.server.hold_work()
    prompt_id = studio.comfyui.queue({"1": text_node("runs on")})
    studio.server.wait_for(lambda: [job for job in studio.accepted("runs on") if job.state == "in_progress"])
    studio.comfyui.interrupt()
    studio.comfyui.wait(prompt_id)
    (job,) = studio.accepted("runs on")
    said = studio.comfyui.events.wait_for(
        lambda event: event["type"] == "runcomfy_kling.progress" and "runs on" in (event["data"]["message"] or "")
    )
    assert said["data"]["request_id"] == job.request_id
    studio.server.release_work()
    outputs = studio.comfyui.run({"1": text_node("runs on")})
    assert studio.saved(outputs["1"]).is_file()
    assert len(studio.accepted("runs on")) == 1


def test_another_nodes_failure_cancels_nothing(studio: Studio) -> None:
    studio.server.hold()
    long = {"class_type": "RunComfyKlingShot", "inputs": {"prompt": "x", "duration": 10}}
    graph = {
        "1": text_node("innocent"),
        # Waits for nothing: what is wrong with it, two shots of 10 s, only the run can know.
        "2": long,
        "3": {**long, "inputs": {**long["inputs"], "storyboard": ["2", 0]}},
        "4": text_node("guilty", storyboard=["3", 0]),
        "5": {"class_type": "RunComfyKlingFetchVideo", "inputs": {"request_id": "unknown-request"}},
    }
    prompt_id = studio.comfyui.queue({"1": graph["1"]})
    studio.server.wait_for(lambda: studio.accepted("innocent"))
    studio.comfyui.interrupt()
    studio.comfyui.wait(prompt_id)
    (first,) = studio.accepted("innocent")
    studio.server.wait_for(lambda: first.state == "cancelled")

    entry = studio.comfyui.wait(studio.comfyui.queue(graph))
    assert entry["status"]["messages"][-1][0] == "execution_error"
    for job in studio.accepted("innocent")[1:]:
        assert studio.asked("cancel", job) == 0
    studio.server.release()
    studio.comfyui.run({"1": graph["1"]})
    assert len(studio.accepted("innocent")) == 2


def test_a_missing_file_is_fetched_again_and_not_paid_again(studio: Studio) -> None:
    graph = {"1": text_node("missing")}
    clip = studio.saved(studio.comfyui.run(graph)["1"])
    content = clip.read_bytes()
    assert studio.saved(studio.comfyui.run(graph)["1"]) == clip
    clip.unlink()
    again = studio.saved(studio.comfyui.run(graph)["1"])
    assert decoded(again)[-1].tobytes() == decoded_bytes(content)
    assert len(studio.accepted("missing")) == 1
    # Unchanged from here on: the cache answers.
    assert studio.saved(studio.comfyui.run(graph)["1"]) == again


def decoded_bytes(content: bytes) -> bytes:
    with av.open(io.BytesIO(content)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)][-1].tobytes()


def test_another_prefix_is_the_same_clip(studio: Studio) -> None:
    first = studio.saved(studio.comfyui.run({"1": text_node("prefix")})["1"])
    second = studio.saved(studio.comfyui.run({"1": text_node("prefix", filename_prefix="elsewhere/x")})["1"])
    assert first == second
    assert len(studio.accepted("prefix")) == 1


def test_a_restart_takes_up_what_was_submitted(studio: Studio) -> None:
    studio.server.hold()
    studio.comfyui.queue({"1": text_node("restart")})
    (job,) = studio.server.wait_for(lambda: studio.accepted("restart"))
    studio.comfyui.events.wait_for(
        lambda event: (
            event["type"] == "runcomfy_kling.progress"
            and event["data"]["stage"] == "queued"
            and event["data"]["request_id"] == job.request_id
        )
    )
    studio.comfyui.process.kill()
    studio.comfyui.stop()
    studio.server.release()
    studio.comfyui.start()
    assert studio.saved(studio.comfyui.run({"1": text_node("restart")})["1"]).is_file()
    assert len(studio.accepted("restart")) == 1


def test_fetch_video_brings_a_clip_by_its_id(studio: Studio) -> None:
    clip = studio.saved(studio.comfyui.run({"1": text_node("by id")})["1"])
    (job,) = studio.accepted("by id")
    clip.unlink()
    fetch = {"class_type": "RunComfyKlingFetchVideo", "inputs": {"request_id": f" {job.request_id} "}}
    assert studio.saved(studio.comfyui.run({"1": fetch})["1"]).is_file()
    assert len(studio.accepted("by id")) == 1


def test_an_error_says_what_happened_and_what_to_do(studio: Studio) -> None:
    studio.server.outcome = "no_output"
    entry = studio.comfyui.wait(studio.comfyui.queue({"1": text_node("nothing came")}))
    (job,) = studio.accepted("nothing came")
    message = entry["status"]["messages"][-1][1]["exception_message"]
    for word in (job.request_id, "no video", "run the node again"):
        assert word in message


def test_what_the_editor_can_know_is_refused_when_queued(studio: Studio) -> None:
    with pytest.raises(harness.Refused) as refused:
        studio.comfyui.queue({"1": text_node("")})
    errors = refused.value.error["node_errors"]["1"]["errors"]
    assert "prompt is empty" in errors[0]["details"]
    assert errors[0]["extra_info"]["input_name"] == "prompt"


def test_without_an_account_nothing_becomes_a_rehearsal_by_itself(comfyui: harness.ComfyUI) -> None:
    entry = comfyui.wait(comfyui.queue({"1": text_node("no account")}))
    message = entry["status"]["messages"][-1][1]["exception_message"]
    for word in ("RUNCOMFY_API_TOKEN", "Settings", "nothing was submitted", "rehearsal"):
        assert word in message


def test_a_rehearsal_needs_no_account(comfyui: harness.ComfyUI) -> None:
    (shown,) = comfyui.run({"1": text_node("free", duration=3, rehearsal=True)})["1"]["images"]
    path = comfyui.output / shown["subfolder"] / shown["filename"]
    with av.open(str(path)) as container:
        assert container.duration == pytest.approx(3e6, abs=1e5)
        assert {stream.type for stream in container.streams} == {"video", "audio"}
