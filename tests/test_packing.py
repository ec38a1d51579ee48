"""What is carried to a machine without a network: tensors in few bits, loops, pictures, the text encoder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from openlumiere.cli import main
from openlumiere.data.artwork import Artwork
from openlumiere.data.emoji.captions import every_phrase
from openlumiere.data.emoji.scenes import SceneSampler, vocabulary
from openlumiere.data.emoji.shards import iterate, load_atlases
from openlumiere.data.packed import pack_artwork, pack_loops, read_packed
from openlumiere.errors import LumiereError
from openlumiere.packing import compress, expand, packed_bytes, read_parts, write_parts
from openlumiere.pipelines import text
from openlumiere.pipelines.text import PACKED_ENCODER, embed, load_text_encoder

SOME = settings(max_examples=20, deadline=None)


# --- Tensors ----------------------------------------------------------------------------------------------------------


@SOME
@given(bits=st.sampled_from([32, 16, 8]), rows=st.integers(1, 90), columns=st.integers(1, 90), seed=st.integers(0, 99))
def test_tensors_come_back_within_their_bits(bits: int, rows: int, columns: int, seed: int) -> None:
    weights = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    parts = compress(weights, bits)
    again = expand(parts)
    assert again.shape == weights.shape
    assert again.dtype == torch.float32
    error = float((again - weights).norm() / weights.norm())
    assert error <= {32: 0.0, 16: 3e-4, 8: 8e-3}[bits if weights.numel() >= 4096 else 32]
    told = sum(part.numel() * part.element_size() for kind, part in parts.items() if kind != "shape")
    assert told == packed_bytes(weights, bits)
    assert torch.allclose(expand(compress(again, bits)), again, rtol=1e-5)  # packing again loses nothing more


def test_roots_of_squares_are_rounded_up() -> None:
    squares = torch.randn(64, 128).square() * torch.logspace(-12, -2, 64)[:, None]
    again = expand(compress(squares, 8, squares=True))
    assert (again >= squares * 0.97).all()  # or steps would explode
    assert torch.allclose(again.sqrt(), squares.sqrt(), atol=float(squares.sqrt().max()) / 250)
    assert (expand(compress(squares, 16, squares=True)) > 0).all()  # half precision has no numbers so small


def test_numbers_beyond_half_precision_and_whole_numbers_survive() -> None:
    large = torch.full((64, 64), 1e6)
    assert torch.allclose(expand(compress(large, 16)), large, rtol=1e-2)
    whole = torch.arange(5000)
    assert torch.equal(expand(compress(whole, 8)), whole)
    with pytest.raises(LumiereError, match="32, 16 or 8 bits"):
        compress(large, 4)


def test_parts_stay_below_their_limit_and_older_ones_go(tmp_path: Path) -> None:
    tensors = {f"layer.{n}": torch.randn(80, 80) for n in range(4)}
    for _ in range(2):
        tensors = {name: value + 1 for name, value in tensors.items()}
        packed = {name: compress(value, 32) for name, value in tensors.items()}
        written = write_parts(tmp_path, "state", packed, {"step": 3}, part_bytes=20_000)
        assert set(tmp_path.iterdir()) == set(written)
        assert len(written) > 4
        assert all(path.stat().st_size <= 20_000 for path in written)
    again, told = read_parts(tmp_path, "state")
    assert told == {"step": 3}
    assert all(torch.equal(again[name], value) for name, value in tensors.items())
    damaged = written[1].read_bytes()
    written[1].write_bytes(damaged[:-1] + bytes([damaged[-1] ^ 1]))
    with pytest.raises(LumiereError, match="copy all of them anew"):
        read_parts(tmp_path, "state")
    written[0].unlink()
    with pytest.raises(LumiereError, match="cannot be read"):
        read_parts(tmp_path, "state")


# --- Loops and pictures -----------------------------------------------------------------------------------------------


def test_packed_loops_are_read_as_the_shards_are(loops: Path, tmp_path: Path) -> None:
    most = 15 * 1024  # one loop, and the end of a tar file
    done = pack_loops(loops, tmp_path, subjects=["tiger", "heart"], part_bytes=most)
    assert len(done.files) == 2
    assert all(path.stat().st_size <= most for path in done.files)
    assert done.psnr > 30
    before, after = (load_atlases(folder, ["tiger", "heart"], side=32) for folder in (loops, tmp_path))
    for key, atlas in before.items():
        assert after[key].frames.shape == atlas.frames.shape
        assert torch.equal(after[key].frames[:, 3], atlas.frames[:, 3])  # alpha is exact
        assert (after[key].frames.float() - atlas.frames.float()).abs().mean() < 8
    assert [meta for meta, _ in iterate(tmp_path)] == [meta for meta, _ in iterate(loops)]
    packed = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(LumiereError, match=r"lacks the subjects \['fire'\]"):
        pack_loops(loops, tmp_path, subjects=["tiger", "fire"])
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == packed  # older files survive a failure
    with pytest.raises(LumiereError, match="lower the quality"):
        pack_loops(loops, tmp_path / "less", subjects=["tiger"], part_bytes=11_000)


def test_packed_artwork_is_drawn_of_as_the_arrays_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    smooth = torch.from_numpy(rng.random((40, 4, 4, 4), dtype=np.float32))
    pictures = torch.nn.functional.interpolate(smooth, size=(64, 64), mode="bicubic").clamp(0, 1)
    pictures[:, :3] *= pictures[:, 3:]
    arrays = (pictures * 255).byte().numpy()
    folder, out = tmp_path / "artwork", tmp_path / "packed"
    folder.mkdir()
    for name, part in {"animated": arrays[:24], "flat": arrays[24:], "fxemoji": arrays[:0]}.items():
        np.save(folder / f"{name}.train.npy", part)
        np.save(folder / f"{name}.test.npy", part[:3])
    done = pack_artwork(folder, out, count=20, size=32)
    assert done.psnr > 25
    packed = read_packed(out, "train")
    assert {name: len(part) for name, part in packed.items()} == {"animated": 12, "flat": 8}  # shares stay
    shrunk = arrays.reshape(40, 4, 32, 2, 32, 2).mean((3, 5))
    assert np.abs(packed["animated"][0] - shrunk[0]).mean() < 8
    items = torch.stack([item["pixels"] for item in Artwork(out, size=32).__getitems__(list(range(8)))])
    assert items.shape == (8, 4, 32, 32)
    assert (items[:, :3] <= items[:, 3:] + 1e-4).all()  # premultiplied
    assert len(Artwork(out, size=32, split="test").arrays) == 2


# --- Text -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_packed_encoder_says_what_the_whole_one_says(
    loops: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    names = {key: atlas.names for key, atlas in load_atlases(loops, ["tiger", "heart"]).items()}
    samplers = [SceneSampler(names, split=split, transparent=0.3) for split in ("train", "paraphrases")]
    captions = [*(sampler(n).caption for sampler in samplers for n in range(30)), ""]
    tokenizer, whole = load_text_encoder()
    before = embed(captions, tokenizer, whole)
    assert torch.allclose(embed(captions, tokenizer, whole, together=True), before, atol=1e-5)

    assert main(["data", "pack", "-o", str(tmp_path), "--emoji", str(loops), "--subjects", "tiger,heart"]) == 0
    assert "text encoder: 1" in capsys.readouterr().out  # 11 MiB
    assert all(path.stat().st_size < 2**24 for path in tmp_path.rglob("*") if path.is_file())
    monkeypatch.setenv(PACKED_ENCODER, str(tmp_path / "text"))
    monkeypatch.setattr(text, "offline_minilm", lambda: None)  # as on a machine without the package
    tokenizer, packed = load_text_encoder()
    after = embed(captions, tokenizer, packed)
    given = before.norm(dim=-1) > 0
    similarity = torch.nn.functional.cosine_similarity(after[given], before[given], dim=-1)
    assert float(similarity.mean()) > 0.999
    assert float(similarity.min()) > 0.99
    unknown = embed(["a quixotic zeppelin"], tokenizer, packed)
    assert torch.equal(unknown.isfinite(), torch.ones_like(unknown, dtype=torch.bool))


@pytest.mark.slow
def test_the_packed_encoder_knows_every_word_of_every_caption() -> None:
    tokenizer, _ = load_text_encoder()
    known = {token for phrase in every_phrase() for token in tokenizer(phrase).input_ids}
    words = vocabulary()["subjects"]
    for split in ("train", "combinations", "paraphrases"):
        sampler = SceneSampler({key: entry["names"] for key, entry in words.items()}, split=split, transparent=0.3)
        for n in range(400):
            caption = sampler(n).caption
            assert set(tokenizer(caption).input_ids) <= known, caption
