"""Networks side by side: ours, ours without time resampling, diffusers' and lumiere-pytorch's, around equal T2Is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel
from torch import nn

from openlumiere import STUNet
from shapes import Shape

_MOTION_FRAMES = 32  # that a default MotionAdapter has positions for
Predict = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class CannotRunError(Exception):
    """Why a contestant is missing, in one line."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """A network that predicts the noise of a clip.

    Attributes:
        net: its T2I frozen, what was added trainable.
        predict: (sample (B, C, F, H, W), timestep (B,), text (B, L, text_dim)) -> (B, C, F, H, W).
        text_dim: width of the text that it takes.
        notes: where it is not equal to the others, one sentence each.
    """

    name: str
    net: nn.Module
    predict: Predict
    text_dim: int
    notes: tuple[str, ...] = ()

    def trainable(self) -> list[nn.Parameter]:
        """The temporal layers' parameters."""
        return [p for _, p in self.net.named_parameters() if p.requires_grad]


def build(name: str, shape: Shape, *, max_frames: int, device: torch.device, dtype: torch.dtype) -> Contestant:
    """Build one with random weights, on the meta device too.

    Args:
        name: a key of `_BUILDERS`.
        max_frames: longest clip that it will be given.

    Raises:
        CannotRunError: it cannot hold this T2I, or is not installed.
    """
    torch.manual_seed(0)
    with torch.device(device):
        found = _BUILDERS[name](name, shape, max_frames)
    found.net.to(dtype).eval()
    return found


def _stunet(name: str, shape: Shape, max_frames: int) -> Contestant:
    return _inflated(name, shape, {})


def _fixed_rate(name: str, shape: Shape, max_frames: int) -> Contestant:
    return _inflated(name, shape, {"resampled_levels": []})


def _inflated(name: str, shape: Shape, options: dict[str, Any]) -> Contestant:
    net = STUNet.from_unet(UNet2DConditionModel(**shape.unet), **shape.temporal | options)
    return Contestant(name=name, net=net, predict=lambda x, t, text: net(x, t, text).sample, text_dim=shape.text[1])


