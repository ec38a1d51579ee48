"""Processes of their own, forked off a server that has imported everything: a new interpreter costs seconds more."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

from openlumiere.cli import main

PRELOADED = [
    "pytest", "hypothesis", "openlumiere.cli", "openlumiere.cli.generate", "openlumiere.pipelines.load",
    "openlumiere.training.loop", "openlumiere.training.stages.t2i", "openlumiere.training.stages.t2v",
    "transformers.models.bert.modeling_bert", "processes", "runs",
]  # fmt: skip


@cache
def context() -> ForkServerContext:
    """Start the server, on one CPU thread."""
    found = get_context("forkserver")
    found.set_forkserver_preload(PRELOADED)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))  # where it imports from
        patch.setenv("OMP_NUM_THREADS", "1")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        forkserver.ensure_running()
    return found


def start(
    function: Callable[..., Any],
    *arguments: Any,
    log: Path,
    folder: Path | None = None,
    memory: int | None = None,
    environment: dict[str, str] | None = None,
) -> BaseProcess:
    """Start ``sys.exit(function(*arguments))``, as from a terminal, in this process's environment.

    Args:
        function: of a module that can be imported.
        log: file that all is printed into, after what is there.
        folder: the current one, there.
        memory: bytes of address space.
        environment: variables to be changed or added.
    """
    variables = os.environ | (environment or {})
    process = context().Process(target=_run, args=(function, arguments, log, folder, memory, variables))
    process.start()
    return process


def run(function: Callable[..., Any], *arguments: Any, log: Path, **options: Any) -> tuple[int, str]:
    """Run a process to its end; returns its exit code, and what is in its log."""
    process = start(function, *arguments, log=log, **options)
    process.join()
    assert process.exitcode is not None
    return process.exitcode, log.read_text(encoding="utf-8")


def lumiere(*words: str | Path, **options: Any) -> tuple[int, str]:
    """Run a command of `lumiere`, as `run` does."""
    return run(main, [str(word) for word in words], **options)


def wait_for(condition: Callable[[], bool], process: BaseProcess) -> None:
    """Poll closely; fails when the process ends first."""
    while not condition():
        assert process.is_alive(), f"ended early, with exit code {process.exitcode}"
        time.sleep(0.0005)


def _run(
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    log: Path,
    folder: Path | None,
    memory: int | None,
    environment: dict[str, str],
) -> None:
    # A background job, as a test run may be, is born deaf to SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    os.environ.clear()
    os.environ.update(environment)
    if folder is not None:
        os.chdir(folder)
    if memory is not None:
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    sys.exit(function(*arguments))
