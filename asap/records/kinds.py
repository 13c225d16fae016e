"""The kinds of records: what is measured of a row, or made once for many rows.

A kind is declared here, or in the one file that measures it. Its name is the name of its file, and
the store, results, pages and the CSV know it from then on. Numbers that are not among the fields of
a kind are in `metrics`, by name.
"""

from dataclasses import dataclass

from asap.records.schema import AccuracyRecord, RecordHead, ThroughputRecord

HEAD = RecordHead.__required_keys__  # the fields of every record


@dataclass(frozen=True)
class Kind:
    """A kind of record, `<name>.json`.

    version: part of the key, raised when a field's or a metric's meaning changes: records of two
        versions never meet in one cell or one table.
    fields: those of a record of this kind in addition to `HEAD`.
    files: written before the record, which is not complete without them.
    """

    name: str
    version: int
    fields: frozenset[str] = frozenset()
    files: tuple[str, ...] = ()


KINDS: dict[str, Kind] = {}


def declare(kind: Kind) -> Kind:
    """Register a kind. ValueError if there is a different one with the same name."""
    if KINDS.setdefault(kind.name, kind) != kind:
        raise ValueError(f"there is another kind of record named {kind.name!r}")
    return kind


def kind_named(name: str) -> Kind:
    """The kind of a name. ValueError if none is declared."""
    if name not in KINDS:
        raise ValueError(f"no kind of record is named {name!r}: there are {', '.join(KINDS)}")
    return KINDS[name]


ANSWERS, TRACES = "answers.parquet", "traces.parquet"
# 4: separate tables for answers and traces, methods by stage, metrics by name
ACCURACY = declare(Kind("accuracy", 4, AccuracyRecord.__required_keys__ - HEAD, (ANSWERS, TRACES)))
# 5: further dense models, the engine's path, latency, memory, energy and MACs of the timed images
THROUGHPUT = declare(Kind("throughput", 5, ThroughputRecord.__required_keys__ - HEAD))
# A trained artefact, such as the head of a frozen backbone. Its identity names no method, so that
# one head serves the rows of all methods; its metrics are those of its training.
TRAINED_HEAD = declare(Kind("head", 1, files=("head.safetensors", "training.csv")))
