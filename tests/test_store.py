"""The store under hostile conditions: kills, full disks, torn files, two processes."""

import errno
import json
import logging
import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable
from functools import cache
from hashlib import sha256
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from asap.errors import RequestError
from asap.records import disk, kinds
from asap.records.key import key_of
from asap.records.kinds import HEAD, Kind
from asap.records.schema import environment
from asap.records.store import Cell, Store
from asap.records.tables import (
    ANSWER_COLUMNS,
    TRACE_COLUMNS,
    Columns,
    Evaluated,
    column,
    decode_shard,
    encode,
    encode_shard,
    joined,
    matrix,
    stage_columns,
    table_of,
)
from asap.tasks.classification import Classification

IDENTITY = {"method": {"name": "asap", "options": {"tau": 3.0}}, "backbone": "tiny"}
KEY = key_of(IDENTITY)
CONFIG = {"method": {"name": "asap", "tau": 3.0}, "sizes": (1, 2)}
N = 24
KILLED = 77  # exit status of a child that ends itself with os._exit

fork = multiprocessing.get_context("fork")  # children share the imported modules: fast


def answers_of(start: int, stop: int) -> dict[str, list]:
    """Answers as a run makes them: ragged lists, NaN, an unreadable image now and then."""
    indices = range(start, stop)
    draws = {i: np.random.default_rng(i) for i in indices}
    lost = {i: i % 7 == 3 for i in indices}
    return {
        "index": [*indices],
        "id": [i * 1_000_003 for i in indices],
        "path": [f"größe/{i}.JPEG" for i in indices],
        "cluster": [i // 2 for i in indices],
        "n": [int(not lost[i]) for i in indices],
        "error": ["truncated or damaged (12 bytes)" if lost[i] else None for i in indices],
        "label": [i % 10 for i in indices],
        "other_labels": [[7, 8][: i % 3] for i in indices],
        "top5": [[] if lost[i] else draws[i].permutation(10)[:5].tolist() for i in indices],
        "top5_logits": [np.zeros(0) if lost[i] else draws[i].normal(size=5) for i in indices],
        "object_share": [float("nan")] * len(indices),
        "object_recall": [0.5] * len(indices),
        "sink_on_object": [1.0] * len(indices),
    }


def traces_of(start: int, stop: int) -> dict[str, list]:
    """The traces of the readable ones."""
    indices = [i for i in range(start, stop) if i % 7 != 3]
    none = [0] * len(indices)
    return {
        "example": indices,
        "view": none,
        "frame": none,
        "vision.tokens": [[65] * (5 - i % 3) for i in indices],
        "vision.stop_block": [i % 4 for i in indices],
        "vision.macs_backbone": [2**52 + i for i in indices],
        "vision.macs_method": indices,
        "vision.mass": [[0.25, 0.5, float("nan")]] * len(indices),
        "vision.margin": [0.125] * len(indices),
    }


ANSWERS = (*ANSWER_COLUMNS, *Classification.columns)
OWN = (column("mass", "float", listed=True), column("margin", "float"))
TRACES = (*TRACE_COLUMNS, *stage_columns("vision", OWN))


def rows_of(start: int, stop: int) -> Evaluated:
    """What a run finds of some images."""
    answers = table_of(answers_of(start, stop), ANSWERS)
    return Evaluated(answers, table_of(traces_of(start, stop), TRACES))


def filled(kind: Kind, **given: object) -> dict:
    """A record with every field of its kind."""
    fields = dict.fromkeys(HEAD | kind.fields, 0)
    return fields | {"schema_version": kind.version, "key": KEY, "identity": IDENTITY} | given


SCHEMA_VERSION = kinds.ACCURACY.version
ACCURACY = filled(kinds.ACCURACY, n=N - 3, n_failed=3, label="ASAP τ=3")
THROUGHPUT = filled(kinds.THROUGHPUT)


def measure(root: Path, shards: tuple[int, ...] = (0, 8, 16, N)) -> None:
    """What a run does with its cell: resume from shards, fill the gaps, finish."""
    cell = Store(root).cell(KEY)
    with cell.lock():
        if cell.record("accuracy"):
            return
        done = {start: frame for start, _, frame in cell.shards()}
        for start, stop in pairwise(shards):
            if start not in done:
                done[start] = rows_of(start, stop)
                cell.write_shard(start, stop, done[start])
        found = joined([done[start] for start in sorted(done)])
        cell.finish("accuracy", CONFIG, ACCURACY, found)


def child(task: Callable[[], None]) -> int:
    """Exit status of a forked process that does `task`; negative is the signal that killed it."""
    process = fork.Process(target=task)
    process.start()
    process.join(60)
    assert process.exitcode is not None, "the child hangs"
    return process.exitcode


def assert_sound(root: Path) -> None:
    """Nothing under a final name is torn, and a record stands for readable tables."""
    for path in root.glob("*/*"):
        if path.suffix == ".json" and not path.name.startswith("."):
            json.loads(path.read_text("utf-8"))
        if path.name.startswith("shard-"):
            start, stop = map(int, path.stem.split("-")[1:])
            assert path.read_bytes() == encode_shard(rows_of(start, stop))
    cell = Cell(root, KEY)
    if cell.record("accuracy"):
        assert len(cell.answers()) == N and len(cell.traces()) == N - 3
        assert yaml.safe_load((cell.path / "config.yaml").read_text()) is not None


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, bytes]:
    """The files of a run that nobody disturbed."""
    root = tmp_path_factory.mktemp("undisturbed")
    measure(root)
    return files_of(root)


