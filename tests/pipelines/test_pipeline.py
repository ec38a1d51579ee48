"""Text to clip through `LumierePipeline`, grown from tiny but real pipelines of diffusers, by way of the disk."""

from __future__ import annotations

import json
import shutil
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DDPMScheduler,
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    EulerDiscreteScheduler,
)
from PIL import Image

import tiny
from openlumiere import LumierePipeline, STUNet
from openlumiere.diffusion.windows import frame_positions
from openlumiere.errors import LumiereError
from openlumiere.evaluation.cache import weights_hash
from openlumiere.pipelines.inflate import inflate
from openlumiere.pipelines.load import load_pipeline

FAMILIES = list(tiny.PIPELINES)
SIDE = {"stable-diffusion": 16, "stable-diffusion-xl": 16, "deepfloyd-if": 8}
PROMPT = "a Tiger walking to the left"


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each family, the folder of its text-to-image pipeline."""
    root = tmp_path_factory.mktemp("t2i")
    for family in FAMILIES:
        tiny.t2i_pipeline(family, root / "files" / family).save_pretrained(root / family)
    return {family: root / family for family in FAMILIES}


@pytest.fixture(scope="module")
def clip_folders(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """For each family, the folder that `inflate` made of it."""
    root = tmp_path_factory.mktemp("clips")
    for family, source in folders.items():
        printed = inflate(str(source), root / family, num_frames=8)
        assert "all levels, with embeddings" in printed
    return {family: root / family for family in FAMILIES}


@pytest.fixture
def pipe(request: pytest.FixtureRequest, clip_folders: dict[str, Path]) -> LumierePipeline:
    """A fresh load of a family's clip pipeline, its temporal layers away from where they start."""
    return awake(clip_folders[getattr(request, "param", "stable-diffusion")])


def awake(folder: Path) -> LumierePipeline:
    pipe = load_pipeline(str(folder), device="cpu")
    pipe.set_progress_bar_config(disable=True)
    tiny.wake(pipe.unet)
    return pipe


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(pipe: LumierePipeline, prompt: str | list[str] = PROMPT, **given: Any) -> Any:
    options: dict[str, Any] = {"num_frames": 4, "num_inference_steps": 2, "guidance_scale": 3.0}
    options |= {"generator": seeded(0)} | given
    return pipe(prompt, **options).frames


every_family = pytest.mark.parametrize("pipe", FAMILIES, indirect=True)


# --- Each family ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("negative", [None, "a blurry Picture"], ids=["", "negative"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_still_clip_is_the_t2i_pipelines_picture(
    family: str, negative: str | None, folders: dict[str, Path], clip_folders: dict[str, Path]
) -> None:
    """Text encoders, guidance, size conditions, scheduler and decoder do as the family's own pipeline does."""
    t2i = DiffusionPipeline.from_pretrained(folders[family])
    pipe = load_pipeline(str(clip_folders[family]), device="cpu")
    for each in (t2i, pipe):
        each.set_progress_bar_config(disable=True)
        if family != "stable-diffusion-xl":  # whose own scheduler, Euler's, is deterministic and starts at sigma 14
            each.scheduler = DPMSolverMultistepScheduler()
    channels = pipe.unet.spatial.config["in_channels"]
    noise = torch.randn(1, channels, 8, 8, generator=seeded(5))
    options = {"negative_prompt": negative, "num_inference_steps": 3, "guidance_scale": 4.0}
    if family == "deepfloyd-if":
        expected = t2i(PROMPT, generator=seeded(5), clean_caption=False, output_type="np", **options).images
    else:
        expected = t2i(PROMPT, latents=noise, output_type="np", **options).images
    still = noise[:, :, None].expand(-1, -1, 4, -1, -1)
    frames = pipe(PROMPT, latents=still, num_frames=4, **options).frames
    np.testing.assert_allclose(frames[0], np.broadcast_to(expected, frames[0].shape), atol=1e-3)
    assert frames.std() > 0.01


