"""The MCP server: the same requests as tools of an assistant, over the standard input and output.

Stdout carries the protocol and nothing else: the library points file descriptor 1 at stderr while it serves, so that
whatever a library prints ends there.
"""

from __future__ import annotations

import base64
import io
import logging
import mimetypes
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import mcp.types as types
from anyio.to_thread import run_sync
from mcp.server import Server, ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

import openlumiere
from openlumiere.errors import LumiereError
from openlumiere.files import one_line
from openlumiere.generation import jobs
from openlumiere.generation.progress import Cancelled

from .makers import ClipState, Maker
from .tools import TOOLS, GetClip, ListModels, Makes, MakesFile, MakeSticker, StopClip, Tool, WasMadeHere

_INSTRUCTIONS = (
    "Makes short animations and stickers of a text, a picture or a clip. Ask list_models first what can be shown: "
    "small models know few subjects. A clip takes seconds to minutes: a tool that returns before it is finished says "
    "the id for get_clip. Finished files lie in {folder}."
)
_SCHEMA = ("type", "required", "additionalProperties")  # what assistants need of a tool's, beside its properties
_SHOWN_FRAMES = 4  # of a finished clip, so that an assistant sees what moves
_TYPES = {".apng": "image/apng", ".webp": "image/webp"}  # not known to every system

_log = logging.getLogger(__name__)
_Context = ServerRequestContext[Any]
_Tell = Callable[[float, float, str], Awaitable[None]]  # progress, of how much, in words


def serve(maker: Maker) -> None:
    """Serve an assistant over the standard input and output until it closes them; `maker` is closed then."""

    async def run() -> None:
        server = create_server(maker)
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())

    anyio.run(run)


def create_server(maker: Maker) -> Server[Any]:
    """Return the server, which any transport of the `mcp` package can run."""
    session = _Session(maker)

    @asynccontextmanager
    async def lifespan(_server: object) -> AsyncIterator[dict[str, Any]]:
        try:
            yield {}
        finally:
            with anyio.CancelScope(shield=True):
                await run_sync(maker.close)

    return Server(
        "openlumiere",
        title="Lumiere",
        version=openlumiere.__version__,
        instructions=_INSTRUCTIONS.format(folder=maker.folder),
        lifespan=lifespan,
        on_list_tools=session.list_tools,
        on_call_tool=session.call_tool,
        on_list_resources=session.list_resources,
        on_read_resource=session.read_resource,
    )


