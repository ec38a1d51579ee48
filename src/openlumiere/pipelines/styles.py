"""Styles on disk: what `lumiere train style` writes, LoRA files in diffusers' format, and whole fine-tuned U-Nets."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionLoraLoaderMixin

from openlumiere.bundled import STYLES, styles_of
from openlumiere.diffusion.style_interpolation import interpolate
from openlumiere.errors import LumiereError
from openlumiere.files import one_line

LORA = "pytorch_lora_weights.safetensors"


class StyleMixin:
    """Of `LumierePipeline`: styles and LoRAs, merged into the text-to-image weights; temporal weights never change.

    Merged rather than run beside the network, so that a styled model costs no more; every strength is a new merge of
    the weights as they were without any.
    """

    unet: Any
    config: Any
    # W_style of each, and its strength.
    _styles: dict[str, tuple[dict[str, torch.Tensor], float]]
    _loras: dict[str, tuple[dict[str, torch.Tensor], float]]
    _unstyled: dict[str, torch.Tensor]  # weights that they changed, as they were

    @property
    def source_folder(self) -> Path | None:
        """Where the model was read from; None where that was no local folder."""
        source = Path(str(self.config.get("_name_or_path") or ""))
        return source if source.name and source.is_dir() else None

    def set_styles(self, styles: Mapping[str, float]) -> None:
        """Draw in one style or a mixture, by interpolation of the text-to-image weights alone; ``{}`` = none.

        Args:
            styles: strength of each, see `diffusion.style_interpolation`, by the name of one that comes with the model,
                or the path of any other, see `read_style`.

        Raises:
            LumiereError: an unknown style, or one of another network; the styles then stay as they were.
        """
        with self._unmerged() as plain:
            read = {name: read_style(resolve_style(name, self.source_folder), plain) for name in styles}
        self._styles = {name: (weights, styles[name]) for name, weights in read.items()}
        self._merge()

    def load_lora_weights(
        self, pretrained_model_name_or_path_or_dict: Any, adapter_name: str | None = None, **kwargs: Any
    ) -> None:
        """Merge a LoRA of the text-to-image U-Net, in diffusers' format, at strength 1; beside styles and other LoRAs.

        Args:
            pretrained_model_name_or_path_or_dict: a hub id, a folder, a file or a state dict.
            adapter_name: to `set_adapters` by; "default_0", "default_1" ... when None.
            kwargs: of diffusers' ``lora_state_dict``, such as `weight_name`.

        Raises:
            LumiereError: no LoRA of this network's U-Net.
        """
        source = pretrained_model_name_or_path_or_dict
        name = f"default_{len(self._loras)}" if adapter_name is None else adapter_name
        if name in self._loras:
            raise LumiereError(f"a LoRA called {name!r} is loaded already: choose another adapter_name")
        with self._unmerged() as plain:
            weights = read_lora(source, plain, **kwargs)
        self._loras[name] = (weights, 1.0)
        self._merge()

    def set_adapters(self, adapter_names: str | list[str], adapter_weights: float | list[float] = 1.0) -> None:
        """Choose the strengths of loaded LoRAs; those that are not named are off.

        Raises:
            LumiereError: a LoRA that is not loaded, or another number of strengths.
        """
        names = [adapter_names] if isinstance(adapter_names, str) else list(adapter_names)
        weights = adapter_weights if isinstance(adapter_weights, list) else [adapter_weights] * len(names)
        unknown = [name for name in names if name not in self._loras]
        if unknown or len(weights) != len(names):
            raise LumiereError(
                f"{len(weights)} strengths for LoRAs {', '.join(names)}; loaded: {', '.join(self._loras) or 'none'}"
            )
        strengths = dict(zip(names, weights, strict=True))
        self._loras = {name: (read, strengths.get(name, 0.0)) for name, (read, _) in self._loras.items()}
        self._merge()

    def get_active_adapters(self) -> list[str]:
        """Names of the LoRAs that are on."""
        return [name for name, (_, strength) in self._loras.items() if strength]

    def unload_lora_weights(self) -> None:
        """Take all LoRAs away; styles stay."""
        self._loras = {}
        self._merge()

    def _forget_styles(self) -> None:
        """Start without styles; for the constructor."""
        self._styles, self._loras, self._unstyled = {}, {}, {}

    @contextmanager
    def _unmerged(self) -> Iterator[UNet2DConditionModel]:
        """The U-Net as it is without styles, to read one by; afterwards it is merged again."""
        self._restore()
        try:
            yield self.unet.spatial
        finally:
            self._merge()

    @torch.no_grad()
    def _restore(self) -> None:
        own = self.unet.spatial.state_dict()
        for name, value in self._unstyled.items():
            own[name].copy_(value)
        self._unstyled = {}

    @torch.no_grad()
    def _merge(self) -> None:
        self._restore()
        own = self.unet.spatial.state_dict()
        styled = interpolate(own, [*self._styles.values(), *self._loras.values()])
        self._unstyled = {name: own[name].clone() for name in styled}
        for name, value in styled.items():
            own[name].copy_(value)


def resolve_style(name: str, model: Path | None) -> Path:
    """The file or folder of a style: one that comes with the model, by name, or any other by its path.

    Raises:
        LumiereError: there is none.
    """
    own = [] if model is None else styles_of(model)
    if model is not None and name in own:
        return model / STYLES / name
    path = Path(name)
    if path.exists():
        return path
    raise LumiereError(
        f"unknown style {name!r}: give a folder that lumiere train style wrote, a LoRA file"
        + (f", or one of {', '.join(own)}" if own else "")
    )


def read_style(path: Path, spatial: UNet2DConditionModel) -> dict[str, torch.Tensor]:
    """Read W_style: the weights that a style gives a text-to-image U-Net, by name; only those that differ.

    Args:
        path: a LoRA's file, a folder with one, or a folder in diffusers' layout with a fine-tuned ``unet``.
        spatial: the U-Net as it is without styles; left as it is.

    Raises:
        LumiereError: no style, or one of a U-Net of another shape.
    """
    if not path.is_dir() or (path / LORA).exists():
        return read_lora(path, spatial)
    inside = path / "unet" if (path / "unet").is_dir() else path
    try:
        weights = UNet2DConditionModel.from_pretrained(inside, local_files_only=True).state_dict()
    except Exception as error:  # of diffusers, safetensors and PyTorch, whatever a file holds
        raise _no_style(path, error) from error
    own = spatial.state_dict()
    if {name: value.shape for name, value in weights.items()} != {name: value.shape for name, value in own.items()}:
        raise LumiereError(f"{path} is a style for a U-Net of another shape than this model's")
    return _changed(weights, own)


def read_lora(source: Any, spatial: UNet2DConditionModel, **kwargs: Any) -> dict[str, torch.Tensor]:
    """Read a LoRA in diffusers' format as the weights that it gives a U-Net, merged by peft; only those that differ.

    Args:
        source: a hub id, a folder, a file or a state dict.
        spatial: the U-Net as it is without it; left as it is.
        kwargs: of diffusers' ``lora_state_dict``.

    Raises:
        LumiereError: no LoRA, or one of another U-Net.
    """
    called = "this state dict" if isinstance(source, dict) else str(source)
    if not isinstance(source, dict):
        path = Path(source)
        if path.exists():
            folder, name = (path, LORA) if path.is_dir() else (path.parent, path.name)
            source, kwargs = str(folder), {"weight_name": name, "local_files_only": True} | kwargs
        elif called.count("/") != 1 or called.startswith((".", "/", "~")):
            raise LumiereError(f"there is no LoRA at {called}: give a file, a folder, or a hub id such as owner/name")
    try:
        lora, alphas = StableDiffusionLoraLoaderMixin.lora_state_dict(source, **kwargs)
        of_unet = {_plain(key): value for key, value in lora.items() if key.startswith("unet.")}
        if not of_unet:
            raise LumiereError(
                f"{called} holds no LoRA of a U-Net in diffusers' format; train one: lumiere train style"
            )
        twin = copy.deepcopy(spatial)
        twin.load_lora_adapter(of_unet, prefix="unet", network_alphas=alphas)
        twin.fuse_lora()
        twin.unload_lora()
    except LumiereError:
        raise
    except Exception as error:  # of diffusers, peft, safetensors and PyTorch, whatever a file holds
        raise _no_style(called, error) from error
    return _changed(twin.state_dict(), spatial.state_dict())


def _plain(key: str) -> str:
    """Return a LoRA weight's name as diffusers reads every U-Net layer's.

    It writes those of layers called q_proj, k_proj and v_proj, which pool the text, as a text encoder's, and does not
    find them again.
    """
    return re.sub(r"(\.[qkv]_proj)\.lora_linear_layer\.", r"\1.lora.", key)


def _no_style(called: object, error: Exception) -> LumiereError:
    return LumiereError(f"{called} is no style for this model ({one_line(error)}); train one: lumiere train style")


def _changed(weights: dict[str, torch.Tensor], own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    moved = {name: value.to(own[name]) for name, value in weights.items()}
    return {name: value for name, value in moved.items() if not torch.equal(value, own[name])}
