"""The command line as its users meet it: real files, the bundled model, and processes where these matter."""

from __future__ import annotations

import errno
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import openlumiere
import processes
from openlumiere.bundled import bundled_folder, damaged_files, fingerprint, weight_files
from openlumiere.cli import main
from openlumiere.cli.failures import explain
from openlumiere.errors import LumiereError
from openlumiere.video import read_clip, read_metadata

MODEL = "emoji"
QUICK = ("--frames", "8", "--steps", "2")
COMMANDS = (
    ["generate"], ["upscale"], ["info"], ["detect"], ["models"], ["inflate"], ["doctor"], ["plan"], ["data"],
    ["data", "emoji"], ["data", "folder"], ["data", "designs"], ["train"], ["export"], ["evaluate"], ["study"],
    ["serve"], ["worker"], ["mcp"], ["keys"], *(["keys", step] for step in ("add", "list", "revoke")),
    *(["evaluate", protocol] for protocol in (
        "emoji", "seams", "loops", "editing", "styles", "all", "baselines", "xt", "upscale", "fvd", "is", "ucf101",
        "train-features", "autoencoder",
    )),
    *(["study", step] for step in ("create", "serve", "report", "mturk")),
)  # fmt: skip


Done = subprocess.CompletedProcess[str]


@pytest.fixture
def lumiere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """Run a command within this process, in an empty folder: what starts a process more costs seconds of imports."""
    monkeypatch.chdir(tmp_path)

    def run(*words: str | Path) -> Done:
        args = [str(word) for word in words]
        capsys.readouterr()
        try:
            code = main(args)
        except SystemExit as exit_:
            code = exit_.code
        return Done(args, code, *capsys.readouterr())

    return run


def process(*args: str | Path, cwd: Path | None = None) -> Done:
    """Run a command in a new interpreter."""
    command = [sys.executable, "-m", "openlumiere.cli", *map(str, args)]
    return subprocess.run(command, cwd=cwd, env=_environment(), capture_output=True, text=True, check=False)


def _environment() -> dict[str, str]:
    source = str(Path(openlumiere.__file__).parents[1])
    return {**os.environ, "PYTHONPATH": source, "HF_HUB_OFFLINE": "1"}


def refused(done: Done, *words: str) -> None:
    """Assert that a command ended with exit code 2 and one clear line after any progress bar."""
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("lumiere: error: ")
    for word in words:
        assert word in line


# ------------------------------------------------------------------------------------------------ quick answers


