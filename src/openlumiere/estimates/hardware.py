"""What devices can do: published figures, this machine's own, and how long counted work takes on them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError
from openlumiere.files import machine_memory

if TYPE_CHECKING:
    from openlumiere.counting import Work

HERE = "here"
_MOVED_SHARE = 0.8  # of a device's bandwidth, that kernels which only move bytes reach: assumed


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """One device.

    Attributes:
        peak: dense FLOP/s by dtype; of the tensor cores where there are such.
        memory: bytes.
        bandwidth: of its memory, bytes a second; where measured, of norms and activations.
        utilisation: share of `peak` that convolutions reach; assumed, where not measured.
        launch: seconds that an operation takes at least; assumed, where not measured.
        gpu: whether it is one, with a driver that takes memory too.
        node: so many devices are linked closely; each sends `link` bytes a second to the others of its node.
        network: bytes a second that each sends to devices of other nodes.
        measured: whether the figures are this machine's own, rather than published ones.
        source: where they are from.
    """

    name: str
    peak: dict[str, float]
    memory: float
    bandwidth: float
    utilisation: float = 0.4
    launch: float = 8e-6
    gpu: bool = True
    node: int = 1
    link: float = 0.0
    network: float = 0.0
    measured: bool = False
    source: str = ""

    def rate(self, dtype: str) -> float:
        """Return the FLOP/s that are reached in a dtype."""
        return self.peak.get(dtype, self.peak["float32"]) * self.utilisation

    def seconds(self, work: Work, dtype: str) -> float:
        """Return how long counted work takes: each operation what takes longest, computing, moving or launching it."""
        rate, moved = self.rate(dtype), self.bandwidth * (1.0 if self.measured else _MOVED_SHARE)
        return sum(
            often * max(flops / rate, size / moved, self.launch) for (flops, size), often in work.kernels.items()
        )

    def seconds_to_send(self, size: float, devices: int) -> float:
        """Return how long each device takes to send so many bytes to the others, not overlapped with anything."""
        if devices == 1:
            return 0.0
        speed = self.link if devices <= self.node else self.network
        return size / speed if speed else 0.0

    def with_own(self, **figures: Any) -> Hardware:
        """Return the same with a user's own figures; `peak_flops` is taken for all dtypes. None = as it is."""
        peak = figures.pop("peak_flops", None)
        said = {name: value for name, value in figures.items() if value is not None}
        if peak is not None:
            said["peak"] = dict.fromkeys(self.peak, peak)
        return dataclasses.replace(self, name=f"{self.name}, own figures", measured=False, **said) if said else self


_NVIDIA = "NVIDIA's data sheets, dense"
# float32 as PyTorch computes convolutions of it by default: in TF32, on tensor cores.
TABLE = {
    "laptop": Hardware(
        name="laptop", peak={"float32": 0.77e12}, memory=16e9, bandwidth=76.8e9, launch=4e-6, gpu=False,
        source="8 cores with AVX2 at 3 GHz, 32 FLOP a cycle each; two channels of DDR5-4800",
    ),
    "rtx4090": Hardware(
        name="rtx4090", peak={"float32": 82.6e12, "bfloat16": 165.2e12, "float16": 165.2e12}, memory=24e9,
        bandwidth=1008e9, link=25e9, node=8, network=3e9, source=f"{_NVIDIA}, float32 accumulation; PCIe 4.0",
    ),
    "a100": Hardware(
        name="a100", peak={"float32": 156e12, "bfloat16": 312e12, "float16": 312e12}, memory=80e9, bandwidth=2039e9,
        link=300e9, node=8, network=25e9, source=f"{_NVIDIA}, SXM 80 GB; 200 Gbit/s a device between nodes",
    ),
    "h100": Hardware(
        name="h100", peak={"float32": 494.5e12, "bfloat16": 989e12, "float16": 989e12}, memory=80e9, bandwidth=3350e9,
        link=450e9, node=8, network=50e9, source=f"{_NVIDIA}, SXM; 400 Gbit/s a device between nodes",
    ),
    "h200": Hardware(
        name="h200", peak={"float32": 494.5e12, "bfloat16": 989e12, "float16": 989e12}, memory=141e9, bandwidth=4800e9,
        link=450e9, node=8, network=50e9, source=f"{_NVIDIA}, SXM; 400 Gbit/s a device between nodes",
    ),
}  # fmt: skip