def _motion_model(name: str, shape: Shape, max_frames: int) -> Contestant:
    """diffusers' AnimateDiff: a temporal transformer after every layer of the T2I, all at the full frame rate."""
    unet = UNet2DConditionModel(**shape.unet)
    config = unet.config
    adapter = MotionAdapter(
        block_out_channels=tuple(config["block_out_channels"]),
        motion_layers_per_block=config["layers_per_block"],
        motion_norm_num_groups=config["norm_num_groups"],
        motion_max_seq_length=max(max_frames, _MOTION_FRAMES),
    )
    notes = []
    if max_frames > _MOTION_FRAMES:
        notes.append(
            f"{name}: motion_max_seq_length raised to {max_frames}; as it comes, it takes {_MOTION_FRAMES} frames"
        )
    # It knows neither of these options of the T2I, and would fail in its forward pass; both cost next to nothing.
    dropped = {"encoder_hid_dim": None, "encoder_hid_dim_type": None, "addition_embed_type": None}
    if any(config[key] for key in dropped) or config["resnet_time_scale_shift"] != "default":
        unet = UNet2DConditionModel(**shape.unet | dropped | {"resnet_time_scale_shift": "default"})
        notes.append(f"{name}: cannot load this T2I's text projection, pooled text and scale-shift; built without them")
    net = UNetMotionModel.from_unet2d(unet, adapter, load_weights=False)
    net.freeze_unet2d_params()

    def predict(x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        last = net.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
        if torch.is_grad_enabled() and x.device.type == "cpu" and last and math.prod(x.shape[2:]) <= 1024:
            # native_group_norm_backward, when its input, as that of the first motion module, needs no gradient.
            raise CannotRunError(
                "PyTorch's group norm crashes in the backward pass of so few positions, channels last; "
                "take more frames or --layout channels-first"
            )
        # As diffusers' AnimateDiffPipeline does.
        return net(x, t, text.repeat_interleave(x.shape[2], dim=0)).sample

    return Contestant(
        name=name, net=net, predict=predict, text_dim=int(config["cross_attention_dim"]), notes=tuple(notes)
    )


def _lumiere_pytorch(name: str, shape: Shape, max_frames: int) -> Contestant:
    """The PyPI package's blocks, hooked where Lumiere has them: the same places and depths as STUNet's."""
    try:
        from lumiere_pytorch import Lumiere
    except Exception as error:
        reason = " ".join(str(error).split())
        raise CannotRunError(
            f"import lumiere_pytorch: {type(error).__name__}: {reason}; install it: pip install 'openlumiere[bench]'"
        ) from error
    t2i = _PositionalUNet(UNet2DConditionModel(**shape.unet), text=shape.text)
    coarsest = t2i.channels[-1]
    head_dim = shape.temporal.get("attention_head_dim", 32)
    try:
        with _initialising_on_meta():
            net = Lumiere(
                t2i,
                image_size=shape.size,
                channels=shape.unet["in_channels"],
                unet_time_kwarg="timestep",
                **t2i.places(),
                attn_inflation_kwargs={
                    "depth": shape.temporal.get("attention_layers", 2),
                    "heads": max(coarsest // head_dim, 1),
                    "dim_head": head_dim,
                },
            )
    except Exception as error:
        raise CannotRunError(f"wrap the U-Net: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error

    def predict(x: torch.Tensor, t: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        # Each module's hook repeats both along the frames that this module sees.
        return net(x, timestep=t, text=text)

    notes = [
        f"{name}: cannot be hooked to diffusers' UNet2DConditionModel, which calls its blocks by keyword; the same "
        "layers are called by a forward pass of this benchmark's instead"
    ]
    if shape.temporal.get("temporal_width", 1.0) != 1.0:
        notes.append(f"{name}: its convolution blocks have no width option: all channels, where STUNet's have a part")
    if shape.temporal.get("temporal_conditioning"):
        notes.append(f"{name}: its blocks are not told prompt, noise level and place, as this shape's STUNet's are")
    return Contestant(name=name, net=net, predict=predict, text_dim=shape.text[1], notes=tuple(notes))


_BUILDERS: dict[str, Callable[[str, Shape, int], Contestant]] = {
    "STUNet": _stunet,
    "fixed-rate": _fixed_rate,
    "UNetMotionModel": _motion_model,
    "lumiere-pytorch": _lumiere_pytorch,
}


class _Pair(nn.Module):
    """(resnet, attention) as one module with one tensor out, to which the package can hook its block."""

    def __init__(self, resnet: nn.Module, attention: nn.Module | None) -> None:
        super().__init__()
        self.resnet, self.attention = resnet, attention

    def forward(self, x: torch.Tensor, embedding: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        x = self.resnet(x, embedding)
        return x if self.attention is None else self.attention(x, encoder_hidden_states=text, return_dict=False)[0]


class _Middle(nn.Module):
    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        self.resnets, self.attentions = block.resnets, block.attentions

    def forward(self, x: torch.Tensor, embedding: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        x = self.resnets[0](x, embedding)
        for attention, resnet in zip(self.attentions, self.resnets[1:], strict=True):
            x = resnet(attention(x, encoder_hidden_states=text, return_dict=False)[0], embedding)
        return x


class _PositionalUNet(nn.Module):
    """A UNet2DConditionModel's own layers, each called with its features as first positional argument."""

    def __init__(self, unet: UNet2DConditionModel, *, text: tuple[int, int]) -> None:
        super().__init__()
        self.channels = list(unet.config["block_out_channels"])
        self.text = text
        self.down = nn.ModuleList(_pairs(block) for block in unet.down_blocks)
        self.middle = _Middle(unet.mid_block)
        self.up = nn.ModuleList(_pairs(block) for block in unet.up_blocks)
        self.downsamplers = nn.ModuleList(b.downsamplers[0] for b in unet.down_blocks if b.downsamplers is not None)
        self.upsamplers = nn.ModuleList(b.upsamplers[0] for b in unet.up_blocks if b.upsamplers is not None)
        # For its embeddings and first and last layers. Last, so that the names of the shared layers are those above.
        self.unet = unet

    def places(self) -> dict[str, list[str]]:
        """Lumiere's: convolution blocks at all levels but the coarsest, attention there, time resampled after space."""
        last = len(self.down) - 1
        down = [[f"down.{level}.{i}" for i in range(len(pairs))] for level, pairs in enumerate(self.down)]
        up = [[f"up.{level}.{i}" for i in range(len(pairs))] for level, pairs in enumerate(self.up)]
        return {
            "conv_module_names": [*chain.from_iterable(down[:last]), *chain.from_iterable(up[1:])],
            "attn_module_names": [*down[last], "middle", *up[0]],
            "downsample_module_names": [f"downsamplers.{i}" for i in range(last)],
            "upsample_module_names": [f"upsamplers.{i}" for i in range(last)],
        }

    def forward(self, x: torch.Tensor, timestep: torch.Tensor, text: torch.Tensor | None = None) -> torch.Tensor:
        """(B * F, C, H, W); without text for the package's trial run."""
        unet = self.unet
        if text is None:
            text = x.new_zeros(len(x), *self.text)
        embedding = unet.time_embedding(unet.get_time_embed(sample=x, timestep=timestep))
        pooled = unet.get_aug_embed(emb=embedding, encoder_hidden_states=text, added_cond_kwargs={})
        embedding = embedding if pooled is None else embedding + pooled
        text = unet.process_encoder_hidden_states(text, {})
        x = unet.conv_in(x)
        skips = [x]
        for level, pairs in enumerate(self.down):
            for pair in pairs:
                x = pair(x, embedding, text)
                skips.append(x)
            if level < len(self.downsamplers):
                x = self.downsamplers[level](x)
                skips.append(x)
        x = self.middle(x, embedding, text)
        for level, pairs in enumerate(self.up):
            for pair in pairs:
                x = pair(torch.cat([x, skips.pop()], dim=1), embedding, text)
            if level < len(self.upsamplers):
                x = self.upsamplers[level](x)
        return unet.conv_out(unet.conv_act(unet.conv_norm_out(x)))


def _pairs(block: nn.Module) -> nn.ModuleList:
    attentions = getattr(block, "attentions", None) or [None] * len(block.resnets)  # type: ignore[arg-type]
    return nn.ModuleList(_Pair(r, a) for r, a in zip(block.resnets, attentions, strict=True))  # type: ignore[arg-type]


@contextmanager
def _initialising_on_meta() -> Iterator[None]:
    """On the meta device, skip the package's initialisation by a boolean mask: without values there is no mask."""
    import lumiere_pytorch.lumiere as package

    original = package.init_bilinear_kernel_1d_
    if torch.empty(0).is_meta:
        package.init_bilinear_kernel_1d_ = lambda conv: None
    try:
        yield
    finally:
        package.init_bilinear_kernel_1d_ = original
