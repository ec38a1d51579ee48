"""An RGBA autoencoder: pictures with transparency to latents an eighth as wide and high, and back.

It has the interface of a diffusers VAE. No convolution runs at full resolution, where few channels at many positions
are slow on a CPU: pixels are unshuffled into channels before the first and shuffled back after the last (Shi et al.
2016).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import AutoencoderMixin, DecoderOutput, IdentityDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.accelerate_utils import apply_forward_hook
from torch import nn


# Saved pipelines name this module, and diffusers looks for `ModelMixin` beside the class: both must stay here.
class RGBAAutoencoder(ModelMixin, AutoencoderMixin, ConfigMixin):
    """Deterministic autoencoder of premultiplied RGBA, with the interface of diffusers' VAEs.

    Latents have mean 0 and variance 1 in each channel over the data that it was trained on, so a diffusion model takes
    them as they are: `scaling_factor` is 1, `shift_factor` 0.

    Args:
        in_channels, out_channels: 4: red, green, blue, each times alpha, and alpha; all in [-1, 1], where -1 is 0.
        latent_channels: C of the latents.
        block_out_channels: channels at a half, a quarter and an eighth of the resolution.
        layers_per_block: residual blocks at each resolution of the encoder and of the decoder.
        patch_size: side of the blocks of pixels that are unshuffled into channels.
        sample_size: side of the pictures that it was trained on, in pixels.
        scaling_factor, shift_factor: as diffusers' VAEs have them.
        force_upcast: whether half precision overflows.
    """

    _supports_gradient_checkpointing = False

    @register_to_config
    def __init__(
        self,
        *,
        in_channels: int = 4,
        out_channels: int = 4,
        latent_channels: int = 8,
        block_out_channels: tuple[int, ...] = (48, 96, 128),
        layers_per_block: tuple[int, int] = (1, 2),
        patch_size: int = 2,
        sample_size: int = 128,
        scaling_factor: float = 1.0,
        shift_factor: float = 0.0,
        force_upcast: bool = False,
    ) -> None:
        super().__init__()
        widths, (encoding, decoding) = list(block_out_channels), layers_per_block
        down: list[nn.Module] = [nn.PixelUnshuffle(patch_size), _convolution(in_channels * patch_size**2, widths[0])]
        for level, width in enumerate(widths):
            if level:
                down.append(_convolution(widths[level - 1], width, stride=2))
            down += [_ResidualBlock(width) for _ in range(encoding)]
        # As many again at the coarsest resolution, where a block costs least and sees most.
        down += [_ResidualBlock(widths[-1]) for _ in range(encoding)]
        self.encoder = nn.Sequential(*down, nn.SiLU(), _convolution(widths[-1], latent_channels))
        self.standardize = Standardize(latent_channels)
        up: list[nn.Module] = [_convolution(latent_channels, widths[-1])]
        for level in reversed(range(len(widths))):
            up += [_ResidualBlock(widths[level]) for _ in range(decoding)]
            if level:
                up += [nn.Conv2d(widths[level], widths[level - 1] * 4, 1), nn.PixelShuffle(2)]
        up += [nn.SiLU(), _convolution(widths[0], out_channels * patch_size**2), nn.PixelShuffle(patch_size)]
        self.decoder = nn.Sequential(*up)

    @torch.no_grad()
    def deepened(self, layers: int) -> RGBAAutoencoder:
        """Return a copy with so many residual blocks at each resolution of the decoder, which decodes as this one does.

        New blocks come last at their resolution, and are the identity until they are trained.

        Raises:
            ValueError: the decoder has more blocks than that.
        """
        encoding, decoding = self.config["layers_per_block"]
        if layers < decoding:
            raise ValueError(f"the decoder has {decoding} residual blocks at each resolution, and can't have {layers}")
        deeper = RGBAAutoencoder.from_config(self.config, layers_per_block=(encoding, layers))
        deeper.encoder.load_state_dict(self.encoder.state_dict())
        deeper.standardize.load_state_dict(self.standardize.state_dict())
        parts = iter(self.decoder)
        part = next(parts)
        for new in deeper.decoder:
            if isinstance(new, _ResidualBlock) and not isinstance(part, _ResidualBlock):
                continue
            new.load_state_dict(part.state_dict())
            part = next(parts, part)
        return deeper.to(self.device, self.dtype)

    @torch.no_grad()
    def fold_statistics(self) -> None:
        """Fold the running statistics into the encoder's last convolution; latents stay what they are.

        Training leaves the scale before standardization free, and variances larger than float16 can hold.
        """
        last, statistics = self.encoder[-1], self.standardize
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        scale = (statistics.running_var + statistics.epsilon).rsqrt()
        last.bias.copy_((last.bias - statistics.running_mean) * scale)
        last.weight.mul_(scale[:, None, None, None])
        statistics.running_mean.zero_()
        statistics.running_var.fill_(1 - statistics.epsilon)

    @property
    def spatial_compression_ratio(self) -> int:
        """Pixels along one side of a latent position."""
        return int(self.config["patch_size"]) * 2 ** (len(self.config["block_out_channels"]) - 1)

    @apply_forward_hook
    def encode(self, x: torch.Tensor, return_dict: bool = True) -> AutoencoderKLOutput | tuple[IdentityDistribution]:
        """Encode pictures, (B, 4, H, W) in [-1, 1], to latents, (B, C, H / 8, W / 8).

        The distribution has zero variance: ``encode(x).latent_dist.mode()`` and ``.sample()`` are the same.
        """
        distribution = IdentityDistribution(self.standardize(self.encoder(x)))
        return AutoencoderKLOutput(latent_dist=distribution) if return_dict else (distribution,)

    @apply_forward_hook
    def decode(
        self, z: torch.Tensor, return_dict: bool = True, generator: torch.Generator | None = None
    ) -> DecoderOutput | tuple[torch.Tensor]:
        """Decode latents, (B, C, h, w), to pictures, (B, 4, 8 h, 8 w), about [-1, 1]; `generator` is not used."""
        sample = self.decoder(z)
        return DecoderOutput(sample=sample) if return_dict else (sample,)

    def forward(
        self, sample: torch.Tensor, between: Callable[[torch.Tensor], list[torch.Tensor]] | None = None
    ) -> torch.Tensor | list[torch.Tensor]:
        """Encode and decode pictures, (B, 4, H, W) in [-1, 1].

        Args:
            between: turns the latents into several batches of them, each of which is decoded, as training does.
        """
        latents = self.standardize(self.encoder(sample))
        return self.decoder(latents) if between is None else [self.decoder(part) for part in between(latents)]


class Standardize(nn.Module):
    """Standardizes each channel to mean 0 and variance 1 by batch renormalization (Ioffe 2017).

    Values are standardized by running statistics, so that the decoder sees the same scale in every batch; gradients
    are those of the batch's own statistics, so that the encoder gains nothing by growing.

    Attributes:
        momentum: share of the newest batch in the running statistics; None = the plain mean over all batches.
        synchronized: a batch's statistics are those of all processes' parts of it, as SyncBatchNorm's are, but on CPUs
            too; all of them must come by here then.
    """

    synchronized = False

    running_mean: torch.Tensor
    running_var: torch.Tensor
    num_batches_tracked: torch.Tensor

    def __init__(self, channels: int, *, momentum: float = 0.02, epsilon: float = 1e-5) -> None:
        super().__init__()
        self.momentum: float | None = momentum
        self.epsilon = epsilon
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        self.register_buffer("num_batches_tracked", torch.zeros((), dtype=torch.long))

    def reset_running_stats(self) -> None:
        """Reset the statistics to mean 0 and variance 1."""
        self.running_mean.zero_()
        self.running_var.fill_(1)
        self.num_batches_tracked.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return self._standardized(x, self.running_mean, self.running_var)
        x = x.float()  # statistics of mixed precision's bfloat16 would be coarse
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        if self.synchronized and dist.is_available() and dist.is_initialized():
            own, mean = mean, _mean_of_all(mean)
            variance = _mean_of_all(variance + (own - mean).square())
        with torch.no_grad():
            self.num_batches_tracked += 1
            share = 1 / int(self.num_batches_tracked)
            share = share if self.momentum is None else max(share, self.momentum)
            self.running_mean.lerp_(mean, share)
            self.running_var.lerp_(variance, share)
            scale = ((variance + self.epsilon) / (self.running_var + self.epsilon)).sqrt()
            offset = (mean - self.running_mean) / (self.running_var + self.epsilon).sqrt()
        standard = self._standardized(x, mean, variance)
        return standard * scale[:, None, None] + offset[:, None, None]

    def _standardized(self, x: torch.Tensor, mean: torch.Tensor, variance: torch.Tensor) -> torch.Tensor:
        return (x - mean[:, None, None]) * (variance + self.epsilon).rsqrt()[:, None, None]


def _mean_of_all(values: torch.Tensor) -> torch.Tensor:
    """Return the mean over all processes; gradients flow back to each of them."""
    summed: torch.Tensor = _SumOfAll.apply(values)
    return summed / dist.get_world_size()


class _SumOfAll(torch.autograd.Function):
    """The sum of all processes' tensors."""

    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        summed = values.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        summed = gradient.clone()
        dist.all_reduce(summed)
        return summed


class _ResidualBlock(nn.Module):
    """x + conv(act(conv(act(x)))), the identity at first; no norm, which would blur flat colours (as in TAESD)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = _convolution(channels, channels), _convolution(channels, channels)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(x))))


def _convolution(channels: int, out: int, *, stride: int = 1) -> nn.Conv2d:
    layer = nn.Conv2d(channels, out, 3, stride=stride, padding=1)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