def files_of(root: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in (root / KEY).iterdir() if p.name != ".lock"}


# ---- whole runs


def test_a_finished_cell_holds_its_record_and_nothing_temporary(undisturbed, tmp_path):
    tables = {"answers.parquet", "traces.parquet"}
    assert set(undisturbed) == {"accuracy.json", "config.yaml", *tables}
    measure(tmp_path)
    cell = Store(tmp_path).cell(KEY)
    assert cell.record("accuracy") == ACCURACY and cell.record("throughput") is None
    assert key_of(cell.record("accuracy")["identity"]) == KEY
    assert "τ" in (cell.path / "accuracy.json").read_text("utf-8")
    assert [c.key for c in Store(tmp_path).cells()] == [KEY]


def test_answers_and_traces_come_back_as_they_were(tmp_path):
    measure(tmp_path)
    cell = Store(tmp_path).cell(KEY)
    answers, traces = cell.answers(), cell.traces()
    assert list(answers.columns) == [field.name for field in ANSWERS]
    assert list(traces.columns) == [field.name for field in TRACES]
    expected, there = answers_of(0, N), traces_of(0, N)
    for name in ("index", "id", "path", "label", "n"):
        assert answers[name].tolist() == expected[name]
    assert [e for e in answers["error"] if e is not None] == ["truncated or damaged (12 bytes)"] * 3
    assert traces["vision.tokens"].map(list).tolist() == there["vision.tokens"]
    assert traces["vision.macs_backbone"].tolist() == there["vision.macs_backbone"]
    mass = matrix(traces, "vision.mass")
    np.testing.assert_array_equal(mass, np.float32([[0.25, 0.5, np.nan]] * (N - 3)))
    assert encode_shard(cell.evaluated()) == encode_shard(rows_of(0, N))
    assert cell.answers() is answers  # read once


def test_throughput_and_failures_have_their_files(tmp_path):
    cell = Store(tmp_path).cell(KEY)
    try:
        raise ValueError("no such\nmethod")
    except ValueError as error:
        cell.fail(error)
    report = json.loads((cell.path / "error.json").read_text())
    assert report["type"] == "ValueError" and "raise ValueError" in report["traceback"]
    assert Store(tmp_path).cells() == []
    cell.finish("throughput", CONFIG, THROUGHPUT)
    assert cell.record("throughput") == THROUGHPUT and cell.record("accuracy") is None
    assert set(files_of(tmp_path)) == {"throughput.json", "config.yaml"}
    assert [c.key for c in Store(tmp_path).cells()] == [KEY]


