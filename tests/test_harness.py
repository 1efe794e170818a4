"""The harness itself: a real ComfyUI runs prompts, reports what happens, and loads the pack."""

from __future__ import annotations

from pathlib import Path

import comfyui as harness
import pytest

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
        assert all(
            event["data"]["prompt_id"] != prompt_id for event in comfyui.events.all("execution_success")
        )
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


def test_account_of_the_machine_does_not_reach_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNCOMFY_API_TOKEN", "belongs to the developer")
    server = harness.ComfyUI(
        harness.Installation(tmp_path, "python"), tmp_path, env={"RUNCOMFY_TOKEN": "test"}
    )
    assert {name for name in server.environment if name.startswith("RUNCOMFY_")} == {"RUNCOMFY_TOKEN"}
