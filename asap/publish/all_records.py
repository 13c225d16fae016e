"""All current records of a results folder, as the sections of its page: runs, then groups."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from asap.errors import RequestError
from asap.methods import Asap
from asap.methods.base import Method
from asap.methods.language.base import Pruner
from asap.methods.registry import build, build_pruner, find, find_pruner, names, pruner_names
from asap.records.disk import write_file
from asap.records.identity import LANGUAGE, same_row
from asap.records.key import key_of
from asap.records.schema import CLOCKS
from asap.records.store import Store
from asap.records.versions import ENGINE_VERSION
from asap.report.manifest import Manifest, read_manifests, results_of
from asap.report.page import Section, render_page
from asap.report.premise import premise_remark
from asap.report.prose import sweep_remarks
from asap.report.result import Result, RowRef
from asap.spec.answer_spec import AnswerSpec
from asap.spec.labels import labelled

Record = Mapping[str, Any]
Groups = dict[tuple[str, ...], list[Result]]
PAGE = "report.html"


def write_page(results: Path) -> Path:
    """Write results/report.html from the records there; RequestError if there is none."""
    store = Store(results / "runs")
    keys = current_keys(store)
    manifests = read_manifests(results)
    sections = [_section_of(manifest, results, store, keys) for manifest in manifests]
    rows = [row for manifest in manifests for row in manifest.rows]
    shown = {key for row in rows for key in row.keys}
    for group, members in sorted(grouped(store, keys).items()):
        if any(result.key not in shown for result in members):
            sections.append(_section_of_all(group, members))
    if not any(result.records for section in sections for result in section.results):
        raise RequestError(f"{results}/runs holds no current record: run an experiment first")
    return write_file(results / PAGE, render_page(sections, circled(), "All results"))


def write_page_of(section: Section, results: Path) -> Path:
    """Write results/report.html of one run; reads no other records."""
    note = "This page shows the last run. python -m asap.report makes one of all records here."
    return write_file(results / PAGE, render_page([section], circled(), section.title, note))


def circled() -> dict[str, Any]:
    """The default tau, clusters and alpha, which figures of sweeps circle."""
    default = Asap()
    return {name: getattr(default, name) for name in ("tau", "clusters", "alpha")}


def current_keys(store: Store) -> list[str]:
    """Keys of records of the current versions of engine and methods."""
    found = [(cell.key, cell.records().values()) for cell in store.cells()]
    return [key for key, records in found if all(is_current(r["identity"]) for r in records)]


def grouped(store: Store, keys: Sequence[str]) -> Groups:
    """All accuracy records as results, grouped into tables by `group_of`.

    Each result has its answers and traces and, if there are any, records of the same row of other
    kinds (see `_beside`). A baseline also has its record on the images that calibration took.
    """
    by_kind: dict[str, list[Record]] = defaultdict(list)
    for key in keys:
        for kind, record in store.cell(key).records().items():
            by_kind[kind].append(record)
    found = by_kind.pop("accuracy", [])
    names: dict[str, str] = {}  # one for equal images and labels, even from different folders
    for record in sorted(found, key=lambda record: record["created"]):
        names.setdefault(str(record["identity"]["data"]), _data_of(record))
    groups = [group_of(r, names[str(r["identity"]["data"])]) for r in found]
    labels: dict[tuple[str, ...], set[str]] = defaultdict(set)
    for record, group in zip(found, groups, strict=True):
        labels[group].add(_labels(record))
    records: dict[tuple[str, ...], list[Record]] = defaultdict(list)
    for record, group in zip(found, groups, strict=True):
        apart = (f"labels {_labels(record)}",) if len(labels[group]) > 1 else ()
        records[(*group, *apart)].append(record)
    dense = [r for found in records.values() for r in found if _is_dense(r)]
    slices = [r for r in dense if _part(store, r, "slice") is not None]
    return {group: _results(store, found, by_kind, slices) for group, found in records.items()}


def _is_dense(record: Record) -> bool:
    return all(method["name"] == "dense" for method in record["identity"]["methods"].values())


def _results(
    store: Store,
    records: Sequence[Record],
    others: Mapping[str, Sequence[Record]],
    slices: Sequence[Record],
) -> list[Result]:
    beside = {kind: _beside(records, found) for kind, found in others.items()}
    found = []
    for record in records:
        key = record["key"]
        keys = {kind: of[key] for kind, (of, _) in beside.items() if key in of}
        reasons = dict.fromkeys(why[key] for _, why in beside.values() if key in why)
        row = RowRef(
            label_of(record), ours=is_extension(record["identity"]["methods"]),
            reason="; ".join(reasons) or None, records={"accuracy": key} | keys,
            left_out=_left_out(store, record, slices),
        )  # fmt: skip
        found.append(Result.from_store(store, row))
    return sorted(found, key=lambda result: (not result.is_dense, result.label))


def _beside(
    records: Sequence[Record], others: Sequence[Record]
) -> tuple[dict[str, str], dict[str, str]]:
    """Finds, by key of each accuracy record, the key of a record in `others` of the same row.

    others: records of one kind. A table holds speeds of one machine, clock and batch size: those
    that timed most of its rows. The second result has the reason, by key, for rows timed only on
    others. Of several records the latest full one is taken.
    """
    own = {r["key"]: [o for o in others if same_row(r["identity"], o["identity"])] for r in records}
    votes = Counter(_timed_by(o) for found in own.values() for o in found)
    most = min(votes, key=lambda name: (-votes[name], name), default=None)
    taken, reasons = {}, {}
    for key, found in own.items():
        fitting = [o for o in found if _timed_by(o) == most]
        if fitting:
            latest = max(fitting, key=lambda o: (not o.get("short", False), o["created"]))
            taken[key] = latest["key"]
        elif found:
            where = ", ".join(sorted({*map(_timed_by, found)}))
            reasons[key] = f"it was timed on {where} alone"
    return taken, reasons


def _timed_by(record: Record) -> str:
    """The machine, the clock and the batch size; "" for a record that depends on none of them."""
    said, clock, batch = (
        record.get("device_name", ""),
        record.get("clock"),
        record.get("batch_size"),
    )
    said += "" if clock is None else f" by {CLOCKS[clock]}"
    return said if "images_per_s" not in record or batch is None else f"{said}, batch {batch}"


def _left_out(store: Store, record: Record, slices: Sequence[Record]) -> str | None:
    """For a baseline on the images that calibration left, the key of its record on the others."""
    rest = _part(store, record, "rest")
    if rest is None:
        return None
    same = {k: v for k, v in record["identity"].items() if k != "data"}
    for other in slices:
        about = {k: v for k, v in other["identity"].items() if k != "data"}
        if about == same and _part(store, other, "slice") == rest:
            return other["key"]
    return None


def _part(store: Store, record: Record, part: str) -> dict[str, Any] | None:
    """The data settings of a record's run without the part; None if it was over other images."""
    config = store.cell(record["key"]).config() or {}
    data = config.get("data")
    if not isinstance(data, Mapping) or data.get("part") != part or config.get("limit") is not None:
        return None
    return {name: value for name, value in data.items() if name not in ("part", "title")}


