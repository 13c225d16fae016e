"""The origin of results as facts for a reader: data, weights, versions, device, digests, keys."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from asap.report.result import Result


@dataclass(frozen=True)
class Fact:
    """A name and its values, several where records differ."""

    name: str
    values: tuple[str, ...]


def facts(results: Sequence[Result]) -> list[Fact]:
    """The known facts about the records of some results, in reading order."""
    records = [record for result in results for record in result.records.values()]
    names = ("backbone", "data", "precision", "device", "device_name")
    found = [_fact(name.replace("_", " "), (r.get(name) for r in records)) for name in names]
    found += [_fact(name, (_inside(r, path) for r in records)) for name, path in _DIGESTS]
    found.append(_fact("preprocessing from", (r.get("preprocessing_from") for r in records)))
    taken = [r.get("weights") or {} for r in records]
    found += [_fact(f"weights {name}", (t.get(name) for t in taken)) for name in _OF_WEIGHTS]
    around = [(k, v) for r in records for k, v in r.get("environment", {}).items()]
    packages = dict.fromkeys(k for k, v in around if isinstance(v, str))
    found += [_fact(n, (r.get("environment", {}).get(n) for r in records)) for n in packages]
    created = sorted(str(r["created"]) for r in records if r.get("created"))
    found += [_fact("measured", [" to ".join(dict.fromkeys((created[0], created[-1])))])] if (
        created) else []  # fmt: skip
    keys = [
        f"{r['key']} ({r.get('label') or result.label})"
        for result in results
        for r in result.records.values()
    ]
    return [fact for fact in [*found, _fact("records", keys)] if fact.values]


_OF_WEIGHTS = ("entry", "others", "assumed")  # what was read from their file, if it is not obvious
_DIGESTS = (
    ("weights, SHA-256", ("backbone", "weights")),
    ("data, SHA-256", ("data", "content")),
    ("labels, SHA-256", ("data", "labels")),
    ("preprocessing", ("preprocessing",)),
    ("engine version", ("engine",)),
)


def _fact(name: str, values: Iterable[Any]) -> Fact:
    return Fact(name, tuple(dict.fromkeys(_text(v) for v in values if v not in (None, "", {}, []))))


def _inside(record: Any, path: Sequence[str]) -> Any:
    """The value at a path in a record's identity, None if there is none."""
    found = record.get("identity", {})
    for name in path:
        found = found.get(name) if isinstance(found, dict) else None
    return found


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{k} {_text(v)}" for k, v in value.items())
    return " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
