"""What a network's evaluation costs, counted operation by operation on the meta device: shapes alone, no numbers."""

from __future__ import annotations

import contextlib
import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.utils.checkpoint
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker


@dataclass(frozen=True)
class Work:
    """What a call does.

    Attributes:
        flops: of convolutions, matrix products and attention, a multiply-add being two: what PyTorch's
            `FlopCounterMode` counts on the meta device.
        peak_bytes: most bytes of tensors that the call made, and that were alive at once.
        activation_bytes: the same without the gradients of parameters.
        kernels: how often there was an operation of so many FLOPs that read and wrote so many bytes.
        flops_of: FLOPs by the path of the module that spent them; empty of calls that made gradients.
    """

    flops: int
    peak_bytes: int
    activation_bytes: int
    kernels: Mapping[tuple[int, int], int]
    flops_of: Mapping[str, int]


def count(
    run: Callable[[], Any], *, parameters: Iterable[nn.Parameter] = (), autocast: torch.dtype | None = None
) -> Work:
    """Count what a call on the meta device does; tensors that were there before do not count as memory.

    Attention counts as fused kernels compute it: without the matrix of scores.

    Args:
        run: calls a network, and the backward pass if gradients are wanted; with `checkpoint` where a network
            recomputes activations.
        parameters: those whose gradients `run` accumulates.
        autocast: compute in this dtype what `torch.autocast` on CUDA does.
    """
    counter = _Counter()
    hooks = [p.register_post_accumulate_grad_hook(counter.keep_gradient) for p in parameters]
    token = _ACTIVE.set(partial(_as_on_devices, counter, autocast))
    try:
        # With gradients a tracker's hooks would keep recomputed layers alive.
        counter.tracks = not torch.is_grad_enabled()
        tracked = counter.modules if counter.tracks else contextlib.nullcontext()
        with tracked, counter, _ACTIVE.get()():
            kept = run()
            del kept
    finally:
        _ACTIVE.reset(token)
        for hook in hooks:
            hook.remove()
    return Work(counter.flops, counter.peak, counter.activation_peak, counter.kernels, counter.flops_of)


def checkpoint(layers: Callable[..., Any], *inputs: Any) -> Any:
    """Recompute activations in the backward pass, for ``enable_gradient_checkpointing(checkpoint)`` within `count`.

    PyTorch's own would recompute them as on the meta device, since function modes are off in a backward pass.
    """
    again = _ACTIVE.get()()
    return torch.utils.checkpoint.checkpoint(
        layers, *inputs, use_reentrant=False, context_fn=lambda: (contextlib.nullcontext(), again)
    )


def peak_bytes(run: Callable[[], Any]) -> int:
    """Return the most bytes that tensors made by a function take at once, without gradients; see `count`."""
    with torch.no_grad():
        return count(run).peak_bytes


@contextlib.contextmanager
def _as_on_devices(counter: _Counter, autocast: torch.dtype | None) -> Iterator[None]:
    """Compute shapes as devices do, not as the meta device does."""
    with _Attention(counter), contextlib.nullcontext() if autocast is None else _Autocast(autocast):
        yield


_ACTIVE: ContextVar[Callable[[], AbstractContextManager[None]]] = ContextVar("_ACTIVE")