def test_reading_makes_no_folder(tmp_path):
    cell = Store(tmp_path).cell(KEY)
    assert (
        cell.record("accuracy") is None
        and cell.record("throughput") is None
        and cell.shards() == []
    )
    with pytest.raises(RequestError, match="is missing"):
        cell.answers()
    assert list(tmp_path.iterdir()) == []


# ---- bytes


@cache
def whole_tables():
    """All rows, and the bytes of their two tables."""
    whole = rows_of(0, N)
    return whole, encode(whole.answers), encode(whole.traces)


@pytest.mark.slow
@given(st.lists(st.integers(1, N - 1), unique=True))
def test_tables_have_the_same_bytes_from_any_shards(cuts):
    bounds, (whole, *wanted) = [0, *sorted(cuts), N], whole_tables()
    parts = [decode_shard(encode_shard(rows_of(a, b))) for a, b in pairwise(bounds)]
    for found in (joined(parts), joined([whole.slice(a, b) for a, b in pairwise(bounds)])):
        assert [encode(found.answers), encode(found.traces)] == wanted


def test_every_nan_has_the_same_bytes():
    payload = np.uint32(0xFFC00001).view(np.float32)
    other = traces_of(0, 4) | {"vision.margin": np.full(3, payload)}
    other["vision.mass"] = [np.array([0.25, 0.5, payload])] * 3
    usual = traces_of(0, 4) | {"vision.margin": [float("nan")] * 3}
    assert encode(table_of(other, TRACES)) == encode(table_of(usual, TRACES))


def test_tables_are_one_row_group_without_foreign_metadata(tmp_path):
    import pyarrow.parquet as pq

    measure(tmp_path)
    for name, fields in (("answers", ANSWERS), ("traces", TRACES)):
        file = pq.ParquetFile(tmp_path / KEY / f"{name}.parquet")
        assert file.num_row_groups == 1 and file.schema_arrow.equals(pa.schema(fields))
        assert file.schema_arrow.metadata is None


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"index": [0]}, "unknown columns"),
        (answers_of(0, N) | {"extra": [1] * N}, "unknown columns: .'extra'"),
        (answers_of(0, N) | {"path": [None] * N}, "a value is missing in column path"),
    ],
)
def test_a_table_of_other_columns_or_without_a_value_is_refused(columns, message):
    with pytest.raises(ValueError, match=message):
        table_of(columns, ANSWERS)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: joined([f, f]), "each once"),
        (lambda f: f.slice(1, N), "each once"),
        (lambda f: Evaluated(f.answers, f.traces.slice(1)), "each once"),
        (lambda f: Evaluated(f.answers.take([1, 0, *range(2, N)]), f.traces), "each once"),
    ],
)
def test_wrong_rows_are_refused_before_anything_is_written(spoil, message, tmp_path):
    cell = Store(tmp_path).cell(KEY)
    with pytest.raises(ValueError, match=message):
        cell.write_shard(0, N, spoil(rows_of(0, N)))
    with pytest.raises(ValueError, match=message):
        cell.finish("accuracy", CONFIG, ACCURACY, spoil(rows_of(0, N)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "record",
    [
        {k: v for k, v in ACCURACY.items() if k != "top1"},
        ACCURACY | {"key": "0" * 16},
        ACCURACY | {"schema_version": SCHEMA_VERSION + 1},
        ACCURACY | {"top1": float("nan")},
    ],
)
def test_wrong_records_are_refused_before_anything_is_written(record, tmp_path):
    with pytest.raises(ValueError):
        Store(tmp_path).cell(KEY).finish("accuracy", CONFIG, record, rows_of(0, N))
    assert list(tmp_path.iterdir()) == []


# ---- kills


def dying_at(step: int) -> None:
    """Make this process end at its `step`-th flush, rename or removal, before it happens."""
    steps = iter(range(step))

    def deadly(function: Callable) -> Callable:
        def call(*args, **kwargs):
            if next(steps, None) is None:
                os._exit(KILLED)
            return function(*args, **kwargs)

        return call

    for name in ("fsync", "replace", "rename", "unlink"):
        setattr(os, name, deadly(getattr(os, name)))


@pytest.mark.slow
def test_a_run_killed_at_any_step_leaves_nothing_torn_and_resumes(undisturbed, tmp_path):
    for step in range(1000):

        def task(step=step):
            dying_at(step)
            measure(tmp_path / str(step))

        status = child(task)
        root = tmp_path / str(step)
        assert_sound(root)
        measure(root)
        assert files_of(root) == undisturbed
        if status == 0:
            break
        assert status == KILLED
    assert step > 20, "the run has fewer steps than it writes files"


@pytest.mark.parametrize("n_bytes", [0, 1, 500, 4096])
def test_a_run_killed_within_a_write_leaves_nothing_torn(n_bytes, undisturbed, tmp_path):
    Store(tmp_path)

    def task():
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # the kernel kills the writer at this size
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, n_bytes))
        with Cell(tmp_path, KEY).lock():
            Cell(tmp_path, KEY).write_shard(0, 8, rows_of(0, 8))

    assert child(task) == -signal.SIGXFSZ
    torn = list((tmp_path / KEY).glob(".*.tmp"))
    assert [path.stat().st_size for path in torn] == [n_bytes]
    assert_sound(tmp_path)
    measure(tmp_path)
    assert files_of(tmp_path) == undisturbed


