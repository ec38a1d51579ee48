"""What models driven by diffusers share: one way from a request to a clip, and tasks that are emulated."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import Fitted
from openlumiere.generation.progress import Watch
from openlumiere.generation.requests import ClipRequest, EditRequest, ExtendRequest, Request, RestyleRequest

from .base import Backend, Clip
from .stepping import stepping

if TYPE_CHECKING:
    import numpy as np
    import torch
    from PIL import Image

    from openlumiere.generation.inputs import EditInputs

_CUT = ("inpaint", "outpaint", "restyle", "interpolate")  # what is longer than the longest clip
SIZE_MULTIPLE = 8  # what pipelines of U-Nets ask of sides


@dataclass(frozen=True)
class DiffusersBackend(Backend):
    """A model driven by pipelines of diffusers.

    A family says which pipeline does a task, with which arguments, and, where tasks are emulated by holding what is
    given (`holding`), how clips become latents.

    Attributes:
        pipe: the pipeline as it was loaded; others share its components.
    """

    pipe: Any

    # ------------------------------------------------------------------------------------------ what a family says

    def pipeline(self, task: str) -> Any:
        """Return the pipeline that does a task; an emulated one is done by that of text, or of a picture."""
        return self.pipe

    def arguments(self, request: ClipRequest, inputs: EditInputs | None) -> dict[str, Any]:
        """Return the arguments with which that pipeline makes a request's clip.

        Args:
            inputs: what is given, at the size and length to be made; None = text alone.
        """
        width, height, num_frames = self.shape(request, inputs)
        return {
            "prompt": request.prompt,
            "negative_prompt": request.negative_prompt or None,
            "height": height,
            "width": width,
            "num_frames": num_frames,
            "num_inference_steps": request.num_inference_steps,
            "guidance_scale": request.guidance_scale,
            "generator": self.generator(request),
        }

    def encode(self, pixels: torch.Tensor) -> torch.Tensor:
        """Encode a clip (1, 3, F, H, W) in [-1, 1], on the device, as the latents (1, C, f, h, w) it denoises."""
        from .holding import encode_frames

        return encode_frames(self.pipe.vae, pixels)

    def as_sample(self, latents: torch.Tensor) -> torch.Tensor:
        """Arrange latents (1, C, f, h, w) as this family's pipelines give samples to their schedulers."""
        return latents

    @property
    def frames_per_latent(self) -> int:
        """Frames that each of the autoencoder's latents after the first holds."""
        return 1

    # ------------------------------------------------------------------------------------------ making

    def fit(self, request: Request) -> Fitted:
        """Make every choice that a request leaves to the model, see `Backend.fit`; say what is cut off a long clip."""
        from openlumiere.video import probe
        from openlumiere.video.fitting import is_clip

        fitted = super().fit(request)
        most, source = getattr(fitted.request, "num_frames", None), getattr(request, "source", None)
        if request.task not in _CUT or source is None or most is None or not is_clip(source):
            return fitted
        shape = probe(source)
        given = round(shape.duration * (getattr(fitted.request, "fps", None) or shape.fps))
        if given <= most or getattr(request, "num_frames", None) == most:
            return fitted
        cut = f"num_frames: the first {most} of the clip's {given}, as many as {self.name} makes at once"
        return replace(fitted, changes=(*fitted.changes, cut))

    def make(self, request: Request, watch: Watch) -> Clip:
        """Make the clip of a request, see `Backend.make`."""
        assert isinstance(request, ClipRequest)
        watch.ask()
        inputs = self._inputs(request, watch)
        if inputs is not None and isinstance(request, RestyleRequest) and request.strength == 0:  # nothing is changed
            frames = inputs.task.video
        else:
            frames = self._sample(request, inputs, watch)
        if inputs is None:
            return Clip(frames, getattr(request, "fps", None) or self.abilities.fps)
        # A picture that moves is drawn by a model that was made for it, so that its first frames are alike.
        native = request.task == "animate" and request.task not in self.abilities.emulated
        made_anew = None if native else inputs.task.made_anew
        if inputs.task.mask is not None and not native:
            from openlumiere.pipelines.inputs import paste_given

            feather = getattr(request, "feather", 0)
            frames = paste_given(frames, inputs.task.video, inputs.task.mask, feather=feather)
        return Clip(inputs.task.finish(frames, background=request.background), inputs.fps, made_anew)

    def _inputs(self, request: ClipRequest, watch: Watch) -> EditInputs | None:
        """What is given of the clip, at the size and of the length to be made."""
        if not isinstance(request, EditRequest):
            return None
        from openlumiere.generation.inputs import FrameSize, read_inputs

        watch.tell("read", 0, 1)
        width, height = self._size(request)
        frame = FrameSize((height, width), 1, self.abilities.size_multiple, request.background)
        inputs = read_inputs(request, frame, self._context(request))
        task = inputs.task
        if isinstance(request, ExtendRequest):
            task = task.with_context_of(self.frames_per_latent)
        return replace(inputs, task=task.filled_up(self.abilities.lengths.enough(len(task.video))))

    def _context(self, request: EditRequest) -> int | None:
        """How many frames the model sees of a clip that is to go on: all that its longest clip has room for."""
        if not isinstance(request, ExtendRequest) or self.abilities.max_frames is None:
            return None
        assert request.num_frames is not None  # as `fit` has set it
        return max(self.abilities.max_frames - request.num_frames, 1)

    def _sample(self, request: ClipRequest, inputs: EditInputs | None, watch: Watch) -> np.ndarray:
        """The frames that the pipeline of a request makes, (F, H, W, 3) in [0, 1]."""
        import torch

        steps = _steps(request, emulated=request.task in self.abilities.emulated)
        watch.tell("text", 0, 1)
        pipe = self.pipeline(request.task)
        pipe.set_progress_bar_config(disable=True)  # steps are told to the watch
        arguments = self.arguments(request, inputs)
        try:
            with (
                _seeded(request, torch.device(self.device)),
                self._holding(request, inputs, pipe.scheduler),
                stepping(pipe.scheduler, watch, steps),
            ):
                frames: np.ndarray = pipe(**arguments, output_type="np").frames[0]
        finally:  # a pipeline that is cancelled leaves offloaded networks on the device
            self.pipe.maybe_free_model_hooks()
        return frames

    def _holding(self, request: ClipRequest, inputs: EditInputs | None, scheduler: Any) -> AbstractContextManager[None]:
        """Hold what is given of a clip, if the task is emulated."""
        if inputs is None or request.task not in self.abilities.emulated:
            return nullcontext()
        import torch

        from openlumiere.pipelines.inputs import as_clips

        from .holding import Known, holding, pool_mask

        task = inputs.task
        with torch.no_grad():
            latents = self.encode(as_clips(task.video).to(self.device))
        shape = (latents.shape[2], latents.shape[3], latents.shape[4])
        mask = torch.ones(task.video.shape[:3], dtype=torch.bool) if task.mask is None else torch.from_numpy(task.mask)
        make = pool_mask(mask, shape).to(latents.device).expand_as(latents)
        strength = request.strength if isinstance(request, RestyleRequest) else 1.0
        return holding(scheduler, Known(self.as_sample(latents), self.as_sample(make), strength))

    # ------------------------------------------------------------------------------------------ for `arguments`

    def shape(self, request: ClipRequest, inputs: EditInputs | None) -> tuple[int, int, int]:
        """Return the width, height and number of frames of the clip that the pipeline makes."""
        if inputs is None:
            return *self._size(request), getattr(request, "num_frames", None) or self.abilities.num_frames
        num_frames, height, width, _ = inputs.task.video.shape
        return width, height, num_frames

    def _size(self, request: ClipRequest) -> tuple[int, int]:
        if request.size is not None:
            return request.size
        assert self.abilities.width is not None  # as every family's abilities say
        assert self.abilities.height is not None
        return self.abilities.width, self.abilities.height

    @staticmethod
    def generator(request: Request) -> torch.Generator:
        """Return the randomness of a request: the CPU's, so that a seed means the same noise on every device."""
        import torch

        assert request.seed is not None
        return torch.Generator("cpu").manual_seed(request.seed)

    def sibling(self, kind: str, **components: Any) -> Any:
        """Return another pipeline on the components of this one, see `on_components_of`."""
        return on_components_of(self.pipe, kind, **components)

    # ------------------------------------------------------------------------------------------ what it takes

    @property
    def device(self) -> str:
        """The device whose memory it takes."""
        return str(self.pipe._execution_device)  # where its networks compute, wherever they wait

    @property
    def weight_bytes(self) -> int:
        """Bytes of the pipeline's parameters."""
        from .memory import weight_bytes

        return weight_bytes(self.pipe.components.values())


