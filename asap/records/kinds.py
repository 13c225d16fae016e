"""The kinds of records: what is measured of a row, or made once for many rows.

A kind is declared here, or in the one file that measures it: its name is the name of its file, and
the store, results, pages and the CSV know it from then on. What a record says beyond the fields
listed for its kind stands in `metrics`, numbers by name.
"""

from dataclasses import dataclass

from asap.records.schema import AccuracyRecord, ThroughputRecord

# What every record says: its version and key, what was hashed to the key; in words, how its row is
# called and what it is of; numbers by name beside the fields of its kind; versions and platform.
HEAD = frozenset(
    (
        *("schema_version", "key", "identity", "label", "backbone", "data", "precision"),
        *("metrics", "environment", "created"),
    )
)


@dataclass(frozen=True)
class Kind:
    """A kind of record, `<name>.json`.

    version: part of the key, raised when a field's or a metric's meaning changes: records of two
        versions never meet in one cell or one table.
    fields: what a record of this kind has beside `HEAD`.
    files: what a record stands for, written before it: without them it is not complete.
    """

    name: str
    version: int
    fields: frozenset[str] = frozenset()
    files: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {}


def declare(kind: Kind) -> Kind:
    """Make a kind known. ValueError if there is another one of its name."""
    if KINDS.setdefault(kind.name, kind) != kind:
        raise ValueError(f"there is another kind of record named {kind.name!r}")
    return kind


ANSWERS, TRACES = "answers.parquet", "traces.parquet"
# 4: answers and traces apart, methods by stage, metrics by name
ACCURACY = declare(Kind("accuracy", 4, AccuracyRecord.__required_keys__ - HEAD, (ANSWERS, TRACES)))
THROUGHPUT = declare(Kind("throughput", 4, ThroughputRecord.__required_keys__ - HEAD))
# A trained artefact, such as the head of a frozen backbone. Its identity names no method, so that
# one head serves the rows of all methods; its metrics are those of its training.
TRAINED_HEAD = declare(Kind("head", 1, files=("head.safetensors",)))
