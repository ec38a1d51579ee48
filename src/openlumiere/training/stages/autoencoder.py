"""Stage `autoencoder`: pictures with transparency to latents and back, without borrowed networks."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset

from openlumiere.autoencoder import RGBAAutoencoder
from openlumiere.data.artwork import Artwork
from openlumiere.diffusion import draws
from openlumiere.errors import LumiereError
from openlumiere.latents import load_vae
from openlumiere.training.config import DataConfig, ModelConfig, TrainConfig, check_on_device
from openlumiere.training.previews import on_checkers

# Fraction of the samples with changed latents whose latents are halved in size; the others are moved.
_HALVED = 0.4
_PYRAMID_LEVELS = 3
_DETAIL_LEVELS, _DETAIL_REGION = 2, 4
_PLAIN_REACH = 8  # pixels around one on plain ground that have its colour
_CALIBRATION_BATCHES = 64  # that the latents' statistics are computed on
_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class AutoencoderModelConfig(ModelConfig):
    """An RGBAAutoencoder, new or one to be trained further."""

    size: int = 32  # height and width of a picture in pixels
    autoencoder: dict[str, Any] = field(default_factory=dict)  # arguments of RGBAAutoencoder
    latent_noise: float = 0.15  # most noise on standardized latents, which the decoder learns to forgive
    noiseless: float = 0.0  # share of the samples whose latents have no noise, below 1
    # Share of the samples whose latents are moved or shrunk, and should decode to such pictures
    equivariance: float = 0.0
    vae: str | None = None  # folder of the autoencoder that training starts from; None = a new one
    decoder_only: bool = False  # train the decoder of `vae` alone, and leave its latents as they are
    decoder_layers: int | None = None  # residual blocks at each resolution of the decoder of `vae`; None = its own
    detail_weight: float = 0.0  # of `detail_loss`
    plain_weight: float = 0.0  # of `plain_ground_loss`

    def __post_init__(self) -> None:
        if not 0 <= self.noiseless < 1:
            raise LumiereError(
                f"model.noiseless {self.noiseless}: choose 0 or more, below 1; without any noise leave it out and set "
                "model.latent_noise to 0"
            )


@dataclass(frozen=True, kw_only=True)
class AutoencoderDataConfig(DataConfig):
    """Pictures with transparency, see `data.artwork`."""

    kind: str = "artwork"
    crop: int = 0  # side of the part of a picture that is shown, in pixels; 0 = all
    on_device: bool = False  # draw where the network is, for a GPU; without workers

    def __post_init__(self) -> None:
        if self.kind != "artwork":
            raise LumiereError(f"data.kind {self.kind!r}: an autoencoder is trained on artwork; leave data.kind out")
        check_on_device(self)


@dataclass(frozen=True, kw_only=True)
class AutoencoderConfig(TrainConfig):
    """Configuration of stage `autoencoder`."""

    model: AutoencoderModelConfig = field(default_factory=AutoencoderModelConfig)
    data: AutoencoderDataConfig = field(default_factory=AutoencoderDataConfig)


class Autoencode:
    """Trains an RGBAAutoencoder from scratch, or further."""

    Config = AutoencoderConfig
    step: int = 0  # see `Stage`

    def __init__(self, config: AutoencoderConfig, device: torch.device) -> None:
        self.config, self.device = config, device
        self.module = _network(config)
        if config.data.crop % self.module.spatial_compression_ratio:
            raise LumiereError(f"data.crop must be a multiple of {self.module.spatial_compression_ratio}")
        self.module.to(device, memory_format=torch.channels_last)
        self._begin_training()
        self.dataset: Dataset[Any] = Artwork(
            Path(config.data.folder), size=config.model.size, crop=config.data.crop, seed=config.seed,
            device=device if config.data.on_device else "cpu",
        )  # fmt: skip

    def _begin_training(self) -> None:
        self.module.train()
        self.module.standardize.synchronized = True
        if self.config.model.decoder_only:  # latents that others were trained on stay as they are
            self.module.encoder.requires_grad_(False)
            self.module.standardize.eval()

    def loss(self, module: nn.Module, batch: dict[str, Any], generator: draws.Generator) -> torch.Tensor:
        """See `Stage`."""
        model = self.config.model
        real = batch["pixels"].to(self.device).contiguous(memory_format=torch.channels_last)
        # Of the batch, which other processes may have parts of: some samples are moved, the last ones halved.
        share = draws.share_of(generator, len(real))
        changed = round(share.total * model.equivariance)
        last = share.total - round(changed * _HALVED)
        shares = [share.of(0, last), share.of(last, share.total)]
        translated = share.of(0, changed - (share.total - last))
        moved, whole = translated.count, shares[0].count
        unit, side = self.module.spatial_compression_ratio, real.shape[-1]
        # By whole pixels, so that the picture itself is not blurred.
        shift = draws.randint(1 - unit, unit, moved, 2, generator=translated) / side

        def between(latents: torch.Tensor) -> list[torch.Tensor]:
            level = draws.rand(len(real), 1, 1, 1, generator=generator)
            level = ((level - model.noiseless) / (1 - model.noiseless)).clamp(min=0)
            noise = draws.randn(*latents.shape, generator=generator)
            latents = latents + model.latent_noise * level * noise
            parts = [torch.cat([translate(latents[:moved], shift), latents[moved:whole]])]
            return [*parts, F.avg_pool2d(latents[whole:], 2)] if last < share.total else parts

        # What is done to latents should be done to the picture: then they are smooth between positions, and what a
        # diffusion model makes of them looks as pictures do (Kouzelis et al. 2025, EQ-VAE).
        targets = [torch.cat([translate(real[:moved], shift), real[moved:whole]]), F.avg_pool2d(real[whole:], 2)]
        made = module(real, between)
        losses = [reconstruction_loss(m, t, s) * len(t) for m, t, s in zip(made, targets, shares, strict=False)]
        for term, weight in ((detail_loss, model.detail_weight), (plain_ground_loss, model.plain_weight)):
            if weight:
                losses += [weight * term(m, t) * len(t) for m, t in zip(made, targets, strict=False) if len(t)]
        return torch.stack(losses).sum() / len(real)

    def sample(self, folder: Path, step: int) -> None:
        """Write a sheet: pictures of the test split above, their reconstructions below."""
        folder.mkdir(parents=True, exist_ok=True)
        test_split = Artwork(Path(self.config.data.folder), size=self.config.model.size, split="test")
        real = torch.stack([item["pixels"] for item in test_split.__getitems__(list(range(_SHOWN)))]).to(self.device)
        self.module.eval()
        with torch.no_grad():
            made = self.module(real)
        self._begin_training()
        rows = [torch.cat(list(on_checkers(clip)), dim=2) for clip in (real, made)]
        sheet = (torch.cat(rows, dim=1).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
        Image.fromarray(sheet).save(folder / f"{step:07d}.png")

    @torch.no_grad()
    def export(self, folder: Path) -> None:
        """Write diffusers' folder `vae`, its latents standardized anew for the averaged weights."""
        if self.config.model.decoder_only:
            self.module.save_pretrained(folder / "vae")
            return
        statistics = self.module.standardize
        before = {name: value.clone() for name, value in statistics.state_dict().items()}
        momentum, statistics.momentum = statistics.momentum, None  # the plain mean over what follows
        statistics.synchronized = False  # one process exports
        statistics.reset_running_stats()
        size = self.config.optim.batch_size
        shown = DataLoader(Subset(self.dataset, range(_CALIBRATION_BATCHES * size)), batch_size=size)
        for batch in shown:
            self.module.encode(batch["pixels"].to(self.device))
        exported = copy.deepcopy(self.module)
        exported.fold_statistics()
        exported.save_pretrained(folder / "vae")
        statistics.momentum = momentum
        statistics.load_state_dict(before)