@pytest.mark.slow
@every_family
def test_frames_are_pictures_of_the_right_shape(pipe: LumierePipeline, request: pytest.FixtureRequest) -> None:
    side = SIDE[request.node.callspec.params["pipe"]]
    frames = make(pipe, ["a tiger", "a red heart"], num_frames=8)
    assert frames.shape == (2, 8, side, side, 3)
    assert frames.dtype == np.float32
    assert frames.min() >= 0
    assert frames.max() <= 1
    assert np.abs(np.diff(frames, axis=1)).mean() > 1e-3  # it moves
    assert not np.allclose(frames[0], frames[1], atol=1e-2)


@pytest.mark.slow
@every_family
def test_a_clip_depends_on_its_seed_and_prompt_but_not_on_its_batch(pipe: LumierePipeline) -> None:
    prompts = ["a tiger", "a long red heart bouncing"]
    together = make(pipe, prompts, generator=[seeded(1), seeded(2)])
    for row, prompt in enumerate(prompts):
        alone = make(pipe, prompt, generator=[seeded(1 + row)])
        np.testing.assert_allclose(together[row], alone[0], atol=1e-4)
    again = make(pipe, prompts[0], generator=seeded(1))
    assert np.array_equal(again, make(pipe, prompts[0], generator=seeded(1)))
    assert not np.allclose(again, make(pipe, prompts[0], generator=seeded(3)), atol=1e-2)
    assert not np.allclose(again, make(pipe, prompts[1], generator=seeded(1)), atol=1e-5)


@pytest.mark.slow
@every_family
def test_negative_prompts_steer(pipe: LumierePipeline) -> None:
    plain = make(pipe)
    assert not np.allclose(plain, make(pipe, negative_prompt="still"), atol=1e-6)
    one, each = (
        make(pipe, [PROMPT] * 2, negative_prompt="still"),
        make(pipe, [PROMPT] * 2, negative_prompt=["still"] * 2),
    )
    assert np.array_equal(one, each)


@pytest.mark.slow
@every_family
def test_without_guidance_the_unconditional_half_is_not_run(pipe: LumierePipeline) -> None:
    batches: list[int] = []
    pipe.unet.register_forward_pre_hook(lambda _module, args: batches.append(len(args[0])))
    make(pipe, guidance_scale=1.0)
    assert batches == [1, 1]
    make(pipe, guidance_scale=2.0)
    assert batches == [1, 1, 2, 2]
    # Outside of an interval neither, such as one from between the two steps.
    between = float(pipe.scheduler.timesteps[[0, -1]].float().mean()) / pipe.scheduler.config.num_train_timesteps
    batches.clear()
    at_high_noise = make(pipe, guidance_scale=2.0, guidance_interval=(between, 1))
    assert batches == [2, 1]
    pipe.register_to_config(guidance_interval=[between, 1])
    assert np.array_equal(at_high_noise, make(pipe, guidance_scale=2.0))
    with pytest.raises(LumiereError, match=r"guidance_interval 0\.7, 0\.2: give two shares from 0 to 1"):
        make(pipe, guidance_interval=(0.7, 0.2))


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", [DPMSolverMultistepScheduler, EulerDiscreteScheduler, DDPMScheduler])
@every_family
def test_schedulers_can_be_swapped(pipe: LumierePipeline, scheduler: type) -> None:
    pipe.scheduler = scheduler.from_config(pipe.scheduler.config)
    frames = make(pipe)
    assert np.isfinite(frames).all()
    assert np.array_equal(frames, make(pipe))


