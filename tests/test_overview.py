"""Which records a page of a results folder shows, and which speed belongs to which row."""

from itertools import product
from types import SimpleNamespace

from made import ASAP, frame, methods, reads, record

from asap.cli.report import main
from asap.errors import RequestError
from asap.methods import Asap
from asap.methods.registry import find
from asap.publish.all_records import current_keys, grouped, label_of, write_page
from asap.records.store import Store
from asap.records.versions import ENGINE_VERSION
from asap.report.manifest import Manifest, RowRef, write_manifest

IDENTITY = {
    "engine": ENGINE_VERSION,
    "method_version": Asap.method_version,
    "backbone": {"name": "digits_vit", "weights": "w" * 64},
    "data": {"content": "d" * 64, "labels": "l" * 64},
}


class Shelf(Store):
    """A store of hand-made records."""

    def __init__(self, *records, configs=None, frames=None):
        self.made = {r["key"]: r for r in records}
        self.configs = configs or {}
        self.frames = frames or {}

    def cell(self, key):
        found = self.made.get(key, {})
        kind = "throughput" if "images_per_s" in found else "accuracy"
        records = {kind: found} if found else {}
        return SimpleNamespace(
            key=key,
            record=records.get,
            records=lambda: records,
            config=lambda: self.configs.get(key),
            **reads(lambda: self.frames.get(key, frame())),
        )

    def cells(self):
        return [self.cell(key) for key in sorted(self.made)]


def row(key, tau=3.0, **changes):
    identity = IDENTITY | {"methods": methods("asap", ASAP | {"tau": tau})} | changes
    return record("asap", 80.0, 1.0, key=key, identity=identity)


def speed(key, of, device, created, short=False):
    return {
        "key": key, "identity": {**of["identity"], "conditions": {"batch_size": 8}},
        "device_name": device,
        "images_per_s": {"median": 1.0}, "created": created, "short": short,
    }  # fmt: skip


def test_a_row_has_the_latest_full_speed_of_its_group_s_machine():
    one, two, three = row("1"), row("2", tau=2.0), row("3", tau=4.0)
    shelf = Shelf(
        one, two, three,
        speed("a", one, "this", "2026-01-01"), speed("b", one, "this", "2026-01-02"),
        speed("c", one, "this", "2026-01-03", short=True),
        speed("d", two, "this", "2026-01-01"), speed("e", three, "other", "2026-01-01"),
    )  # fmt: skip
    (cells,) = grouped(shelf, list(shelf.made)).values()
    found = {cell.key: cell.throughput and cell.throughput["key"] for cell in cells}
    assert found == {"1": "b", "2": "d", "3": None}
    reasons = {cell.key: cell.reason for cell in cells}
    assert reasons == {"1": None, "2": None, "3": "it was timed on other alone"}


def test_a_table_has_speeds_of_one_batch_size():
    """Those of most of its rows, even if others are later."""
    one, two = row("1"), row("2", tau=2.0)
    speeds = [
        speed(key, of, "this", created) | {"batch_size": batch, "clock": "wall"}
        for key, of, batch, created in (
            ("a", one, 8, "2026-01-01"), ("b", one, 64, "2026-01-02"), ("c", two, 8, "2026-01-01"),
        )
    ]  # fmt: skip
    shelf = Shelf(one, two, *speeds)
    (cells,) = grouped(shelf, list(shelf.made)).values()
    assert {c.key: c.throughput and c.throughput["key"] for c in cells} == {"1": "a", "2": "c"}
    three = row("3", tau=4.0)
    other = speed("d", three, "this", "2026-01-01") | {"batch_size": 64, "clock": "wall"}
    shelf = Shelf(one, two, three, *speeds[::2], other)
    (cells,) = grouped(shelf, list(shelf.made)).values()
    (reason,) = [cell.reason for cell in cells if cell.key == "3"]
    assert reason == "it was timed on this by wall time, batch 64 alone"


def test_a_title_of_the_data_splits_no_group_and_other_labels_do():
    def called(key, title, labels="l" * 64):
        data = {"content": "d" * 64, "labels": labels}
        about = {"data": "scenes" if title is None else f"{title}: scenes", "data_title": title}
        return row(key) | about | {"identity": row(key)["identity"] | {"data": data}}

    rows = [called("1", None), called("2", "mine"), called("3", None, "m" * 64)]
    shelf = Shelf(*rows)
    groups = grouped(shelf, list(shelf.made))
    assert sorted(sorted(c.key for c in cells) for cells in groups.values()) == [["1", "2"], ["3"]]
    assert {group[1] for group in groups} == {"scenes"}
    assert {group[-1] for group in groups} == {"labels llllllll", "labels mmmmmmmm"}


def test_equal_images_in_two_folders_are_one_group_and_called_as_they_were_first():
    """A copy of the data elsewhere has the rows of the first, and their baseline."""
    rows = [row("1") | {"data": "image folder b", "created": "2026-01-02"},
            row("2", tau=2.0) | {"data": "image folder a", "created": "2026-01-01"}]  # fmt: skip
    shelf = Shelf(*rows)
    ((group, cells),) = grouped(shelf, list(shelf.made)).items()
    assert group[1] == "image folder a" and sorted(cell.key for cell in cells) == ["1", "2"]


def test_records_of_other_versions_are_left_out():
    shelf = Shelf(
        row("1"), row("2", engine=ENGINE_VERSION - 1), row("3", methods=methods("asap", version=-1))
    )
    assert current_keys(shelf) == ["1"]


