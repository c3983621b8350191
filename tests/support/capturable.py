"""A device that torch imitates on any machine: ``meta`` knows shapes, and has no numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from catalogproc.network.captured import Work

META = torch.device("meta")


class _OnDeviceOnly(TorchDispatchMode):
    """Refuses operations that read or make a tensor of the host."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for one in tree_leaves((args, kwargs, result)):
            if isinstance(one, Tensor) and one.device != META:
                raise AssertionError(f"{func} uses a tensor of the host: {tuple(one.shape)}")
        return result


class _NoTables(TorchFunctionMode):
    """Refuses tensors made of numbers of the host, which are copied to the device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.tensor, torch.as_tensor, torch.from_numpy):
            raise AssertionError(f"a table of the host is copied to the device: {args}")
        return func(*args, **(kwargs or {}))


def refuse_host_tensors(work: Work) -> tuple[Callable[[], None], Tensor]:
    """Run a work that a CUDA graph could capture; another one fails.

    Numbers cannot be read of a device that has none, so that a test of one fails too.
    """
    with _OnDeviceOnly(), _NoTables():
        result = work()
    return (lambda: None), result
