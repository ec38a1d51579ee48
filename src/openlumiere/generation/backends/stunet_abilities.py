"""What models of our own can do, read from their JSON files."""

from __future__ import annotations

from typing import Any

from openlumiere.bundled import styles_of
from openlumiere.files import read_json
from openlumiere.generation.abilities import FPS, NUM_FRAMES, Abilities
from openlumiere.generation.requests import TASKS, UpscaleRequest

from .source import INDEX, Source

SECOND_STAGE = "LumiereSuperResolutionPipeline"
_LAYOUT_DIM = 6  # as diffusion.layout's, which imports torch


def read_abilities(source: Source) -> Abilities:
    """Read what a model of ours can do from its JSON files, see `find.read_abilities`."""
    index = source.main.json(INDEX)
    if source.main.class_name == SECOND_STAGE:
        return Abilities(
            model=source.name, tasks=(UpscaleRequest.task,), transparent=True, loop=True, scale=index["scale"],
            num_inference_steps=index["num_inference_steps"], guidance_scale=index["guidance_scale"],
        )  # fmt: skip
    net = source.main.json("unet/config.json")
    spatial = net["unet"]
    second = second_stage(source, index)
    vae = source.main.json("vae/config.json") if source.main.component("vae") else None
    height, width = _sides(spatial["sample_size"])
    levels = len(spatial["down_block_types"]) - 1 if net["resampled_levels"] is None else len(net["resampled_levels"])
    scale = 1 if second is None else int(second["scale"])
    pixels = _factor(vae, index) * scale
    folder = source.main.folder
    return Abilities(
        model=source.name,
        tasks=tuple(
            task for task in TASKS
            if task in ("generate", "restyle") or (second if task == "upscale" else net["condition_channels"])
        ),
        loop=True,
        styles=() if folder is None else tuple(styles_of(folder)),
        transparent=vae is not None and vae["in_channels"] == 4,
        path=spatial.get("class_embed_type") in ("projection", "simple_projection")
        and spatial.get("projection_class_embeddings_input_dim") == _LAYOUT_DIM,
        planner=bool(source.main.component("planner")),
        rigid=bool(index.get("follow_layout") and net["condition_channels"]),
        width=width * pixels,
        height=height * pixels,
        scale=scale,
        num_frames=NUM_FRAMES,
        fps=FPS,
        frame_multiple=2**levels,
        window_frames=index["window_frames"],
        num_inference_steps=index["num_inference_steps"],
        guidance_scale=index["guidance_scale"],
        upscale_steps=0 if second is None else second["num_inference_steps"],
        subjects=tuple(index.get("subjects") or ()),
        licence=source.licence,
    )  # fmt: skip


def second_stage(source: Source, index: dict[str, Any]) -> dict[str, Any] | None:
    """Return the second stage's options: in a folder of its own, or, in older models, in the index of the whole."""
    own = source.main.file(f"super_resolution/{INDEX}")
    if own is not None:
        found: dict[str, Any] = read_json(own, otherwise="install or save the model again")
        return found
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
