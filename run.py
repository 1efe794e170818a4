"""The commands of this project. They need nothing but Python 3.10 or newer with pip.

    python3 run.py demo     a free rehearsal of a clip, no account needed; demo --help lists its options
    python3 run.py test     linters, type checker and all tests; with arguments, only pytest with them
    python3 run.py bench    measures what the pack itself adds to a generation

The first run makes .venv beside this file and installs what the command needs there.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Callable

ROOT = Path(__file__).resolve().parent
TESTS = ROOT / "tests"
VENV = ROOT / ".venv"
VENV_PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
DEMO_PINS = TESTS / "demo-requirements.txt"
TEST_PINS = TESTS / "requirements.txt"
TORCH_PIN = TESTS / "torch-requirements.txt"
NO_CUDA = TESTS / "no-cuda.txt"
PACKAGE = "runcomfy_kling"


def load_pack(name: str = PACKAGE) -> ModuleType:
    """Imports the pack the way ComfyUI does: as a package of any name from its folder."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        assert spec and spec.loader
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def demo(argv: list[str]) -> int:
    load_pack()
    return int(importlib.import_module(f"{PACKAGE}.nodes.demo").main(argv))


def bench(argv: list[str]) -> int:
    load_pack()
    sys.path.insert(0, str(TESTS / "bench"))
    return int(importlib.import_module("bench").main(argv))


def test(argv: list[str]) -> int:
    if argv:
        return python("-m", "pytest", *argv)
    checks: dict[str, Callable[[], int]] = {
        "ruff check": lambda: python("-m", "ruff", "check"),
        "ruff format": lambda: python("-m", "ruff", "format", "--check"),
        "mypy": lambda: python("-m", "mypy"),
        "web tests": web_tests,
        # loadgroup keeps the tests that share a running ComfyUI in one worker.
        "pytest": lambda: python("-m", "pytest", "-q", "-n", "2", "--dist", "loadgroup", str(TESTS)),
    }
    failed = []
    for name, check in checks.items():
        print(f"== {name}", flush=True)
        if check() != 0:
            failed.append(name)
    if failed:
        print(f"FAILED: {', '.join(failed)}")
    return 1 if failed else 0


def web_tests() -> int:
    files = sorted(str(path) for path in (TESTS / "web").glob("*.test.mjs"))
    node = shutil.which("node")
    if files and node:
        return subprocess.call([node, "--test", *files], cwd=ROOT)
    print(f"skipped {len(files)} files: node was not found" if files else "there are none")
    return 0


COMMANDS = {
    "demo": (demo, [DEMO_PINS]),
    "test": (test, [DEMO_PINS, TEST_PINS]),
    "bench": (bench, [DEMO_PINS, TEST_PINS]),
}


def python(*args: str) -> int:
    return subprocess.call([sys.executable, *args], cwd=ROOT)


def pip_install(*args: str) -> bool:
    return python("-m", "pip", "install", "--quiet", "--disable-pip-version-check", *args) == 0


def install(pins: list[Path]) -> None:
    """Installs the pinned packages, unless this very list was installed before."""
    stamp = VENV / f"{pins[-1].stem}.sha256"
    wanted = hashlib.sha256(b"".join(path.read_bytes() for path in pins)).hexdigest()
    if not stamp.exists() or stamp.read_text() != wanted:
        names = ", ".join(path.relative_to(ROOT).as_posix() for path in pins)
        print(f"Installing {names} into .venv", flush=True)
        if not pip_install(*(f"--requirement={path}" for path in pins)):
            sys.exit("pip could not install what this command needs; its own words are above.")
        stamp.write_text(wanted)
    if TEST_PINS in pins:
        install_torch()
    importlib.invalidate_caches()


def install_torch() -> None:
    """Any torch that is there stays; otherwise its CPU build, and never gigabytes of CUDA."""
    if importlib.util.find_spec("torch"):
        return
    print("Installing the CPU build of torch into .venv", flush=True)
    # Older pip downloads a whole torch just to read what it depends on.
    pip_install("pip>=23.2")
    if pip_install("-qq", f"--requirement={TORCH_PIN}", f"--constraint={NO_CUDA}"):
        return
    # pip's own index has only the CUDA build for Linux; uv knows where PyTorch keeps the others.
    uv = ("-m", "uv", "pip", "install", "--quiet", "--python", sys.executable, "--torch-backend", "cpu")
    if not (pip_install("uv") and python(*uv, f"--requirement={TORCH_PIN}") == 0):
        print("No CPU build of torch could be had: tests that need torch are skipped.", flush=True)


def make_venv() -> None:
    """Makes .venv, unless one with pip is there."""
    if VENV_PYTHON.exists() and subprocess.call([str(VENV_PYTHON), "-c", "import pip"], stderr=subprocess.DEVNULL) == 0:
        return
    print("Making .venv", flush=True)
    # Debian ships Python without ensurepip; virtualenv brings its own pip.
    if importlib.util.find_spec("venv") and importlib.util.find_spec("ensurepip"):
        made = python("-m", "venv", "--clear", str(VENV)) == 0
    else:
        made = make_with_virtualenv()
    if not made:
        sys.exit(f"No virtual environment could be made: {sys.executable} needs pip, or venv with ensurepip.")


def make_with_virtualenv() -> bool:
    with tempfile.TemporaryDirectory() as folder:
        if not pip_install(f"--target={folder}", "virtualenv"):
            return False
        command = [sys.executable, "-m", "virtualenv", "--quiet", "--clear", str(VENV)]
        return subprocess.call(command, env={**os.environ, "PYTHONPATH": folder}) == 0


def inside_venv() -> bool:
    return VENV.exists() and os.path.samefile(sys.prefix, VENV)


def go_on_inside(argv: list[str]) -> int:
    command = [str(VENV_PYTHON), str(ROOT / "run.py"), *argv]
    if os.name == "nt":
        return subprocess.call(command)  # exec on Windows gives the prompt back before the command has ended
    os.execv(command[0], command)


def main(argv: list[str]) -> int:
    if sys.version_info < (3, 10):
        sys.exit(f"run.py needs Python 3.10 or newer; this is {sys.version.split()[0]}. Start it with a newer one.")
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(__doc__.strip())
        return 0
    if argv[0] not in COMMANDS:
        print(f"There is no command {argv[0]!r}; the commands are {', '.join(COMMANDS)}.", file=sys.stderr)
        return 2
    if not inside_venv():
        make_venv()
        return go_on_inside(argv)
    command, pins = COMMANDS[argv[0]]
    install(pins)
    return command(argv[1:])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
