"""What an assistant can ask for: the arguments of each tool, and the request that they stand for.

A tool's name, description and arguments are its class's; assistants read them, so they say what a person would be told.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from openlumiere.diffusion.way_points import parse_way_points
from openlumiere.errors import LumiereError
from openlumiere.generation.abilities import Abilities
from openlumiere.generation.options import parse_box
from openlumiere.generation.requests import (
    AnimateRequest,
    CinemagraphRequest,
    ClipRequest,
    ExtendRequest,
    GenerateRequest,
    InpaintRequest,
    RestyleRequest,
    Sticker,
)

Target = Literal["telegram", "telegram-emoji", "whatsapp", "discord", "discord-emoji", "slack"]  # as video.stickers'
Format = Literal["mp4", "webp", "gif", "apng", "webm", "mov"]

_PICTURE = "absolute path of a picture on this machine"
_CLIP = "id of a clip that was made here, or absolute path of a video, an animated WebP or a GIF on this machine"
_BOX = 'a rectangle "x,y,width,height", in pixels, or in parts of the frame if none is above 1'
_MASK = "absolute path of a picture that is white where it should"


class Tool(BaseModel):
    """Arguments of a tool."""

    model_config = ConfigDict(extra="forbid")

    name: ClassVar[str]
    reads_only: ClassVar[bool] = False


class Waits(Tool):
    """What the tools share that wait for a clip."""

    wait_seconds: float = Field(
        45, ge=0, le=3600,
        description="return after so long even if the clip is not finished; it goes on, and get_clip waits for it",
    )  # fmt: skip


class Makes(Waits):
    """What the tools share that make a clip."""

    seed: int | None = Field(
        None, ge=0, lt=2**63, description="the same seed gives the same clip; default: a random one, which is told"
    )
    steps: int | None = Field(None, ge=1, description="more are better and slower; default: the model's")
    negative_prompt: str = Field("", description="what to keep away from")
    style: str | dict[str, float] = Field(
        "", description='one of the model\'s styles, see list_models; or a mixture such as {"flat": 0.7, "noto": 0.3}'
    )
    transparent: bool | None = Field(
        None, description="keep transparency, where the model has it; default: if the prompt or the source asks for it"
    )
    path: str = Field(
        "", description='where the subject goes, of a model that takes a path: way points "x,y", "x,y,size,degrees" or '
        '"x,y@time", such as "0.1,0.5 0.5,0.2@0.3 0.9,0.5", from 0 to 1 of the frame (left, top) and of time',
    )  # fmt: skip
    reference_pictures: list[str] = Field(
        [], description="absolute paths of pictures of what is to be in it, of a model that takes references"
    )
    model: str = Field("", description="one of list_models; default: the first of them")

    def request(self, model: Abilities) -> ClipRequest:
        """Return the request, whose `output` is left open.

        Args:
            model: what the one can do that will make it.
        """
        raise NotImplementedError

    def _shared(self) -> dict[str, Any]:
        style = self.style
        return {
            "seed": self.seed,
            "num_inference_steps": self.steps,
            "negative_prompt": self.negative_prompt,
            "styles": tuple((style if isinstance(style, dict) else {style: 1.0} if style else {}).items()),
            "transparent": self.transparent,
            "path": tuple(parse_way_points(self.path)) if self.path else (),
            "references": tuple(self.reference_pictures),
        }


class MakesFile(Makes):
    """What the tools share whose clip is no sticker."""

    format: Format | None = Field(None, description="default: webp where the clip is transparent, else mp4")


class MakeClip(MakesFile):
    """Make a short animation that shows what a text says."""

    name = "make_clip"

    prompt: str = Field(description='what to show, and how it moves, such as "a tiger walking to the left"')
    seconds: float | None = Field(None, gt=0, le=60, description="length of the clip; default: the model's")
    loop: bool = Field(False, description="make the end flow into the start")

    def request(self, model: Abilities) -> ClipRequest:
        """Return the request, see `Makes.request`."""
        return GenerateRequest(prompt=self.prompt, loop=self.loop, **_frames(self.seconds, model), **self._shared())


class AnimatePicture(MakesFile):
    """Make a picture move: all of it, or only a region, while everything else stands still."""

    name = "animate_picture"

    picture: str = Field(description=_PICTURE)
    prompt: str = Field("", description='what it should show, such as "a burning fire"')
    last_picture: str | None = Field(None, description=f"{_PICTURE}, which the clip ends with")
    box: str | None = Field(None, description=f"{_BOX}: only this moves, in a loop")
    mask: str | None = Field(None, description=f"{_MASK} move, instead of a box")
    seconds: float | None = Field(None, gt=0, le=60, description="length of the clip; default: the model's")
    loop: bool | None = Field(None, description="make the end flow into the start; default: if only a region moves")

    def request(self, model: Abilities) -> ClipRequest:
        """Return the request, see `Makes.request`."""
        shared = {
            **self._shared(), **_frames(self.seconds, model),
            "source": self.picture, "prompt": self.prompt,
        }  # fmt: skip
        if self.loop is not None:
            shared["loop"] = self.loop
        if self.box is None and self.mask is None:
            return AnimateRequest(last=self.last_picture, **shared)
        if self.last_picture is not None:
            raise LumiereError("where only a region moves there is no last_picture; leave out that, or box and mask")
        return CinemagraphRequest(mask=self.mask, box=_box(self.box), **shared)


class ChangeRegion(MakesFile):
    """Change a region of a clip, or put something into it; all that lies outside stays as it is."""

    name = "change_region"

    clip: str = Field(description=_CLIP)
    prompt: str = Field(description='what the region should show, such as "a red hat"')
    box: str | None = Field(None, description=_BOX)
    mask: str | None = Field(None, description=f"{_MASK} change, instead of a box")
    loop: bool = Field(False, description="make the end flow into the start")

    def request(self, model: Abilities) -> ClipRequest:
        """Return the request, see `Makes.request`."""
        return InpaintRequest(
            source=self.clip, prompt=self.prompt, mask=self.mask, box=_box(self.box), loop=self.loop, **self._shared()
        )


class Restyle(MakesFile):
    """Make a clip anew after a prompt or in a style, keeping how it moves."""

    name = "restyle"

    clip: str = Field(description=_CLIP)
    prompt: str = Field(description='what it should show, such as "a lion walking to the left"')
    strength: float = Field(0.7, ge=0, le=1, description="0 keeps the clip, 1 keeps nothing of it")
    loop: bool = Field(False, description="make the end flow into the start")

    def request(self, model: Abilities) -> ClipRequest:
        """Return the request, see `Makes.request`."""
        return RestyleRequest(
            source=self.clip, prompt=self.prompt, strength=self.strength, loop=self.loop, **self._shared()
        )


class Extend(MakesFile):
    """Make a clip go on after its end."""

    name = "extend"

    clip: str = Field(description=_CLIP)
    prompt: str = Field("", description="what it shows")
    seconds: float = Field(2.5, gt=0, le=60, description="how much longer it gets")

    def request(self, model: Abilities) -> ClipRequest:
        """Return the request, see `Makes.request`."""
        frames = _frames(self.seconds, model)
        return ExtendRequest(source=self.clip, prompt=self.prompt, **frames, **self._shared())


class MakeSticker(Makes):
    """Make a sticker or an emoji as a messenger takes it, of a text or of a clip: give one of `prompt` and `clip`.

    Format, size, length, frame rate and bytes are what the service takes; the file is checked. Seed, steps, style and
    model are for a text.
    """

    name = "make_sticker"

    target: Target = Field(description="the service that it is for")
    prompt: str | None = Field(None, description='what to show, and how it moves, such as "a waving hand"')
    clip: str | None = Field(None, description=_CLIP)
    crop: bool = Field(False, description="cut to the subject, all that is not transparent")
    outline: int = Field(0, ge=0, le=100, description="width in pixels of a line around the subject")
    outline_colour: str = Field("white", description="a name, or #rrggbb")
    speed_up: bool = Field(False, description="play a clip that is too long faster, rather than cut it")

    @property
    def sticker(self) -> Sticker:
        """What the clip is to become."""
        return Sticker(
            target=self.target, crop=self.crop, outline=self.outline, outline_colour=self.outline_colour,
            speed_up=self.speed_up,
        )  # fmt: skip

    def request(self, model: Abilities) -> ClipRequest:
        """Return the request for a sticker of a text, a loop; see `Makes.request`."""
        return GenerateRequest(prompt=self.prompt or "", loop=True, sticker=self.sticker, **self._shared())


class GetClip(Waits):
    """Return a clip that was asked for before: how far it is, or the finished file. Waits for it."""

    name = "get_clip"
    reads_only = True

    id: str = Field(description="of the clip, as the tool said that began it")


class StopClip(Tool):
    """Stop a clip that is being made."""

    name = "stop_clip"

    id: str = Field(description="of the clip, as the tool said that began it")


class WasMadeHere(Tool):
    """Tell whether a clip or picture was made here: by a watermark that nobody sees, and by its content credentials."""

    name = "was_made_here"
    reads_only = True

    file: str = Field(description=f"absolute path of a picture on this machine, or {_CLIP}")


class ListModels(Tool):
    """List the models, what each can show, and its styles."""

    name = "list_models"
    reads_only = True


TOOLS: dict[str, type[Tool]] = {
    tool.name: tool
    for tool in (
        MakeClip, AnimatePicture, ChangeRegion, Restyle, Extend, MakeSticker, WasMadeHere, ListModels, GetClip,
        StopClip,
    )
}  # fmt: skip


def _frames(seconds: float | None, model: Abilities) -> dict[str, Any]:
    """The field of a request that sets its length: as many frames as the model can make that come nearest."""
    return {} if seconds is None else {"num_frames": model.nearest_length(seconds * model.fps)}


def _box(text: str | None) -> tuple[float, float, float, float] | None:
    return None if text is None else parse_box(text)
