"""What is counted on the meta device is what PyTorch's own counters and allocators say."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import tiny
from openlumiere import STUNet, counting
from openlumiere.stunet.summary import example_inputs

KILO = 4 * 1024  # bytes of 32 x 32 numbers in float32


def on_meta(name: str) -> STUNet:
    torch.manual_seed(0)
    with torch.device("meta"):
        return STUNet.from_config(dict(tiny.inflated(name)[0].config))


def backward(net: STUNet) -> Callable[[], None]:
    inputs = example_inputs(net, 8)
    return lambda: net(**inputs).sample.square().mean().backward()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stable-diffusion", "stable-diffusion-xl", "deepfloyd-if-upscaler", "bundled-layout"])
def test_flops_are_those_of_pytorchs_counter(name: str):
    net = on_meta(name)
    with torch.no_grad(), FlopCounterMode(display=False) as forward:
        net(**example_inputs(net, 8))
    with FlopCounterMode(display=False) as training:
        backward(net)()
    with torch.no_grad():
        once = counting.count(lambda: net(**example_inputs(net, 8)))
    assert once.flops == forward.get_total_flops() == sum(once.flops_of.values())
    assert counting.count(backward(net)).flops == training.get_total_flops() > 1.5 * once.flops


def test_views_of_weights_are_no_activations():
    net = nn.Linear(32, 32, bias=False, device="meta")
    given = torch.empty(32, 32, device="meta")
    assert counting.peak_bytes(lambda: net(given)) == KILO
    assert counting.peak_bytes(lambda: given.t().unsqueeze(0)) == 0


def test_what_is_freed_counts_no_more():
    given = torch.empty(32, 32, device="meta")

    def run() -> torch.Tensor:
        x = given + 1
        for _ in range(5):
            x = x * 2
        return x

    done = counting.count(run)
    assert done.peak_bytes == 2 * KILO
    assert done.kernels == {(0, 2 * KILO): 6}
    assert done.flops == 0


def test_attention_keeps_no_scores():
    query = torch.empty(1, 2, 1024, 8, device="meta", requires_grad=True)
    with torch.no_grad():
        done = counting.count(lambda: nn.functional.scaled_dot_product_attention(query, query, query))
    assert done.flops == 2 * 2 * 2 * 1024 * 1024 * 8
    assert done.peak_bytes < 1024 * 1024


@pytest.mark.slow
def test_checkpointing_takes_less_memory_and_more_flops():
    net = on_meta("stable-diffusion")
    parameters = list(net.temporal.parameters())
    whole = counting.count(backward(net), parameters=parameters)
    net.zero_grad(set_to_none=True)
    net.enable_gradient_checkpointing(counting.checkpoint)
    again = counting.count(backward(net), parameters=parameters)
    assert again.activation_bytes < 0.7 * whole.activation_bytes
    assert whole.flops < again.flops < 1.6 * whole.flops


def test_gradients_count_apart():
    net = nn.Sequential(*(nn.Linear(64, 64, bias=False, device="meta") for _ in range(8)))
    given = torch.empty(1, 64, device="meta")
    done = counting.count(lambda: net(given).sum().backward(), parameters=list(net.parameters()))
    gradients = 8 * 64 * 64 * 4
    assert done.peak_bytes > gradients
    assert done.activation_bytes < gradients / 2
    assert net[0].weight.grad is not None


def test_autocast_computes_products_low_and_norms_in_full():
    seen = {}
    net = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.GroupNorm(2, 4), nn.Linear(8, 8)).to("meta")
    for module in net:
        module.register_forward_hook(lambda of, _, out: seen.__setitem__(type(of).__name__, out.dtype))
    given = torch.empty(1, 4, 8, 8, device="meta")
    low = counting.count(lambda: net(given).float().sum().backward(), autocast=torch.bfloat16)
    assert seen == {"Conv2d": torch.bfloat16, "GroupNorm": torch.float32, "Linear": torch.bfloat16}
    net.zero_grad(set_to_none=True)
    assert low.flops == counting.count(lambda: net(given).sum().backward()).flops


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stable-diffusion", "bundled"])
def test_training_takes_what_the_allocator_gives(name: str):
    from torch.profiler import ProfilerActivity, profile

    computed = counting.count(backward(on_meta(name))).peak_bytes
    net = tiny.inflated(name)[0]
    run = backward(net)
    run()
    net.zero_grad(set_to_none=True)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
        run()
    live = peak = 0
    for event in record.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    assert computed == pytest.approx(peak, rel=0.2)
