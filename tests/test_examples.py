"""The example workflows: each opens, is laid out for reading, runs, and brings what its note says."""

from __future__ import annotations

import itertools
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import comfyui as harness
import numpy as np
import pytest
from PIL import Image
from runcomfy_kling.nodes import NODE_CLASS_MAPPINGS
from workflow import WIDGET_TYPES, read_link, to_prompt, widget_values

FOLDER = Path(__file__).resolve().parent.parent / "example_workflows"
EXAMPLES = [path.stem for path in sorted(FOLDER.glob("*.json"))]
STILL = "example.png"  # comes with every ComfyUI
TITLE_HEIGHT = 30
OURS = {
    name: {"input": node.INPUT_TYPES(), "output": list(node.RETURN_TYPES)} for name, node in NODE_CLASS_MAPPINGS.items()
}
WIDE, SQUARE = (1280, 720), (720, 720)

# What is saved under which prefix: seconds, and width and height.
CLIPS = {
    "Kling text to video": {"kling_text": (5, WIDE)},
    "Kling image to video": {"kling_image": (5, SQUARE)},
    "Kling storyboard": {"kling_storyboard": (12, WIDE)},
    "Kling elements": {"kling_elements": (5, SQUARE)},
    "Kling start and end frame": {"kling_start_end": (5, SQUARE)},
    "Kling two clips into one": {
        "kling_chain_1": (3, WIDE),
        "kling_chain_2": (3, WIDE),
        "kling_joined": (6, WIDE),
    },
}
every_example = pytest.mark.parametrize("name", EXAMPLES)


def load(name: str) -> dict[str, Any]:
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


def nodes(workflow: dict[str, Any], *types: str) -> list[dict[str, Any]]:
    return [node for node in workflow["nodes"] if node["type"] in types]


