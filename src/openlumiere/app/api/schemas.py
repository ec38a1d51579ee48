"""What the API takes and gives: OpenAI's fields, vLLM-Omni's names for extras, ours beside them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = str | None
Number = float | None
Whole = int | None


class CreateVideo(BaseModel):
    """A request for a clip. In a form every value is text; files are fields of the form.

    What is left out is the model's own choice. Fields that the task does not know are refused.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, json_schema_extra={"examples": [
        {"prompt": "a tiger walking to the left", "seconds": "5", "seed": 7}
    ]})  # fmt: skip

    prompt: str = Field("", description="What to show; may be empty where a picture or clip is given.")
    model: Text = Field(None, description="One of GET /v1/videos/models; default: the server's.")
    task: Text = Field(None, description="generate, or animate if there is an input_reference, restyle if a video.")
    seconds: str | float | None = Field(None, description="Length, rounded to what the model can make.")
    size: Text = Field(
        None, description="WIDTHxHEIGHT; another than the model's where it is resizable.", examples=["128x128"]
    )
    width: Whole = None
    height: Whole = None
    num_frames: Whole = None
    fps: Number = None
    num_inference_steps: Whole = None
    guidance_scale: Number = None
    seed: Whole = Field(None, description="The same seed makes the same clip; default: drawn.")
    negative_prompt: str = Field("", description="What to keep away from.")
    input_reference: str | dict[str, Any] | None = Field(
        None, description="A picture or clip: a file, or the id of a video, as text or as {id}."
    )
    video_reference: str | dict[str, Any] | None = Field(None, description="A clip, as input_reference.")
    last_frame: str | dict[str, Any] | None = Field(None, description="The picture that an animated one ends with.")
    reference: str | list[str] | None = Field(
        None, description="Pictures of what is to be in the clip: files, or ids of videos; several in a form, too."
    )
    mask: str | dict[str, Any] | None = Field(None, description="White where it may change: a picture or clip.")
    box: str | list[float] | None = Field(None, description="x,y,w,h instead of a mask, in pixels or fractions.")
    style: str | dict[str, float] | None = Field(None, description="A style's name, or {name: strength} of several.")
    lora: str | dict[str, Any] | None = Field(None, description="As style; {name, scale} of one.")
    strength: Number = Field(None, description="Of restyle: 0 keeps the clip, 1 nothing of it.")
    loop: bool | None = None
    transparent: bool | None = None
    background: Text = Field(None, description="A colour's name or #rrggbb.")
    to: str | list[int] | None = Field(None, description="Proportions of outpaint.", examples=["16:9"])
    factor: Whole = Field(None, description="Of interpolate: so many times the frame rate.")
    fit: Literal["crop", "pad", "stretch"] | None = None
    feather: Whole = None
    path: str | list[list[float | None]] | None = Field(
        None, description="Way points of the subject.", examples=["0.1,0.5 0.9,0.5"]
    )
    planner: bool | None = None
    rigid: bool | None = Field(
        None, description="Of animate, extend and interpolate: keep the subject as it was drawn, wherever it moves."
    )
    upscale_steps: Whole = Field(None, description="Steps of the second stage; 0 leaves it out.")
    noise_level: Whole = None
    sticker: Text = Field(None, description="Make a sticker too: telegram, whatsapp, discord, slack …")
    crop: bool | None = Field(None, description="Of a sticker: cut to the subject.")
    outline: Whole = Field(None, description="Of a sticker: pixels of a line around it.")
    outline_colour: Text = None
    speed_up: bool | None = Field(None, description="Of a sticker: rather than cut what is too long.")
    extra_params: str | dict[str, Any] | None = Field(None, description="Any of these fields, as JSON.")
    callback_url: Text = Field(None, description="One of the addresses that the operator lists for webhooks.")


class Remix(BaseModel):
    """A clip anew, with another prompt."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"prompt": "a lion walking to the left"}]}
    )

    prompt: str


class Favourite(BaseModel):
    """Whether a clip is kept whatever its age."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"favourite": True}]})

    favourite: bool


class ErrorDetail(BaseModel):
    """Why there is no clip."""

    code: str
    message: str


class Video(BaseModel):
    """A clip, or what becomes one.

    Attributes:
        status: as OpenAI's; a cancelled one is failed, with the code "cancelled".
        seconds: length; "0" as long as it is not known.
        size: "0x0" as long as it is not known.
        position: how many are to be made before it; None = it is not waiting.
        changes: what is not as it was asked for, a line each, ``field: what instead, and why``.
        preview: version of the preview; 0 = there is none.
        request: what was asked for; with all that was chosen, once it is finished.
        source: whether there is a picture or clip that it was made from.
        command, python: what makes the clip again.
        formats: that its content can be had in, at once or made when first asked for.
        sticker: the service that a sticker was made for.
    """

    id: str
    object: Literal["video"] = "video"
    status: Literal["queued", "in_progress", "completed", "failed"]
    progress: int
    created_at: int
    completed_at: int | None
    expires_at: int | None
    model: str
    prompt: str
    seconds: str
    size: str
    remixed_from_video_id: str | None
    error: ErrorDetail | None
    task: str
    stage: str
    step: int
    total_steps: int
    seconds_left: float | None
    position: int | None
    seed: int | None
    width: int | None
    height: int | None
    num_frames: int | None
    fps: float | None
    changes: list[str]
    loop: bool
    transparent: bool | None
    favourite: bool
    preview: int
    request: dict[str, Any]
    source: bool
    command: str | None
    python: str | None
    formats: list[str]
    sticker: str | None