def _network(config: AutoencoderConfig) -> RGBAAutoencoder:
    """Return the network that a configuration describes, or the one that training starts from."""
    model = config.model
    if model.vae is not None:
        started: RGBAAutoencoder = load_vae(model.vae)
        if model.decoder_layers is not None:
            try:
                started = started.deepened(model.decoder_layers)
            except ValueError as error:
                raise LumiereError(f"model.decoder_layers: {error}") from error
        return started.requires_grad_(True)
    if model.decoder_only or model.decoder_layers is not None:
        raise LumiereError(
            "model.decoder_only and model.decoder_layers need model.vae: "
            "the folder of the autoencoder whose decoder is trained on"
        )
    try:
        return RGBAAutoencoder(sample_size=model.size, **model.autoencoder)
    except (TypeError, ValueError) as error:
        raise LumiereError(f"model.autoencoder is not an RGBAAutoencoder's configuration: {error}") from error


def reconstruction_loss(made: torch.Tensor, real: torch.Tensor, generator: draws.Generator) -> torch.Tensor:
    """Return the distance of pictures, premultiplied RGBA in [-1, 1], (B, 4, H, W), from the real ones; a scalar.

    The sum of the Charbonnier distance over two backgrounds of random colours, L1 on alpha, and a Laplacian pyramid,
    which weighs outlines and texture at several scales.
    """
    made, real = made / 2 + 0.5, real / 2 + 0.5
    error = made - real
    colours = [draws.rand(len(made), 3, 1, 1, generator=generator) for _ in range(2)]
    if not len(made):  # other processes have all of these
        return made.new_zeros(())
    total = 0.5 * error[:, 3:].abs().mean()
    for colour in colours:
        # Compositing is linear in premultiplied RGBA, so errors can be composited.
        total = total + 0.5 * charbonnier(error[:, :3] - error[:, 3:] * colour)
    for level, detail in enumerate(laplacian_pyramid(error, _PYRAMID_LEVELS)):
        total = total + detail.abs().mean() / 2**level
    return total


