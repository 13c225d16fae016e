"""The identity of a record: everything that changes its numbers, and nothing else."""

from collections.abc import Mapping
from typing import Any

from asap.records.kinds import Kind
from asap.records.versions import ENGINE_VERSION

VISION = "vision"  # the stage of a row that reduces the tokens of images
LANGUAGE = "language"  # the stage that reduces rows inside a language model
_OF_THE_KIND = ("kind", "version", "conditions")


def identity_of(
    kind: Kind,
    methods: Mapping[str, Mapping[str, Any]],
    subject: Mapping[str, Any],
    conditions: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The identity of a record, to be hashed to its key.

    methods: by stage, with name, options and version; empty if the record serves the rows of all
    methods. subject: backbone, data, preprocessing, precision, device and seed. conditions:
    everything else that changes a number of this kind, such as the machine for a speed.
    """
    return {
        "kind": kind.name,
        "version": kind.version,
        "engine": ENGINE_VERSION,
        "methods": {stage: dict(method) for stage, method in methods.items()},
        **subject,
        "conditions": dict(conditions or {}),
    }


def same_row(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True if records with these identities are of one row; their kinds may differ."""
    rows = [{k: v for k, v in who.items() if k not in _OF_THE_KIND} for who in (one, other)]
    return rows[0] == rows[1]


def method_of(record: Mapping[str, Any], stage: str = VISION) -> Mapping[str, Any]:
    """Name, options and version of the method of a record's row at a stage; KeyError if none."""
    return record["identity"]["methods"][stage]