def on_components_of(pipe: Any, kind: str, **components: Any) -> Any:
    """Return another pipeline of diffusers on the components of one, without a copy of any weight.

    Args:
        kind: name of its class.
        components: further ones, or others.
    """
    import diffusers

    if type(pipe).__name__ == kind and not components:
        return pipe
    made_of = getattr(diffusers, kind)
    names = inspect.signature(made_of.__init__).parameters
    shared = {name: part for name, part in pipe.components.items() if name in names}
    return made_of(**shared | components)


def given_frames(inputs: EditInputs) -> list[int]:
    """Return the indices of the frames of which nothing is to be made."""
    assert inputs.task.mask is not None
    return [index for index, mask in enumerate(inputs.task.mask) if not mask.any()]


def pictures(frames: np.ndarray) -> list[Image.Image]:
    """Return frames (F, H, W, 3), uint8 or in [0, 1], as pipelines take pictures."""
    import numpy as np
    from PIL import Image

    pixels = frames if frames.dtype == np.uint8 else (frames.clip(0, 1) * 255).round().astype(np.uint8)
    return [Image.fromarray(frame) for frame in pixels]


@contextmanager
def _seeded(request: Request, device: torch.device) -> Iterator[None]:
    """Seed the noise of pipelines that draw some without the generator that they are given (SparseCtrl's)."""
    import torch

    assert request.seed is not None
    with torch.random.fork_rng([device] if device.type == "cuda" else []):  # the CPU's is always among them
        torch.manual_seed((request.seed + 1) % 2**63)  # another stream than the generator's
        yield


def _steps(request: ClipRequest, *, emulated: bool) -> int:
    """Steps that the pipeline of a request makes; where a noisy start is emulated, those before it, too.

    Raises:
        LumiereError: a strength that leaves none.
    """
    steps = request.num_inference_steps
    assert steps is not None  # as the abilities of every family say
    if not isinstance(request, RestyleRequest):
        return steps
    left = int(steps * request.strength)  # as diffusers' video-to-video
    if left == 0:
        raise LumiereError(
            f"strength {request.strength:g} of {steps} steps leaves none to make the clip with; choose more of either"
        )
    return steps if emulated else left