def find(name: str) -> Hardware:
    """Return hardware by its name in the table; "here" is measured, which takes about two seconds.

    Raises:
        LumiereError: an unknown name.
    """
    key = name.lower().replace("-", "").replace(" ", "")
    if key == HERE:
        return measure()
    if key not in TABLE:
        raise LumiereError(f"--hardware {name}: known are {HERE}, {', '.join(TABLE)}; or say --peak-tflops and others")
    return TABLE[key]


def measure() -> Hardware:
    """Measure this machine's CPU, or its GPU if PyTorch sees one.

    A CPU that others share is measured by the CPU time of this process, so the figures are those of an idle machine.
    """
    import torch

    gpu = torch.cuda.is_available()
    device = torch.device("cuda" if gpu else "cpu")
    dtypes = (torch.float32, torch.bfloat16) if gpu and torch.cuda.is_bf16_supported() else (torch.float32,)
    side = 4096 if gpu else 768
    peak = {}
    for dtype in dtypes:
        matrix = torch.randn(side, side, device=device, dtype=dtype)
        peak[str(dtype).removeprefix("torch.")] = 2 * side**3 / _seconds(partial(torch.matmul, matrix, matrix), device)
    # What networks are made of, rather than what a device does best: norms and activations are slower than copying, and
    # an operation of a module takes longer to start than one of a tensor.
    kept: dict[str, Any] = {"device": device, "dtype": dtypes[-1]}
    convolution: Any = torch.nn.Conv2d(64, 64, 3, padding=1, **kept)
    convolution.to(memory_format=torch.channels_last)
    norm = torch.nn.Sequential(torch.nn.GroupNorm(16, 64, **kept), torch.nn.SiLU())
    pictures = 256 if gpu else 16
    clip, small = (
        torch.randn(count, 64, side, side, **kept).contiguous(memory_format=torch.channels_last)
        for count, side in ((pictures, 16), (1, 2))
    )
    with torch.no_grad():
        computed = 2 * pictures * 16**2 * 64**2 * 9 / _seconds(lambda: convolution(clip), device, often=4)
        bandwidth = 4 * clip.numel() * clip.element_size() / _seconds(lambda: norm(clip), device, often=4)
        launch = _seconds(lambda: convolution(norm(small)), device, often=100) / 3
    best = str(dtypes[-1]).removeprefix("torch.")
    peak[best] = max(peak[best], computed)
    memory = torch.cuda.get_device_properties(0).total_memory if gpu else machine_memory()
    return Hardware(
        name=torch.cuda.get_device_name() if gpu else "this CPU",
        peak=peak, memory=memory or 0, bandwidth=bandwidth, utilisation=computed / peak[best],
        launch=launch, gpu=gpu, measured=True,
        source=f"measured, {torch.get_num_threads()} threads" if not gpu else "measured",
    )  # fmt: skip


def _seconds(run: Callable[[], Any], device: Any, *, often: int = 1) -> float:
    """The fastest of some runs; of a CPU by its own time, spread over the threads that it ran on."""
    import torch

    cpu = device.type == "cpu"
    threads = torch.get_num_threads() if cpu else 1
    clock = time.process_time if cpu else time.perf_counter
    taken = []
    for _ in range(6):
        if not cpu:
            torch.cuda.synchronize(device)
        started = clock()
        for _ in range(often):
            run()
        if not cpu:
            torch.cuda.synchronize(device)
        taken.append((clock() - started) / often)
    return max(min(taken[1:]) / threads, 1e-9)
