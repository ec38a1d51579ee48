"""Muon: what it orthogonalizes, and that it trains and resumes as the other optimizer does."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from openlumiere.errors import LumiereError
from openlumiere.training.config import OptimizerConfig
from openlumiere.training.config_files import parse
from openlumiere.training.loop import make_optimizer
from openlumiere.training.muon import Muon, orthogonalized


@given(rows=st.integers(2, 40), columns=st.integers(2, 40), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_directions_stay_and_singular_values_come_near_one(rows: int, columns: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    # Singular values from 1 down to 1/10, as a gradient's leading ones are.
    left, _ = torch.linalg.qr(torch.randn(rows, min(rows, columns), generator=generator))
    right, _ = torch.linalg.qr(torch.randn(columns, min(rows, columns), generator=generator))
    values = torch.linspace(1, 0.1, min(rows, columns))
    found = left.T @ orthogonalized(left @ values.diag() @ right.T) @ right
    assert torch.allclose(found, found.diag().diag(), atol=1e-3)
    assert 0.5 < float(found.diag().min()) <= float(found.diag().max()) < 1.3


def test_matrices_are_orthogonalized_and_all_else_is_left_to_adam() -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 8, 3)
    before = {name: p.detach().clone() for name, p in layer.named_parameters()}
    layer(torch.randn(4, 3, 8, 8)).square().mean().backward()
    optimizer = Muon(layer.parameters(), lr=0.1)
    optimizer.step()
    moved = (layer.weight - before["weight"]).detach().reshape(8, 27) / (0.1 * 0.2 * 27**0.5)
    assert torch.allclose(torch.linalg.svdvals(moved), torch.ones(8), atol=0.35)
    assert torch.allclose((layer.bias - before["bias"]).abs(), torch.tensor(0.1), atol=1e-3)
    assert set(optimizer.state[layer.weight]) == {"momentum"}


def test_it_learns_a_linear_map() -> None:
    torch.manual_seed(0)
    layer, target = nn.Linear(6, 4), torch.randn(4, 6)
    optimizer = Muon(layer.parameters(), lr=0.05)
    x = torch.randn(256, 6)
    losses = []
    for _ in range(200):
        loss = (layer(x) - x @ target.T).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    assert losses[-1] < 0.02 * losses[0]


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_some_parameters_learn_faster_and_all_stay_in_their_order(name: str) -> None:
    named = {part: nn.Parameter(torch.zeros(3)) for part in ("a.weight", "gate.bias", "gate.weight", "z.weight")}
    optim = OptimizerConfig(optimizer=name, lr=1e-3, weight_decay=0.0, lr_scales={"gate.": 20.0})
    optimizer = make_optimizer(optim, named)
    assert [parameter for group in optimizer.param_groups for parameter in group["params"]] == list(named.values())
    for parameter in named.values():
        parameter.grad = torch.ones(3)
    optimizer.step()
    moved = {part: -float(parameter[0]) for part, parameter in named.items()}
    assert moved == pytest.approx({"a.weight": 1e-3, "gate.bias": 2e-2, "gate.weight": 2e-2, "z.weight": 1e-3})
    with pytest.raises(LumiereError, match="nothing that is trained is called stage"):
        make_optimizer(OptimizerConfig(lr_scales={"stage": 2.0}), named)
    with pytest.raises(LumiereError, match="above 0"):
        OptimizerConfig(lr_scales={"gate": 0.0})


def test_configurations_name_it() -> None:
    config = parse({"stage": "t2i", "output": "x"}, ["optim.optimizer=muon", "optim.lr=0.5"])
    optimizer = make_optimizer(config.optim, {"weight": nn.Parameter(torch.zeros(2, 2))})
    assert isinstance(optimizer, Muon)
    assert optimizer.param_groups[0]["lr"] == 0.5
    with pytest.raises(LumiereError, match="use adamw or muon"):
        parse({"stage": "t2i", "output": "x"}, ["optim.optimizer=sgd"])