@pytest.mark.process
def test_a_run_killed_at_random_moments_ends_as_if_undisturbed(undisturbed, tmp_path):
    delays = np.random.default_rng(0).uniform(0.001, 0.06, 8)
    for delay in delays:
        process = fork.Process(target=measure, args=(tmp_path, tuple(range(N + 1))))
        process.start()
        time.sleep(delay)
        process.kill()
        process.join()
        assert_sound(tmp_path)
    measure(tmp_path, tuple(range(N + 1)))
    assert files_of(tmp_path) == undisturbed


# ---- two processes


@pytest.mark.process
def test_two_processes_on_one_cell_measure_it_once(undisturbed, tmp_path):
    journal = tmp_path / "journal"

    def task():
        cell = Store(tmp_path).cell(KEY)
        with cell.lock():
            if cell.record("accuracy"):
                return
            with journal.open("a") as file:
                file.write(f"{os.getpid()}\n")
            time.sleep(0.2)
            cell.finish("accuracy", CONFIG, ACCURACY, rows_of(0, N))

    racers = [fork.Process(target=task) for _ in range(3)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join(60)
    assert [racer.exitcode for racer in racers] == [0, 0, 0]
    assert len(journal.read_text().splitlines()) == 1
    assert files_of(tmp_path) == undisturbed


@pytest.mark.process
def test_a_process_that_waits_for_a_cell_says_so_and_a_dead_one_holds_nothing(tmp_path, caplog):
    held = fork.Event()
    Store(tmp_path)

    def holder():
        with Cell(tmp_path, KEY).lock():
            held.set()
            time.sleep(60)

    process = fork.Process(target=holder)
    process.start()
    assert held.wait(30)
    fork.Process(target=lambda: (time.sleep(0.3), os.kill(process.pid, signal.SIGKILL))).start()
    with caplog.at_level(logging.WARNING), Cell(tmp_path, KEY).lock():
        pass
    process.join()
    assert [r.getMessage() for r in caplog.records] == [
        f"{KEY}: another process is working on this cell: waiting"
    ]


# ---- disks


def refusing(number: int) -> Callable:
    def refuse(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    return refuse


def one_line(error: pytest.ExceptionInfo, *parts: str) -> None:
    message = str(error.value)
    assert "\n" not in message and all(part in message for part in parts), message


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_refuses_gives_one_line_and_leaves_nothing(number, call, tmp_path, monkeypatch):
    cell = Store(tmp_path).cell(KEY)
    monkeypatch.setattr(os, call, refusing(number))
    for write in (
        lambda: cell.write_shard(0, N, rows_of(0, N)),
        lambda: cell.finish("accuracy", CONFIG, ACCURACY, rows_of(0, N)),
        lambda: cell.finish("throughput", CONFIG, THROUGHPUT),
        lambda: cell.fail(ValueError("x")),
    ):
        with pytest.raises(RequestError) as error:
            write()
        one_line(error, str(cell.path), os.strerror(number), "another results folder")
    assert list(cell.path.iterdir()) == []


def test_a_disk_that_fills_up_within_a_file_leaves_nothing(tmp_path):
    cell = Store(tmp_path).cell(KEY)
    rows = rows_of(0, N)

    def task():  # Python ignores SIGXFSZ, so the write itself fails half-way
        resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500))
        with pytest.raises(RequestError):
            cell.write_shard(0, N, rows)

    assert child(task) == 0
    assert list(cell.path.iterdir()) == []


