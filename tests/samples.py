"""Helper for the tests of data sets."""

import torch

from asap.data.base import Sample


def same(one: Sample, other: Sample) -> bool:
    """Equal field by field, tensors bit for bit."""

    def equal(a: object, b: object) -> bool:
        if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
            return a.dtype == b.dtype and torch.equal(a, b)
        if isinstance(a, dict) and isinstance(b, dict):
            return a.keys() == b.keys() and all(equal(a[name], b[name]) for name in a)
        return type(a) is type(b) and a == b

    return all(equal(getattr(one, f), getattr(other, f)) for f in Sample.__dataclass_fields__)
