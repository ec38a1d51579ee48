"""`lumiere mcp` as an assistant's program meets it: the real client, a real process, small clips."""

from __future__ import annotations

import base64
import io
import json
import shlex
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import numpy as np
import pytest
from mcp import Client, MCPError, StdioServerParameters
from mcp.types import CallToolResult, ImageContent, ResourceLink
from PIL import Image
from serving import COMMAND, ENVIRONMENT, PATIENCE, Serving, lumiere

import tiny
from clips import moving, sticker
from openlumiere.app.mcp.local_maker import LocalMaker
from openlumiere.app.mcp.server import create_server
from openlumiere.app.mcp.tools import TOOLS, MakeClip, Target
from openlumiere.bundled import bundled_models
from openlumiere.generation.backends.find import read_abilities
from openlumiere.generation.recipe import Recipe
from openlumiere.video import read_clip, read_metadata, write_clip
from openlumiere.video.stickers import TARGETS, check_sticker
from tiny_transformers import save_wan

pytestmark = pytest.mark.slow  # models are loaded, clips are made

PATIENT = {"wait_seconds": PATIENCE}
SHORT = {"seconds": 1, "steps": 3, "seed": 5, **PATIENT}  # two of the steps follow a picture
PROMPT = "a tiger walking to the left on a green background"
MCP = [*COMMAND, "mcp"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny, untrained one with alpha."""
    return str(tiny.saved(tiny.transparent(), tmp_path_factory.mktemp("model")))


def session(folder: Path, talk: Callable[[Client], Awaitable[None]], *words: str, **environment: str) -> None:
    """Start the command and talk to it."""
    command, *arguments = [*MCP, "-o", str(folder), *words]
    told = {**ENVIRONMENT, **environment}

    async def run() -> None:
        async with Client(StdioServerParameters(command=command, args=arguments, env=told)) as client:
            await talk(client)

    anyio.run(run)


@asynccontextmanager
async def in_process(folder: Path, **options: str) -> AsyncIterator[Client]:
    """The same server without a process of its own, for what needs none."""
    async with Client(create_server(LocalMaker(folder, **options))) as client:
        yield client


def text(result: CallToolResult) -> str:
    return "".join(part.text for part in result.content if part.type == "text")


def file_of(result: CallToolResult) -> Path:
    assert not result.is_error, text(result)
    return Path(result.structured_content["path"])


def test_an_assistant_makes_a_clip_and_goes_on_with_it(tmp_path: Path) -> None:
    async def talk(client: Client) -> None:
        assert client.server_capabilities.tools is not None
        assert {tool.name for tool in (await client.list_tools()).tools} == set(TOOLS)
        told: list[tuple[float, float | None, str | None]] = []

        async def progress(now: float, total: float | None, words: str | None) -> None:
            told.append((now, total, words))

        made = await client.call_tool("make_clip", {"prompt": PROMPT, **SHORT}, progress_callback=progress)
        path = file_of(made)
        assert path == tmp_path / "a-tiger-walking-to-the-left-on-a-green-background.mp4"
        clip = read_clip(path)
        assert clip.frames.shape == (16, 512, 512, 3)
        numbers = [now for now, _, _ in told]
        assert numbers == sorted(set(numbers))
        assert told[-1] == (100, 100, "completed")
        assert "in progress, denoise, step 1 of 2" in [words for _, _, words in told]
        assert shlex.split(made.structured_content["command"])[:3] == ["lumiere", "generate", PROMPT]
        recipe = Recipe.from_metadata(read_metadata(path), output=str(path))
        assert recipe is not None
        assert recipe.command() == made.structured_content["command"]
        (picture,) = (part for part in made.content if isinstance(part, ImageContent))
        assert Image.open(io.BytesIO(base64.b64decode(picture.data))).width > 4 * 128
        (link,) = (part for part in made.content if isinstance(part, ResourceLink))
        (content,) = (await client.read_resource(link.uri)).contents
        assert base64.b64decode(content.blob) == path.read_bytes()
        assert [resource.uri for resource in (await client.list_resources()).resources] == [link.uri]
        with pytest.raises(MCPError, match="no resource"):
            await client.read_resource(Path(__file__).as_uri())

        asked = {"clip": made.structured_content["id"], "prompt": "a red hat", "box": "0,0,64,64", "format": "webp"}
        changed = read_clip(file_of(await client.call_tool("change_region", {**asked, "steps": 1, **PATIENT}))).frames
        assert changed.shape == clip.frames.shape
        kept = np.abs(changed[:, 64:].astype(int) - clip.frames[:, 64:])
        assert kept.mean() < 2  # H.264 and a lossy WebP lie between
        assert np.percentile(kept, 99) < 12

    session(tmp_path, talk)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".mp4", ".webp"]


def test_each_tool_makes_what_it_says(tmp_path: Path, model: str) -> None:
    picture, few = sticker(1, 48)[0], {"steps": 1, "seed": 1, **PATIENT}
    Image.fromarray(picture).save(tmp_path / "ball.png")

    async def talk() -> None:
        async with in_process(tmp_path / "out", model=model) as client:
            models = (await client.call_tool("list_models")).structured_content["models"]
            assert [each["id"] for each in models] == [model, *bundled_models()]
            made = await client.call_tool("make_clip", {"prompt": "a ball", "transparent": True, "seconds": 1, **few})
            path = file_of(made)
            clip = read_clip(path).frames
            assert (path.suffix, clip.shape[0], clip.shape[-1]) == (".webp", 16, 4)
            longer = await client.call_tool("extend", {"clip": str(path), "seconds": 1, **few})
            assert len(read_clip(file_of(longer)).frames) == 32
            anew = await client.call_tool("restyle", {"clip": path.name, "prompt": "a cube", "format": "gif", **few})
            assert file_of(anew).suffix == ".gif"
            still = {"picture": str(tmp_path / "ball.png"), "box": "0.25,0.25,0.5,0.5", "seconds": 1, **few}
            moved = read_clip(file_of(await client.call_tool("animate_picture", still))).frames
            assert (moved[:, :16] == moved[0, :16]).all()
            assert (moved[0] != moved[8]).any()
            whole = await client.call_tool("animate_picture", {**still, "box": None, "last_picture": still["picture"]})
            assert read_metadata(file_of(whole))["task"] == "animate"
            assert "512x512" in text(await client.call_tool("make_sticker", {"clip": path.name, "target": "whatsapp"}))
            asked = {"prompt": "a ball", "target": "slack", "outline": 4, **few}
            path = file_of(await client.call_tool("make_sticker", asked))
            assert check_sticker(path, target=TARGETS["slack"], suffix=".gif", transparent=True).size <= 128_000
            assert read_metadata(path)["loop"]
            assert read_metadata(path)["sticker"] == "--for slack --outline 4"

    anyio.run(talk)
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]


def test_what_is_to_be_in_a_clip_is_shown_by_pictures(tmp_path: Path) -> None:
    vace, clips = str(save_wan(tmp_path / "vace", "vace")), []
    for name, colour in (("face", "red"), ("hat", "blue")):
        Image.new("RGB", (16, 16), colour).save(tmp_path / f"{name}.png")
    maker = LocalMaker(tmp_path, model=vace, device="cpu")
    try:
        for names in (["face.png"], ["face.png", "hat.png"]):
            tool = MakeClip(prompt="a ball", steps=1, seed=1, seconds=0.3, reference_pictures=names)
            request = replace(tool.request(read_abilities(vace)), size=(16, 16))  # it makes no larger ones
            id = maker.submit(request, suffix=".webp")
            deadline = time.monotonic() + PATIENCE
            while (state := maker.state(id)).status in ("queued", "in_progress") and time.monotonic() < deadline:
                time.sleep(0.05)
            assert state.path is not None, state
            assert all(f"--reference {tmp_path / name}" in state.command for name in names)
            clips.append(read_clip(state.path).frames)
    finally:
        maker.close()
    assert not np.array_equal(*clips)


@pytest.mark.parametrize(
    ("tool", "arguments", "words"),
    [
        ("make_clip", {"prompt": " "}, "the prompt is empty"),
        ("make_clip", {"prompt": PROMPT, "seconds": -1}, "seconds: Input should be greater than 0"),
        ("make_clip", {"prompt": PROMPT, "speed": 2}, "speed: Extra inputs"),
        ("make_clip", {}, "prompt: Field required"),
        ("make_clip", {"prompt": PROMPT, "model": "nothing"}, "unknown model 'nothing': give a bundled one"),
        ("make_clip", {"prompt": PROMPT, "style": "baroque", "steps": 1, "seconds": 1}, "baroque"),
        ("make_clip", {"prompt": PROMPT, "path": "left"}, "'left' is not a path such as"),
        ("make_clip", {"prompt": PROMPT, "reference_pictures": ["/nowhere.png"]}, "there is no file /nowhere.png"),
        ("make_clip", {"prompt": PROMPT, "reference_pictures": ["photo.png"]}, "takes no reference pictures"),
        ("animate_picture", {"picture": "/nowhere.png"}, "there is no file /nowhere.png"),
        ("animate_picture", {"picture": "photo.png", "box": "1,2"}, "'1,2' is not four numbers"),
        ("animate_picture", {"picture": "photo.png", "box": "0,0,9,9", "mask": "photo.png"}, "either a mask or a box"),
        ("animate_picture", {"picture": "photo.png", "box": "0,0,9,9", "last_picture": "photo.png"}, "last_picture"),
        ("change_region", {"clip": "photo.png", "prompt": "a hat"}, "either a mask or a box"),
        ("restyle", {"clip": "text.mp4", "prompt": "a lion"}, "text.mp4"),
        ("make_sticker", {"target": "slack"}, "either a prompt or a clip"),
        ("make_sticker", {"target": "slack", "clip": "photo.png"}, "still picture"),
        ("make_sticker", {"target": "icq", "prompt": PROMPT}, "target: Input should be 'telegram'"),
        ("get_clip", {"id": "clip-9"}, "there is no clip 'clip-9'"),
        ("stop_clip", {"id": "clip-9"}, "there is no clip 'clip-9'"),
    ],
)
def test_what_goes_wrong_is_told_in_one_line(tmp_path: Path, tool: str, arguments: dict[str, Any], words: str) -> None:
    Image.fromarray(moving(1, 32, 32)[0]).save(tmp_path / "photo.png")
    (tmp_path / "text.mp4").write_text("no clip", encoding="utf-8")

    async def talk() -> None:
        async with in_process(tmp_path) as client:
            result = await client.call_tool(tool, arguments)
            assert result.is_error
            assert words in text(result)
            assert "\n" not in text(result)
            with pytest.raises(MCPError, match="unknown tool 'draw'"):
                await client.call_tool("draw", {})

    anyio.run(talk)
    assert {path.name for path in tmp_path.iterdir()} == {"photo.png", "text.mp4"}


def test_a_clip_that_is_not_waited_for_goes_on_and_one_that_is_stopped_does_not(tmp_path: Path, model: str) -> None:
    async def talk(client: Client) -> None:
        begun = await client.call_tool("make_clip", {"prompt": PROMPT, **SHORT, "wait_seconds": 0})
        assert begun.structured_content["status"] in ("queued", "in_progress")
        assert begun.structured_content["path"] is None
        long = {"prompt": PROMPT, "steps": 500, "seed": 1}
        behind = await client.call_tool("make_clip", {**long, "wait_seconds": 0})
        assert behind.structured_content["status"] == "queued"
        early = await client.call_tool("restyle", {"clip": "clip-2", "prompt": "a lion"})
        assert text(early) == "clip-2 is queued; wait for it with get_clip"
        assert file_of(await client.call_tool("get_clip", {"id": "clip-1", **PATIENT})).exists()

        stopped = await client.call_tool("stop_clip", {"id": "clip-2"})
        assert stopped.structured_content["status"] == "cancelled"
        assert (await client.call_tool("stop_clip", {"id": "clip-1"})).structured_content["status"] == "completed"

        # A call that the client gives up takes its clip with it.
        async with anyio.create_task_group() as group:

            async def cancel(_now: float, _total: float | None, words: str | None) -> None:
                if words and "denoise" in words:
                    group.cancel_scope.cancel()

            await client.call_tool("make_clip", {**long, "wait_seconds": 3600}, progress_callback=cancel)
        with anyio.fail_after(60):
            given_up = await client.call_tool("get_clip", {"id": "clip-3", "wait_seconds": 60})
        assert given_up.structured_content["status"] == "cancelled"

    session(tmp_path, talk, "--model", model)
    assert [path.suffix for path in tmp_path.iterdir()] == [".mp4"]


def test_a_running_server_does_the_work(tmp_path: Path, tiny_model: Path) -> None:
    key = lumiere("keys", "add", "assistant", "--data", tmp_path / "data").stdout.strip()
    Image.fromarray(moving(1, 90, 120)[0]).save(tmp_path / "photo.png")
    with Serving(tmp_path / "data", "--keys", "--model", str(tiny_model), key=key) as server:
        refused = lumiere("mcp", "--url", server.url, "-o", tmp_path / "out", LUMIERE_API_KEY="wrong")
        assert (refused.returncode, refused.stdout, refused.stderr.count("\n")) == (2, "", 1)
        assert "LUMIERE_API_KEY" in refused.stderr

        async def talk(client: Client) -> None:
            models = (await client.call_tool("list_models")).structured_content["models"]
            assert models == server.http.get("/v1/videos/models").json()["data"]
            made = await client.call_tool("make_clip", {"prompt": PROMPT, **SHORT})
            path, id = file_of(made), made.structured_content["id"]
            assert path.read_bytes() == server.content(id)
            assert server.video(id)["command"] == made.structured_content["command"]
            few = {"steps": 1, "seed": 1, **PATIENT}
            still = {"picture": str(tmp_path / "photo.png"), "box": "0.3,0.3,0.4,0.4", "seconds": 1, "format": "webp"}
            moved = await client.call_tool("animate_picture", {**still, **few})
            assert server.video(moved.structured_content["id"])["task"] == "cinemagraph"
            assert file_of(moved).suffix == ".webp"
            anew = await client.call_tool("restyle", {"clip": id, "prompt": "a lion", "strength": 0.5, **few})
            assert server.video(anew.structured_content["id"])["request"]["strength"] == 0.5
            slack = {"prompt": PROMPT, "target": "slack", "steps": 1, "outline": 0, **PATIENT}
            sticker = await client.call_tool("make_sticker", slack)
            check_sticker(file_of(sticker), target=TARGETS["slack"], suffix=".gif", transparent=False)
            told = server.video(sticker.structured_content["id"])
            assert told["request"]["sticker"]["target"] == "slack"
            assert "--for slack" in told["command"]
            assert "Sticker(" in told["python"]
            assert file_of(await client.call_tool("make_sticker", {"clip": id, "target": "discord"})).exists()
            wrong = await client.call_tool("make_clip", {"prompt": PROMPT, "style": "baroque"})
            assert wrong.is_error
            assert "baroque" in text(wrong)
            begun = await client.call_tool("make_clip", {"prompt": PROMPT, "steps": 200, "wait_seconds": 0})
            stopped = await client.call_tool("stop_clip", {"id": begun.structured_content["id"]})
            assert stopped.structured_content["status"] == "cancelled"
            unknown = await client.call_tool("get_clip", {"id": "video_nothing"})
            assert unknown.is_error

        session(tmp_path / "out", talk, "--url", server.url, LUMIERE_API_KEY=key)
    gone = lumiere("mcp", "--url", server.url, "-o", tmp_path / "out")
    assert (gone.returncode, gone.stderr.count("\n")) == (2, 1)
    assert "is lumiere serve running there?" in gone.stderr


def test_stdout_is_the_protocol_alone_and_its_end_ends_the_server(tmp_path: Path, model: str) -> None:
    """As a client of 2025 speaks, whose handshake is another one."""
    command = [*MCP, "-o", str(tmp_path), "--model", model]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin
    assert process.stdout

    def send(method: str, params: dict[str, Any], **more: int) -> None:
        assert process.stdin
        process.stdin.write(json.dumps({"jsonrpc": "2.0", "method": method, "params": params, **more}) + "\n")
        process.stdin.flush()

    who = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
    send("initialize", who, id=1)
    first = json.loads(process.stdout.readline())
    assert first["result"]["serverInfo"]["name"] == "openlumiere"
    assert str(tmp_path) in first["result"]["instructions"]
    send("notifications/initialized", {})
    send("tools/call", {"name": "make_clip", "arguments": {"prompt": PROMPT, **SHORT}}, id=2)
    answer = json.loads(process.stdout.readline())
    assert (answer["id"], answer["result"]["isError"]) == (2, False)
    send("tools/call", {"name": "make_clip", "arguments": {"prompt": PROMPT, "steps": 500, "wait_seconds": 0}}, id=3)
    assert json.loads(process.stdout.readline())["id"] == 3
    process.stdin.close()
    assert process.stdout.read() == ""
    assert process.wait(30) == 0
    assert [path.suffix for path in tmp_path.iterdir()] == [".mp4"]


def test_an_interrupt_ends_it_with_one_line(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*MCP, "-o", str(tmp_path)], env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdin
    assert process.stdout
    process.stdin.write('{"jsonrpc": "2.0", "id": 1, "method": "ping"}\n')
    process.stdin.flush()
    process.stdout.readline()  # by now it serves
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=30)
    assert (process.returncode, stdout, stderr) == (130, "", "lumiere: interrupted\n")


def test_a_clip_never_replaces_a_file(tmp_path: Path, model: str) -> None:
    write_clip(moving(4, 32, 32), tmp_path / "a-heart.mp4", fps=16)
    before = (tmp_path / "a-heart.mp4").read_bytes()

    async def talk() -> None:
        async with in_process(tmp_path, model=model) as client:
            asked = {"prompt": "a heart", **SHORT, "wait_seconds": 0}
            for _ in range(2):
                await client.call_tool("make_clip", asked)
            paths = [file_of(await client.call_tool("get_clip", {"id": f"clip-{n}", **PATIENT})) for n in (1, 2)]
            assert [path.name for path in paths] == ["a-heart-v2.mp4", "a-heart-v3.mp4"]
            first, second = (read_clip(path).frames for path in paths)
            np.testing.assert_array_equal(first, second)

    anyio.run(talk)
    assert (tmp_path / "a-heart.mp4").read_bytes() == before


def test_the_targets_are_those_of_the_stickers() -> None:
    assert set(Target.__args__) == set(TARGETS)  # type: ignore[attr-defined]


def test_it_begins_without_torch() -> None:
    modules = ", ".join(f"openlumiere.app.mcp.{name}" for name in ("makers", "server", "server_maker", "tools"))
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([*COMMAND[:1], "-c", code], env=ENVIRONMENT, check=False).returncode == 0