def test_a_failed_finish_keeps_the_shards(tmp_path, monkeypatch, undisturbed):
    cell = Store(tmp_path).cell(KEY)
    cell.write_shard(0, N, rows_of(0, N))
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refusing(errno.ENOSPC))
        with pytest.raises(RequestError):
            cell.finish("accuracy", CONFIG, ACCURACY, rows_of(0, N))
    assert [(start, stop) for start, stop, _ in cell.shards()] == [(0, N)]
    measure(tmp_path, (0, N))
    assert files_of(tmp_path) == undisturbed


def test_a_full_disk_is_found_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", refusing(errno.ENOSPC))
    with pytest.raises(RequestError) as error:
        Store(tmp_path / "runs")
    one_line(error, str(tmp_path / "runs"), "No space left")
    assert list((tmp_path / "runs").iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for root in (tmp_path / "file", tmp_path / "file" / "runs"):
        with pytest.raises(RequestError) as error:
            Store(root)
        one_line(error, str(root))
    monkeypatch.setattr(os, "mkdir", refusing(errno.EROFS))
    with pytest.raises(RequestError, match="Read-only"):
        Store(tmp_path / "runs")


def test_a_cell_that_cannot_be_locked_or_read_is_one_line(tmp_path, monkeypatch):
    measure(tmp_path)
    cell = Store(tmp_path).cell(KEY)
    monkeypatch.setattr(Path, "read_bytes", refusing(errno.EACCES))
    with pytest.raises(RequestError, match="Permission denied"):
        cell.record("accuracy")
    monkeypatch.setattr(os, "mkdir", refusing(errno.EROFS))
    with pytest.raises(RequestError, match="Read-only"), Cell(tmp_path, "new").lock():
        pass


# ---- damaged and foreign files


@pytest.mark.parametrize("content", [b"", b'{"n": 1', b"[1, 2]", b"null", b"\xff\xfe", b"{}"])
def test_a_torn_record_is_set_aside_and_measured_again(content, tmp_path, caplog, undisturbed):
    measure(tmp_path)
    path = tmp_path / KEY / "accuracy.json"
    torn = (
        content
        if content != b"{}"
        else json.dumps({"schema_version": SCHEMA_VERSION, "key": KEY}).encode()
    )
    path.write_bytes(torn)
    assert Store(tmp_path).cells() == []
    assert not path.exists() and path.with_name("accuracy.json.corrupt").read_bytes() == torn
    assert "set aside" in caplog.text
    measure(tmp_path)
    again = files_of(tmp_path)
    assert again.pop("accuracy.json.corrupt") == torn and again == undisturbed


@pytest.mark.parametrize("version", [0, SCHEMA_VERSION + 1, "1", None])
def test_a_record_of_another_version_counts_as_absent_and_stays(version, tmp_path, caplog):
    measure(tmp_path)
    path = tmp_path / KEY / "accuracy.json"
    path.write_text(json.dumps(ACCURACY | {"schema_version": version}))
    assert Store(tmp_path).cell(KEY).record("accuracy") is None
    assert path.exists() and "schema version" in caplog.text


def test_a_cell_copied_by_hand_is_not_counted_twice(tmp_path, caplog):
    measure(tmp_path)
    (tmp_path / KEY).rename(tmp_path / f"{KEY} (copy)")
    measure(tmp_path)
    assert [cell.key for cell in Store(tmp_path).cells()] == [KEY]
    assert f"belongs to {KEY}" in caplog.text


@pytest.mark.parametrize("table", ["answers", "traces"])
def test_a_record_without_its_tables_is_not_complete(table, tmp_path):
    measure(tmp_path)
    (tmp_path / KEY / f"{table}.parquet").unlink()
    cell = Store(tmp_path).cell(KEY)
    assert cell.record("accuracy") is None
    cell.write_shard(0, 8, rows_of(0, 8))
    with cell.lock():  # a record that stands for nothing must not cost the shards
        assert len(cell.shards()) == 1


@pytest.mark.parametrize("table", ["answers", "traces"])
def test_damaged_tables_are_set_aside(table, tmp_path):
    measure(tmp_path)
    cell = Store(tmp_path).cell(KEY)
    path = cell.path / f"{table}.parquet"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(RequestError, match="was damaged: run the command again"):
        getattr(cell, table)()
    assert cell.record("accuracy") is None and not path.exists()


WHOLE = encode_shard(rows_of(0, 8))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        WHOLE[:-1],
        WHOLE[: len(WHOLE) // 2],
        bytes(len(WHOLE)),
        WHOLE[:60] + bytes([WHOLE[60] ^ 1]) + WHOLE[61:],  # one bit, found by the checksum
        encode_shard(rows_of(1, 9)),  # sound, but of other images
        encode_shard(rows_of(0, 7)),
    ],
)
def test_a_damaged_shard_is_deleted_with_a_warning(content, tmp_path, caplog):
    cell = Store(tmp_path).cell(KEY)
    cell.write_shard(8, 16, rows_of(8, 16))
    (cell.path / "shard-0-8.parquet").write_bytes(content)
    assert [shard[:2] for shard in cell.shards()] == [(8, 16)]
    assert "shard-0-8.parquet is damaged or overlaps: deleted" in caplog.text
    assert [path.name for path in cell.path.iterdir()] == ["shard-8-16.parquet"]


