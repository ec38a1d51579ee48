"""The models that come with the package: where they lie, and whether they are whole.

A wheel installs the repository's ``models/`` as ``openlumiere/models``; in a checkout it is found at its own place.
Each folder is in diffusers' layout, with a ``SHA256SUMS`` as ``sha256sum --check`` reads it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from openlumiere.errors import LumiereError

CHECKSUMS = "SHA256SUMS"
STYLES = "styles"  # folder of a model that holds those that come with it
_INDEX = "model_index.json"  # what makes a folder a diffusers pipeline


def models_root() -> Path:
    """The folder of all that is bundled."""
    package = Path(__file__).resolve().parent
    installed = package / "models"
    return installed if installed.is_dir() else package.parents[1] / "models"


def bundled_models() -> list[str]:
    """Names of the bundled models, in alphabetical order."""
    return sorted(index.parent.name for index in models_root().glob(f"*/{_INDEX}"))


def bundled_folder(name: str) -> Path:
    """Folder of a bundled model.

    Raises:
        LumiereError: no bundled model has this name.
    """
    known = bundled_models()
    if name not in known:
        raise LumiereError(f"no bundled model is called {name!r}; bundled: {', '.join(known) or 'none'}")
    return models_root() / name


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files below a model's folder, in a fixed order; styles, which may be added to it, aside."""
    return sorted(path for path in folder.rglob("*.safetensors") if STYLES not in path.relative_to(folder).parts)


def styles_of(folder: Path) -> list[str]:
    """Names of the styles that come with a model, in alphabetical order."""
    return sorted(path.name for path in (folder / STYLES).glob("*") if path.is_dir())


def fingerprint(folder: Path) -> str:
    """Twelve hexadecimal digits that tell the weights apart, whatever the folder is called."""
    digest = hashlib.sha256()
    for path in weight_files(folder):
        digest.update(path.relative_to(folder).as_posix().encode() + bytes.fromhex(_sha256(path)))
    return digest.hexdigest()[:12]


def write_checksums(folder: Path) -> Path:
    """Write ``SHA256SUMS`` for every other file below `folder`."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != CHECKSUMS)
    target = folder / CHECKSUMS
    lines = [f"{_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    target.write_text("".join(lines), encoding="utf-8")
    return target


def damaged_files(folder: Path) -> list[str] | None:
    """Files that are missing or not what ``SHA256SUMS`` says; None if the folder has no ``SHA256SUMS``."""
    target = folder / CHECKSUMS
    if not target.is_file():
        return None
    damaged = []
    for line in target.read_text(encoding="utf-8").splitlines():
        expected, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file() or _sha256(path) != expected:
            damaged.append(name)
    return damaged


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
