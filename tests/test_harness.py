"""The harness itself: a real ComfyUI runs prompts, reports what happens, and loads the pack."""

from __future__ import annotations

import json
from pathlib import Path

import comfyui as harness
import pytest
from PIL import Image
from workflow import to_prompt

PICTURE = {
    "1": {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 48, "batch_size": 1, "color": 0xFF8000},
    },
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "harness/picture"}},
}


def test_pack_loads_without_a_word_of_complaint(comfyui: harness.ComfyUI) -> None:
    log = comfyui.log().partition(harness.READY)[0]
    assert "comfyui-runcomfy-kling" in log
    assert "IMPORT FAILED" not in log
    assert "Traceback" not in log


def test_prompt_runs_and_its_file_can_be_viewed(comfyui: harness.ComfyUI) -> None:
    (picture,) = comfyui.run(PICTURE)["2"]["images"]
    png = comfyui.view(picture["filename"], picture["subfolder"])
    assert png.startswith(b"\x89PNG")
    assert png == (comfyui.output / "harness" / picture["filename"]).read_bytes()


def test_events_go_to_the_client_that_queued(comfyui: harness.ComfyUI) -> None:
    tab = comfyui.listen("another-tab")
    try:
        prompt_id = comfyui.queue(PICTURE, client_id="another-tab")
        ended = tab.wait_for(lambda event: event["type"] == "execution_success")
        assert ended["data"]["prompt_id"] == prompt_id
        assert all(event["data"]["prompt_id"] != prompt_id for event in comfyui.events.all("execution_success"))
        assert comfyui.wait(prompt_id)["status"]["completed"]
    finally:
        tab.close()


def test_prompt_without_client_can_be_waited_for(comfyui: harness.ComfyUI) -> None:
    prompt_id = comfyui.queue(PICTURE, client_id="nobody-listens-here")
    assert comfyui.wait(prompt_id)["status"]["status_str"] == "success"


def test_refused_prompt_carries_what_comfyui_says(comfyui: harness.ComfyUI) -> None:
    wrong = {**PICTURE, "1": {"class_type": "EmptyImage", "inputs": {**PICTURE["1"]["inputs"], "width": 0}}}
    with pytest.raises(harness.Refused) as refusal:
        comfyui.queue(wrong)
    (error,) = refusal.value.error["node_errors"]["1"]["errors"]
    assert error["extra_info"]["input_name"] == "width"


def test_failed_prompt_is_an_error_that_names_the_node(comfyui: harness.ComfyUI) -> None:
    (comfyui.input / "no-picture.png").write_bytes(b"not a picture")
    prompt = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "no-picture.png"}},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }
    with pytest.raises(harness.Failed, match="LoadImage"):
        comfyui.run(prompt)


def test_account_of_the_machine_does_not_reach_the_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNCOMFY_API_TOKEN", "belongs to the developer")
    server = harness.ComfyUI(harness.Installation(tmp_path, "python"), tmp_path, env={"RUNCOMFY_TOKEN": "test"})
    assert {name for name in server.environment if name.startswith("RUNCOMFY_")} == {"RUNCOMFY_TOKEN"}


def node(id: int, type: str, inputs: list, values: list, mode: int = 0) -> dict:
    slots = [{"name": name, "type": kind, "link": link} for name, kind, link in inputs]
    return {"id": id, "type": type, "mode": mode, "inputs": slots, "outputs": [], "widgets_values": values}


WORKFLOW = {
    "nodes": [
        node(1, "EmptyImage", [("width", "INT", 8)], [512, 48, 1, 0x00FF00]),
        node(2, "Reroute", [("", "*", 1)], []),
        node(3, "inverter", [("image", "IMAGE", 2)], []),
        node(4, "ImageBlur", [("image", "IMAGE", 3)], [1, 1.0], mode=4),
        node(5, "SaveImage", [("images", "IMAGE", 4)], ["harness/workflow"]),
        node(6, "SaveImage", [("images", "IMAGE", 5)], ["harness/muted"], mode=2),
        node(7, "MarkdownNote", [], ["What this shows."]),
        node(8, "PrimitiveNode", [], [80, "fixed"]),
    ],
    "links": [
        [1, 1, 0, 2, 0, "IMAGE"],
        [2, 2, 0, 3, 0, "IMAGE"],
        [3, 3, 0, 4, 0, "IMAGE"],
        [4, 4, 0, 5, 0, "IMAGE"],
        [5, 4, 0, 6, 0, "IMAGE"],
        [8, 8, 0, 1, 0, "INT"],
    ],
    "definitions": {
        "subgraphs": [
            {
                "id": "inverter",
                "inputs": [{"name": "image"}],
                "nodes": [node(1, "ImageInvert", [("image", "IMAGE", 1)], [])],
                "links": [
                    dict(id=1, origin_id=-10, origin_slot=0, target_id=1, target_slot=0, type="IMAGE"),
                    dict(id=2, origin_id=1, origin_slot=0, target_id=-20, target_slot=0, type="IMAGE"),
                ],
            }
        ]
    },
}


def test_workflow_becomes_the_prompt_the_editor_would_queue(comfyui: harness.ComfyUI) -> None:
    assert to_prompt(WORKFLOW, comfyui.object_info()) == {
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": 80, "height": 48, "batch_size": 1, "color": 0x00FF00},
        },
        "3:1": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "5": {
            "class_type": "SaveImage",
            "inputs": {"images": ["3:1", 0], "filename_prefix": "harness/workflow"},
        },
    }


def test_workflow_runs_and_is_saved_with_the_picture(comfyui: harness.ComfyUI) -> None:
    (saved,) = comfyui.run_workflow(WORKFLOW)["5"]["images"]
    with Image.open(comfyui.output / saved["subfolder"] / saved["filename"]) as picture:
        assert picture.size == (80, 48)
        assert picture.getpixel((0, 0)) == (255, 0, 255)
        assert json.loads(picture.info["workflow"]) == WORKFLOW


def test_control_widget_is_not_taken_for_a_value(comfyui: harness.ComfyUI) -> None:
    sampler = node(1, "KSampler", [], [7, "randomize", 20, 8.0, "euler", "simple", 0.5])
    inputs = to_prompt({"nodes": [sampler], "links": []}, comfyui.object_info())["1"]["inputs"]
    assert (inputs["seed"], inputs["steps"], inputs["denoise"]) == (7, 20, 0.5)


def test_widget_younger_than_the_workflow_has_its_default(comfyui: harness.ComfyUI) -> None:
    picture = node(1, "EmptyImage", [], [64])
    inputs = to_prompt({"nodes": [picture], "links": []}, comfyui.object_info())["1"]["inputs"]
    assert inputs == {"width": 64, "height": 512, "batch_size": 1, "color": 0}


def test_workflow_with_a_missing_node_is_refused_by_name(comfyui: harness.ComfyUI) -> None:
    with pytest.raises(ValueError, match="NoSuchNode"):
        to_prompt({"nodes": [node(1, "NoSuchNode", [], [])], "links": []}, comfyui.object_info())
