"""Tiny data that several files share. Imports are late: tests of the study need no torch."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from openlumiere.study.pairs import Study, create_study
from study_tools import PROMPTS, folder_of

if TYPE_CHECKING:
    from runs import Runs

SLOW_TO_MAKE = {"judges", "wheel"}  # fixtures
LONGEST = (
    "test_on_ray.py", "test_page.py", "test_editors.py", "test_making.py", "test_worker.py", "test_postgres.py",
    "test_training.py",
    "test_evaluation.py", "test_baselines.py", "test_player.py", "test_benchmarks.py", "test_plan.py",
    "test_openapi.py", "test_many_processes.py", "test_resuming.py", "test_distributed.py",
    "test_transparent_commands.py",
    "test_edit_commands.py", "test_train_families.py", "test_cli.py", "test_fuzz_uploads.py", "test_supervisor.py",
    "test_serving_process.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what uses something that takes long to make; run the longest files first.

    Processes take files one after the other: a long one that starts last would leave the others idle.
    """
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    for item in items:
        if SLOW_TO_MAKE.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)


def pytest_collection_finish() -> None:
    """Spare the garbage collector the million objects that imports leave, which it would look at again and again."""
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with the keys of tests' commands and servers, so that nobody's own are touched.

    The watermark's is the same each time: a mark that a codec leaves barely readable is lost under one key in fifty.
    """
    from openlumiere.provenance.identity import Identity

    folder = tmp_path_factory.mktemp("home")
    Identity.load(folder / "identity")
    (folder / "identity" / "watermark.key").write_text("5eed" * 16)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUMIERE_HOME", str(folder))
        for name in ("LUMIERE_CERTIFICATE", "LUMIERE_PRIVATE_KEY"):
            patch.delenv(name, raising=False)
        yield folder


@pytest.fixture(scope="session")
def loops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiger and a heart, 32 pixels wide, in shards as `lumiere data emoji` writes them: to read only."""
    from tiny_data import make_data

    folder = tmp_path_factory.mktemp("loops")
    make_data(folder)
    return folder


@pytest.fixture(scope="session")
def drawings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty drawings in arrays as `lumiere data artwork` writes them: to read only."""
    from openlumiere.data.artwork import _store
    from tiny_data import SIDE, drawing

    folder = tmp_path_factory.mktemp("artwork")
    _store(folder, "drawn", lambda: ((str(n), drawing(n)) for n in range(60)), SIDE)
    return folder


@pytest.fixture(scope="session")
def vae(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny, untrained RGBAAutoencoder in its folder: to read only."""
    import torch

    from openlumiere.autoencoder import RGBAAutoencoder

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("vae")
    net = RGBAAutoencoder(latent_channels=4, block_out_channels=(8, 8, 8), layers_per_block=(1, 1), sample_size=32)
    net.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def runs(loops: Path, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """What starts `lumiere train`, on these loops."""
    from runs import Runs

    return Runs(tmp_path_factory.mktemp("training"), loops)


@pytest.fixture(scope="session")
def t2i(runs: Runs) -> Path:
    """The folder of a whole, undisturbed t2i run: to read only."""
    return runs.whole("t2i")


@pytest.fixture(scope="session")
def t2v_overrides(t2i: Path) -> list[str]:
    return [
        f"model.t2i={t2i / 'export'}", "model.unet={}", "model.temporal={temporal_conditioning: true}",
        "optim.max_steps=12", "checkpoint_every=3", "sample_every=12", "optim.batch_size=2",
        "optim.timestep_shift_start=40", "optim.timestep_shift_steps=10", "optim.uniform_timesteps=0.3",
    ]  # fmt: skip


@pytest.fixture(scope="session")
def t2v(runs: Runs, t2v_overrides: list[str]) -> Path:
    """The folder of a whole, undisturbed t2v run on top of it: to read only."""
    return runs.whole("t2v", *t2v_overrides)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """A study of two baselines, one without the question of the text."""
    root = tmp_path_factory.mktemp("made")
    ours = folder_of(root / "ours")
    others = {"Pika": folder_of(root / "pika"), "SVD": folder_of(root / "svd", PROMPTS[:2])}
    return create_study(
        ours, others, root / "study", no_text_question=["SVD"], pairs_per_rater=3, checks=2, progress=False
    )


@pytest.fixture
def study(made: Study) -> Iterator[Study]:
    """The same, without answers."""
    yield made
    for path in made.folder.glob("answers*"):
        path.unlink()