class _Counter(TorchDispatchMode):
    """Counts FLOPs, bytes moved and bytes alive, as each operation returns."""

    def __init__(self) -> None:
        super().__init__()
        self.modules, self.tracks = ModuleTracker(), False
        self.flops = self.live = self.peak = self.gradients = self.activation_peak = 0
        self.kernels: Counter[tuple[int, int]] = Counter()
        self.flops_of: Counter[str] = Counter()
        self._known: dict[int, bool] = {}  # storages that are alive; True = a gradient's

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        made = [leaf for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        known = {tensor.untyped_storage()._cdata for tensor in given}
        fresh = [tensor for tensor in made if tensor.untyped_storage()._cdata not in known]
        for tensor in fresh:  # others are views, of what is counted or was there before
            self._hold(tensor)
        if func._schema.is_mutable or (fresh and func._overloadpacket not in _EMPTY):
            formula = flop_registry.get(func._overloadpacket)
            self.kernel(0 if formula is None else formula(*args, **kwargs, out_val=out), [*given, *made])
        return out

    def kernel(self, flops: int, tensors: Iterable[torch.Tensor]) -> None:
        """Count one operation that reads and writes tensors."""
        self.flops += flops
        self.kernels[flops, sum(map(_moved_bytes, tensors))] += 1
        if flops and self.tracks:
            self.flops_of[max(self.modules.parents - {"Global"}, key=len, default="")] += flops

    def keep_gradient(self, parameter: torch.Tensor) -> None:
        """Count a parameter's gradient as such from now on."""
        assert parameter.grad is not None
        storage = parameter.grad.untyped_storage()
        if self._known.get(storage._cdata) is False:
            self._known[storage._cdata] = True
            self.gradients += storage.nbytes()

    def _hold(self, tensor: torch.Tensor) -> None:
        """Count a tensor's memory until it is freed, unless one that shares it is counted."""
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known[key] = False
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        self.activation_peak = max(self.activation_peak, self.live - self.gradients)
        weakref.finalize(storage, self._freed, key, storage.nbytes())

    def _freed(self, key: int, size: int) -> None:
        self.live -= size
        if self._known.pop(key):
            self.gradients -= size


# Memory without content.
_EMPTY = (torch.ops.aten.empty, torch.ops.aten.new_empty, torch.ops.aten.empty_like, torch.ops.aten.empty_strided)


def _moved_bytes(tensor: torch.Tensor) -> int:
    """Bytes that reading or writing a tensor moves; what is repeated by strides of 0 is read once."""
    return min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())


# ---------------------------------------------------------------------------------------------------- fused attention


class _Attention(TorchFunctionMode):
    """Attention as kernels of GPUs and CPUs compute it: without the matrix of scores, which meta tensors would make."""

    def __init__(self, counter: _Counter) -> None:
        super().__init__()
        self._counter = counter

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.nn.functional.scaled_dot_product_attention:
            query, key, value = args[:3] if len(args) >= 3 else (kwargs["query"], kwargs["key"], kwargs["value"])
            return _FusedAttention.apply(self._counter, query, key, value)
        return func(*args, **kwargs)


class _FusedAttention(torch.autograd.Function):
    """Shapes and cost of fused attention (Dao et al. 2022); backward counts as if scores were kept, as PyTorch does."""

    @staticmethod
    def forward(ctx: Any, counter: _Counter, query: Any, key: Any, value: Any) -> Any:
        out = query.new_empty(*query.shape[:-1], value.shape[-1])
        sums = query.new_empty(query.shape[:-1], dtype=torch.float32)
        ctx.counter = counter
        ctx.save_for_backward(query, key, value, out, sums)
        scores, mixed = _FusedAttention._products(query, key, value)
        counter.kernel(scores + mixed, (query, key, value, out))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        query, key, value, out, sums = ctx.saved_tensors
        _, of_query, of_key, of_value = ctx.needs_input_grad
        scores, mixed = _FusedAttention._products(query, key, value)
        flops = mixed * of_value + (mixed if of_query or of_key else 0) + scores * (of_query + of_key)
        wanted = zip((query, key, value), ctx.needs_input_grad[1:], strict=True)
        made = [torch.empty_like(tensor) if of else None for tensor, of in wanted]
        ctx.counter.kernel(
            flops, [query, key, value, out, sums, *gradients, *(tensor for tensor in made if tensor is not None)]
        )
        return None, *made

    @staticmethod
    def _products(query: Any, key: Any, value: Any) -> tuple[int, int]:
        """FLOPs of queries times keys, and of weights times values."""
        rows = query.shape[:-1].numel() * key.shape[-2]
        return 2 * rows * query.shape[-1], 2 * rows * value.shape[-1]


# ------------------------------------------------------------------------------------------------------------ autocast

# Of CUDA's lists (docs.pytorch.org, "Autocast Op Reference"), what denoising networks call.
_LOW = {
    "conv1d", "conv2d", "conv3d", "linear", "matmul", "__matmul__", "bmm", "baddbmm", "addmm", "mm", "einsum",
    "scaled_dot_product_attention",
}  # fmt: skip
_FULL = {"group_norm", "layer_norm", "softmax", "mse_loss", "exp", "log", "norm", "pow", "__pow__", "sum", "cumsum"}


class _Autocast(TorchFunctionMode):
    """What `torch.autocast` does on CUDA, which has no say over meta tensors."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        dtype = self._dtype if name in _LOW else torch.float32 if name in _FULL else None
        if dtype is not None:
            args = tuple(_cast(value, dtype) for value in args)
            kwargs = {key: _cast(value, dtype) for key, value in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))


def _cast(value: Any, dtype: torch.dtype) -> Any:
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value
