"""How models driven by diffusers are loaded, and brought to where and how they are to compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError
from openlumiere.files import one_line
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.recipe import ModelIdentity

from .base import Loading
from .diffusers_model import DiffusersBackend
from .licences import licence_notes
from .source import INDEX, Part, Source

if TYPE_CHECKING:
    import torch


def choose_device(loading: Loading) -> tuple[torch.device, torch.dtype]:
    """Return the device and the dtype that a model is loaded for.

    Raises:
        LumiereError: there is no such device or dtype.
    """
    from openlumiere.pipelines.load import resolve_device, resolve_dtype

    device = resolve_device(loading.device)
    return device, resolve_dtype(loading.dtype, device)


def pretrained(kind: Any, part: Part, *, loading: Loading | None = None, **options: Any) -> Any:
    """Load a pipeline, or a component, of diffusers; from safetensors alone.

    Args:
        kind: its class.
        loading: of a pipeline; its largest networks are quantized if that says so.
        options: further arguments of ``from_pretrained``.

    Raises:
        LumiereError: it is damaged, cannot be reached, is published in pickle files only, or cannot be quantized.
    """
    import torch

    from .memory import quantization_config

    if loading is not None:
        options |= quantization_config(loading, part.json(INDEX))
    try:
        return kind.from_pretrained(part.location, use_safetensors=True, **part.pretrained, **options)
    except (LumiereError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        if "safetensors" in str(error) and part.folder is None:
            raise LumiereError(
                f"{part.name} has no safetensors, the only weights that are read; name a revision that has them, as "
                f"{part.repository}@REVISION ({one_line(error)})"
            ) from error
        if part.folder is not None:
            raise LumiereError(f"{part.name} is damaged: {one_line(error)}; install or save the model again") from error
        raise LumiereError(
            f"cannot load {part.name!r} from the hub: check the name and the network ({one_line(error)})"
        ) from error


def ready(
    kind: type[DiffusersBackend], pipe: Any, *, source: Source, abilities: Abilities, loading: Loading
) -> DiffusersBackend:
    """Return the backend of a pipeline, brought to where and how it is to compute.

    Args:
        kind: of its family.
        pipe: on the CPU, of the dtype that `choose_device` said.
    """
    from .memory import prepare

    device, dtype = choose_device(loading)
    notes = (*licence_notes(abilities.licence, abilities.commercial), *prepare(pipe, loading))
    identity = ModelIdentity(
        name=source.known_as, weights=source.weights, device=device.type, dtype=str(dtype).removeprefix("torch."),
        licence=abilities.licence,
    )  # fmt: skip
    return kind(abilities, identity, pipe, notes=notes)


def load_whole(
    kind: type[DiffusersBackend], source: Source, loading: Loading, *, abilities: Abilities
) -> DiffusersBackend:
    """Load the backend of a model that is one pipeline, all of one dtype.

    Args:
        kind: of its family.

    Raises:
        LumiereError: as `choose_device`, `pretrained` and `memory.prepare`.
    """
    from diffusers import DiffusionPipeline

    _, dtype = choose_device(loading)
    pipe = pretrained(DiffusionPipeline, source.main, loading=loading, torch_dtype=dtype)
    return ready(kind, pipe, source=source, abilities=abilities, loading=loading)