@pytest.mark.slow
@pytest.mark.parametrize("pipe", ["deepfloyd-if"], indirect=True)
def test_a_learned_variance_reaches_the_scheduler(pipe: LumierePipeline) -> None:
    assert pipe.scheduler.config.variance_type == "learned_range"
    learned = make(pipe)
    channels: list[int] = []
    step = pipe.scheduler.step

    @wraps(step)  # the pipeline asks for its arguments
    def listen(prediction: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        channels.append(prediction.shape[1])
        return step(prediction, *args, **kwargs)

    pipe.scheduler.step = listen
    assert np.array_equal(make(pipe), learned)
    assert channels == [6, 6]
    pipe.scheduler = DDPMScheduler.from_config(pipe.scheduler.config, variance_type="fixed_small")
    assert not np.allclose(make(pipe), learned, atol=1e-4)


# --- What a call may ask for ------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_output_types(pipe: LumierePipeline) -> None:
    arrays = make(pipe)
    tensors = make(pipe, output_type="pt")
    assert tensors.shape == (1, 4, 3, 16, 16)
    np.testing.assert_array_equal(tensors.permute(0, 1, 3, 4, 2).numpy(), arrays)
    pictures = make(pipe, output_type="pil")
    assert [len(clip) for clip in pictures] == [4]
    assert isinstance(pictures[0][0], Image.Image)
    np.testing.assert_array_equal(np.asarray(pictures[0][1]), (arrays[0, 1] * 255).round().astype(np.uint8))
    (frames,) = pipe(
        PROMPT, num_frames=4, num_inference_steps=2, guidance_scale=3.0, generator=seeded(0), return_dict=False
    )
    assert np.array_equal(frames, arrays)


@pytest.mark.slow
def test_several_clips_of_a_prompt(pipe: LumierePipeline) -> None:
    frames = make(pipe, ["a tiger", "a heart"], num_videos_per_prompt=2, generator=[seeded(i) for i in range(4)])
    assert len(frames) == 4
    np.testing.assert_allclose(frames[1], make(pipe, "a tiger", generator=seeded(1))[0], atol=1e-4)
    np.testing.assert_allclose(frames[2], make(pipe, "a heart", generator=seeded(2))[0], atol=1e-4)


@pytest.mark.slow
@every_family
def test_other_sizes(pipe: LumierePipeline) -> None:
    unit = 1 if pipe.vae is None else 2
    frames = make(pipe, height=4 * unit, width=12 * unit)
    assert frames.shape == (1, 4, 4 * unit, 12 * unit, 3)


@pytest.mark.slow
def test_a_callback_sees_each_step_and_may_change_it(pipe: LumierePipeline) -> None:
    seen: list[tuple[int, int]] = []

    def listen(_pipe: LumierePipeline, step: int, timestep: torch.Tensor, given: dict[str, torch.Tensor]) -> dict:
        seen.append((step, int(timestep)))
        assert given["latents"].shape == (1, 4, 4, 8, 8)
        return given

    frames = make(pipe, callback_on_step_end=listen)
    assert seen == [(i, int(t)) for i, t in enumerate(pipe.scheduler.timesteps)]
    assert np.array_equal(frames, make(pipe))

    def erase(_pipe: LumierePipeline, _step: int, _t: torch.Tensor, given: dict[str, torch.Tensor]) -> dict:
        return {"latents": torch.zeros_like(given["latents"])}

    erased = make(pipe, callback_on_step_end=erase)
    assert np.abs(np.diff(erased, axis=1)).max() < 1e-5  # the same nothing, decoded for each frame


@pytest.mark.slow
def test_defaults_are_the_models_own(pipe: LumierePipeline) -> None:
    pipe.register_to_config(num_inference_steps=3, guidance_scale=2.0, guidance_rescale=0.5)
    frames = pipe(PROMPT, num_frames=4, generator=seeded(0)).frames
    assert len(pipe.scheduler.timesteps) == 3
    told = {"num_inference_steps": 3, "guidance_scale": 2.0}
    assert np.array_equal(frames, make(pipe, **told, guidance_rescale=0.5))
    assert not np.allclose(frames, make(pipe, **told, guidance_rescale=0.0), atol=1e-5)


@pytest.mark.slow
def test_given_latents_are_the_noise(pipe: LumierePipeline) -> None:
    noise = torch.randn(1, 4, 4, 8, 8, generator=seeded(0))
    assert np.array_equal(make(pipe, latents=noise), make(pipe))


@pytest.mark.slow
def test_frames_are_decoded_a_few_at_a_time(pipe: LumierePipeline) -> None:
    decoded: list[int] = []
    pipe.vae.decoder.register_forward_pre_hook(lambda _module, args: decoded.append(len(args[0])))
    make(pipe, num_frames=20, num_inference_steps=1)
    assert sum(decoded) == 20
    assert max(decoded) <= 8


@pytest.mark.slow
def test_a_decoder_that_overflows_in_half_precision_runs_in_single(pipe: LumierePipeline) -> None:
    latents = torch.randn(1, 4, 4, 8, 8, generator=seeded(0))
    expected = pipe.codec.decode(latents)
    pipe.vae.half()
    decoded = pipe.codec.decode(latents.half())
    assert pipe.vae.dtype == torch.float16
    torch.testing.assert_close(decoded, expected, rtol=1e-2, atol=1e-2)


@pytest.mark.slow
def test_a_pixel_network_of_folded_pixels(tmp_path: Path) -> None:
    """The bundled models' shape: MiniLM's place is taken by CLIP here, which the other tests of it don't need."""
    tokenizer = tiny.clip_tokenizer(tmp_path / "tokenizer")
    encoder = tiny.stable_diffusion(tmp_path).text_encoder
    config = tiny.UNETS["bundled"] | {"encoder_hid_dim": tiny.TEXT_DIM}
    torch.manual_seed(0)
    pipe = LumierePipeline(
        unet=tiny.wake(STUNet(unet=config)).eval(),
        scheduler=DDIMScheduler(clip_sample=False),
        text_encoder=encoder,
        tokenizer=tokenizer,
        pixel_unshuffle=2,
    )
    pipe.set_progress_bar_config(disable=True)
    frames = make(pipe)
    assert frames.shape == (1, 4, 16, 16, 3)
    pipe.save_pretrained(tmp_path / "saved")
    back = load_pipeline(str(tmp_path / "saved"), device="cpu")
    back.set_progress_bar_config(disable=True)
    np.testing.assert_allclose(make(back), frames, atol=1e-4)
    again = load_pipeline(str(tmp_path / "saved"), device="cpu")
    assert weights_hash(again) == weights_hash(back)  # nothing that the folder lacks is made up


# --- Longer than the network's window ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_one_window_that_covers_the_clip_is_one_pass(pipe: LumierePipeline) -> None:
    whole = make(pipe, num_frames=8)
    for window in (8, 40):
        assert np.array_equal(make(pipe, num_frames=8, window_frames=window), whole)


@pytest.mark.slow
def test_long_clips_of_any_length_are_made_in_windows(pipe: LumierePipeline) -> None:
    pipe.register_to_config(window_frames=8)
    seen: list[int] = []
    pipe.unet.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape[2]))
    frames = make(pipe, num_frames=21)  # no multiple of anything
    assert frames.shape[1] == 21
    assert set(seen) == {8}
    same = make(pipe, num_frames=21, window_batch_size=3, devices=["cpu", "cpu"], offload_frames=True)
    np.testing.assert_allclose(same, frames, atol=1e-4)
    # One window's guidance, and several windows, on one device and on two.
    for length in (8, 21):
        alone, shared = (make(pipe, num_frames=length, devices=["cpu"] * count) for count in (1, 2))
        assert np.array_equal(alone, shared)
    assert np.abs(make(pipe, num_frames=21, window_overlap=1) - frames).max() > 1e-3
    with pytest.raises(LumiereError, match="7 frames: choose a multiple of 4"):
        make(pipe, num_frames=7)
    with pytest.raises(LumiereError, match="windows of 6 frames"):
        make(pipe, num_frames=12, window_frames=6)


