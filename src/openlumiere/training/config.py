"""Training configurations: one YAML file a run, overridden from the command line, unknown keys refused."""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from openlumiere.data.emoji.scenes import subject_set
from openlumiere.diffusion.upsampling import RESIDUAL_BASES
from openlumiere.errors import LumiereError


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Where the clips come from."""

    # "emoji" (composed on the fly), "folder" (captioned clips of a user's own), "pictures" (stage style), or "artwork"
    # (stages autoencoder and ssr-image)
    kind: str = "emoji"
    folder: str = "data/emoji"
    # Keys of the vocabulary (pictures: names of files), in files also the name of one of its sets; None = all
    subjects: list[str] | None = None
    pool: int = 0  # emoji: number of distinct scenes, 0 = unbounded
    with_motion: float = 1.0  # emoji: fraction of captions that tell the motion
    layout_dropout: float = 0.15  # fraction of clips whose layout is not told, for networks that are told it
    channels: int = 3  # emoji: 3 = RGB, 4 = premultiplied RGBA; with a VAE those that it takes
    transparent: float = 0.25  # emoji, 4 channels: fraction of clips without a background
    num_frames: int = 80
    every: int = 1  # emoji: of each clip, show every n-th frame alone
    window: int = 0  # so many consecutive ones of them are shown, at a random place; 0 = all
    crop: int = 0  # artwork, emoji: side of the part of a frame that is shown, in pixels; 0 = all
    fps: float = 16.0
    workers: int = 0
    on_device: bool = False  # emoji and artwork: draw where the network is, for a GPU; without workers
    cache: str | None = None  # models with a VAE: folder that keeps the latents of `cached` clips; None = encode anew
    cached: int = 0  # how many different clips it holds

    def __post_init__(self) -> None:
        if self.channels not in (3, 4):
            raise LumiereError(f"data.channels must be 3 or 4, not {self.channels}")
        if not 0 <= self.transparent <= 1:
            raise LumiereError(f"data.transparent must be between 0 and 1, not {self.transparent}")
        if self.on_device and (self.workers or self.cache is not None):
            raise LumiereError("data.on_device draws clips as they are needed: leave data.workers and data.cache out")


@dataclass(frozen=True, kw_only=True)
class TextConfig:
    """The frozen text encoder."""

    encoder: str = "sentence-transformers/all-MiniLM-L6-v2"
    max_length: int = 24
    dropout: float = 0.1  # fraction of prompts emptied, for classifier-free guidance


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The network that trains.

    `unet` holds the arguments of diffusers' UNet2DConditionModel (stage t2i); `temporal` those of
    `STUNet.from_unet` (stages t2v and ssr); `t2i` the folder that the frozen spatial half is read from.
    """

    size: int = 32  # height and width of a frame in pixels
    pixel_unshuffle: int = 2
    autoencoder: dict[str, Any] = field(default_factory=dict)  # stage autoencoder: arguments of RGBAAutoencoder
    # stage autoencoder: most noise on standardized latents, which the decoder forgives; ssr-image, ssr: on those of
    # low-res clips that pass through `vae`
    latent_noise: float = 0.15
    # stage autoencoder: share of the samples whose latents are moved or shrunk, and should decode to such pictures
    equivariance: float = 0.0
    decoder_only: bool = False  # stage autoencoder: train the decoder of `vae` on, and leave its latents as they are
    # Folder of the VAE whose latents the network works on (t2i; None = on pixels), or that trains on (autoencoder), or
    # that a first stage's clips are decoded by, so that the second learns to undo its softness (ssr-image, ssr)
    vae: str | None = None
    unet: dict[str, Any] = field(default_factory=dict)
    temporal: dict[str, Any] = field(default_factory=dict)
    t2i: str | None = None
    spatial_only: bool = False  # where `t2i` is a clip model, take its frozen half and train temporal layers anew
    scale: int = 4  # stages ssr-image and ssr: from the soft clip's side to `size`
    max_noise_level: int = 60  # stages ssr-image and ssr: of the soft clip, see diffusion/upsampling.py
    masks: list[str] | None = None  # stage conditional: kinds of training/masks.py, equally often; None = its mixture
    condition_blocks: bool = False  # stage conditional: see STUNet.widen_blocks
    condition_gate: bool = False  # stage conditional: see STUNet.add_gate
    spread_condition: bool | None = None  # stage conditional: see diffusion/conditioning.py; None = the model's own
    lora_rank: int = 16  # stage style; 0 trains all weights
    planner: dict[str, Any] = field(default_factory=dict)  # stage planner: arguments of PathPlanner
    residual_scale: float = 8.0  # stages ssr-image and ssr: brings residuals to a variance near 1
    through_vae: float = 0.5  # stages ssr-image and ssr: fraction of low-res clips that pass through `vae`, if named
    # Stages ssr-image and ssr, see LumiereSuperResolutionPipeline
    enlarge_low_res: bool = True
    residual_base: str = "noisy"

    def __post_init__(self) -> None:
        if self.residual_base not in RESIDUAL_BASES:
            raise LumiereError(f"model.residual_base {self.residual_base!r}: use {' or '.join(RESIDUAL_BASES)}")
        if not 0 <= self.through_vae <= 1:
            raise LumiereError(f"model.through_vae must be between 0 and 1, not {self.through_vae}")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Warm-up, then decay to `final_lr_ratio` of the peak at `max_steps`."""

    optimizer: str = "adamw"  # or "muon", see training/muon.py
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.01
    warmup_steps: int = 100
    max_steps: int = 4000
    final_lr_ratio: float = 0.05
    decay_steps: int = 0  # of the last steps, in which a constant rate falls; 0 = a cosine over the whole run
    max_grad_norm: float = 1.0
    batch_size: int = 48  # samples a step on each process, accumulation included
    gradient_accumulation: int = 1
    gradient_checkpointing: bool = False
    ema_decay: float = 0.999
    snr_gamma: float = 5.0  # cap of the loss at low noise, see objective.loss_weights; 0 = none
    timestep_shift: float = 1.0  # above 1 trains more at high noise, see diffusion/timesteps.py
    timestep_shift_start: float = 1.0  # where the shift starts from, if it is annealed
    timestep_shift_steps: int = 0  # steps in which it is, evenly in its logarithm; 0 = it is the same throughout
    uniform_timesteps: float = 0.0  # fraction of the samples whose timesteps are not shifted
    noise_correlation: float = 0.0  # of adjacent frames, see diffusion/noise.py
    compile: bool = False

    def __post_init__(self) -> None:
        if self.optimizer not in ("adamw", "muon"):
            raise LumiereError(f"optim.optimizer {self.optimizer!r}: use adamw or muon")
        for name in ("max_steps", "batch_size", "gradient_accumulation"):
            if getattr(self, name) < 1:
                raise LumiereError(f"optim.{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("noise_correlation", "uniform_timesteps"):
            if not 0 <= getattr(self, name) <= 1:
                raise LumiereError(f"optim.{name} must be between 0 and 1, not {getattr(self, name)}")
        for name in ("timestep_shift", "timestep_shift_start"):
            if getattr(self, name) <= 0:
                raise LumiereError(f"optim.{name} must be above 0, not {getattr(self, name)}")
        if self.timestep_shift_steps < 0:
            raise LumiereError(f"optim.timestep_shift_steps must be 0 or more, not {self.timestep_shift_steps}")
        if self.batch_size % self.gradient_accumulation:
            raise LumiereError(
                f"optim.batch_size, {self.batch_size}, must be a multiple of optim.gradient_accumulation, "
                f"{self.gradient_accumulation}"
            )


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """A whole run. See `configs/` for examples."""

    stage: str
    output: str
    initial: str | None = None  # output folder of a run of the same network whose average the weights start from
    seed: int = 0
    mixed_precision: str = "no"  # "no", "bf16" or "fp16"
    time_budget: float = 0.0  # minutes of wall clock after which the run checkpoints and stops; 0 = none
    checkpoint_every: int = 200  # steps
    keep_checkpoints: int = 2
    sample_every: int = 500  # steps; 0 = never
    sample_prompts: list[str] = field(default_factory=list)
    sample_steps: int = 30
    sample_guidance: float = 4.0
    log_every: int = 10  # steps
    model: ModelConfig = field(default_factory=ModelConfig)
    data: DataConfig = field(default_factory=DataConfig)
    text: TextConfig = field(default_factory=TextConfig)
    optim: OptimizerConfig = field(default_factory=OptimizerConfig)
    scheduler: dict[str, Any] = field(default_factory=dict)  # arguments of diffusers' DDIMScheduler

    def __post_init__(self) -> None:
        for name in ("checkpoint_every", "keep_checkpoints", "log_every"):
            if getattr(self, name) < 1:
                raise LumiereError(f"{name} must be 1 or more, not {getattr(self, name)}")
        if self.mixed_precision not in ("no", "bf16", "fp16"):
            raise LumiereError(f"mixed_precision {self.mixed_precision!r}: use no, bf16 or fp16")


def load(path: str | Path, overrides: list[str] | None = None) -> TrainConfig:
    """Read a YAML configuration and apply overrides such as ``optim.lr=1e-4``.

    Raises:
        LumiereError: a file that is missing or no YAML, an unknown key, a value of the wrong type.
    """
    try:
        tree = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise LumiereError(f"cannot read the configuration {path}: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise LumiereError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise LumiereError(f"{path} holds no configuration; see configs/ for examples")
    return parse(tree, overrides, str(path))


def parse(tree: dict[str, Any], overrides: list[str] | None = None, where: str = "configuration") -> TrainConfig:
    """Build a configuration from plain data; `where` it comes from is told in errors."""
    for override in overrides or []:
        key, separator, value = override.partition("=")
        if not separator:
            raise LumiereError(f"cannot read the override {override!r}; write KEY=VALUE, e.g. optim.lr=1e-4")
        node = tree
        *parents, leaf = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise LumiereError(f"{key}: {parent} is not a section of the configuration")
        node[leaf] = _scalar(value)
    data = tree.get("data")
    if isinstance(data, dict) and isinstance(data.get("subjects"), str):
        # Written out, so that a run's own copy of its settings tells what it was.
        tree = tree | {"data": data | {"subjects": subject_set(data["subjects"])}}
    return typed(TrainConfig, tree, where)


def as_dict(config: TrainConfig) -> dict[str, Any]:
    """The configuration as plain YAML-able data."""
    return dataclasses.asdict(config)


def _scalar(text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise LumiereError(f"cannot read the value {text!r}; quote it, or close its brackets") from error
    if isinstance(value, str):  # YAML reads 1e-4 as a string
        try:
            return float(value)
        except ValueError:
            return value
    return value


def typed(kind: Any, value: Any, where: str) -> Any:
    """Build `kind` out of plain YAML data, refusing what does not fit."""
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise LumiereError(f"{where}: expected a section with keys, got {value!r}")
        hints = typing.get_type_hints(kind)
        unknown = sorted(set(value) - set(hints))
        if unknown:
            raise LumiereError(f"{where}: unknown key {unknown[0]!r}; known: {', '.join(hints)}")
        try:
            return kind(**{key: typed(hints[key], item, f"{where}: {key}") for key, item in value.items()})
        except TypeError as error:
            raise LumiereError(f"{where}: {error}") from error
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        if value is None and type(None) in arguments:
            return None
        return typed(next(a for a in arguments if a is not type(None)), value, where)
    if origin is tuple and isinstance(value, (list, tuple)) and len(value) == len(arguments):
        return tuple(typed(a, item, where) for a, item in zip(arguments, value, strict=True))
    if origin is list and isinstance(value, list):
        return [typed(arguments[0], item, where) for item in value]
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)
        except ValueError:
            pass
    plain = origin or kind
    if isinstance(value, plain) and not (plain is int and isinstance(value, bool)):
        return value
    raise LumiereError(f"{where}: expected {getattr(kind, '__name__', kind)}, got {value!r}")
