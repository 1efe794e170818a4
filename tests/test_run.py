"""run.py in projects of its own, and the files that say what gets installed."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
PINS = ("demo-requirements.txt", "requirements.txt", "torch-requirements.txt")


def run(
    *args: str, project: Path = ROOT, python: str = sys.executable, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    command = [python, str(project / "run.py"), *args]
    return subprocess.run(command, capture_output=True, encoding="utf-8", env={**os.environ, **(env or {})})


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """run.py with a demo that says where it runs, and a pin that every virtual environment meets."""
    shutil.copy(ROOT / "run.py", tmp_path)
    (tmp_path / "nodes").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "__init__.py").touch()
    (tmp_path / "nodes" / "__init__.py").touch()
    (tmp_path / "nodes" / "demo.py").write_text(
        "import sys\n\ndef main(argv):\n    print(sys.prefix, argv)\n    return 7\n"
    )
    (tmp_path / "tests" / "demo-requirements.txt").write_text("pip\n")
    return tmp_path


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_help_names_every_command(args: list[str]) -> None:
    answer = run(*args)
    assert answer.returncode == 0
    assert all(f"run.py {command} " in answer.stdout for command in ("demo", "test", "bench"))


def test_unknown_command_is_answered_with_the_known_ones() -> None:
    answer = run("tset")
    assert answer.returncode == 2
    assert answer.stderr == "There is no command 'tset'; the commands are demo, test, bench.\n"


def test_it_can_be_read_by_python_3_8() -> None:
    ast.parse((ROOT / "run.py").read_text(encoding="utf-8"), feature_version=(3, 8))


def test_older_python_is_told_in_a_sentence() -> None:
    pyenv = Path.home() / ".pyenv" / "versions"
    found = [shutil.which(f"python3.{minor}") for minor in (8, 9)]
    found += [str(path) for path in sorted(pyenv.glob("3.[89].*/bin/python"))]
    old = [python for python in found if python and subprocess.call([python, "-c", ""]) == 0]
    if not old:
        pytest.skip("no Python 3.8 or 3.9 on this machine")
    answer = run("demo", python=old[0])
    assert answer.returncode == 1
    assert re.fullmatch(r"run\.py needs Python 3\.10 or newer; this is 3\.[89]\.\d+\. .+\.\n", answer.stderr)


def test_first_run_makes_the_environment_and_goes_on_inside(project: Path) -> None:
    first = run("demo", "--prompt", "two words", project=project)
    assert first.returncode == 7, first.stderr
    *steps, last = first.stdout.splitlines()
    assert steps == ["Making .venv", "Installing tests/demo-requirements.txt into .venv"]
    assert last == f"{project / '.venv'} ['--prompt', 'two words']"

    assert run("demo", project=project).stdout == f"{project / '.venv'} []\n"

    pins = project / "tests" / "demo-requirements.txt"
    pins.write_text("pip==0\n")
    failed = run("demo", project=project)
    assert failed.returncode == 1
    assert failed.stderr.endswith("pip could not install what this command needs; its own words are above.\n")
    pins.write_text("pip\n# changed\n")
    assert "Installing" in run("demo", project=project).stdout


def test_half_made_environment_is_made_again(project: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(project / ".venv")], check=True)
    answer = run("demo", project=project)
    assert answer.returncode == 7, answer.stderr
    assert answer.stdout.startswith("Making .venv\n")


def test_neither_ensurepip_nor_virtualenv_is_told_in_a_sentence(project: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['ensurepip'] = None\n")
    alone = {"PYTHONPATH": str(tmp_path), "PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
    answer = run("demo", project=project, env=alone)
    assert answer.returncode == 1
    assert answer.stderr.splitlines()[-1].startswith("No virtual environment could be made: ")


def lines(path: Path) -> list[str]:
    return [line for line in path.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_users_get_bare_names_and_never_another_torch() -> None:
    names = lines(ROOT / "requirements.txt")
    assert names == pyproject()["project"]["dependencies"]
    assert all(name.isalnum() for name in names)
    assert "torch" not in names


def test_development_pins_are_exact_and_cover_what_users_get() -> None:
    pins = {name: lines(ROOT / "tests" / name) for name in PINS}
    assert all(re.match(r"[\w-]+==[\w.]+(; |$)", pin) for name in PINS for pin in pins[name])
    demo = {pin.partition("==")[0] for pin in pins["demo-requirements.txt"]}
    assert demo == set(lines(ROOT / "requirements.txt"))


def test_registry_finds_what_it_requires() -> None:
    config = pyproject()
    assert re.fullmatch(r"[A-Za-z](?:[-_.]?[A-Za-z0-9])*", config["project"]["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", config["project"]["version"])
    assert config["project"]["urls"]["Repository"].startswith("https://")
    assert config["tool"]["comfy"]["PublisherId"]
    # Together with WEB_DIRECTORY it would load every script twice.
    assert "web" not in config["tool"]["comfy"]
    assert (ROOT / config["project"]["license"]["file"]).is_file()
