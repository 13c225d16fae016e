"""The key of a record: a hash of exactly what changes its numbers."""

import json
import math
from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from asap.errors import RequestError


def key_of(identity: Mapping[str, Any]) -> str:
    """16 hex digits that name a run: the SHA-256 of its identity as canonical JSON.

    The order of keys makes no difference, nor does 3 against 3.0. Raises `RequestError` on NaN and
    infinity, `TypeError` on values that JSON cannot hold.
    """
    plain = _canonical(identity, "identity")
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode()).hexdigest()[:16]


def _canonical(value: Any, where: str) -> Any:
    if value is None or isinstance(value, (str, int)):  # bool is an int and stays true or false
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RequestError(f"{where}={value} names no run: give a finite number")
        return int(value) if value.is_integer() else value
    if isinstance(value, Mapping):
        return {_text(k, where): _canonical(v, f"{where}.{k}") for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(v, f"{where}[{i}]") for i, v in enumerate(value)]
    raise TypeError(f"{where} is a {type(value).__name__}: use plain Python values")


def _text(key: Any, where: str) -> str:
    if not isinstance(key, str):  # JSON would turn 1 into "1", which another key may already be
        raise TypeError(f"{where} has the key {key!r}: keys must be strings")
    return key
