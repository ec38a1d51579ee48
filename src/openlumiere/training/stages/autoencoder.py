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
_CALIBRATION_BATCHES = 64  # that the latents' statistics are computed on
_SHOWN = 8


@dataclass(frozen=True, kw_only=True)
class AutoencoderModelConfig(ModelConfig):
    """An RGBAAutoencoder, new or one to be trained further."""

    size: int = 32  # height and width of a picture in pixels
    autoencoder: dict[str, Any] = field(default_factory=dict)  # arguments of RGBAAutoencoder
    latent_noise: float = 0.15  # most noise on standardized latents, which the decoder learns to forgive
    # Share of the samples whose latents are moved or shrunk, and should decode to such pictures
    equivariance: float = 0.0
    vae: str | None = None  # folder of the autoencoder that training starts from; None = a new one
    decoder_only: bool = False  # train the decoder of `vae` alone, and leave its latents as they are


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
        real = batch["pixels"].to(self.device).contiguous(memory_format=torch.channels_last)
        # Of the batch, which other processes may have parts of: some samples are moved, the last ones halved.
        share = draws.share_of(generator, len(real))
        changed = round(share.total * self.config.model.equivariance)
        last = share.total - round(changed * _HALVED)
        shares = [share.of(0, last), share.of(last, share.total)]
        translated = share.of(0, changed - (share.total - last))
        moved, whole = translated.count, shares[0].count
        unit, side = self.module.spatial_compression_ratio, real.shape[-1]
        # By whole pixels, so that the picture itself is not blurred.
        shift = draws.randint(1 - unit, unit, moved, 2, generator=translated) / side

        def between(latents: torch.Tensor) -> list[torch.Tensor]:
            level = draws.rand(len(real), 1, 1, 1, generator=generator)
            noise = draws.randn(*latents.shape, generator=generator)
            latents = latents + self.config.model.latent_noise * level * noise
            parts = [torch.cat([translate(latents[:moved], shift), latents[moved:whole]])]
            return [*parts, F.avg_pool2d(latents[whole:], 2)] if last < share.total else parts

        # What is done to latents should be done to the picture: then they are smooth between positions, and what a
        # diffusion model makes of them looks as pictures do (Kouzelis et al. 2025, EQ-VAE).
        targets = [torch.cat([translate(real[:moved], shift), real[moved:whole]]), F.avg_pool2d(real[whole:], 2)]
        made = module(real, between)
        losses = [reconstruction_loss(m, t, s) * len(t) for m, t, s in zip(made, targets, shares, strict=False)]
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
        started: RGBAAutoencoder = load_vae(model.vae).requires_grad_(True)
        return started
    if model.decoder_only:
        raise LumiereError(
            "model.decoder_only needs model.vae: the folder of the autoencoder whose decoder is trained on"
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
    for level in range(_PYRAMID_LEVELS):
        coarse = F.avg_pool2d(error, 2)
        detail = error - F.interpolate(coarse, scale_factor=2.0, mode="bilinear")
        total = total + detail.abs().mean() / 2**level
        error = coarse
    return total


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
