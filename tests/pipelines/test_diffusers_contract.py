"""What diffusers' users and its own pipeline tests take for granted, of both pipelines: tiny, with real components."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers.utils import convert_state_dict_to_diffusers
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

import tiny
from openlumiere import LumierePipeline
from openlumiere.errors import LumiereError
from openlumiere.pipelines.clip_pipeline import ClipPipeline
from openlumiere.pipelines.super_resolution import LumiereSuperResolutionPipeline

FRAMES = 8
# Those that take chosen timesteps, and those that don't; and those that add noise of their own.
SHIFTABLE = [
    "DPMSolverMultistepScheduler", "DPMSolverSinglestepScheduler", "EulerDiscreteScheduler", "HeunDiscreteScheduler",
    "DDPMScheduler",
]  # fmt: skip
OTHERS = [
    "DDIMScheduler", "UniPCMultistepScheduler", "PNDMScheduler", "DEISMultistepScheduler", "LMSDiscreteScheduler",
    "KDPM2DiscreteScheduler", "EulerAncestralDiscreteScheduler",
]  # fmt: skip
STOCHASTIC = ["DDPMScheduler", "EulerAncestralDiscreteScheduler"]
_CLIP = np.random.default_rng(0).random((2, FRAMES, 8, 8, 3), dtype=np.float32)


@pytest.fixture(params=["base", "second stage"])
def pipe(request: pytest.FixtureRequest) -> ClipPipeline:
    return tiny.conditioned() if request.param == "base" else tiny.second_stage()


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(pipe: ClipPipeline, prompt: Any = "a tiger", **options: Any) -> Any:
    """A clip for each prompt, by either pipeline."""
    pipe.set_progress_bar_config(disable=True)
    options = {"generator": seeded(), "num_inference_steps": 2, "guidance_scale": 2.0} | options
    if isinstance(pipe, LumierePipeline):
        return pipe(prompt, **({"num_frames": FRAMES} | options))[0]
    embeds = options.get("prompt_embeds")
    count = len(embeds) if embeds is not None else 1 if isinstance(prompt, str) else len(prompt)
    return pipe(_CLIP[:1].repeat(count, axis=0), prompt, **options)[0]


# --- To and from the disk ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_saved_and_loaded_it_makes_the_same_clips(pipe: ClipPipeline, tmp_path: Path) -> None:
    pipe.save_pretrained(tmp_path)
    back = type(pipe).from_pretrained(tmp_path)
    np.testing.assert_allclose(make(back), make(pipe), atol=1e-5)
    assert not [part for part in back.components.values() if isinstance(part, torch.nn.Module) and part.training]


@pytest.mark.slow
def test_half_precision_is_saved_and_loaded(pipe: ClipPipeline, tmp_path: Path) -> None:
    expected = make(pipe)
    pipe.to(torch.bfloat16)
    pipe.save_pretrained(tmp_path)
    back = type(pipe).from_pretrained(tmp_path, torch_dtype=torch.bfloat16)
    networks = [part for part in back.components.values() if isinstance(part, torch.nn.Module)]
    assert {next(part.parameters()).dtype for part in networks} == {torch.bfloat16}
    found = make(back)
    assert np.abs(found - make(pipe)).max() < 0.05  # some units in the last place of bfloat16
    assert np.abs(found - expected).mean() < 0.1


@pytest.mark.slow
def test_optional_components_may_be_missing(pipe: ClipPipeline, tmp_path: Path) -> None:
    missing = [name for name in pipe._optional_components if getattr(pipe, name) is None]
    assert missing
    pipe.save_pretrained(tmp_path)
    back = type(pipe).from_pretrained(tmp_path)
    assert all(getattr(back, name) is None for name in missing)


@pytest.mark.slow
def test_a_pipeline_can_be_made_of_anothers_components(pipe: ClipPipeline) -> None:
    options = {key: value for key, value in pipe.config.items() if not key.startswith("_")}
    twin = type(pipe)(**options | pipe.components)
    assert np.array_equal(make(twin), make(pipe))
    other = type(pipe).from_pipe(pipe)
    assert other.unet is pipe.unet
    assert other.config.pixel_unshuffle == pipe.config.pixel_unshuffle
    assert np.array_equal(make(other), make(pipe))


@pytest.mark.slow
def test_both_are_diffusers_pipelines(pipe: ClipPipeline) -> None:
    assert isinstance(pipe, diffusers.DiffusionPipeline)
    assert pipe.device == torch.device("cpu")
    assert pipe.dtype == torch.float32


# --- Calls ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_clip_of_a_batch_is_the_clip_alone(pipe: ClipPipeline) -> None:
    together = make(pipe, ["a tiger", "a red heart"], generator=[seeded(1), seeded(2)])
    alone = make(pipe, "a red heart", generator=[seeded(2)])
    np.testing.assert_allclose(together[1], alone[0], atol=1e-4)


@pytest.mark.slow
def test_num_videos_per_prompt() -> None:
    pipe = tiny.conditioned()
    frames = make(pipe, ["a tiger", "a heart"], num_videos_per_prompt=2, generator=[seeded(i) for i in range(4)])
    assert len(frames) == 4
    np.testing.assert_allclose(frames[3], make(pipe, "a heart", generator=seeded(3))[0], atol=1e-4)


@pytest.mark.slow
def test_callbacks_are_given_what_they_may_ask_for(pipe: ClipPipeline) -> None:
    assert pipe._callback_tensor_inputs == ["latents", "denoised"]
    seen: list[set[str]] = []

    def listen(given: ClipPipeline, _step: int, _t: object, tensors: dict[str, Any]) -> dict[str, Any]:
        assert given is pipe
        seen.append(set(tensors))
        return tensors

    frames = make(pipe, callback_on_step_end=listen, callback_on_step_end_tensor_inputs=["latents"])
    assert seen == [{"latents"}] * 2
    assert np.array_equal(frames, make(pipe))
    make(pipe, callback_on_step_end=listen, callback_on_step_end_tensor_inputs=[])
    assert seen[2:] == [set()] * 2
    make(pipe, callback_on_step_end=listen, callback_on_step_end_tensor_inputs=["denoised"])
    assert seen[4:] == [{"denoised"}] * 2


@pytest.mark.slow
def test_callbacks_may_change_the_last_latents(pipe: ClipPipeline) -> None:
    def erase(_pipe: object, step: int, _t: object, tensors: dict[str, Any]) -> dict[str, Any]:
        return {"latents": torch.zeros_like(tensors["latents"])} if step == 1 else tensors

    assert make(pipe, callback_on_step_end=erase, output_type="latent").abs().sum() == 0


@pytest.mark.slow
def test_callbacks_may_ask_for_nothing_else(pipe: ClipPipeline) -> None:
    pipe.unet.register_forward_pre_hook(lambda *_: pytest.fail("refused only after the network had run"))
    with pytest.raises(LumiereError, match="'prompt_embeds' is not among 'latents'") as error:
        make(pipe, callback_on_step_end_tensor_inputs=["latents", "prompt_embeds"])
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_embeddings_take_the_place_of_prompts(pipe: ClipPipeline) -> None:
    expected = make(pipe, ["a tiger", "a heart"], negative_prompt="blurry")
    embeds = pipe.encode_prompts(["a tiger", "a heart"]).hidden_states
    against = pipe.encode_prompts(["blurry"] * 2).hidden_states
    encoder = pipe.text_encoder
    given = {"prompt": None, "prompt_embeds": embeds}
    assert np.array_equal(make(pipe, **given, negative_prompt="blurry"), expected)
    pipe.register_modules(text_encoder=None, tokenizer=None)
    assert np.array_equal(make(pipe, **given, negative_prompt_embeds=against), expected)
    with pytest.raises(LumiereError, match="needs negative_prompt_embeds"):
        make(pipe, **given)
    pipe.register_modules(text_encoder=encoder)
    with pytest.raises(LumiereError, match=r"reads \(clips, tokens, 384\)"):
        make(pipe, prompt=None, prompt_embeds=embeds[..., :7])
    with pytest.raises(LumiereError, match="make them equal"):
        make(pipe, **given, negative_prompt_embeds=against[:, :3])


@pytest.mark.slow
def test_embeddings_go_through_both_stages() -> None:
    pipe = tiny.conditioned(upscale=True)
    expected = make(pipe)
    embeds = pipe.encode_prompts(["a tiger"]).hidden_states
    assert np.array_equal(make(pipe, prompt=None, prompt_embeds=embeds), expected)


@pytest.mark.slow
def test_stable_diffusion_xl_reads_pooled_embeddings_too(tmp_path: Path) -> None:
    pipe = LumierePipeline.from_t2i(tiny.t2i_pipeline("stable-diffusion-xl", tmp_path))
    expected = make(pipe, num_frames=4)
    text = pipe.encode_prompts(["a tiger"])
    given = {"prompt": None, "prompt_embeds": text.hidden_states, "num_frames": 4}
    assert np.array_equal(make(pipe, **given, pooled_prompt_embeds=text.pooled), expected)
    with pytest.raises(LumiereError, match="this model takes both"):
        make(pipe, **given)


@pytest.mark.slow
def test_latents_are_what_is_decoded() -> None:
    pipe = tiny.conditioned(upscale=True)
    latents = make(pipe, output_type="latent")
    assert latents.shape == (1, 12, FRAMES, 8, 8)
    frames = make(pipe, upscale=False, output_type="pt")
    torch.testing.assert_close(((pipe.codec.decode(latents) + 1) / 2).clamp(0, 1).transpose(1, 2), frames)
    with pytest.raises(LumiereError, match="leave upscale out"):
        make(pipe, output_type="latent", upscale=True)


@pytest.mark.slow
def test_a_clip_has_the_models_own_length_unless_told() -> None:
    pipe = tiny.conditioned()
    pipe.register_to_config(window_frames=12)
    assert make(pipe, num_frames=None).shape[1] == 12
    pipe.register_to_config(window_frames=None)
    assert make(pipe, num_frames=None, num_inference_steps=1, guidance_scale=1.0).shape[1] == 80


# --- Schedulers -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIFTABLE + OTHERS)
def test_any_scheduler_works_or_is_refused_in_one_line(name: str) -> None:
    """As the bundled models are sampled: shifted timesteps, v, no signal at the end, correlated noise."""
    pipe = tiny.conditioned()
    bundled = diffusers.DPMSolverMultistepScheduler(
        beta_schedule="squaredcos_cap_v2", prediction_type="v_prediction", rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
    )  # fmt: skip
    pipe.register_modules(scheduler=getattr(diffusers, name).from_config(bundled.config))
    for shift, correlation in ((3.0, 0.975), (1.0, 0.975), (1.0, 0.0)):
        pipe.register_to_config(timestep_shift=shift, noise_correlation=correlation)
        if (shift != 1.0 and name not in SHIFTABLE) or (correlation and name in STOCHASTIC):
            with pytest.raises(LumiereError, match="use DPMSolverMultistepScheduler") as error:
                make(pipe)
            assert "\n" not in str(error.value)
        else:
            frames = make(pipe, num_inference_steps=4, guidance_scale=1.0)
            assert np.isfinite(frames).all()
            assert frames.std() > 0.01


# --- LoRAs ------------------------------------------------------------------------------------------------------------


def lora_of(unet: torch.nn.Module, rank: int = 2) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """A random LoRA in diffusers' format, and what it adds to the weights that it changes."""
    twin = copy.deepcopy(unet)
    twin.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=["to_q", "to_v"]))
    added = {}
    for name, part in twin.named_modules():
        if hasattr(part, "lora_B"):
            torch.nn.init.normal_(part.lora_B["default"].weight, generator=seeded(4))
            added[f"{name}.weight"] = part.lora_B["default"].weight @ part.lora_A["default"].weight
    state = convert_state_dict_to_diffusers(get_peft_model_state_dict(twin))
    return {f"unet.{name}": value for name, value in state.items()}, added


