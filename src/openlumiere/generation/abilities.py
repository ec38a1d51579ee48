"""What a model can do, and what a request comes to with it: said without weights, and without PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from openlumiere.bundled import DEFAULT_MODEL
from openlumiere.errors import LumiereError
from openlumiere.lengths import Lengths

from .requests import (
    AnimateRequest,
    ClipRequest,
    ExtendRequest,
    GenerateRequest,
    InterpolateRequest,
    Request,
    UpscaleRequest,
    random_seed,
)

NUM_FRAMES, FPS = 80, 16.0  # of Lumiere's clips
_ON_CLIPS = ("inpaint", "outpaint", "restyle", "extend", "interpolate")


@dataclass(frozen=True, kw_only=True)
class Abilities:
    """What can be asked of a model.

    Attributes:
        model: its name, as `backends.load_backend` takes it.
        family: which backend drives it.
        tasks: keys of `requests.TASKS`.
        emulated: those of them that the model was not made for: at every step the sampler puts back what is given, or
            it starts from a noisy version of it.
        prompt, negative_prompt: whether it is told what to show, and what not.
        last_frame: whether `animate` may be told how the clip ends.
        last_frame_needed: whether it must be.
        references: so many pictures of what is to be in the clip it takes, in tasks that are not emulated; 0 = none.
        loop: whether the end of a clip can flow into its start.
        styles: names of those that come with it.
        transparent: whether clips can keep alpha.
        path: whether it is told where its subject goes.
        planner: whether it plans that itself, if not told.
        rigid: whether it can keep a subject of whole frames as it was drawn, wherever it moves.
        width, height: of finished clips, pixels; of whatever size the source has, if None.
        resizable: whether it makes clips of other sizes, too, whose sides `size_multiple` divides.
        scale: of the second stage; 1 = there is none.
        num_frames, fps: of a clip of which nothing else is said.
        max_frames: longest clip; None = there is no end.
        frame_multiple, frame_offset: a clip of text alone has a multiple of the first, plus the second, of frames,
            below `window_frames`.
        window_frames: length of the windows that longer clips are made in; None = a clip is always made as a whole.
        num_inference_steps, guidance_scale, upscale_steps: the model's own defaults.
        subjects: what a model of a small vocabulary was trained to show.
        licence: of the weights, as their publisher calls it; "" = not known.
        commercial: whether the licence allows commercial use; None = not known.
    """

    model: str
    tasks: tuple[str, ...]
    family: str = "lumiere"
    emulated: tuple[str, ...] = ()
    prompt: bool = True
    negative_prompt: bool = True
    last_frame: bool = True
    last_frame_needed: bool = False
    references: int = 0
    loop: bool = False
    styles: tuple[str, ...] = ()
    transparent: bool = False
    path: bool = False
    planner: bool = False
    rigid: bool = False
    width: int | None = None
    height: int | None = None
    resizable: bool = False
    size_multiple: int = 1
    scale: int = 1
    num_frames: int = NUM_FRAMES
    fps: float = FPS
    max_frames: int | None = None
    frame_multiple: int = 1
    frame_offset: int = 0
    window_frames: int | None = None
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    upscale_steps: int = 0
    subjects: tuple[str, ...] = ()
    licence: str = ""
    commercial: bool | None = None

    # ------------------------------------------------------------------------------------------ what is refused

    def check(self, request: Request) -> None:
        """Refuse what this model cannot make, before it waits in a queue.

        Raises:
            LumiereError: another task than the model's, or alpha, a path, a size or a second stage that it
                lacks, or no last picture where it needs one.
        """
        if request.task not in self.tasks:
            stage = "ssr-image, then ssr" if request.task == "upscale" else "conditional"
            learn = f"; to teach it: lumiere train {stage}" if self.family == "lumiere" and self.width else ""
            can = ", ".join(self.tasks)
            raise LumiereError(f"{self.model} cannot {request.task}: it can {can}; {models_that(request.task)}{learn}")
        if request.transparent and not self.transparent and not isinstance(request, UpscaleRequest):
            raise LumiereError(f"transparent: {self.model} makes opaque clips; leave it out, or choose another model")
        if getattr(request, "last", None) is not None and not self.last_frame:
            raise LumiereError(f"last: {self.model} is not told how a clip ends; leave it out, or choose another model")
        if isinstance(request, AnimateRequest) and request.last is None and self.last_frame_needed:
            raise LumiereError(f"last: {self.model} makes clips between two pictures; say what the clip ends with")
        if isinstance(request, ClipRequest):
            self._check_clip(request)

    def check_styles(self, request: Request) -> None:
        """Refuse styles that do not come with the model, such as a folder of whoever asks; `check` lets ours have them.

        Raises:
            LumiereError: another name.
        """
        for name, _ in getattr(request, "styles", ()):
            if name not in self.styles:
                known = f"choose one of {', '.join(self.styles)}" if self.styles else "leave it out"
                raise LumiereError(f"style {name!r}: {self.model} has none of that name; {known}")

    def _check_clip(self, request: ClipRequest) -> None:
        if self.family != "lumiere":
            self.check_styles(request)
        most = 0 if request.task in self.emulated else self.references
        if len(request.references) > most:
            can = f"{request.task} of {self.model} takes {most or 'no'} reference pictures"
            raise LumiereError(f"references: {can}; {'give fewer' if most else 'leave them out'}")
        if request.path and not self.path:
            raise LumiereError(f"path: {self.model} is not told where its subject goes; leave it out")
        if request.upscale_steps and self.scale == 1:
            raise LumiereError(f"upscale_steps: {self.model} has no second stage; leave it out")
        if request.size not in (None, (self.width, self.height)) and not self.resizable:
            raise LumiereError(f"size: {self.model} makes clips of {self.width}x{self.height}; leave it out")

    # ------------------------------------------------------------------------------------------ what is fitted

    def fit(self, request: Request) -> Fitted:
        """Make every choice that a request leaves to the model, and bring it to what the model can make.

        Raises:
            LumiereError: as `check`.
        """
        self.check(request)
        fitted, changes = request, []
        for name, takes, without in (
            ("prompt", self.prompt, "takes none"), ("negative_prompt", self.negative_prompt, "takes none"),
            ("loop", self.loop, "makes clips that end where they end"),
        ):  # fmt: skip
            if getattr(request, name) and not takes:
                if name != "loop" or (request.task != "cinemagraph" and request.sticker is None):  # loops by default
                    changes.append(f"{name}: {self.model} {without}; left out")
                fitted = _with(fitted, **{name: type(getattr(request, name))()})
        if getattr(request, "rigid", None) is not None and not self.rigid:
            changes.append(f"rigid: {self.model} decides that itself; left out")
            fitted = _with(fitted, rigid=None)
        if fitted.seed is None:
            fitted = replace(fitted, seed=random_seed())
        if not self.transparent and not isinstance(request, UpscaleRequest):
            fitted = replace(fitted, transparent=None)
        if isinstance(request, UpscaleRequest) and self.width is not None:  # not the base's steps and guidance
            fitted = _filled(fitted, num_inference_steps=self.upscale_steps or None)
        else:
            fitted = _filled(fitted, num_inference_steps=self.num_inference_steps, guidance_scale=self.guidance_scale)
        if isinstance(fitted, ClipRequest):
            fitted = self._sized(_filled(fitted, fps=self.fps, upscale_steps=self.upscale_steps), changes)
            fitted = self._lengthened(fitted, request, changes)
        return Fitted(fitted, tuple(changes))

    def _sized(self, request: ClipRequest, changes: list[str]) -> ClipRequest:
        if not self.resizable or self.width is None or self.height is None:
            return request
        asked = request.size or (self.width, self.height)
        width, height = (max(round(side / self.size_multiple), 1) * self.size_multiple for side in asked)
        if (width, height) != asked:
            changes.append(
                f"size: {width}x{height} instead of {asked[0]}x{asked[1]}, whose sides {self.size_multiple} must divide"
            )
        return replace(request, size=(width, height))

    def _lengthened(self, request: ClipRequest, asked: Request, changes: list[str]) -> ClipRequest:
        if isinstance(request, InterpolateRequest):
            if self.max_frames is not None:
                return _filled(request, num_frames=max((self.max_frames - 1) // request.factor + 1, 2))
            return request
        named: int | None = getattr(asked, "num_frames", None)
        length = named
        if named is None:
            if isinstance(request, ExtendRequest):
                length = max(self.num_frames // 2, 1)
            elif request.task in _ON_CLIPS:
                return _filled(request, num_frames=self.max_frames)
            else:
                length = self._default_length(request)
        assert length is not None
        if isinstance(request, GenerateRequest):
            allowed = self.nearest_length(length)
            if allowed != named and named is not None:
                changes.append(f"num_frames: {allowed} instead of {named}, {self._rule()}")
            return replace(request, num_frames=allowed)
        longest = self.max_frames
        if longest is not None:
            longest = max(longest - 1, 1) if isinstance(request, ExtendRequest) else longest
            if named is not None and named > longest:
                changes.append(f"num_frames: {longest} instead of {named}, the longest that {self.model} makes")
            length = min(length, longest)
        return _with(request, num_frames=length)

    def _default_length(self, request: ClipRequest) -> int:
        """How many frames a clip has by default: no more than a sticker may last, so that a loop stays whole."""
        if request.sticker is None:
            return self.num_frames
        from openlumiere.video.stickers.targets import target_for

        seconds = target_for(request.sticker.target).max_seconds
        frames = self.num_frames
        if seconds is not None:
            frames = min(int(seconds * (getattr(request, "fps", None) or self.fps) + 1e-6), frames)
        steps = max((frames - self.frame_offset) // self.frame_multiple, 0 if self.frame_offset else 1)
        return steps * self.frame_multiple + self.frame_offset

    def _rule(self) -> str:
        if self.frame_multiple == 1:
            return f"the longest that {self.model} makes"
        more = f" and {self.frame_offset}" if self.frame_offset else ""
        longest = "" if self.max_frames is None else f", {self.max_frames} at most"
        return f"since {self.model} makes a multiple of {self.frame_multiple}{more}{longest}"

    def nearest_length(self, num_frames: float) -> int:
        """Return the number of frames that the model can make of text which is nearest to one."""
        return self.lengths.nearest(num_frames)

    @property
    def lengths(self) -> Lengths:
        """The numbers of frames that the model can make."""
        return Lengths(
            multiple=self.frame_multiple, offset=self.frame_offset, window=self.window_frames, longest=self.max_frames
        )


@dataclass(frozen=True)
class Fitted:
    """A request that a model can make as it is.

    Attributes:
        request: with every choice made.
        changes: what is not as it was asked for, a line each, ``field: what instead, and why``.
    """

    request: Request
    changes: tuple[str, ...] = ()


def models_that(task: str) -> str:
    """Return a half sentence that names models which can do a task."""
    return f"models that can: {', '.join(_MODELS_THAT[task])}"


_MODELS_THAT = {
    "generate": (DEFAULT_MODEL, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers", "THUDM/CogVideoX-2b"),
    "animate": (DEFAULT_MODEL, "stabilityai/stable-video-diffusion-img2vid-xt", "Wan-AI/Wan2.1-I2V-14B-480P-Diffusers"),
    "restyle": (DEFAULT_MODEL, "Wan-AI/Wan2.1-T2V-1.3B-Diffusers"),
    "upscale": (DEFAULT_MODEL,),
    **dict.fromkeys(
        ("inpaint", "outpaint", "cinemagraph", "extend", "interpolate"),
        (DEFAULT_MODEL, "Wan-AI/Wan2.1-VACE-1.3B-diffusers"),
    ),
}


def _filled(request: Any, **defaults: Any) -> Any:
    """The request with values for those of its fields that are None."""
    return _with(request, **{name: value for name, value in defaults.items() if getattr(request, name, "") is None})


def _with(request: Any, **values: Any) -> Any:
    return replace(request, **values) if values else request