@pytest.mark.slow
def test_help_answers_within_a_second() -> None:
    # Processor time: what the clock would show where nothing else runs, which can't be said of a machine under test.
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert process("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 1.0


@pytest.mark.slow
def test_threads_that_wait_are_kept_from_spinning(monkeypatch: pytest.MonkeyPatch) -> None:
    """What libraries read when they load, unless the user has chosen."""
    for name in ("OMP_WAIT_POLICY", "OPENBLAS_NUM_THREADS"):
        monkeypatch.setenv(name, "")  # so that it is restored
        monkeypatch.delenv(name)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    assert main(["models"]) == 0
    assert (os.environ["OMP_WAIT_POLICY"], os.environ["OPENBLAS_NUM_THREADS"]) == ("PASSIVE", "1")
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    assert main(["models"]) == 0
    assert os.environ["OPENBLAS_NUM_THREADS"] == "4"


def test_parsing_imports_nothing_heavy() -> None:
    code = (
        "import sys, openlumiere.cli as cli; cli.build_parser(); "
        "sys.exit(', '.join({'torch', 'numpy', 'av', 'PIL', 'diffusers', 'transformers'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], env=_environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_help_of_each_command_ends_with_examples(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main([*command, "--help"])
    assert exit_.value.code == 0
    examples = capsys.readouterr().out.partition("\nexamples:\n")[2].splitlines()
    assert examples
    assert all(line.startswith(("  lumiere ", "  torchrun ")) for line in examples)


@pytest.mark.slow
def test_version() -> None:
    assert process("--version").stdout == f"lumiere {openlumiere.__version__}\n"


# ------------------------------------------------------------------------------------------------ bad input


@pytest.mark.slow
@pytest.mark.parametrize(
    ("args", "word"),
    [
        (["generate", ""], "empty"),
        (["generate", "  "], "empty"),
        (["generate"], "--prompts"),
        (["generate", "a cat", "--prompts", "file", "-o", "x"], "not both"),
        (["generate", "a cat", "--model", "no-such-model"], "no-such-model"),
        (["generate", "a cat", "--background", "blurple"], "no colour"),
        (["generate", "a cat", "-o", "missing/cat.mp4"], "missing"),
        (["generate", "a cat", "-o", "cat.xyz"], ".xyz"),
        (["generate", "a cat", "--frames", "0"], "--frames"),
        (["generate", "a cat", "--fps", "nan"], "--fps"),
        (["generate", "a cat", "--seed", "-1"], "--seed"),
        (["generate", "--prompts", "none.txt", "-o", "clips"], "none.txt"),
        (["info", "none.mp4"], "none.mp4"),
        (["train", "t2i", "--config", "none.yaml", "seed=1"], "none.yaml"),
        (["train", "t2i", "--config", "none.yaml", "seed"], "seed"),
        (["data", "folder", "none"], "none"),
        (["no-such-command"], "no-such-command"),
        ([], "COMMAND"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_bad_input_gets_one_line(args: list[str], word: str, lumiere: Callable[..., Done], tmp_path: Path) -> None:
    done = lumiere(*args)
    refused(done, word)
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_process_adds_nothing_to_that_line(tmp_path: Path) -> None:
    """Such as the warnings of what it imports."""
    done = process("generate", "a cat", "--model", "no-such-model", cwd=tmp_path)
    refused(done, "no-such-model")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.slow
def test_debug_shows_the_traceback(lumiere: Callable[..., Done]) -> None:
    assert "Traceback" in lumiere("generate", "", "--debug").stderr
    assert "Traceback" in lumiere("--debug", "generate", "").stderr


@pytest.mark.parametrize(
    ("error", "word", "code"),
    [
        (LumiereError("two\nlines"), "two lines", 2),
        (OSError(errno.ENOSPC, "No space left on device", "clip.mp4"), "disk is full while writing clip.mp4", 2),
        (PermissionError(errno.EACCES, "Permission denied", "clip.mp4"), "no permission for clip.mp4", 2),
        (MemoryError(), "out of memory", 2),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried ..."), "out of memory", 2),
        (ModuleNotFoundError("No module named 'resvg_py'", name="resvg_py"), "openlumiere[train]", 2),
        (ZeroDivisionError("division by zero"), "--debug", 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_failures_are_explained_in_one_line(error: Exception, word: str, code: int) -> None:
    line, exit_code = explain(error)
    assert word in line
    assert "\n" not in line
    assert exit_code == code


# ------------------------------------------------------------------------------------------------ the bundled model


@pytest.mark.slow
def test_same_seed_same_bytes_and_info_round_trip(lumiere: Callable[..., Done], tmp_path: Path) -> None:
    def made(*words: str) -> str:
        code, log = processes.lumiere(*words, log=tmp_path / "log", folder=tmp_path)
        assert code == 0, log
        return log

    log = made("generate", "a red heart", *QUICK, "--seed", "7", "-o", "one.mp4")
    assert "wrote one.mp4" in log
    for stage in ("load", "text", "denoise", "sharpen", "write", "total"):
        assert f"{stage} " in log.splitlines()[-1]
    for stage in ("loading", "denoising", "sharpening", "writing"):
        assert stage in log

    told = lumiere("info", "one.mp4").stdout
    assert "8 frames" in told
    assert "a red heart" in told
    assert openlumiere.__version__ in told
    assert fingerprint(bundled_folder(MODEL)) in told
    command = shlex.split(told.strip().splitlines()[-1])
    assert command[:2] == ["lumiere", "generate"]

    (tmp_path / "one.mp4").rename(tmp_path / "first.mp4")
    made(*command[1:])
    np.testing.assert_array_equal(read_clip("one.mp4").frames, read_clip("first.mp4").frames)  # each has its signature
    assert read_metadata("one.mp4") == read_metadata("first.mp4")


@pytest.mark.slow
def test_batch_goes_on_where_it_was(lumiere: Callable[..., Done], tmp_path: Path) -> None:
    (tmp_path / "prompts.txt").write_text('a cat\n{"prompt": "a dog", "output": "dog.webp"}\n', encoding="utf-8")
    command = ("generate", "--prompts", "prompts.txt", "-o", "clips", *QUICK, "--seed", "1", "--num", "2")
    first = lumiere(*command)
    assert first.returncode == 0, first.stderr
    assert "4 clips to make, 0 already there" in first.stdout
    clips = sorted((tmp_path / "clips").iterdir())
    assert [clip.name for clip in clips] == ["00001-a-cat-0.mp4", "00001-a-cat-1.mp4", "dog-0.webp", "dog-1.webp"]

    lost = read_clip(clips[2]).frames
    clips[2].unlink()
    kept = {clip: clip.stat().st_mtime_ns for clip in clips if clip.exists()}
    again = lumiere(*command)
    assert "1 clips to make, 3 already there" in again.stdout
    np.testing.assert_array_equal(read_clip(clips[2]).frames, lost)
    assert {clip: clip.stat().st_mtime_ns for clip in kept} == kept
    assert "0 clips to make, 4 already there" in lumiere(*command).stdout


@pytest.mark.slow
def test_frames_that_the_levels_do_not_divide(lumiere: Callable[..., Done], tmp_path: Path) -> None:
    done = lumiere("generate", "a cat", "--frames", "7", "--steps", "1", "--no-upscale", "-o", "cat.webp")
    assert "--frames: 8 instead of 7, since emoji makes a multiple of 4" in done.stdout
    assert len(read_clip(tmp_path / "cat.webp").frames) == 8


@pytest.mark.slow
def test_damaged_weights(lumiere: Callable[..., Done], tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(bundled_folder(MODEL), model)
    assert damaged_files(model) == []
    weights = weight_files(model)[0]
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 0xFF
    weights.write_bytes(content)
    assert damaged_files(model) == [weights.relative_to(model).as_posix()]
    refused(lumiere("generate", "a cat", *QUICK, "--model", model, "-o", tmp_path / "cat.mp4"), weights.name)
    assert not (tmp_path / "cat.mp4").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's address space")
def test_out_of_memory(tmp_path: Path) -> None:
    log, place = tmp_path / "log", tmp_path / "place"
    place.mkdir()
    wish = ("--frames", "40000000", "--steps", "1", "-o", "cat.mp4")
    code, told = processes.lumiere("generate", "a cat", *wish, log=log, folder=place, memory=8 * 2**30)
    refused(Done(wish, code, "", told), "out of memory", "--frames")
    assert list(place.iterdir()) == []


@pytest.mark.slow
def test_interruption_leaves_nothing(tmp_path: Path) -> None:
    log, place = tmp_path / "log", tmp_path / "place"
    place.mkdir()
    command = ["generate", "a cat", "--frames", "8", "--steps", "900", "-o", "cat.mp4"]
    process = processes.start(main, command, log=log, folder=place)
    processes.wait_for(lambda: log.exists() and "denoising" in log.read_text(), process)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGINT)
    process.join(timeout=120)
    told = log.read_text()
    assert process.exitcode == 130
    assert told.strip().splitlines()[-1] == "lumiere: interrupted"
    assert "Traceback" not in told
    assert list(place.iterdir()) == []


@pytest.mark.slow
def test_info_of_someone_elses_clip(lumiere: Callable[..., Done], tmp_path: Path) -> None:
    from PIL import Image

    frames = [Image.new("RGB", (20, 10), color) for color in ("red", "green", "blue")]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:], duration=100)
    done = lumiere("info", tmp_path / "x.gif")
    assert done.returncode == 0
    assert "3 frames of 20x10 pixels, 10 frames per second" in done.stdout
    assert "no lumiere metadata" in done.stdout


@pytest.mark.slow
def test_doctor_and_models(lumiere: Callable[..., Done]) -> None:
    done = lumiere("doctor")
    assert done.returncode == 0, done.stdout
    assert "clips can be made here" in done.stdout
    for word in ("torch", "libx264", "text encoder", f"{MODEL}, ", "whole"):
        assert word in done.stdout
    assert MODEL in lumiere("models").stdout
