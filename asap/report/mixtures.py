"""Which records cannot share a table."""

from collections.abc import Mapping, Sequence
from typing import Any

from asap.errors import RequestError
from asap.records.cost_record import COST
from asap.records.latency_record import LATENCY
from asap.report.result import Result


def refuse_mixtures(results: Sequence[Result]) -> None:
    """RequestError if the records of a table cannot be compared, or if there is none."""
    if not any(result.records for result in results):
        raise RequestError("no finished record to make a table of: run an experiment first")
    refuse_other_data([record for result in results for record in _measured(result)])
    refuse_other_models(results)


def refuse_other_models(results: Sequence[Result]) -> None:
    """RequestError if the records differ in precision, weights, device, or how they are made."""
    records = [record for result in results for record in _measured(result)]
    speeds = [result.throughput for result in results if result.throughput is not None]
    _refuse_mixed("precision", "precision", records)
    _refuse_mixed("device of throughput", "device_name", speeds)
    _refuse_mixed("clock of throughput", "clock", speeds)
    times = [one for result in results if (one := result.record(LATENCY.name)) is not None]
    _refuse_mixed("device of times", "device_name", times)
    _refuse_mixed("clock of times", "clock", times)
    # Rows with a checkpoint of their own may differ: a footnote names their backbone.
    shared = [
        record for result in results if not result.own_weights for record in _measured(result)
    ]
    loaded: dict[str, list[Mapping[str, Any]]] = {}
    for record in shared:
        if "backbone" in record["identity"]:
            loaded.setdefault(record["backbone"], []).append(record["identity"]["backbone"])
    for name, weights in loaded.items():
        _refuse_mixed(f"set of weights of {name}", "weights", weights)
    for name in dict.fromkeys(record["backbone"] for record in shared):
        found = [r["identity"] for r in shared if r["backbone"] == name]
        answered = [identity for identity in found if "answer" in identity]
        _refuse_mixed("way to answer questions", "answer", answered)
        found = [identity for identity in found if "preprocessing" in identity]
        _refuse_mixed(f"preprocessing for {name}", "preprocessing", found)


def _measured(result: Result) -> list[Mapping[str, Any]]:
    """Its records but that of costs by arithmetic, which are of no data and no weights."""
    return [record for kind, record in result.records.items() if kind != COST.name]


def refuse_other_data(records: Sequence[Mapping[str, Any]]) -> None:
    """RequestError unless all records have the same digests of images and labels; names are
    compared only where records have no digests.
    """
    digests = [record["identity"].get("data") for record in records]
    if None in digests:
        _refuse_mixed("data set", "data", records)
        return
    found = {str(digest): record["data"] for digest, record in zip(digests, records, strict=True)}
    names = list(dict.fromkeys(found.values()))
    if len(found) > 1 and len(names) > 1:
        _refuse_mixed("data set", "data", records)
    if len(found) > 1:
        raise RequestError(
            f"one table holds one data set, these records have {len(found)} with other images or "
            f"labels that are all called {names[0]!r}: make one table of each"
        )


def _refuse_mixed(what: str, key: str, records: Sequence[Mapping[str, Any]]) -> None:
    found = list(dict.fromkeys(str(record.get(key)) for record in records))
    if len(found) > 1:
        raise RequestError(
            f"one table holds one {what}, these records have {' and '.join(map(repr, found))}: "
            "make one table of each"
        )