class VideoList(BaseModel):
    """A page of clips; the next begins after `last_id`."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deleted(BaseModel):
    """What was deleted, and can be restored for `undo_seconds`."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool = True
    undo_seconds: float


class Model(BaseModel):
    """What a model can do.

    Attributes:
        family: what drives it.
        emulated: those of its tasks that it was not made for: what is given is put back at every step.
        prompt, negative_prompt: whether it is told what to show, and what not.
        last_frame: whether an animated picture may be told how it ends.
        last_frame_needed: whether it must be.
        references: so many pictures of what is to be in the clip it takes; 0 = none.
        resizable: whether `size` may be others, whose sides `size_multiple` divides; others are rounded.
        num_frames, fps: of a clip of which nothing else is said.
        frame_multiple, frame_offset: clips of text have a multiple of the first, plus the second, of frames.
        max_frames: of the longest clip; null = there is no end.
        licence: of the weights; "" = not known.
        commercial: whether the licence allows commercial use; null = not known.
        error: why it could not be loaded when a worker last tried; null = it could, or none has tried.
    """

    id: str
    object: Literal["model"] = "model"
    default: bool
    family: str
    tasks: list[str]
    emulated: list[str]
    prompt: bool
    negative_prompt: bool
    last_frame: bool
    last_frame_needed: bool
    references: int
    loop: bool
    styles: list[str]
    transparent: bool
    path: bool
    planner: bool
    rigid: bool
    width: int | None
    height: int | None
    resizable: bool
    size_multiple: int
    scale: int
    num_frames: int
    fps: float
    max_frames: int | None
    frame_multiple: int
    frame_offset: int
    window_frames: int | None
    num_inference_steps: int | None
    guidance_scale: float | None
    upscale_steps: int
    subjects: list[str]
    licence: str
    commercial: bool | None
    stickers: list[str]
    error: str | None


class ModelList(BaseModel):
    """The models of this server.

    Attributes:
        idempotency: requests for clips may have an ``Idempotency-Key``: sent twice, they make one clip.
    """

    object: Literal["list"] = "list"
    idempotency: Literal[True] = True
    data: list[Model]


class Inspected(BaseModel):
    """The settings inside a clip of ours."""

    request: dict[str, Any]
    model: str
    fps: float
    command: str
    python: str


class MarkPayload(BaseModel):
    """What a watermark says.

    Attributes:
        model: its name, or that of its family; `model_number` is what the mark holds.
        release: of openlumiere.
        month: ``YYYY-MM``, of the making.
        key_id: number of the key that marked it.
    """

    model: str
    model_number: int
    release: str
    month: str
    key_id: int


class Ingredient(BaseModel):
    """A file that another was made from: edited (``parentOf``), or placed in it (``componentOf``)."""

    title: str
    relation: str


class ContentCredentials(BaseModel):
    """What is signed in a file (C2PA), and whether to believe it.

    Attributes:
        state: ``untrusted``: unchanged, by a signer whom nobody vouches for, and who may have any name.
        problem: what is wrong; "" where nothing is.
        signed_here: whether it was this server, or one with the same keys.
        when: the time that the signer claims.
        ai_generated: whether a model made it, or a part of it.
    """

    state: Literal["trusted", "untrusted", "changed", "invalid"]
    problem: str
    signer: str
    signed_here: bool
    when: str | None
    generator: str
    model: str
    actions: list[str]
    ai_generated: bool
    ingredients: list[Ingredient]


class Detected(BaseModel):
    """Whether a clip or picture was made here, by its watermark and its content credentials.

    Attributes:
        marked: whether there is a watermark of this server's key.
        p_value: bound on the chance of evidence like this without a mark; `marked` where it is at most
            `false_positive_rate`.
        payload: what the mark says; null where it can't be read, or there is none.
        seconds: stretches that are marked, from and to.
        parts: of a frame, as rows: 1 where it is marked.
        scale: above 1 where the clip was cropped, as against what was marked.
        degrees: that it was turned by, counter-clockwise.
        duration: in seconds; 0 of a picture.
        credentials: null where there are none.
    """

    object: Literal["detection"] = "detection"
    marked: bool
    p_value: float
    false_positive_rate: float
    payload: MarkPayload | None = None
    seconds: list[tuple[int, int]] = []
    parts: list[list[int]] = []
    scale: float | None = None
    degrees: float | None = None
    width: int
    height: int
    duration: float
    credentials: ContentCredentials | None


class SessionLimits(BaseModel):
    """What a request may hold."""

    bytes: int
    pixels: int
    clip_pixels: int
    frames: int
    seconds: float
    prompt: int
    num_frames: int
    frame_pixels: int
    num_inference_steps: int


class Session(BaseModel):
    """What the page wants to know of whoever opens it."""

    signed_in: bool
    keys_needed: bool
    limits: SessionLimits
    version: str


class ErrorBody(BaseModel):
    """What is wrong."""

    code: str | None
    message: str
    param: str | None
    type: str


class Error(BaseModel):
    """An error."""

    error: ErrorBody