LATER = column("vision.later", "int")  # added without a new version, or a column of another type
OTHERS = (*TRACES[:-1], LATER), (*TRACES, LATER), (*TRACES[:-1], column(TRACES[-1].name, "int"))


@pytest.mark.parametrize("traces", [*OTHERS, TRACES[:-1]])
def test_a_shard_with_other_columns_is_deleted_with_a_warning(traces, tmp_path, caplog):
    Store(tmp_path).cell(KEY).write_shard(0, 8, rows_of(0, 8))
    same = Store(tmp_path).cell(KEY, Columns(ANSWERS, TRACES))
    assert [shard[:2] for shard in same.shards()] == [(0, 8)]
    assert Store(tmp_path).cell(KEY, Columns(ANSWERS, traces)).shards() == []
    assert "shard-0-8.parquet is damaged or overlaps: deleted" in caplog.text


@pytest.mark.parametrize(
    ("columns", "table"),
    [(Columns(ANSWERS, traces), "traces") for traces in OTHERS]
    + [(Columns((*ANSWERS, column("later", "text")), TRACES), "answers")],
)
def test_a_table_without_the_columns_of_its_row_is_set_aside(columns, table, tmp_path, caplog):
    measure(tmp_path)
    assert Store(tmp_path).cell(KEY, Columns(ANSWERS, TRACES)).record("accuracy") == ACCURACY
    assert Store(tmp_path).cell(KEY, columns).record("accuracy") is None
    assert f"{table}.parquet is damaged (it has no column " in caplog.text
    assert (tmp_path / KEY / f"{table}.parquet.corrupt").exists()


def test_scores_of_earlier_versions_are_read_as_doubles(tmp_path, caplog):
    """A record is not measured again, and shards with single precision go on with double."""
    measure(tmp_path)
    wider = [column(f.name, "double") if f.name == "object_recall" else f for f in ANSWERS]
    cell = Store(tmp_path).cell(KEY, Columns(tuple(wider), TRACES))
    assert cell.record("accuracy") == ACCURACY
    Store(tmp_path / "unfinished").cell(KEY).write_shard(0, 8, rows_of(0, 8))
    ((_, _, part),) = Store(tmp_path / "unfinished").cell(KEY, cell.columns).shards()
    assert part.columns == cell.columns and not caplog.text


