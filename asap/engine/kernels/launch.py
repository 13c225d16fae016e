"""What the kernels share: Triton if it is installed, and when a kernel runs.

A kernel is written as

    @jit
    @no_type_check
    def _name_kernel(x, n, BLOCK: tl.constexpr):

`no_type_check` keeps the run-time checks of the tests (jaxtyping's import hook) out of code that
Triton compiles from its source. Numbers and pointers that change from call to call are named in
`do_not_specialize` and `do_not_specialize_on_alignment`, else Triton may compile for new ones.

Triton decides when it is imported whether kernels are compiled or interpreted
(`TRITON_INTERPRET=1`: on CPU tensors, slowly, for tests).
"""

import os
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor


def _as_it_is(kernel: Any = None, **_: Any) -> Any:
    return (lambda given: given) if kernel is None else kernel


# Imported by name: type checkers need no Triton, which exists for Linux only.
try:
    jit: Any = import_module("triton").jit
    tl: Any = import_module("triton.language")
except ImportError:  # kernels are defined, but `runs` never lets one be launched
    jit, tl = _as_it_is, SimpleNamespace(constexpr=int)
INSTALLED = jit is not _as_it_is

INTERPRETED = INSTALLED and os.environ.get("TRITON_INTERPRET") == "1"
DEVICES = {"cuda", "cpu"} if INTERPRETED else {"cuda"}  # types whose tensors kernels take
DTYPES = {torch.float16, torch.bfloat16, torch.float32}
LOG2_E = 1.4426950408889634  # exp(x) = 2^(x LOG2_E); the device has an instruction for 2^x


def runs(tensor: Tensor) -> bool:
    """Whether a kernel takes this tensor of numbers; else the plain version does.

    Triton has to be installed and the numbers to be float16, bfloat16 or float32, on a CUDA device
    or under the interpreter.
    """
    return tensor.dtype in DTYPES and reaches(tensor)


def reaches(tensor: Tensor) -> bool:
    """Whether kernels can be launched where the tensor is, of numbers, indices or flags."""
    return INSTALLED and tensor.device.type in DEVICES


def upcasts(tensor: Tensor) -> bool:
    """Whether a kernel converts the operands of `tl.dot` to float32: under the interpreter, whose
    products of half precision are slow (float16) or wrong (bfloat16). (It also cuts numbers off
    where a device rounds them to bfloat16.)
    """
    return INTERPRETED and tensor.dtype in (torch.float16, torch.bfloat16)


def next_power_of_2(n: int, least: int = 1) -> int:
    """The smallest power of two that is at least n and `least` (a power of two)."""
    return max(least, 1 << max(0, n - 1).bit_length())


def pitch_of(n: int) -> int:
    """Rows and columns of the buffer of an n x n map: n rounded up to a multiple of 16.

    Batched products of half precision need rows that start at multiples of 16 bytes: at 197 the
    library's kernels take 3 to 5 times as long as at 208.
    """
    return -(-n // 16) * 16


def architecture() -> int:
    """The compute capability for which kernels are compiled now: 89 is Ada, 90 Hopper."""
    if not INSTALLED or INTERPRETED:
        return 90
    return import_module("triton.runtime").driver.active.get_current_target().arch


def much_shared_memory() -> bool:
    """Whether a block may have 227 KB of shared memory: on Hopper and the Blackwell of data centres
    (100, 103). Ada and the Blackwell of graphics cards (120) have 99 KB.
    """
    return architecture() in (90, 100, 103)
