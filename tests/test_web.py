"""The editor's texts against the nodes, and its script against the nodes' own reading of it."""

from __future__ import annotations

import json
import random
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import runcomfy_kling
from runcomfy_kling.nodes.errors import InputError
from runcomfy_kling.nodes.kling import storyboard

ROOT = Path(__file__).resolve().parent.parent
LANGUAGES = ("en", "ko", "ja", "zh")
FILES = ("main", "nodeDefs", "settings", "commands")
NODES = runcomfy_kling.NODE_CLASS_MAPPINGS


def texts(language: str, file: str) -> dict[str, Any]:
    return json.loads((ROOT / "locales" / language / f"{file}.json").read_text(encoding="utf-8"))


def flat(tree: dict[str, Any], path: str = "") -> dict[str, str]:
    """The leaves of a tree of texts, by their dotted path."""
    leaves: dict[str, str] = {}
    for key, value in tree.items():
        leaves |= flat(value, f"{path}{key}.") if isinstance(value, dict) else {path + key: value}
    return leaves


def places(text: str) -> list[str]:
    return sorted(re.findall(r"\{(\w+)\}", text))


def inputs(node: Any) -> dict[str, dict[str, Any]]:
    types = node.INPUT_TYPES()
    return {name: spec[1] for part in ("required", "optional") for name, spec in types.get(part, {}).items()}


def test_english_texts_are_those_of_the_nodes() -> None:
    assert texts("en", "nodeDefs") == {
        name: {
            "display_name": runcomfy_kling.NODE_DISPLAY_NAME_MAPPINGS[name],
            "description": node.DESCRIPTION,
            "inputs": {key: {"tooltip": spec["tooltip"]} for key, spec in inputs(node).items()},
            "outputs": {str(slot): {"tooltip": tip} for slot, tip in enumerate(node.OUTPUT_TOOLTIPS)},
        }
        for name, node in NODES.items()
    }


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("language", LANGUAGES[1:])
def test_every_language_says_everything_with_the_same_places(language: str, file: str) -> None:
    english, other = flat(texts("en", file)), flat(texts(language, file))
    names = {key for key in other if file == "nodeDefs" and key.endswith(".name")}
    assert other.keys() - names == english.keys()
    assert {key: places(other[key]) for key in english} == {key: places(text) for key, text in english.items()}
    assert all(text.strip() for text in other.values())
    if file == "nodeDefs":
        tooltips = {key for key in english if key.endswith(".tooltip")}
        assert names == {key.replace(".tooltip", ".name") for key in tooltips}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", NODES)
def test_the_help_page_names_every_input_and_output(name: str, language: str) -> None:
    docs = ROOT / "web" / "docs"
    page = docs / f"{name}.md" if language == "en" else docs / name / f"{language}.md"
    help_text = page.read_text(encoding="utf-8")
    node = NODES[name]
    wanted = {f"`{key}`" for key in [*inputs(node), *node.RETURN_NAMES]}
    assert {word for word in wanted if word not in help_text} == set()
    for text in flat(texts(language, "nodeDefs")[name]).values():
        assert text in help_text


def test_every_text_that_the_editor_asks_for_is_there() -> None:
    known = flat(texts("en", "main")["runcomfyKling"])
    for path in (ROOT / "web" / "js").glob("*.js"):
        for key in re.findall(r"""(?:\bt|\bsay|\bbutton)\(["']([\w.]+)["']""", path.read_text(encoding="utf-8")):
            assert key in known, f"{path.name} asks for {key}"


def python_reading(script: str) -> list[list[Any]] | None:
    try:
        return [[shot.duration, shot.prompt] for shot in storyboard.parse(script)]
    except InputError:
        return None


READ = """
import { parse, problems, SHOT, TOTAL } from "SCRIPT_MODULE";
const scripts = JSON.parse(await new Response(process.stdin).text());
const readings = scripts.map((script) => {
  const storyboard = parse(script);
  return problems(storyboard).length ? null : storyboard.shots.map(({ seconds, prompt }) => [seconds, prompt]);
});
console.log(JSON.stringify({ readings, limits: [SHOT.low, SHOT.high, TOTAL.low, TOTAL.high] }));
"""


def test_the_editor_reads_scripts_as_the_nodes_do() -> None:
    node = shutil.which("node")
    if not node:
        pytest.skip("Node.js is not installed, so the editor's JavaScript cannot be run here")
    rng = random.Random(5)
    pieces = ["[5s]", "[ 3 S ]", "[7s]", "[2s]", "[2.5s]", "[4.0s]", "[s]", "[3s", "\n", "\r\n", "\r", " ", "\t"]
    pieces += ["Dusk.", "[close]", "술잔", "棚田", "\u2028", "\u00a0", "\n\n", "[3s] One\n", "[12s] Two\n"]
    scripts = ["".join(rng.choices(pieces, k=rng.randint(0, 9))) for _ in range(4000)]
    module = (ROOT / "web" / "js" / "script.js").as_uri()
    answer = subprocess.run(
        [node, "--input-type=module", "-e", READ.replace("SCRIPT_MODULE", module)],
        input=json.dumps(scripts),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=True,
    )
    read = json.loads(answer.stdout)
    assert read["limits"] == [storyboard.LOW, storyboard.HIGH, storyboard.TOTAL_LOW, storyboard.TOTAL_HIGH]
    expected = [python_reading(script) for script in scripts]
    assert sum(reading is not None for reading in expected) > 200
    differing = [(s, a, b) for s, a, b in zip(scripts, expected, read["readings"], strict=True) if a != b]
    assert differing == []
