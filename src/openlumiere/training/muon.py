"""Muon: momentum whose matrices are orthogonalized (Jordan et al. 2024), with AdamW for all that is no matrix."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from .sharding import shard_like, whole

# The quintic iteration of Jordan et al.: slope at 0 as steep as it can be, singular values end between 0.7 and 1.2.
_A, _B, _C = 3.4445, -4.7750, 2.0315
_ITERATIONS = 5
# RMS of AdamW's updates, to which Muon's are brought, so that both take the same learning rate (Liu et al. 2025).
_ADAMW_RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Muon for weights of two and more dimensions, a convolution's as (out, in * height * width); AdamW for the rest.

    Args:
        params: parameters, or groups of them.
        lr: of both, on AdamW's scale.
        betas: AdamW's.
        momentum: Muon's, with Nesterov's step.
        weight_decay: decoupled, of both.
    """

    def __init__(
        self, params: Iterable[torch.Tensor] | Iterable[dict[str, Any]], *, lr: float,
        betas: tuple[float, float] = (0.9, 0.99),
        momentum: float = 0.95, weight_decay: float = 0.0, eps: float = 1e-8,
    ) -> None:  # fmt: skip
        defaults = {"lr": lr, "betas": betas, "momentum": momentum, "weight_decay": weight_decay, "eps": eps}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step."""
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    update = (_muon if parameter.ndim > 1 else _adam)(parameter.grad, self.state[parameter], group)
                    parameter.add_(update, alpha=-group["lr"])
        return loss


def _muon(gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> torch.Tensor:
    if not state:
        state["momentum"] = torch.zeros_like(gradient)
    state["momentum"].lerp_(gradient, 1 - group["momentum"])
    ahead = gradient.lerp(state["momentum"], group["momentum"])
    # Of sharded weights (FSDP) all processes gather the matrix, do the same to it, and keep their own shard.
    all_of_it = whole(ahead)
    matrix = orthogonalized(all_of_it.reshape(len(all_of_it), -1))
    return shard_like(gradient, (matrix * (_ADAMW_RMS * max(matrix.shape) ** 0.5)).reshape(gradient.shape))


def _adam(gradient: torch.Tensor, state: dict[str, Any], group: dict[str, Any]) -> torch.Tensor:
    if not state:
        state["step"] = torch.zeros(())
        state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(gradient), torch.zeros_like(gradient)
    first, second = group["betas"]
    state["step"] += 1
    state["exp_avg"].lerp_(gradient, 1 - first)
    state["exp_avg_sq"].lerp_(gradient.square(), 1 - second)
    count = float(state["step"])
    mean, square = state["exp_avg"] / (1 - first**count), state["exp_avg_sq"] / (1 - second**count)
    return mean / (square.sqrt() + group["eps"])


def orthogonalized(matrix: torch.Tensor) -> torch.Tensor:
    """Return about the nearest matrix whose singular values are all 1, by a Newton-Schulz iteration; (m, n)."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-12)
    # Each iteration multiplies x by a polynomial of x @ x.T, and all of them commute: multiplied with each other first,
    # the long side is met twice in all rather than twice an iteration.
    gram = x @ x.T
    factor = step = _polynomial(gram)
    for _ in range(1, _ITERATIONS):
        gram = step @ gram @ step
        step = _polynomial(gram)
        factor = step @ factor
    x = factor @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def _polynomial(gram: torch.Tensor) -> torch.Tensor:
    step = torch.addmm(gram, gram, gram, beta=_B, alpha=_C)
    step.diagonal().add_(_A)
    return step