@pytest.mark.slow
@torch.no_grad()
def test_loras_are_merged_at_a_strength_and_leave_no_trace(tmp_path: Path) -> None:
    pipe = tiny.conditioned()
    plain = {name: value.clone() for name, value in pipe.unet.spatial.state_dict().items()}

    def check(strength: float) -> None:
        for name, value in pipe.unet.spatial.state_dict().items():
            torch.testing.assert_close(value, plain[name] + strength * added.get(name, torch.zeros_like(value)))

    state, added = lora_of(pipe.unet.spatial)
    assert added
    expected = make(pipe)
    pipe.load_lora_weights(state, adapter_name="mine")
    check(1.0)
    assert np.abs(make(pipe) - expected).max() > 1e-3
    save_file(
        {name: value.contiguous() for name, value in state.items()}, tmp_path / "pytorch_lora_weights.safetensors"
    )
    pipe.load_lora_weights(tmp_path)  # of a folder, beside the first
    assert pipe.get_active_adapters() == ["mine", "default_1"]
    check(2.0)
    pipe.set_adapters(["mine", "default_1"], [0.5, 0.25])
    check(0.75)
    pipe.set_styles({})  # styles are another thing
    check(0.75)
    pipe.set_adapters("mine")
    assert pipe.get_active_adapters() == ["mine"]
    check(1.0)
    for call, words in (
        (lambda: pipe.load_lora_weights(state, adapter_name="mine"), "is loaded already"),
        (lambda: pipe.set_adapters("yours"), "loaded: mine, default_1"),
        (lambda: pipe.load_lora_weights(tmp_path / "nowhere"), "there is no LoRA at"),
        (lambda: pipe.load_lora_weights({"text_encoder.a": torch.ones(1)}), "holds no LoRA of a U-Net"),
        (lambda: pipe.load_lora_weights(lora_of(tiny.unet("bundled"))[0]), "no style for this model"),
    ):
        with pytest.raises(LumiereError, match=words) as error:
            call()
        assert "\n" not in str(error.value)
        check(1.0)
    pipe.unload_lora_weights()
    assert all(torch.equal(value, plain[name]) for name, value in pipe.unet.spatial.state_dict().items())
    assert np.array_equal(make(pipe), expected)