def test_a_baseline_on_the_rest_has_its_record_on_what_calibration_took():
    """Of the same model and the same files; without it the gate would miss the slice's images."""
    slices = {"1": "rest", "2": "slice", "3": "slice"}
    records = [
        record("dense", 80.0, 1.0, key=key, data=f"data {key}", identity=IDENTITY
               | {"data": {"content": key * 64, "labels": key}, "seed": seed,
                  "methods": methods("dense")})
        for key, seed in (("1", 0), ("3", 1), ("2", 0), ("4", 0))
    ]  # fmt: skip
    configs = {k: {"data": {"path": "/x", "part": p}, "limit": None} for k, p in slices.items()}

    def found(**changes):
        shelf = Shelf(*records, configs={**configs, **changes})
        cells = [cell for group in grouped(shelf, list(shelf.made)).values() for cell in group]
        return {cell.key: cell.left_out and cell.left_out["key"] for cell in cells}

    none = dict.fromkeys("1234")
    assert found() == none | {"1": "2"}
    assert found(**{"2": {"data": {"path": "/y", "part": "slice"}, "limit": None}}) == none
    assert found(**{"1": {"data": {"path": "/x", "part": "rest"}, "limit": 10}}) == none


def test_labels_name_what_is_not_the_default():
    assert label_of(row("1")) == "asap"
    assert label_of(row("1", tau=2.0)) == "asap tau=2"
    assert label_of({**row("1", tau=2.0), "label": "ASAP tau=2.0"}) == "ASAP tau=2.0"


def test_a_page_shows_runs_first_and_groups_with_something_new(tmp_path, monkeypatch):
    shelf = Shelf(row("1"), row("2", tau=2.0))
    monkeypatch.setattr("asap.publish.all_records.Store", lambda root: shelf)

    def run(*keys):
        rows = tuple(RowRef(f"Row {k}", records={"accuracy": k}) for k in keys)
        write_manifest(Manifest("My run", ("Said.",), rows), tmp_path / "tables" / "my.rows.json")
        return write_page(tmp_path).read_text()

    page = run("1", "9")
    assert page.index("My run") < page.index("digits_vit, two scenes, fp32, cpu, weights wwwwwwww")
    assert "record 9 is gone or of another version of the code" in page
    assert "Row 1" in page and "asap tau=2" in page
    assert "weights wwwwwwww" not in run("1", "2")  # nothing that is not shown already


def test_records_that_cannot_be_paired_cost_no_other_table_and_the_page(
    tmp_path, monkeypatch, capsys
):
    def cell(key, name, data, **options):
        own = ASAP | options if name == "asap" else {}
        identity = IDENTITY | {"methods": methods(name, own, find(name).method_version)}
        identity |= {"data": {"content": data, "labels": data}}
        return record(name, 80.0, 1.0, key=key, identity=identity, data=data)

    sweep = [(str(i), *pair) for i, pair in enumerate(product((2.0, 3.0), (4, 6)))]
    bad = [cell(f"bad{i}", "asap", "twice", tau=tau, clusters=k) for i, tau, k in sweep]
    good = [cell("good1", "dense", "good"), cell("good2", "asap", "good")]
    shelf = Shelf(
        *bad, *good, cell("bad4", "dense", "twice"), frames={"bad1": frame(id=[7, 7])}
    )  # fmt: skip
    (tmp_path / "runs").mkdir()
    for module in ("asap.publish.all_records", "asap.cli.report"):
        monkeypatch.setattr(f"{module}.Store", lambda root: shelf)
    assert main([str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no table of digits_vit, twice, fp32, cpu, weights wwwwwwww")
    assert "record bad1 (asap" in line and "delete its folder runs/bad1 and evaluate" in line
    assert [p.name.split("-")[2] for p in (tmp_path / "tables").glob("all-*.md")] == ["good"]
    page = (tmp_path / "report.html").read_text()
    assert "digits_vit, good, fp32" in page and page.count("record bad1 (asap") == 2


def test_damaged_predictions_cost_their_own_group_alone(tmp_path, monkeypatch, capsys):
    """However many there are: what the table does not meet, the figures of the page do."""

    class Damaged(Shelf):
        def cell(self, key):
            def answers():
                if key.startswith("bad"):
                    raise RequestError(f"runs/{key}/answers.parquet was damaged: run again")
                return frame()

            return SimpleNamespace(**{**vars(super().cell(key)), **reads(answers)})

    def cell(key, name, data, tau=3.0):
        own = ASAP | {"tau": tau} if name == "asap" else {}
        identity = IDENTITY | {"methods": methods(name, own, find(name).method_version)}
        identity |= {"data": {"content": data, "labels": data}}
        return record(name, 80.0, 1.0, key=key, identity=identity, data=data)

    taus = enumerate((1.5, 2.0, 2.5, 3.0))
    bad = [cell(f"bad{i}", "asap", "torn", tau) for i, tau in taus]
    good = [cell("good1", "dense", "good"), cell("good2", "asap", "good")]
    shelf = Damaged(cell("bad9", "dense", "torn"), *bad, *good)
    (tmp_path / "runs").mkdir()
    for module in ("asap.publish.all_records", "asap.cli.report"):
        monkeypatch.setattr(f"{module}.Store", lambda root: shelf)
    assert main([str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: no table of digits_vit, torn") and "was damaged" in line
    assert [p.name.split("-")[2] for p in (tmp_path / "tables").glob("all-*.md")] == ["good"]
    page = (tmp_path / "report.html").read_text()
    assert "digits_vit, good, fp32" in page and "digits_vit, torn, fp32" in page


def test_the_folder_may_be_given_as_to_a_run(tmp_path, capsys):
    assert main([f"results={tmp_path}"]) == main([str(tmp_path)]) == 2
    one, two = capsys.readouterr().err.splitlines()
    assert one == two and one.startswith(f"error: {tmp_path}/runs does not exist")
