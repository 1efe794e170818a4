"""Loads the pack under a package name, and starts a real ComfyUI for the tests that ask for one."""

from __future__ import annotations

import runpy
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import comfyui as harness
import pytest

ROOT = Path(__file__).resolve().parent.parent
runpy.run_path(str(ROOT / "run.py"))["load_pack"]()


@pytest.fixture(scope="session")
def start_comfyui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., harness.ComfyUI]]:
    """start_comfyui(env={...}, args=[...], pack="name") -> a running ComfyUI; all are stopped at the end."""
    found = harness.find()
    if isinstance(found, str):
        pytest.skip(found)
    servers: list[harness.ComfyUI] = []

    def start(**options: Any) -> harness.ComfyUI:
        server = harness.ComfyUI(found, tmp_path_factory.mktemp("comfyui"), **options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def comfyui(start_comfyui: Callable[..., harness.ComfyUI]) -> harness.ComfyUI:
    """The ComfyUI that tests share; without account, and in its own folder."""
    return start_comfyui()


def needs_comfyui(item: pytest.Item) -> bool:
    return "start_comfyui" in getattr(item, "fixturenames", ())


# First, so that pytest-xdist, which reads the mark in the same hook, finds it.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if needs_comfyui(item):
            item.add_marker(pytest.mark.xdist_group("comfyui"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed and needs_comfyui(item):
        report.sections += [(f"log of {server.url}", server.log()[-8000:]) for server in harness.running]
    return report