@pytest.mark.slow
def test_a_loop_has_no_first_frame(pipe: LumierePipeline) -> None:
    """Turning the noise turns the clip, by multiples of the temporal stride: the seam is no special place."""
    noise = torch.randn(1, 4, 16, 8, 8, generator=seeded(2))
    loop = make(pipe, num_frames=16, latents=noise, loop=True, window_frames=8)
    turned = make(pipe, num_frames=16, latents=noise.roll(4, 2), loop=True, window_frames=8)
    np.testing.assert_allclose(np.roll(loop, 4, axis=1), turned, atol=1e-4)
    assert np.abs(make(pipe, num_frames=16, latents=noise, window_frames=8) - loop).max() > 1e-3


@pytest.mark.slow
def test_networks_are_told_the_place_in_the_clip(pipe: LumierePipeline) -> None:
    told: list[torch.Tensor] = []
    pipe.unet.register_forward_pre_hook(lambda _, __, given: told.append(given["frame_positions"][0]), with_kwargs=True)
    for loop in (False, True):
        told.clear()
        make(pipe, num_frames=16, num_inference_steps=1, loop=loop, window_frames=8)
        plan = pipe._windows(16, 8, None, loop=loop)
        expected = frame_positions(plan.frames, 16, loop=loop)
        torch.testing.assert_close(torch.stack(told).cpu(), expected)


