"""What a model can do, read from the JSON files of its folder: no weights, and no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from openlumiere.bundled import model_folder, styles_of
from openlumiere.errors import LumiereError
from openlumiere.files import read_json

from .requests import TASKS, ClipRequest, GenerateRequest, Request, UpscaleRequest

NUM_FRAMES, FPS = 80, 16.0  # of the clips that requests ask for unless they say otherwise
_INDEX = "model_index.json"
_SECOND_STAGE = "LumiereSuperResolutionPipeline"
_LAYOUT_DIM = 6  # as diffusion.layout's, which imports torch


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What can be asked of a model.

    Attributes:
        model: its name, as `pipelines.load.load_pipeline` takes it.
        tasks: keys of `requests.TASKS`.
        styles: names of those that come with it.
        transparent: whether clips can keep alpha.
        path: whether it is told where its subject goes.
        planner: whether it plans that itself, if not told.
        width, height: of finished clips, pixels; None = of whatever size the source has.
        scale: of the second stage; 1 = there is none.
        frame_multiple: what the number of frames of a clip made of text alone must divide by, below `window_frames`.
        window_frames: length of the windows that longer clips are made in; None = a clip is always made as a whole.
        num_inference_steps, guidance_scale, upscale_steps: the model's own defaults.
        subjects: what a model of a small vocabulary was trained to show.
    """

    model: str
    tasks: tuple[str, ...]
    styles: tuple[str, ...] = ()
    transparent: bool = False
    path: bool = False
    planner: bool = False
    width: int | None = None
    height: int | None = None
    scale: int = 1
    frame_multiple: int = 1
    window_frames: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    upscale_steps: int = 0
    subjects: tuple[str, ...] = ()

    def check(self, request: Request) -> None:
        """Refuse what this model cannot make, before it waits in a queue.

        Raises:
            LumiereError: another task, style or length than the model's, or alpha, a path or a second stage that it
                lacks.
        """
        if request.task not in self.tasks:
            raise LumiereError(f"{self.model} cannot {request.task}; choose one of {', '.join(self.tasks)}")
        if request.transparent and not self.transparent and not isinstance(request, UpscaleRequest):
            raise LumiereError(f"transparent: {self.model} makes opaque clips; leave it out")
        if isinstance(request, ClipRequest):
            self._check_clip(request)
        if isinstance(request, GenerateRequest) and request.num_frames is not None:
            self._check_length(request.num_frames)

    def _check_clip(self, request: ClipRequest) -> None:
        for name, _ in request.styles:
            if name not in self.styles:
                known = f"choose one of {', '.join(self.styles)}" if self.styles else "leave it out"
                raise LumiereError(f"style {name!r}: {self.model} has none of that name; {known}")
        if request.path and not self.path:
            raise LumiereError(f"path: {self.model} is not told where its subject goes; leave it out")
        if request.upscale_steps and self.scale == 1:
            raise LumiereError(f"upscale_steps: {self.model} has no second stage; leave it out")

    def _check_length(self, num_frames: int) -> None:
        if num_frames % self.frame_multiple and not (self.window_frames and num_frames >= self.window_frames):
            raise LumiereError(
                f"num_frames {num_frames}: choose a multiple of {self.frame_multiple}, such as "
                f"{self.nearest_length(num_frames)}"
            )

    def nearest_length(self, num_frames: float) -> int:
        """Return the number of frames that the model can make which is nearest to one."""
        return max(round(num_frames / self.frame_multiple), 1) * self.frame_multiple


def read_abilities(model: str) -> Abilities:
    """Read what a model can do.

    Args:
        model: name of a bundled model, a folder, or a hub id whose files are on this machine already.

    Raises:
        LumiereError: there is no such model here, or its files cannot be read.
    """
    folder = model_folder(model) or _downloaded(model)
    try:
        return _read(model, folder)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise LumiereError(f"{folder} is damaged (no {error}); install or save the model again") from error


def _downloaded(model: str) -> Path:
    """The folder of a hub id in the hub's cache."""
    if model.count("/") == 1:
        from huggingface_hub import try_to_load_from_cache

        index = try_to_load_from_cache(model, _INDEX)
        if isinstance(index, str):
            return Path(index).parent
    raise LumiereError(f"{model} is not on this machine; load it once, or give a folder or a bundled model's name")


def _read(model: str, folder: Path) -> Abilities:
    index = _json(folder / _INDEX)
    name = index["_class_name"]
    if (name[-1] if isinstance(name, list) else name) == _SECOND_STAGE:
        return Abilities(
            model=model, tasks=(UpscaleRequest.task,), transparent=True, scale=index["scale"],
            num_inference_steps=index["num_inference_steps"], guidance_scale=index["guidance_scale"],
        )  # fmt: skip
    net = _json(folder / "unet" / "config.json")
    spatial = net["unet"]
    second = _second_stage(folder, index)
    vae = _json(folder / "vae" / "config.json") if (index.get("vae") or [None])[0] else None
    height, width = _sides(spatial["sample_size"])
    levels = len(spatial["down_block_types"]) - 1 if net["resampled_levels"] is None else len(net["resampled_levels"])
    scale = 1 if second is None else int(second["scale"])
    pixels = _factor(vae, index) * scale
    return Abilities(
        model=model,
        tasks=tuple(
            task for task in TASKS
            if task in ("generate", "restyle") or (second if task == "upscale" else net["condition_channels"])
        ),
        styles=tuple(styles_of(folder)),
        transparent=vae is not None and vae["in_channels"] == 4,
        path=spatial.get("class_embed_type") in ("projection", "simple_projection")
        and spatial.get("projection_class_embeddings_input_dim") == _LAYOUT_DIM,
        planner=bool((index.get("planner") or [None])[0]),
        width=width * pixels,
        height=height * pixels,
        scale=scale,
        frame_multiple=2**levels,
        window_frames=index["window_frames"],
        num_inference_steps=index["num_inference_steps"],
        guidance_scale=index["guidance_scale"],
        upscale_steps=0 if second is None else second["num_inference_steps"],
        subjects=tuple(index.get("subjects") or ()),
    )  # fmt: skip


def _second_stage(folder: Path, index: dict[str, Any]) -> dict[str, Any] | None:
    """The second stage's options: in a folder of its own, or, in older models, in the index of the whole."""
    own = folder / "super_resolution" / _INDEX
    if own.is_file():
        return _json(own)
    older = index.get("super_resolution")
    return older if isinstance(older, dict) else None


def _factor(vae: dict[str, Any] | None, index: dict[str, Any]) -> int:
    """Pixels along one side of a position of the network's input."""
    if vae is None:
        return int(index["pixel_unshuffle"])
    return int(vae.get("patch_size", 1)) * 2 ** (len(vae["block_out_channels"]) - 1)


def _sides(sample_size: int | list[int]) -> tuple[int, int]:
    """Height and width that a network was trained on, as it sees them."""
    return (sample_size, sample_size) if isinstance(sample_size, int) else (sample_size[0], sample_size[1])


def _json(path: Path) -> dict[str, Any]:
    read: dict[str, Any] = read_json(path, otherwise="install or save the model again")
    return read
