"""Tensors in fewer bits, and files in parts, so that weights can be carried to a machine that has no network.

A float32 tensor is kept in 32, 16 or 8 bits a value. 8 bits are codes times a scale for every 128 values (absmax
quantization in blocks, Dettmers et al. 2022): of weights the error is about half a percent of their spread, less than
a step of an optimizer changes. Tensors of few values, where norms and biases are, keep all their bits.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from openlumiere.errors import LumiereError
from openlumiere.files import one_line, write_bytes, write_json

MIB = 2**20
PART_BYTES = 15 * MIB
_BLOCK = 128
_FEW = 4096  # values below which a tensor stays as it is
_INDEX = ".json"
_NOTE = "told"  # its key in the list


def packed_bytes(tensor: torch.Tensor, bits: int) -> int:
    """Return how many bytes `compress` makes of a tensor."""
    if not _is_packed(tensor, bits):
        return tensor.numel() * tensor.element_size()
    return tensor.numel() * bits // 8 + (-(-tensor.numel() // _BLOCK) * 4 if bits == 8 else 0)


def compress(tensor: torch.Tensor, bits: int, *, squares: bool = False) -> dict[str, torch.Tensor]:
    """Return a tensor in 32, 16 or 8 bits a value, for `expand`.

    Args:
        squares: the values are means of squares, as an optimizer's second moments: their roots are kept, rounded up,
            for what is divided by them must not become too large.

    Raises:
        LumiereError: other numbers of bits.
    """
    if bits not in (32, 16, 8):
        raise LumiereError(f"tensors are kept in 32, 16 or 8 bits, not {bits}")
    tensor = tensor.detach().cpu().contiguous()
    if not _is_packed(tensor, bits):
        return {"exact": tensor}
    if bits == 16:
        half = tensor.half()
        # bfloat16 for what half precision can't hold, such as squares of gradients.
        fits = half.isfinite().all() and not squares
        return {"half": half if fits else tensor.bfloat16()}
    values = tensor.sqrt().flatten() if squares else tensor.flatten()
    blocks = torch.nn.functional.pad(values, (0, -len(values) % _BLOCK)).view(-1, _BLOCK)
    most = 255 if squares else 127
    scale = blocks.abs().amax(1) / most
    codes = blocks / scale.clamp(min=torch.finfo(torch.float32).tiny)[:, None]
    codes = (codes - 1e-3).ceil() if squares else codes.round()
    codes = codes.clamp(0 if squares else -most, most).to(torch.uint8 if squares else torch.int8)
    shape = torch.tensor(tensor.shape)
    return {"codes": codes.flatten()[: len(values)].clone(), "scale": scale, "shape": shape}


def expand(parts: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the tensor that `compress` was given, but for rounding."""
    if "exact" in parts:
        return parts["exact"]
    if "half" in parts:
        return parts["half"].float()
    codes, scale = parts["codes"], parts["scale"]
    values = codes.float() * scale.repeat_interleave(_BLOCK)[: len(codes)]
    values = values.square() if codes.dtype == torch.uint8 else values
    return values.view(parts["shape"].tolist())


def _is_packed(tensor: torch.Tensor, bits: int) -> bool:
    return bits < 32 and tensor.dtype == torch.float32 and tensor.numel() >= _FEW


def write_parts(
    folder: Path, name: str, tensors: dict[str, dict[str, torch.Tensor]], note: dict[str, Any], *,
    part_bytes: int = PART_BYTES,
) -> list[Path]:  # fmt: skip
    """Write what `compress` made of named tensors as ``NAME-XXXXXXXX-N.part`` files, and ``NAME.json`` that lists them.

    Until the list is written the older one and its parts stay whole.

    Args:
        note: plain data to be kept in the list.
        part_bytes: size of a part.

    Returns:
        All files written, the list last.
    """
    folder.mkdir(parents=True, exist_ok=True)
    flat = {f"{key}/{kind}": value for key, parts in tensors.items() for kind, value in parts.items()}
    data = save(flat)
    digest = hashlib.sha256(data).hexdigest()
    written = []
    for number, start in enumerate(range(0, len(data), part_bytes)):
        path = folder / f"{name}-{digest[:8]}-{number}.part"
        write_bytes(path, data[start : start + part_bytes])
        written.append(path)
    index = folder / f"{name}{_INDEX}"
    listed = {"parts": [path.name for path in written], "sha256": digest, _NOTE: note}
    write_json(index, listed, indent=None)
    for old in set(folder.glob(f"{name}-*.part")) - set(written):
        old.unlink()
    return [*written, index]


def has_parts(folder: Path, name: str) -> bool:
    """Return whether `write_parts` wrote something of this name there."""
    return (folder / f"{name}{_INDEX}").exists()


def read_parts(folder: Path, name: str) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return what `write_parts` was given: the tensors, expanded, and the note.

    Raises:
        LumiereError: a part that is missing or damaged.
    """
    index = folder / f"{name}{_INDEX}"
    try:
        listed = json.loads(index.read_text(encoding="utf-8"))
        data = b"".join((folder / part).read_bytes() for part in listed["parts"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LumiereError(
            f"{index} or one of its parts cannot be read ({one_line(error)}); copy all of them anew"
        ) from error
    if hashlib.sha256(data).hexdigest() != listed["sha256"]:
        raise LumiereError(f"the parts of {index} are damaged or of another writing; copy all of them anew")
    found: dict[str, dict[str, torch.Tensor]] = {}
    for path, value in load(data).items():
        key, _, kind = path.rpartition("/")
        found.setdefault(key, {})[kind] = value
    return {key: expand(parts) for key, parts in found.items()}, listed[_NOTE]
