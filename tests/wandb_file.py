"""Reads the file of an offline W&B run, from its published framing: LevelDB's log format."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from wandb.proto.wandb_internal_pb2 import Record

_HEADER, _BLOCK, _HEAD = 7, 32 * 1024, struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read(path: Path) -> dict[str, Any]:
    """config, summary and history rows, group, job type, tags, artifacts of a run's file."""
    found: dict[str, Any] = {"config": {}, "summary": {}, "history": [], "artifacts": [], "run": {}}
    for record in _records(path.read_bytes()):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = record.run
            found["run"] |= {"id": run.run_id, "group": run.run_group, "job_type": run.job_type}
            found["run"] |= {"tags": list(run.tags), "name": run.display_name}
            found["config"] |= {i.key: json.loads(i.value_json) for i in run.config.update}
        elif kind == "config":
            found["config"] |= {i.key: json.loads(i.value_json) for i in record.config.update}
        elif kind == "summary":
            found["summary"] |= _items(record.summary.update)
        elif kind == "history":
            found["history"].append(_items(record.history.item))
        elif kind == "artifact":
            found["artifacts"].append(record.artifact)
    return found


def _items(items: Any) -> dict[str, Any]:
    return {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}


def _records(content: bytes) -> Iterator[Record]:
    """Whole records; one may be cut over several blocks."""
    position, parts = _HEADER, b""
    while position + _HEAD.size <= len(content):
        left = _BLOCK - position % _BLOCK
        if left < _HEAD.size:
            position += left
            continue
        _, length, kind = _HEAD.unpack_from(content, position)
        position += _HEAD.size
        piece = content[position : position + length]
        position += length
        parts = piece if kind in (_FULL, _FIRST) else parts + piece
        if kind in (_FULL, _LAST):
            yield Record.FromString(parts)
