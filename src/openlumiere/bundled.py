"""The models that come with the package: where they are, and whether they are whole.

A wheel installs the repository's ``models/`` as ``openlumiere/models``; in a checkout it is found at its own place.
Each folder is in diffusers' layout, with a ``SHA256SUMS`` as ``sha256sum --check`` reads it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from openlumiere.errors import LumiereError
from openlumiere.files import sampled_sha256, sha256, write_text

DEFAULT_MODEL = "emoji"  # of commands and functions that are given none
CHECKSUMS = "SHA256SUMS"
STYLES = "styles"  # folder of a model that holds those that come with it
_HASHED_WHOLE = 256 * 2**20  # bytes
_INDEX = "model_index.json"  # what makes a folder a diffusers pipeline


def models_root() -> Path:
    """Return the folder of all bundled models."""
    package = Path(__file__).resolve().parent
    installed = package / "models"
    return installed if installed.is_dir() else package.parents[1] / "models"


def bundled_models() -> list[str]:
    """List the names of the bundled models, in alphabetical order."""
    return sorted(index.parent.name for index in models_root().glob(f"*/{_INDEX}"))


def bundled_folder(name: str) -> Path:
    """Return the folder of a bundled model.

    Raises:
        LumiereError: no bundled model has this name.
    """
    known = bundled_models()
    if name not in known:
        raise LumiereError(f"no bundled model is called {name!r}; bundled: {', '.join(known) or 'none'}")
    return models_root() / name


def model_folder(model: str | Path) -> Path | None:
    """Return the folder that a model's name stands for; None if there is none, as for hub ids.

    Args:
        model: name of a bundled model, or a folder; a `Path` is always a folder.

    Raises:
        LumiereError: a bundled model's name where another model is in a folder of that name, too.
    """
    folder = Path(model)
    if isinstance(model, Path) or model not in bundled_models():
        return folder if folder.is_dir() else None
    bundled = models_root() / model
    if (folder / _INDEX).is_file() and not folder.samefile(bundled):
        raise LumiereError(
            f"{model} is a bundled model and a folder here: say {folder.resolve()} for the folder, or {bundled}"
        )
    return bundled


def weight_files(folder: Path) -> list[Path]:
    """List the safetensors files below a model's folder, in a fixed order; without styles, which may be added."""
    return sorted(path for path in folder.rglob("*.safetensors") if STYLES not in path.relative_to(folder).parts)


def styles_of(folder: Path) -> list[str]:
    """List the names of the styles that come with a model, in alphabetical order."""
    return sorted(path.name for path in (folder / STYLES).glob("*") if path.is_dir())


def fingerprint(folder: Path) -> str:
    """Return twelve hexadecimal digits that identify the weights, whatever the folder is called.

    Of files above 256 MiB a sample is looked at: each loading of tens of gigabytes would else begin with minutes of
    hashing. Training, even of LoRAs merged into them, changes nearly all of a file.
    """
    digest = hashlib.sha256()
    for path in weight_files(folder):
        found = sha256(path) if path.stat().st_size <= _HASHED_WHOLE else sampled_sha256(path)
        digest.update(path.relative_to(folder).as_posix().encode() + bytes.fromhex(found))
    return digest.hexdigest()[:12]


def write_checksums(folder: Path) -> Path:
    """Write ``SHA256SUMS`` for every other file below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    target = folder / CHECKSUMS
    lines = [f"{sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    write_text(target, "".join(lines))
    return target


def damaged_files(folder: Path) -> list[str] | None:
    """List files that are missing or differ from ``SHA256SUMS``; None if the folder has no ``SHA256SUMS``."""
    target = folder / CHECKSUMS
    if not target.is_file():
        return None
    damaged = []
    for line in target.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or sha256(path) != expected:
            damaged.append(name)
    return damaged