@pytest.mark.slow
def test_noise_is_correlated_as_the_model_was_trained(pipe: LumierePipeline) -> None:
    given: list[torch.Tensor] = []
    pipe.register_to_config(noise_correlation=0.9)
    pipe.unet.register_forward_pre_hook(lambda _, args: given.append(args[0]))
    for loop in (False, True):
        given.clear()
        make(pipe, num_frames=40, loop=loop, guidance_scale=1.0)
        noise = given[0][0]
        together = (noise[:, 1:] * noise[:, :-1]).mean() / noise.square().mean()
        assert together.item() == pytest.approx(0.9, abs=0.03)
        assert ((noise[:, 0] * noise[:, -1]).mean().item() > 0.6) == loop


# --- Inflation, to and from the disk ----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_what_inflate_writes_is_what_from_t2i_makes(
    family: str, folders: dict[str, Path], clip_folders: dict[str, Path]
) -> None:
    t2i = DiffusionPipeline.from_pretrained(folders[family])
    spatial = {key: value.clone() for key, value in t2i.unet.state_dict().items()}
    direct = LumierePipeline.from_t2i(t2i)
    loaded = load_pipeline(str(clip_folders[family]), device="cpu")
    assert type(loaded.scheduler) is type(t2i.scheduler)
    for key, value in loaded.unet.spatial.state_dict().items():
        assert torch.equal(value, spatial[key])
    direct.set_progress_bar_config(disable=True)
    loaded.set_progress_bar_config(disable=True)
    np.testing.assert_allclose(make(direct), make(loaded), atol=1e-5)  # fresh, so equal whatever the random layers
    assert not (clip_folders[family].parent / f"{family}.partial").exists()


@pytest.mark.slow
def test_inflate_takes_options(folders: dict[str, Path], tmp_path: Path) -> None:
    printed = inflate(str(folders["deepfloyd-if"]), tmp_path / "out", num_frames=16, resampled_levels=[])
    assert load_pipeline(str(tmp_path / "out")).unet.frame_multiple == 1
    assert printed.count(" 16 ") >= 3  # every level keeps all frames


