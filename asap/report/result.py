"""A row with its records, from which tables, figures and dashboards are made."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pandas as pd

from asap.errors import RequestError
from asap.records.identity import LANGUAGE, VISION, method_of
from asap.records.schema import AccuracyRecord, ThroughputRecord
from asap.records.store import Store
from asap.spec.run_spec import MethodSpec, RunSpec

Read = Callable[[], pd.DataFrame]


@dataclass(frozen=True)
class RowRef:
    """A row of a table: what it is called there, and the keys of its records by kind."""

    label: str
    paper: str | None = None
    ours: bool = False
    note: str | None = None
    reason: str | None = None
    records: Mapping[str, str] = field(default_factory=dict)
    left_out: str | None = None  # key of a baseline's record on the images that calibration took
    own_weights: bool = False  # its backbone has the weights of its own checkpoint
    on: str | None = None  # its backbone, used if no record names it
    data: str | None = None  # its data set, likewise

    @property
    def keys(self) -> list[str]:
        """The keys of all of its records."""
        return [*self.records.values(), *([] if self.left_out is None else [self.left_out])]


@dataclass(frozen=True)
class Result:
    """One row: its records as read from disk, and why a part of it is missing.

    paper_method: the row's name in the paper's tables; ours: an extension that the paper does not
    have; records: by kind; read: functions that read the tables "answers" and "traces" beside the
    accuracy record when they are needed; reason: why a record is missing; note: a footnote of this
    row; on, data: its backbone and data set, used if no record names them; config: the settings of
    its run, from the config.yaml beside its record; left_out: a baseline's record on the images
    that calibration took; own_weights: its backbone has the weights of its own checkpoint, not
    those of the other rows.
    """

    label: str
    paper_method: str | None = None
    ours: bool = False
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    read: Mapping[str, Read] = field(default_factory=dict)
    reason: str | None = None
    note: str | None = None
    on: str | None = None
    data: str | None = None
    config: Mapping[str, Any] | None = None
    left_out: AccuracyRecord | None = None
    own_weights: bool = False

    @classmethod
    def from_store(
        cls, store: Store, row: RowRef, current: Collection[str] | None = None
    ) -> "Result":
        """The row with its records as they are on the disk, under the row's own label.

        current: keys of the records that may be read, None for all. A record with another key is
        missing, and the row's reason says so.
        """
        lost = [key for key in row.keys if current is not None and key not in current]
        found = {
            kind: {**record, "label": row.label}
            for kind, key in row.records.items()
            if key not in lost and (record := store.cell(key).record(kind)) is not None
        }
        reason = f"record {lost[0]} is gone or of another version of the code" if lost else None
        result = cls(
            row.label, row.paper, row.ours, found,
            reason=reason or row.reason, note=row.note, on=row.on, data=row.data,
            own_weights=row.own_weights,
        )  # fmt: skip
        if "accuracy" in found:
            cell = store.cell(row.records["accuracy"])
            read = {"answers": cell.answers, "traces": cell.traces}
            result = replace(result, read=read, config=cell.config())
        if row.left_out is not None and row.left_out not in lost:
            record = store.cell(row.left_out).record("accuracy")
            result = replace(result, left_out=cast(AccuracyRecord | None, record))
        return result

    @property
    def ref(self) -> RowRef:
        """A reference to this row, from which `from_store` makes it again."""
        return RowRef(
            self.label, self.paper_method, self.ours, self.note, self.reason,
            {kind: record["key"] for kind, record in self.records.items()},
            None if self.left_out is None else self.left_out["key"],
            self.own_weights, self.on, self.data,
        )  # fmt: skip

    def record(self, kind: str) -> Mapping[str, Any] | None:
        """The record of a kind, None if there is none."""
        return self.records.get(kind)

    def with_records(self, **records: Mapping[str, Any] | None) -> "Result":
        """The row with these records instead of its own of the same kinds; None removes one."""
        found = {**self.records, **records}
        return replace(self, records={k: v for k, v in found.items() if v is not None})

    def answers(self) -> pd.DataFrame:
        """One row per scored example, as `Cell.answers` reads them; ValueError without any."""
        return self._read("answers")

    def traces(self) -> pd.DataFrame:
        """One row per encoded image, as `Cell.traces` reads them; ValueError without any."""
        return self._read("traces")

    def _read(self, name: str) -> pd.DataFrame:
        if name not in self.read:
            raise ValueError(f"{self.label} has no {name}")
        return self.read[name]()

    @property
    def has_answers(self) -> bool:
        """Whether answers lie beside its accuracy record, and so do traces."""
        return "answers" in self.read

    @property
    def accuracy(self) -> AccuracyRecord | None:
        return cast(AccuracyRecord | None, self.record("accuracy"))

    @property
    def throughput(self) -> ThroughputRecord | None:
        return cast(ThroughputRecord | None, self.record("throughput"))

    @property
    def measured(self) -> Mapping[str, Any]:
        """The accuracy record of a result that has one; ValueError if it has none."""
        if self.accuracy is None:
            raise ValueError(f"{self.label} has no accuracy record")
        return self.accuracy

    @property
    def gmacs(self) -> float:
        """GMACs per image, backbone and method together; ValueError without an accuracy record."""
        return self.measured["gmacs_backbone"] + self.measured["gmacs_method"]

    @property
    def things(self) -> str:
        """What its examples are called."""
        return "images" if self.accuracy is None else things_of(self.accuracy)

    @property
    def key(self) -> str | None:
        """The key of the accuracy record, else of the first record there is."""
        record = self.record("accuracy") or next(iter(self.records.values()), None)
        return None if record is None else record["key"]

    @property
    def backbone(self) -> str | None:
        """Name of the backbone, None if neither a record nor the run names it."""
        return next((r["backbone"] for r in self.records.values() if "backbone" in r), self.on)

    def method_in(self, stage: str) -> Mapping[str, Any] | None:
        """Name and options of the method of a stage, as recorded; None if no record names one."""
        for record in self.records.values():
            if stage in record.get("identity", {}).get("methods", {}):
                return method_of(record, stage)
        return None

    @property
    def method(self) -> Mapping[str, Any]:
        """Name and options of the method that reduces tokens of images, as recorded.

        If no record names one, its name is its label.
        """
        return self.method_in(VISION) or {"name": self.label.lower(), "options": {}}

    @property
    def reducing(self) -> Mapping[str, Any]:
        """The method by which the row is known: that of the images, or the language model's alone
        where images are not reduced.
        """
        language = self.method_in(LANGUAGE)
        return self.method if language is None or self.method["name"] != "dense" else language

    @property
    def is_dense(self) -> bool:
        """Whether this is an unreduced baseline: no method reduces in any stage."""
        return self.reducing.get("name") == "dense"


def things_of(record: Mapping[str, Any]) -> str:
    """What the examples of an accuracy record are called, for people."""
    return next((name for name in ("clips", "questions") if name in record), "images")


def accuracy_name(record: Mapping[str, Any]) -> str:
    """What `top1` of an accuracy record is called, for people."""
    return "right" if "questions" in record else "top-1"


def pairable(result: Result) -> pd.DataFrame:
    """The result's answers, to be matched with others by id.

    ValueError if it has none; RequestError, which names the record, if an image is there twice.
    """
    found = result.answers()
    if not found["id"].is_unique:
        raise RequestError(
            f"record {result.key} ({result.label}) holds an image twice, so it cannot be compared: "
            f"delete its folder runs/{result.key} and evaluate again"
        )
    return found


def unreadable(results: Iterable[Result]) -> dict[int, str]:
    """Paths by id of images that some row could not read. Comparisons leave them out, so that all
    rows are compared on the same images.
    """
    found: dict[int, str] = {}
    for result in results:
        if result.has_answers and result.accuracy and result.accuracy["n_failed"]:
            frame = result.answers()
            failed = frame[frame["error"].notna()]
            found |= zip(failed["id"].tolist(), failed["path"].tolist(), strict=True)
    return dict(sorted(found.items()))


def unmeasured(
    spec: RunSpec, row: MethodSpec, reason: str | None = None, ours: bool = False
) -> Result:
    """A row without records; reason: why it gets none, None if it is not measured yet."""
    return Result(
        row.label, row.paper, row.ours or ours,
        reason=reason, note=row.note, on=spec.backbone.shown,
        data=spec.data.name,
    )  # fmt: skip
