"""What every model that makes clips can be asked."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from openlumiere.generation.abilities import Abilities, Fitted
from openlumiere.generation.progress import Watch
from openlumiere.generation.recipe import ModelIdentity
from openlumiere.generation.requests import Request

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class Loading:
    """How a model is loaded.

    Attributes:
        device: "auto" (CUDA, then MPS, then the CPU), or a torch device.
        devices: several share each clip, where the model can: its windows, and what is predicted with and without the
            prompt. The first is its `device` where that is "auto".
        dtype: "auto" (float32 on the CPU; bfloat16 or float16 on a GPU) or a name.
        window_batch_size: windows of a long clip that are denoised at once.
        offload: what lies in the CPU's memory while it is not computed with: the "frames" of the clip, each "model"
            of the pipeline, or each "group" of a network's layers, which is slowest and takes the least.
        quantize: how the weights of the largest networks are stored.
        compile: compile the repeated blocks of networks.
        memory: bytes of the device that may be taken; what of the above is not said is chosen after it. None = all.
    """

    device: str = "auto"
    devices: tuple[str, ...] = ()
    dtype: str = "auto"
    window_batch_size: int = 1
    offload: Literal["frames", "model", "group"] | None = None
    quantize: Literal["int8", "int4", "float8"] | None = None
    compile: bool = False
    memory: int | None = None


@dataclass(frozen=True)
class Clip:
    """Frames, as a model made them.

    Attributes:
        frames: (F, H, W, 3, or 4 with straight alpha), float in [0, 1] or uint8.
        fps: frames per second.
        made_anew: bool (F, H, W), what was not given: the rest is as in the source, to the pixel; None = everything.
        watermark: what its recipe says of the mark that it came with, from another server; "" = nothing.
    """

    frames: np.ndarray
    fps: float
    made_anew: np.ndarray | None = None
    watermark: str = ""


@dataclass(frozen=True)
class Backend(ABC):
    """A model that is loaded, or can be reached.

    Attributes:
        abilities: what can be asked of it.
        identity: what files tell of it.
        notes: what whoever loads it should be told once: a licence that forbids commercial use, memory that was saved.
    """

    abilities: Abilities
    identity: ModelIdentity
    notes: tuple[str, ...] = field(default=(), kw_only=True)

    @property
    def name(self) -> str:
        """As `find.load_backend` takes it."""
        return self.abilities.model

    @property
    def family(self) -> str:
        """The module that drives it, see `find`."""
        return type(self).__module__.rpartition(".")[2]

    def fit(self, request: Request) -> Fitted:
        """Make every choice that a request leaves to the model, and bring it to what the model can make.

        Raises:
            LumiereError: what the model cannot do at all.
        """
        return self.abilities.fit(request)

    @abstractmethod
    def make(self, request: Request, watch: Watch) -> Clip:
        """Make the clip of a request that `fit` returned.

        Args:
            watch: told of each step, and asked before each whether to stop.

        Raises:
            LumiereError: files that cannot be read, or a request that cannot be made.
            Cancelled: the watch said so.
        """

    @property
    def weight_bytes(self) -> int:
        """Bytes that its weights take in the device's memory."""
        return 0

    @property
    def device(self) -> str:
        """The device whose memory it takes; "" if none here."""
        return ""