# --- Devices ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pixels", "latents"])
def test_offloading_changes_nothing(kind: str) -> None:
    """To the CPU itself, where the hooks can run: every network is called through its own."""
    pipe = tiny.conditioned(upscale=True) if kind == "pixels" else tiny.transparent(sharpened=4)
    change = np.ones((FRAMES, 16, 16), bool)
    change[0] = False
    given = {"video": np.random.default_rng(1).random((FRAMES, 16, 16, 3), dtype=np.float32), "mask": change}
    expected = make(pipe, **given)
    pipe.enable_model_cpu_offload(device="cpu")
    for _ in range(2):  # hooks are set again after each call
        assert np.array_equal(make(pipe, **given), expected)
    networks = [*pipe.components.values(), pipe.super_resolution.unet]
    assert all(hasattr(part, "_hf_hook") for part in networks if isinstance(part, torch.nn.Module))
    pipe.remove_all_hooks()
    assert not any(hasattr(part, "_hf_hook") for part in networks if isinstance(part, torch.nn.Module))
    assert np.array_equal(make(pipe, **given), expected)


@pytest.mark.slow
def test_the_second_stage_offloads_too() -> None:
    stage = tiny.second_stage()
    assert isinstance(stage, LumiereSuperResolutionPipeline)
    expected = make(stage)
    stage.enable_model_cpu_offload(device="cpu")
    assert np.array_equal(make(stage), expected)