def _data_of(record: Record) -> str:
    """The description of the data without the user's title."""
    return record["data"].removeprefix(f"{record.get('data_title')}: ")


def group_of(record: Record, data: str) -> tuple[str, ...]:
    """A key, of words and digests, that is equal for rows of one table. data: its description."""
    weights = record["identity"]["backbone"]["weights"][:8]
    content = record["identity"]["data"]["content"][:8]
    names = [record["backbone"], data, record["precision"], record["device"]]
    own = (*_own_pictures(record), *_own_answers(record))
    return (*names, f"weights {weights}", f"data {content}", *own)


def _own_pictures(record: Record) -> tuple[str, ...]:
    """The digest of a preprocessing that is not the architecture's own; else empty."""
    if not record.get("preprocessing_from"):
        return ()
    return (f"preprocessing {key_of(record['identity']['preprocessing'])[:8]}",)


def _own_answers(record: Record) -> tuple[str, ...]:
    """How questions are answered, as far as it is not the usual way; rows that differ in it are not
    to be compared.
    """
    modes = {"picture": "pad", "anyres": "fixed"}
    usual = {**asdict(AnswerSpec()), **modes}
    pictures = record["identity"].get("preprocessing", {})
    asked = {**record["identity"].get("answer", {})}
    asked |= {name: pictures.get(name, mode) for name, mode in modes.items()}
    return tuple(f"{name} {value}" for name, value in asked.items() if value != usual.get(name))


def _labels(record: Record) -> str:
    return record["identity"]["data"]["labels"][:8]


def is_current(identity: Mapping[str, Any]) -> bool:
    """True if engine and methods have the versions of this identity."""
    if identity["engine"] != ENGINE_VERSION:
        return False
    kinds = [(_kind_of(stage, m), m["version"]) for stage, m in identity["methods"].items()]
    return all(kind is None or _version(kind) == version for kind, version in kinds)


def _kind_of(stage: str, method: Mapping[str, Any]) -> type[Method] | type[Pruner] | None:
    """The class of a method of this package; None for a method of the user's own."""
    name = method["name"]
    if stage == LANGUAGE:
        return find_pruner(name) if name in pruner_names() else None
    return find(name) if name in names() else None


def _version(kind: type[Method] | type[Pruner]) -> int:
    return kind.pruner_version if issubclass(kind, Pruner) else kind.method_version


def is_extension(methods: Mapping[str, Mapping[str, Any]]) -> bool:
    """True if a method of this package, in any stage, has options that are an extension of ours."""
    own = [(s, m) for s, m in methods.items() if _kind_of(s, m) is not None]
    try:
        return any(
            (build_pruner if stage == LANGUAGE else build)(m["name"], m["options"]).extension
            for stage, m in own
        )
    except RequestError:  # options of an older version
        return False


def label_of(record: Record) -> str:
    """The row's label with the options that differ from the defaults of its methods."""
    methods = record["identity"]["methods"].items()
    return labelled(record["label"], (o for stage, m in methods for o in _changed(stage, m)))


def _changed(stage: str, method: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The options that differ from the method's defaults."""
    kind = _kind_of(stage, method)
    defaults = {} if kind is None else {f.name: f.default for f in fields(kind)}
    defaults = {k: list(v) if isinstance(v, tuple) else v for k, v in defaults.items()}  # as JSON
    options = method["options"].items()
    return [(k, v) for k, v in options if k not in defaults or defaults[k] != v]


def _section_of(manifest: Manifest, results: Path, store: Store, keys: Sequence[str]) -> Section:
    pictures = [picture.read(results / "figures") for picture in manifest.pictures]
    rows = results_of(manifest, store, keys)
    return Section(
        manifest.title, rows, manifest.remarks, pictures, paper_table=manifest.paper_table
    )


def _section_of_all(group: Sequence[str], members: Sequence[Result]) -> Section:
    """A section of all records that can share a table.

    Records that are in a run's section are included, since remarks on a sweep need the whole grid.
    """
    try:
        premise = premise_remark(members)
        remarks = [*([premise] if premise else []), *sweep_remarks(members, circled())]
    except RequestError as error:  # the other sections can still be shown
        return Section(", ".join(group), members, missing={"Remarks": str(error)})
    return Section(", ".join(group), members, remarks)
