"""A cluster of Ray: found or started, and how its machines are shared among the processes of a batch."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from openlumiere import extras
from openlumiere.errors import LumiereError
from openlumiere.files import one_line

V = TypeVar("V")

LOCAL = "local"
_STORE = 128 * 2**20  # bytes of shared memory: what travels are requests and what is told of clips
_ON_LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"


@dataclass(frozen=True)
class Cluster:
    """Machines that this process is connected to, and what each process of a batch gets of them.

    Attributes:
        workers: processes, each with a model of its own.
        cpus, gpus: of each process.
    """

    workers: int
    cpus: int
    gpus: int = 0

    def each(self) -> str:
        """Return what each process gets, in words."""
        return f"{self.gpus} GPU" if self.gpus else f"{self.cpus} CPU core{'s' * (self.cpus > 1)}"

    def call(self, function: Callable[[], V]) -> V:
        """Call a function once, in a process like those of a batch, and return what it returned.

        Raises:
            LumiereError: it failed.
        """
        import ray

        remote: Any = ray.remote(num_cpus=self.cpus, num_gpus=self.gpus)(in_folder)
        try:
            found: V = ray.get(remote.remote(os.getcwd(), function))
        except ray.exceptions.RayError as error:
            raise LumiereError(f"on the cluster: {last_line(error)}") from error
        return found


@contextmanager
def connected(
    address: str, *, workers: int | None = None, device: str = "auto", debug: bool = False
) -> Iterator[Cluster]:
    """Connect to a cluster, or start one on this machine, until the context ends.

    Args:
        address: ``local`` = one of this machine's processes, reachable from this machine alone, that ends with the
            context; else of a cluster that this machine is part of: ``auto``, or ``HOST:PORT`` of its head.
        workers: processes with a model each; None = one for each GPU, or where there is none for each machine.
        device: what the models run on, "auto", "cpu" or "cuda".
        debug: let Ray tell all that it does.

    Raises:
        LumiereError: Ray is not installed, no cluster answers, or it has nothing to run on.
    """
    extras.require("ray")
    if address.startswith("ray://"):
        raise LumiereError(
            f"--ray {address}: batches read their prompts on a machine of the cluster; run the command there, or send "
            "it there with: ray job submit"
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers of each use
    if not debug:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    if address == LOCAL:
        os.environ[_ON_LOOPBACK] = "0"  # on Linux too: it listens on the loopback address alone
    import ray
    import ray.data

    if not debug:
        for handler in logging.getLogger("ray.data").handlers:
            if isinstance(handler, logging.StreamHandler) and type(handler).__module__.startswith("ray."):
                handler.setLevel(logging.CRITICAL + 1)
    options: dict[str, Any] = {"log_to_driver": debug}
    if not debug:
        options |= {"logging_level": logging.CRITICAL}
    if address == LOCAL:
        options |= {"num_cpus": cores(), "include_dashboard": False, "object_store_memory": _STORE}
    try:
        ray.init(address=address, **options)
    except Exception as error:  # of all kinds, bare ones too
        remedy = "free some memory, and try again" if address == LOCAL else "start one with: ray start --head"
        raise LumiereError(f"--ray {address}: no cluster answers ({one_line(error)}); {remedy}") from error
    try:
        machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        yield share(machines, workers=workers, device=device)
    finally:
        ray.shutdown()


def share(machines: Sequence[Mapping[str, float]], *, workers: int | None = None, device: str = "auto") -> Cluster:
    """Return how many processes a batch has on these machines, and what each of them gets.

    Args:
        machines: resources of each, as Ray names them: CPU, GPU.

    Raises:
        LumiereError: there is nothing to run on.
    """
    gpus = int(sum(machine.get("GPU", 0) for machine in machines))
    if device not in ("auto", "cpu") and not gpus:
        raise LumiereError(f"--device {device}: the cluster has no GPU; leave it out, or add machines that have some")
    if gpus and device != "cpu":
        return Cluster(workers or gpus, cpus=1, gpus=1)
    counts = [int(machine.get("CPU", 0)) for machine in machines]
    usable = [count for count in counts if count]
    if not usable:
        raise LumiereError("the cluster has no CPU to compute on; add machines to it with: ray start --address ...")
    workers = workers or len(usable)
    return Cluster(workers, cpus=max(min(usable) // math.ceil(workers / len(usable)), 1))


def cores() -> int:
    """Return how many CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_folder(folder: str, function: Callable[[], V]) -> V:
    """Call a function in a folder, if this machine has it: relative paths are those of whoever started the batch."""
    if os.path.isdir(folder):
        os.chdir(folder)
    return function()


def last_line(error: BaseException) -> str:
    """Return why a process of Ray failed: the last line of the traceback that its error quotes, without the type."""
    lines = [line for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = lines[-1].strip()
    kind, colon, rest = said.partition(": ")
    return one_line(rest if colon and kind.replace(".", "").replace("_", "").isalnum() else said, 400)