def test_shards_are_sorted_by_number_and_hold_no_image_twice(tmp_path, caplog):
    cell = Store(tmp_path).cell(KEY)
    for start, stop in [(100, 108), (8, 16), (12, 20), (0, 8), (9, 10), (20, 24)]:
        cell.write_shard(start, stop, rows_of(start, stop))
    assert [s[:2] for s in cell.shards()] == [(0, 8), (8, 16), (20, 24), (100, 108)]
    assert caplog.text.count("overlaps") == 2
    assert len(list(cell.path.iterdir())) == 4


# ---- keys

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip
IDENTITIES = st.dictionaries(st.text(), PLAIN, max_size=5)


def shuffled(value: object) -> object:
    """The same value written otherwise: keys reversed, tuples for lists, floats for small ints."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    if isinstance(value, list):
        return tuple(shuffled(item) for item in value)
    if type(value) is int and abs(value) < 2**53:
        return float(value)
    return value


@given(IDENTITIES)
def test_a_key_depends_on_values_and_not_on_how_they_are_written(identity):
    key = key_of(identity)
    assert len(key) == 16 and set(key) <= set("0123456789abcdef")
    assert key == key_of(shuffled(identity))
    assert key == key_of(json.loads(json.dumps(identity)))


@given(IDENTITIES, st.text(), PLAIN, PLAIN)
def test_a_key_differs_where_a_value_differs(identity, name, one, other):
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True) or (
        key_of({"v": one}) == key_of({"v": other}) and one == other
    )
    keys = {key_of(identity | {name: one}), key_of(identity | {name: other})}
    assert len(keys) == (1 if same else 2)


def test_keys_of_known_identities():
    assert key_of({"tau": 3, "k": 4}) == key_of({"k": 4.0, "tau": 3.0})
    assert key_of({"x": -0.0}) == key_of({"x": 0})
    values = [0, 0.5, False, None, "0", "", [], {}, [0], {"0": 0}, "NaN"]
    assert len({key_of({"x": value}) for value in values}) == len(values)
    text = b'{"backbone":"tiny","method":{"name":"asap","options":{"tau":3}}}'
    assert sha256(text).hexdigest()[:16] == KEY  # a change here orphans every record there is


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float64("nan")])
def test_a_number_that_is_none_has_no_key(value):
    with pytest.raises(RequestError, match=r"identity\.method\.taus\[1\]"):
        key_of({"method": {"taus": [1, value]}})


@pytest.mark.parametrize("value", [np.float32(1), np.int64(1), {1}, b"x", Path("x"), {1: 2}])
def test_values_without_a_json_form_have_no_key(value):
    with pytest.raises(TypeError, match=r"identity\.x"):
        key_of({"x": value})


# ---- environment


def test_the_environment_names_versions_and_no_machine():
    snapshot = environment()
    assert {"python", "torch", "timm", "platform"} <= snapshot.keys()
    assert os.uname().nodename not in json.dumps(snapshot) or len(os.uname().nodename) < 4
    json.dumps(snapshot)


def test_the_environment_is_complete_without_git(monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert "commit" not in environment() and "torch" in environment()


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError(28, "No space left on device")])
def test_a_file_whose_writing_is_cut_short_leaves_the_old_one_and_nothing_beside_it(
    tmp_path, monkeypatch, error
):
    """Tables lie in no cell that the next run would tidy."""
    path = disk.write_file(tmp_path / "table.md", "old")

    def cut(beside, content):
        beside.write_bytes(content[:1])
        raise error

    monkeypatch.setattr(disk, "write_through", cut)
    with pytest.raises((KeyboardInterrupt, RequestError)):
        disk.write_file(path, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["table.md"] and path.read_text() == "old"
