"""What a plan's trainings need to go on elsewhere, in a few small files: `pack` there, `unpack` here.

Of finished stages these are the averaged weights and what was exported, of the stage under way its average, its weights
and the optimizer's moments. Equal tensors are kept once: an export is its run's average, and a clip model contains its
T2I. Everything is exact where that fits the budget; else it takes fewer bits, by and by, and the moments, then the
weights are left out: training then goes on with a new warm-up, from the average. How, is told.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from openlumiere.errors import LumiereError
from openlumiere.files import remove, write_json
from openlumiere.packing import MIB, PART_BYTES, compress, has_parts, packed_bytes, read_parts, write_parts

from . import state
from .config import TrainConfig

BUDGET = 56 * MIB
_NAME = "state"
_ROOM = MIB  # for names and lists
# The widths that are tried, in bits a value; 0 = left out.
_FINISHED, _AVERAGE, _WEIGHTS, _MOMENTS = "finished", "average", "weights", "moments"
_WIDTHS = tuple(
    dict(zip((_FINISHED, _AVERAGE, _WEIGHTS, _MOMENTS), bits, strict=True))
    for bits in (
        (32, 32, 32, 32), (16, 16, 16, 16), (16, 16, 8, 8), (16, 16, 8, 0), (16, 8, 8, 0), (8, 8, 8, 8), (8, 8, 8, 0),
        (8, 8, 0, 0),
    )
)  # fmt: skip
_SQUARES = "/exp_avg_sq"  # the second moments' names end so


@dataclass
class _Kept:
    """A tensor that some files contain.

    Attributes:
        roles: of these files; it takes the widest of their widths.
    """

    tensor: torch.Tensor
    roles: set[str]
    squares: bool

    def bits(self, widths: dict[str, int]) -> int:
        return max(widths[role] for role in self.roles)


def pack(stages: dict[str, TrainConfig], folder: Path, *, budget: int = BUDGET, part_bytes: int = PART_BYTES) -> str:
    """Write what `unpack` needs of every stage that was begun, and return a line that says how.

    Args:
        stages: of a plan, by name.
        budget: bytes that all files together may take.
        part_bytes: most that one file may hold.

    Raises:
        LumiereError: a budget that is too small for the averaged weights in 8 bits.
    """
    kept: dict[str, _Kept] = {}
    files: dict[str, Any] = {}
    steps: dict[str, int] = {}
    for name, config in stages.items():
        found = state.checkpoints(Path(config.output))
        if not found:
            continue
        steps[name] = state.step_of(found[-1])
        done = steps[name] >= config.optim.max_steps
        for path, name_in_run, role in _files(Path(config.output), found[-1], done=done):
            files[f"{name}/{name_in_run}"] = _described(path, role, kept)
    for widths in _WIDTHS:
        size = sum(packed_bytes(k.tensor, k.bits(widths)) for k in kept.values() if k.bits(widths)) + _ROOM
        if size <= budget:
            break
    else:
        raise LumiereError(f"the trainings take {size / MIB:.0f} MiB in 8 bits, more than the {budget / MIB:.0f} MiB")
    left_out = [role for role, bits in widths.items() if not bits]
    tensors = {key: compress(k.tensor, k.bits(widths), squares=k.squares) for key, k in kept.items() if k.bits(widths)}
    files = {path: file for path, file in files.items() if file["role"] not in left_out}
    note = {"steps": steps, "files": files, "moments": _MOMENTS not in left_out}
    written = write_parts(folder, _NAME, tensors, note, part_bytes=part_bytes)
    how = ", ".join(f"{role} in {bits} bits" if bits else f"no {role}" for role, bits in widths.items())
    mebibytes = sum(path.stat().st_size for path in written) / MIB
    return f"packed {mebibytes:.1f} MiB in {len(written)} files in {folder}: {how}"


def unpack(stages: dict[str, TrainConfig], folder: Path) -> None:
    """Put back what `pack` wrote, where the stages' own checkpoints are not as far.

    Raises:
        LumiereError: files that are damaged, or of another plan.
    """
    if not has_parts(folder, _NAME):
        return
    tensors, note = read_parts(folder, _NAME)
    unknown = sorted(set(note["steps"]) - set(stages))
    if unknown:
        raise LumiereError(f"{folder} holds the state of another plan, with a stage {unknown[0]}: name another --state")
    for name, step in note["steps"].items():
        output = Path(stages[name].output)
        found = state.checkpoints(output)
        if found and state.step_of(found[-1]) >= step:
            continue
        partial = output.with_name(f"{output.name}.unpacked.partial")
        remove(partial)
        for path, file in note["files"].items():
            if path.startswith(f"{name}/"):
                _put_back(partial / _relative(path.removeprefix(f"{name}/")), file, tensors)
        checkpoint = state.folder_of(partial, step)
        if not any(checkpoint.glob("weights*.safetensors")):
            for path in state.files_of(checkpoint, "ema"):
                shutil.copy(path, path.with_name(path.name.replace("ema", "weights", 1)))
        marked = json.loads((checkpoint / "state.json").read_text(encoding="utf-8"))
        marked["moments"] = any(checkpoint.glob("optimizer*.safetensors"))
        write_json(checkpoint / "state.json", marked)
        output.mkdir(parents=True, exist_ok=True)
        remove(output / "export")
        # The checkpoint last: it says that all the rest is there.
        for part in sorted(partial.iterdir(), key=lambda part: part == checkpoint):
            remove(output / part.name)
            part.rename(output / part.name)
        partial.rmdir()
        print(f"{name}: step {step}, from {folder}")


def _files(output: Path, checkpoint: Path, *, done: bool) -> Iterator[tuple[Path, str, str]]:
    """Yield a run's files that are worth carrying: path, name within the run's folder, role."""
    roles = {"ema": _AVERAGE, "buffers": _AVERAGE, "weights": _WEIGHTS, "optimizer": _MOMENTS}
    for path in sorted(checkpoint.iterdir()):
        kind = roles.get(path.stem.partition("-")[0], _AVERAGE)  # ema, or ema-00001-of-00002
        role = _FINISHED if done else kind
        if not (done and kind in (_WEIGHTS, _MOMENTS)):
            yield path, f"{checkpoint.name}/{path.name}", role
    yield output / "config.yaml", "config.yaml", _FINISHED if done else _AVERAGE
    if done:
        for path in sorted((output / "export").rglob("*")):
            if path.is_file():
                yield path, path.relative_to(output).as_posix(), _FINISHED


def _described(path: Path, role: str, kept: dict[str, _Kept]) -> dict[str, Any]:
    """Return a file's entry in the list: its text, or which tensors it contains, which are added to `kept`."""
    if path.suffix != ".safetensors":
        return {"role": role, "text": path.read_text(encoding="utf-8")}
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    names = {}
    for name, tensor in load_file(path).items():
        squares = role == _MOMENTS and name.endswith(_SQUARES)
        data = tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()
        key = hashlib.sha256(f"{tensor.dtype}{list(tensor.shape)}{squares}".encode() + data).hexdigest()[:24]
        kept.setdefault(key, _Kept(tensor, set(), squares)).roles.add(role)
        names[name] = key
    return {"role": role, "tensors": names, "metadata": metadata}


def _put_back(path: Path, file: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if "text" in file:
        path.write_text(file["text"], encoding="utf-8")
        return
    found = {name: tensors[key] for name, key in file["tensors"].items()}
    # Equal tensors share memory here, which safetensors refuses to write.
    save_file({name: value.clone() for name, value in found.items()}, path, metadata=file["metadata"])


def _relative(path: str) -> Path:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts:
        raise LumiereError(f"the packed state names a file outside its run: {path}")
    return Path(parts)
