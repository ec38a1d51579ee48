"""A second stage inside a pipeline: a pipeline of its own, which goes with it to disk, devices and dtypes.

diffusers saves and loads a pipeline that is a component of another, in a folder of its own; but it moves, offloads and
casts only networks, and tells a component that is a pipeline neither dtype nor variant when it is loaded. That is here.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import diffusers

from openlumiere.bundled import model_folder
from openlumiere.stunet import STUNet

from .super_resolution import LumiereSuperResolutionPipeline

_NAME = "super_resolution"
_SHARED = ("text_encoder", "tokenizer")
# What loading a second stage takes over from the call that loads the whole.
_LOADING = ("torch_dtype", "dtype", "variant", "use_safetensors", "low_cpu_mem_usage", "local_files_only")

if TYPE_CHECKING:
    from .clip_pipeline import ClipPipeline as _Base
else:
    _Base = object


class SecondStageMixin(_Base):
    """Of `LumierePipeline`: what diffusers leaves to us of a component that is a pipeline."""

    super_resolution: LumiereSuperResolutionPipeline | None

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """As diffusers'; also reads models whose second stage lies in folders ``sr_unet`` and ``sr_scheduler``."""
        if _NAME not in kwargs:
            folder = model_folder(pretrained_model_name_or_path)
            folder = folder or cls.download(pretrained_model_name_or_path, **kwargs)
            loading = {key: kwargs[key] for key in _LOADING if key in kwargs}
            kwargs[_NAME] = read_second_stage(Path(folder), **loading)
        return super().from_pretrained(pretrained_model_name_or_path, **kwargs)

    @classmethod
    def load_config(cls, *args: Any, **kwargs: Any) -> Any:
        """As diffusers', without the second stage, which `from_pretrained` reads.

        diffusers looks for variants of weights in every component's folder, and fails at a pipeline's; of older models
        it does not know the second stage's options.
        """
        config = super().load_config(*args, **kwargs)
        if not isinstance(config, dict):
            return config
        return {key: value for key, value in config.items() if key not in (_NAME, "sr_unet", "sr_scheduler")}

    def save_pretrained(self, save_directory: str | Path, *args: Any, **kwargs: Any) -> None:
        """As diffusers'; the second stage in its own folder, without the text encoder that it shares."""
        stage = self.super_resolution
        if stage is not None:
            stage.register_modules(**dict.fromkeys(_SHARED))
        try:
            super().save_pretrained(save_directory, *args, **kwargs)
        finally:
            self._share()

    def register_modules(self, **modules: Any) -> None:
        """As diffusers'; the second stage reads prompts by the same text encoder."""
        super().register_modules(**modules)
        if {_NAME, *_SHARED} & set(modules):
            self._share()

    def _share(self) -> None:
        stage = getattr(self, _NAME, None)
        if stage is not None:
            stage.register_modules(**{name: getattr(self, name, None) for name in _SHARED})

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """As diffusers', of both stages."""
        pipe = super().to(*args, **kwargs)
        if self.super_resolution is not None:
            self.super_resolution.to(*args, **kwargs)
        return pipe

    def set_progress_bar_config(self, **kwargs: Any) -> None:
        """As diffusers', of both stages."""
        super().set_progress_bar_config(**kwargs)
        if self.super_resolution is not None:
            self.super_resolution.set_progress_bar_config(**kwargs)

    def remove_all_hooks(self) -> None:
        """As diffusers', of both stages."""
        super().remove_all_hooks()
        if self.super_resolution is not None:
            self.super_resolution.remove_all_hooks()

    def enable_model_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """As diffusers', of both stages."""
        super().enable_model_cpu_offload(*args, **kwargs)
        if self.super_resolution is not None:
            self.super_resolution.enable_model_cpu_offload(*args, **kwargs)

    def enable_sequential_cpu_offload(self, *args: Any, **kwargs: Any) -> None:
        """As diffusers', of both stages."""
        super().enable_sequential_cpu_offload(*args, **kwargs)
        if self.super_resolution is not None:
            self.super_resolution.enable_sequential_cpu_offload(*args, **kwargs)


def read_second_stage(folder: Path, **loading: Any) -> LumiereSuperResolutionPipeline | None:
    """Read a model's second stage, without text encoder; None where it has none.

    It lies in the folder ``super_resolution``; in older models its parts are beside those of the first stage, and its
    options in the ``model_index.json`` of the whole.

    Args:
        loading: of diffusers' ``from_pretrained``.
    """
    if (folder / _NAME / "model_index.json").exists():
        return LumiereSuperResolutionPipeline.from_pretrained(
            folder / _NAME, text_encoder=None, tokenizer=None, **loading
        )
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None  # diffusers says what is wrong
    scheduler = (index.get("sr_scheduler") or [None, None])[1]
    if not isinstance(index.get(_NAME), dict) or scheduler is None:
        return None
    return LumiereSuperResolutionPipeline(
        unet=STUNet.from_pretrained(folder, subfolder="sr_unet", **loading),
        scheduler=getattr(diffusers, scheduler).from_pretrained(folder, subfolder="sr_scheduler"),
        **{key: index[key] for key in ("text_encoder_id", "max_text_length") if key in index},
        **index[_NAME],
    )