def laplacian_pyramid(pictures: torch.Tensor, levels: int) -> list[torch.Tensor]:
    """Return what each level has more than the one of half its size, finest first (Burt & Adelson 1983)."""
    details = []
    for _ in range(levels):
        coarse = F.avg_pool2d(pictures, 2)
        details.append(pictures - F.interpolate(coarse, scale_factor=2.0, mode="bilinear"))
        pictures = coarse
    return details


def detail_loss(made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return how far the amount of detail is from the real pictures', wherever exactly it is; a scalar.

    A decoder that is unsure where a detail is leaves it out, as that is the least error on average; pictures are soft
    then, and flicker less than real ones do. This counts the mean magnitude of the pyramid's levels over small regions.
    """
    total = made.new_zeros(())
    pyramids = [laplacian_pyramid(pictures / 2 + 0.5, _DETAIL_LEVELS) for pictures in (made, real)]
    for level, details in enumerate(zip(*pyramids, strict=True)):
        amounts = [F.avg_pool2d(detail.abs(), _DETAIL_REGION) for detail in details]
        total = total + (amounts[0] - amounts[1]).abs().mean() / 2**level
    return total


def plain_ground_loss(made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Return the error on plain ground as an L8 norm, which the worst pixels decide; a scalar, the mean over pictures.

    Ground is plain where a real picture has one colour all around.
    """
    side = 2 * _PLAIN_REACH + 1
    highest, lowest = (sign * F.max_pool2d(sign * real, side, stride=1, padding=_PLAIN_REACH) for sign in (1, -1))
    plain = (highest - lowest).amax(1, keepdim=True) < 1e-4
    # What is beyond the range is cut off in a file.
    error = (made.clamp(-1, 1) - real) / 2 * plain
    mean = error.pow(8).sum((1, 2, 3)) / (plain.sum((1, 2, 3)) * error.shape[1]).clamp(min=1)
    return ((mean + 1e-24).pow(1 / 8) - 1e-3).mean()


def charbonnier(error: torch.Tensor, epsilon: float = 1e-3) -> torch.Tensor:
    """Return the mean of a smooth absolute value, sqrt(error^2 + epsilon^2) - epsilon (Charbonnier et al. 1994)."""
    return (error.square() + epsilon**2).sqrt().mean() - epsilon


def translate(pictures: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    """Move pictures or latents by fractions (across, down) of their width, (B, 2); the border fills the gap."""
    if not len(pictures):
        return pictures
    maps = torch.eye(2, 3, device=pictures.device).repeat(len(pictures), 1, 1)
    maps[:, :, 2] = -2 * offsets  # a frame is 2 wide
    grid = F.affine_grid(maps, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, padding_mode="border", align_corners=False)