def ours(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return nodes(workflow, *OURS)


def specs(info: dict[str, Any]) -> dict[str, Any]:
    return {**info["input"].get("required", {}), **info["input"].get("optional", {})}


def kind(spec: Any) -> str:
    return "COMBO" if isinstance(spec[0], list) else spec[0]


def misfits(node: dict[str, Any], info: dict[str, Any]) -> list[str]:
    """The widget values of a node that its inputs do not take."""
    inputs = specs(info)
    return [
        f"{node['type']}.{name}: {value!r}"
        for name, value in widget_values(node, info).items()
        if not fits(value, kind(inputs[name]), inputs[name])
    ]


def fits(value: Any, kind: str, spec: Any) -> bool:
    options = spec[1] if len(spec) > 1 else {}
    if kind == "COMBO":
        return value in (spec[0] if isinstance(spec[0], list) else options["options"])
    if kind in ("INT", "FLOAT"):
        right = isinstance(value, int if kind == "INT" else (int, float)) and not isinstance(value, bool)
        return right and options.get("min", value) <= value <= options.get("max", value)
    return isinstance(value, {"BOOLEAN": bool, "STRING": str}[kind])


def loose_links(workflow: dict[str, Any], infos: dict[str, Any]) -> list[str]:
    """What is wrong at either end of a link; ends at nodes that `infos` does not know are left out."""
    by_id = {node["id"]: node for node in workflow["nodes"]}
    wrong = []
    for link, (start, output, end, slot, type) in map(read_link, workflow["links"]):
        source, target = by_id[start], by_id[end]
        if link not in source["outputs"][output]["links"] or target["inputs"][slot]["link"] != link:
            wrong.append(f"{link}: the nodes do not know it")
        if source["type"] in infos and infos[source["type"]]["output"][output] != type:
            wrong.append(f"{link}: {source['type']} does not put out {type} there")
        if target["type"] in infos:
            spec = specs(infos[target["type"]]).get(target["inputs"][slot]["name"])
            if spec is None or kind(spec) != type:
                wrong.append(f"{link}: {target['type']} does not take {type} there")
    return wrong


def test_all_six_are_there() -> None:
    assert set(EXAMPLES) == set(CLIPS)


@every_example
def test_thumbnail_is_small_and_as_wide_as_a_film(name: str) -> None:
    path = FOLDER / f"{name}.jpg"
    assert path.stat().st_size <= 60_000
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
        assert picture.size == (640, 360)


@every_example
def test_note_says_what_is_free_and_what_is_paid(name: str) -> None:
    (note,) = nodes(load(name), "MarkdownNote")
    (text,) = note["widgets_values"]
    for told in ("**Press Run.**", "needs no account", "**Change**", "turn `rehearsal` off", "paid generation"):
        assert told in text


@every_example
def test_every_clip_is_a_rehearsal_that_stays_the_same(name: str) -> None:
    generating = [node for node in ours(load(name)) if "rehearsal" in specs(OURS[node["type"]])]
    assert generating
    for node in generating:
        assert widget_values(node, OURS[node["type"]])["rehearsal"] is True
        # ComfyUI's control follows its number: a new number with each run would be a new paid take.
        named = list(widget_values(node, OURS[node["type"]]))
        assert node["widgets_values"][named.index("variation") + 1] == "fixed"


@every_example
def test_our_nodes_have_every_value_and_only_values_they_take(name: str) -> None:
    for node in ours(load(name)):
        widgets = [spec for spec in specs(OURS[node["type"]]).values() if kind(spec) in WIDGET_TYPES | {"COMBO"}]
        controls = [spec for spec in widgets if len(spec) > 1 and spec[1].get("control_after_generate")]
        assert len(node["widgets_values"]) == len(widgets) + len(controls)
        assert misfits(node, OURS[node["type"]]) == []
        sockets = [slot["name"] for slot in node["inputs"]]
        assert sorted(sockets) == sorted(specs(OURS[node["type"]]))


@every_example
def test_links_fit_our_nodes(name: str) -> None:
    assert loose_links(load(name), OURS) == []


@every_example
def test_nodes_lie_apart_and_links_run_to_the_right(name: str) -> None:
    workflow = load(name)
    for one, other in itertools.combinations(workflow["nodes"], 2):
        left, right = sorted((one, other), key=lambda node: node["pos"][0])
        upper, lower = sorted((one, other), key=lambda node: node["pos"][1])
        beside = left["pos"][0] + left["size"][0] < right["pos"][0]
        above = upper["pos"][1] + upper["size"][1] < lower["pos"][1] - TITLE_HEIGHT
        assert beside or above, (one["id"], other["id"])
    by_id = {node["id"]: node for node in workflow["nodes"]}
    for _, (start, _, end, _, _) in map(read_link, workflow["links"]):
        assert by_id[start]["pos"][0] + by_id[start]["size"][0] < by_id[end]["pos"][0]


@dataclass(frozen=True, eq=False)
class Film:
    """What a saved MP4 holds. small: uint8 [frames, 36, 36, 3]; last: uint8 [H, W, 3]; seconds of picture and sound."""

    size: tuple[int, int]
    seconds: float
    sound: float
    small: np.ndarray
    last: np.ndarray
    workflow: Any


def film(path: Path) -> Film:
    with av.open(str(path)) as container:
        sound = sum(frame.samples / frame.sample_rate for frame in container.decode(audio=0))
    with av.open(str(path)) as container:
        picture = container.streams.video[0]
        size, rate = (picture.width, picture.height), picture.average_rate
        workflow = json.loads(container.metadata["workflow"])
        small = []
        for frame in container.decode(picture):
            small.append(shrunk(frame))
        last = frame.to_ndarray(format="rgb24")
    return Film(size, float(len(small) / rate), sound, np.stack(small), last, workflow)


def shrunk(frame: av.VideoFrame) -> np.ndarray:
    return frame.reformat(36, 36, "rgb24").to_ndarray()


def difference(one: Any, other: Any) -> float:
    """Of two pictures of one size, on average, in 255ths."""
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


@dataclass(frozen=True)
class Run:
    """Both by the prefix of the clip. last_frames: the IMAGE output of the same node, as ComfyUI saves it."""

    films: dict[str, Film]
    last_frames: dict[str, Path]


@pytest.fixture(scope="module")
def run(comfyui: harness.ComfyUI) -> Callable[[str], Run]:
    """run(name): the example as it was run once, with a Save Image after every last_frame."""
    shutil.copy(comfyui.installation.folder / "input" / STILL, comfyui.input)
    done: dict[str, Run] = {}

    def once(name: str) -> Run:
        if name not in done:
            done[name] = run_example(comfyui, load(name))
        return done[name]

    return once


def run_example(comfyui: harness.ComfyUI, workflow: dict[str, Any]) -> Run:
    prompt = to_prompt(workflow, comfyui.object_info())
    clips = [str(node["id"]) for node in ours(workflow) if "VIDEO" in OURS[node["type"]]["output"]]
    for node in clips:
        slot = OURS[prompt[node]["class_type"]]["output"].index("IMAGE")
        saved = {"images": [node, slot], "filename_prefix": "last_frame"}
        prompt[f"last_frame_{node}"] = {"class_type": "SaveImage", "inputs": saved}
    outputs = comfyui.run(prompt, extra_data={"extra_pnginfo": {"workflow": workflow}})
    files = {
        node: comfyui.output / shown["subfolder"] / shown["filename"]
        for node, output in outputs.items()
        for shown in output.get("images", [])
        if shown["type"] == "output"
    }
    return Run(
        films={prefix_of(path): film(path) for path in files.values() if path.suffix == ".mp4"},
        last_frames={prefix_of(files[node]): files[f"last_frame_{node}"] for node in clips},
    )


def prefix_of(path: Path) -> str:
    return re.sub(r"_\d+_\.mp4$", "", path.name)


@every_example
def test_this_comfyui_has_every_node_and_takes_every_value(name: str, comfyui: harness.ComfyUI) -> None:
    shutil.copy(comfyui.installation.folder / "input" / STILL, comfyui.input)
    workflow, infos = load(name), comfyui.object_info()
    used = [node for node in workflow["nodes"] if node["type"] != "MarkdownNote"]
    assert {node["type"] for node in used} <= set(infos)
    assert [wrong for node in used for wrong in misfits(node, infos[node["type"]])] == []
    assert loose_links(workflow, infos) == []


@every_example
def test_template_browser_finds_it(name: str, comfyui: harness.ComfyUI) -> None:
    templates = comfyui.get("/workflow_templates")
    (pack,) = (pack for pack, names in templates.items() if name in names)
    assert comfyui.get(f"/api/workflow_templates/{pack}/{name}.json") == load(name)


@every_example
def test_it_runs_and_every_clip_is_as_the_note_says(name: str, run: Callable[[str], Run]) -> None:
    films = run(name).films
    assert set(films) == set(CLIPS[name])
    for prefix, (seconds, size) in CLIPS[name].items():
        assert films[prefix].size == size
        assert films[prefix].seconds == pytest.approx(seconds, abs=0.001)
        # AAC comes in packets of 1024 samples, and each clip may end with one that is not full.
        assert films[prefix].sound == pytest.approx(seconds, abs=0.1)


@every_example
def test_dropping_the_clip_on_the_canvas_would_bring_the_graph_back(name: str, run: Callable[[str], Run]) -> None:
    for saved in run(name).films.values():
        assert saved.workflow == load(name)


@every_example
def test_last_frame_is_that_of_the_clip(name: str, run: Callable[[str], Run]) -> None:
    result = run(name)
    assert set(result.last_frames) == set(CLIPS[name]) - {"kling_joined"}
    for prefix, path in result.last_frames.items():
        saved = result.films[prefix]
        with Image.open(path) as picture:
            assert picture.size == saved.size
            # Two readings of one H.264 frame differ by how they convert its colours.
            assert difference(picture.convert("RGB"), saved.last) < 3


def test_storyboard_is_cut_where_its_shots_end(run: Callable[[str], Run]) -> None:
    small = run("Kling storyboard").films["kling_storyboard"].small
    changes = [difference(one, other) for one, other in itertools.pairwise(small)]
    assert sorted(np.argsort(changes)[-2:] + 1) == [5 * 24, 9 * 24]


def test_clip_goes_from_the_first_still_to_the_last(run: Callable[[str], Run], comfyui: harness.ComfyUI) -> None:
    workflow = load("Kling start and end frame")
    (crop,) = nodes(workflow, "ImageCrop")
    width, height, x, y = crop["widgets_values"]
    with Image.open(comfyui.input / STILL) as still:
        start = still.convert("RGB")
    end = start.crop((x, y, x + width, y + height))
    first, last = (picture.resize((36, 36)) for picture in (start, end))
    small = run("Kling start and end frame").films["kling_start_end"].small
    above_caption = slice(0, 18)
    for seen, meant, other in ((small[0], first, last), (small[-1], last, first)):
        meant, other = (np.asarray(picture)[above_caption] for picture in (meant, other))
        assert difference(seen[above_caption], meant) < difference(seen[above_caption], other) / 2


def test_elements_are_seen_in_the_clip(run: Callable[[str], Run]) -> None:
    without = run("Kling image to video").films["kling_image"].small[0]
    with_elements = run("Kling elements").films["kling_elements"].small[0]
    # They lie over the upper left of a picture that is otherwise the same, above its caption.
    assert difference(with_elements[2:8, 2:14], without[2:8, 2:14]) > 20
    assert difference(with_elements[10:18], without[10:18]) < 2


def test_second_clip_goes_on_where_the_first_ends_and_both_are_in_the_whole(run: Callable[[str], Run]) -> None:
    films = run("Kling two clips into one").films
    first, second, joined = (films[prefix].small for prefix in ("kling_chain_1", "kling_chain_2", "kling_joined"))
    assert difference(second[0][:18], first[-1][:18]) < 4
    assert len(joined) == len(first) + len(second)
    assert np.abs(np.diff([difference(*pair) for pair in zip(joined, [*first, *second], strict=True)])).max() < 4
    assert difference(joined, np.concatenate([first, second])) < 3