class _Session:
    """What the server answers with, and the files that it has shown."""

    def __init__(self, maker: Maker) -> None:
        self._maker = maker
        self._files: dict[str, Path] = {}  # by the address that resource links name

    # ------------------------------------------------------------------------------------------ the protocol

    async def list_tools(self, _context: _Context, _params: object) -> types.ListToolsResult:
        """List what can be asked for."""
        return types.ListToolsResult(tools=[_described(tool) for tool in TOOLS.values()])

    async def call_tool(self, context: _Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        """Do what is asked for; what goes wrong is told in one line that the assistant reads."""
        if params.name not in TOOLS:
            raise MCPError(types.INVALID_PARAMS, f"unknown tool {params.name!r}; known: {', '.join(TOOLS)}")
        try:
            tool = TOOLS[params.name].model_validate(params.arguments or {})
            return await self._answer(tool, context.session.report_progress)
        except ValidationError as error:
            found = error.errors(include_url=False)[0]
            where = ".".join(str(part) for part in found["loc"])
            return _failed(f"{where}: {found['msg']}")
        except LumiereError as error:
            return _failed(one_line(error, 500))
        except Exception as error:
            _log.exception("%s failed", params.name)
            return _failed(f"unexpected {type(error).__name__}: {one_line(error, 300)}; the server's log says where")

    async def list_resources(self, _context: _Context, _params: object) -> types.ListResourcesResult:
        """List the finished files."""
        return types.ListResourcesResult(
            resources=[types.Resource(**_link(path)) for path in self._files.values() if path.is_file()]
        )

    async def read_resource(
        self, _context: _Context, params: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        """Return a finished file; no other."""
        path = self._files.get(params.uri)
        if path is None or not path.is_file():
            raise MCPError(types.INVALID_PARAMS, f"there is no resource {params.uri}", {"uri": params.uri})
        data = base64.b64encode(await run_sync(path.read_bytes)).decode()
        contents = types.BlobResourceContents(uri=params.uri, mime_type=_type_of(path), blob=data)
        return types.ReadResourceResult(contents=[contents])

    # ------------------------------------------------------------------------------------------ the tools

    async def _answer(self, tool: Tool, tell: _Tell) -> types.CallToolResult:
        match tool:
            case ListModels():
                models = await run_sync(self._maker.models)
                lines = "\n".join(f"{key}: {value}" for model in models for key, value in model.items())
                return _result(lines, {"models": models})
            case WasMadeHere():
                from openlumiere.app.detection import in_words

                found = await run_sync(self._maker.detect, tool.file)
                return _result(in_words(found), found)
            case GetClip():
                return await self._waited(tool.id, tool.wait_seconds, tell)
            case StopClip():
                await run_sync(self._maker.cancel, tool.id)
                return await self._waited(tool.id, 60, tell)
            case MakeSticker() if (tool.prompt is None) == (tool.clip is None):
                raise LumiereError("make_sticker: give either a prompt or a clip")
            case MakeSticker(clip=str(clip)):
                return await self._sticker_of(clip, tool)
            case Makes():
                return await self._begun(tool, tell)
        raise LumiereError(f"{tool.name} is no tool of this version")

    async def _begun(self, tool: Makes, tell: _Tell) -> types.CallToolResult:
        """Begin a clip and wait for it; it is stopped with the call."""
        suffix = f".{tool.format}" if isinstance(tool, MakesFile) and tool.format else ""

        def begin() -> str:
            request = tool.request(self._maker.abilities(tool.model))
            return self._maker.submit(request, model=tool.model, suffix=suffix)

        id = await run_sync(begin)
        try:
            return await self._waited(id, tool.wait_seconds, tell)
        except anyio.get_cancelled_exc_class():
            with anyio.CancelScope(shield=True):
                await run_sync(self._maker.cancel, id)
            raise

    async def _waited(self, id: str, seconds: float, tell: _Tell) -> types.CallToolResult:
        """Tell of a clip's progress until it is over, or the time is."""
        until, told, number = anyio.current_time() + seconds, "", -1.0
        while True:
            state = await run_sync(self._maker.state, id)
            words = f"{state.status.replace('_', ' ')}, {state.doing}".removesuffix(", ")
            if state.progress > number or words != told:
                number, told = max(float(state.progress), number + 0.01), words  # the protocol wants it to rise
                await tell(number, 100, words)
            if state.is_over or anyio.current_time() >= until:
                break
            await anyio.sleep(self._maker.interval)
        return await run_sync(self._shown, state)

    async def _sticker_of(self, clip: str, tool: MakeSticker) -> types.CallToolResult:
        """Make a sticker of a clip, here: that takes no model."""
        stop = threading.Event()

        def go_on(_tried: str) -> None:
            if stop.is_set():
                raise Cancelled

        def make() -> tuple[Path, str]:
            from openlumiere.generation.stickers import sticker_from_file
            from openlumiere.video.stickers import target_for

            source = self._maker.fetch(clip)
            suffix = target_for(tool.target).suffixes[0]
            output = Path(jobs.free_names(f"{self._maker.folder / source.stem}.{tool.target}", 1, suffix)[0])
            report = sticker_from_file(str(source), tool.sticker, output, marker=self._maker.marker, progress=go_on)
            return output, report.line()

        try:
            path, line = await run_sync(make, abandon_on_cancel=True)
        finally:
            stop.set()
        content = {"status": "completed", "path": str(path)}
        return _result(f"wrote {path} for {tool.target}: {line}", content, *self._contents(path))

    # ------------------------------------------------------------------------------------------ what is shown

    def _shown(self, state: ClipState) -> types.CallToolResult:
        """A clip's state in words, as data, and if it is finished its file and some of its frames."""
        content = {
            "id": state.id, "status": state.status, "progress": state.progress, "seed": state.seed,
            "path": None if state.path is None else str(state.path), "command": state.command or None,
            "message": state.message or None,
        }  # fmt: skip
        if state.status in ("failed", "cancelled"):
            return _failed(f"{state.id} {state.status}: {state.message}", content)
        if state.path is None:
            doing = f": {state.doing}" if state.doing else ""
            words = f"{state.id} is {state.status.replace('_', ' ')}, {state.progress}%{doing}; get_clip waits for it"
            return _result(words, content)
        note = f": {state.message}" if state.message else ""
        words = f"{state.id} is finished: wrote {state.path} (seed {state.seed}){note}\nmake it again with: "
        return _result(words + state.command, content, *self._contents(state.path))

    def _contents(self, path: Path) -> list[types.ContentBlock]:
        """A link to a file, and some of its frames as a picture."""
        link = types.ResourceLink(type="resource_link", **_link(path))
        self._files[link.uri] = path
        return [types.ImageContent(type="image", data=_frames_of(path), mime_type="image/png"), link]


def _described(tool: type[Tool]) -> types.Tool:
    schema = tool.model_json_schema()
    # What only this tool has comes first.
    named = dict(sorted(schema["properties"].items(), key=lambda item: item[0] in Makes.model_fields))
    return types.Tool(
        name=tool.name,
        description=" ".join((tool.__doc__ or "").split()),
        input_schema={**{key: schema[key] for key in schema if key in _SCHEMA}, "properties": named},
        annotations=types.ToolAnnotations(
            read_only_hint=tool.reads_only, destructive_hint=False, open_world_hint=False
        ),
    )


def _result(words: str, content: dict[str, Any], *more: types.ContentBlock) -> types.CallToolResult:
    return types.CallToolResult(content=[types.TextContent(type="text", text=words), *more], structured_content=content)


def _failed(line: str, content: dict[str, Any] | None = None) -> types.CallToolResult:
    text = types.TextContent(type="text", text=line)
    return types.CallToolResult(content=[text], structured_content=content, is_error=True)


def _link(path: Path) -> dict[str, Any]:
    return {"uri": path.as_uri(), "name": path.name, "mime_type": _type_of(path), "size": path.stat().st_size}


def _type_of(path: Path) -> str:
    suffix = path.suffix.lower()
    return _TYPES.get(suffix) or mimetypes.types_map.get(suffix, "application/octet-stream")


def _frames_of(path: Path) -> str:
    """Some frames of a clip, side by side, as PNG in base64."""
    from openlumiere.video import contact_sheet, read_clip

    clip, buffer = read_clip(path), io.BytesIO()
    contact_sheet(clip.frames, _SHOWN_FRAMES, rows=1, fps=clip.fps).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()