def one_line(error: pytest.ExceptionInfo[LumiereError]) -> bool:
    return "\n" not in str(error.value) and len(str(error.value)) < 400


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"prompt": ""}, "prompt is empty"),
        ({"prompt": ["a tiger", "  "]}, "prompt is empty"),
        ({"prompt": []}, "prompt is empty"),
        ({"num_frames": 6}, "multiple of 4"),
        ({"num_frames": 0}, "multiple of 4"),
        ({"num_inference_steps": 0}, "at least 1"),
        ({"num_videos_per_prompt": 0}, "at least 1"),
        ({"height": 20}, "height 20: choose a multiple of 8"),
        ({"width": 4}, "width 4: choose a multiple of 8"),
        ({"output_type": "gif"}, "use one of 'np'"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts for 1 prompts"),
        ({"generator": [seeded(0)] * 3}, "3 generators for 1 clips"),
        ({"latents": torch.zeros(1, 4, 4, 8, 9)}, "this call needs"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_input_is_refused_at_once_in_one_line(
    given: dict[str, Any], words: str, clip_folders: dict[str, Path]
) -> None:
    pipe = awake(clip_folders["stable-diffusion"])
    pipe.unet.register_forward_pre_hook(lambda *_: pytest.fail("refused only after the network had run"))
    with pytest.raises(LumiereError, match=words) as error:
        make(pipe, **{"prompt": PROMPT} | given)
    assert one_line(error)


@pytest.mark.slow
def test_a_pipeline_without_text_encoder_says_so(clip_folders: dict[str, Path]) -> None:
    pipe = LumierePipeline.from_pretrained(clip_folders["stable-diffusion"], text_encoder=None, tokenizer=None)
    with pytest.raises(LumiereError, match="no text encoder") as error:
        make(pipe)
    assert one_line(error)


@pytest.mark.slow
def test_what_cannot_be_inflated_is_refused(
    folders: dict[str, Path], clip_folders: dict[str, Path], tmp_path: Path
) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "thesis.txt").write_text("", encoding="utf-8")
    (tmp_path / "empty").mkdir()
    source = folders["stable-diffusion"]
    for bad, out, words in (
        (source, full, "is not empty"),
        (tmp_path / "empty", tmp_path / "a", "is no text-to-image pipeline"),
        (clip_folders["stable-diffusion"], tmp_path / "b", "is no text-to-image pipeline"),
    ):
        with pytest.raises(LumiereError, match=words) as error:
            inflate(str(bad), out)
        assert one_line(error)
    with pytest.raises(LumiereError, match="down-samplers are 0 to 1"):
        inflate(str(source), tmp_path / "c", resampled_levels=[7])
    assert {path.name for path in tmp_path.iterdir()} == {"full", "empty"}


def test_a_t2i_folder_is_not_loaded_as_a_clip_model(folders: dict[str, Path]) -> None:
    with pytest.raises(LumiereError, match="lumiere inflate") as error:
        load_pipeline(str(folders["stable-diffusion"]))
    assert one_line(error)


@pytest.mark.parametrize("damage", ["weights", "config", "index", "component"])
def test_damaged_folders_are_refused_in_one_line(damage: str, clip_folders: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(clip_folders["deepfloyd-if"], folder)
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    match damage:
        case "weights":
            weights.write_bytes(weights.read_bytes()[: weights.stat().st_size // 2])
        case "config":
            (folder / "unet" / "config.json").write_text("{", encoding="utf-8")
        case "index":
            (folder / "model_index.json").unlink()
        case "component":
            shutil.rmtree(folder / "text_encoder")
    with pytest.raises(LumiereError, match=r"damaged|missing") as error:
        load_pipeline(str(folder))
    assert one_line(error)


@pytest.mark.parametrize(
    ("model", "words"),
    [("no-such-model", "unknown model"), ("./nowhere", "unknown model"), (__file__, "that is a file")],
)
def test_unknown_models_are_refused(model: str, words: str) -> None:
    with pytest.raises(LumiereError, match=words) as error:
        load_pipeline(model)
    assert one_line(error)


def test_unknown_device_and_dtype_are_refused(clip_folders: dict[str, Path]) -> None:
    folder = str(clip_folders["deepfloyd-if"])
    for options, words in (({"device": "abacus"}, "device abacus"), ({"dtype": "float7"}, "--dtype float7")):
        with pytest.raises(LumiereError, match=words) as error:
            load_pipeline(folder, **options)
        assert one_line(error)


def test_the_index_names_the_classes(clip_folders: dict[str, Path]) -> None:
    index = json.loads((clip_folders["stable-diffusion-xl"] / "model_index.json").read_text(encoding="utf-8"))
    assert index["_class_name"] == "LumierePipeline"
    assert index["unet"][1] == "STUNet"
    assert index["text_encoder_2"][1] == "CLIPTextModelWithProjection"
