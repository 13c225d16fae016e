"""Two records compared: which images they disagree on, by hand, and the command."""

import json
import logging

import pandas as pd
import pytest
from samples import small_run

from asap.cli.compare import main
from asap.errors import RequestError
from asap.records.identity import method_of
from asap.report.disagreement import compare
from asap.report.manifest import Manifest, RowRef, write_manifest
from asap.report.named import row_named
from asap.report.result import Result

pytestmark = pytest.mark.painted


def frame(tops: list[list[int]], logits: list[list[float]]) -> pd.DataFrame:
    """Four images with labels 0, 1, 2 and 3."""
    n = len(tops)
    return pd.DataFrame(
        {
            "index": range(n), "id": [10, 11, 12, 13], "path": [f"{i}.png" for i in range(n)],
            "label": range(n), "other_labels": [[]] * n, "cluster": range(n),
            "top5": tops, "top5_logits": logits, "error": [None] * n,
        }
    )  # fmt: skip


def result(label: str, predictions: pd.DataFrame) -> Result:
    record = {"label": label, "clustered": False}
    return Result(label, records={"accuracy": record}, read={"answers": lambda: predictions})


FIRST = frame([[0, 1], [1, 0], [2, 3], [0, 3]], [[5.0, 1], [4.0, 3.5], [9.0, 1], [2.0, 1]])
SECOND = frame([[0, 1], [2, 1], [3, 2], [3, 0]], [[5.0, 1], [8.0, 1], [3.0, 0], [2.0, 1]])


def test_disagreements_by_hand():
    found = compare(result("one", FIRST), result("two", SECOND))
    images = found.images
    # leads of the differing images: (0.5, 7), (8, 3), (1, 1): the smaller one says how sure
    assert images["path"].tolist() == ["2.png", "3.png", "1.png"]
    assert images["sureness"].tolist() == [3.0, 1.0, 0.5]
    assert images[["label", "first", "second"]].to_numpy().tolist() == [
        [2, 2, 3], [3, 0, 3], [1, 1, 2],
    ]  # fmt: skip
    assert images["first_right"].tolist() == [True, False, True]
    assert images["second_right"].tolist() == [False, True, False]
    assert (found.paired.b, found.paired.c, found.paired.n) == (2, 1, 4)
    assert found.paired.difference == -25.0


def test_the_order_of_a_frame_does_not_matter():
    shuffled = SECOND.iloc[[3, 1, 0, 2]].reset_index(drop=True)
    one = compare(result("one", FIRST), result("two", SECOND)).images
    pd.testing.assert_frame_equal(
        one, compare(result("one", FIRST), result("two", shuffled)).images
    )


def test_equal_predictions_disagree_nowhere():
    assert compare(result("one", FIRST), result("one", FIRST)).images.empty


def test_a_record_with_an_image_twice_is_named_with_the_remedy():
    broken = result("two", SECOND.assign(id=[10, 11, 11, 13]))
    broken = broken.with_records(accuracy={**broken.measured, "key": "ab12"})
    said = r"^record ab12 \(two\) holds an image twice, .*: delete its folder runs/ab12 and eval"
    for pair in ((result("one", FIRST), broken), (broken, result("one", FIRST))):
        with pytest.raises(RequestError, match=said):
            compare(*pair)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two real records on twelve scenes."""
    from asap.experiment.pipeline import run
    from asap.methods.registry import names

    assert "dense" in names()
    folder = tmp_path_factory.mktemp("compare")
    dropped = {"method": "random_drop", "with": {"keep": 0.1, "block": 1}}
    backbone = {"name": "digits_vit", "weights": "random"}
    run(small_run(folder, {"method": "dense"}, dropped, images=12, backbone=backbone))
    return folder


@pytest.fixture
def said(monkeypatch, caplog):
    """What the command logs, line by line, whatever an earlier test did with the log's handlers."""
    monkeypatch.setattr("asap.cli.compare.set_up_logging", lambda: None)
    monkeypatch.setattr(logging.getLogger("asap"), "propagate", True)
    caplog.set_level(logging.INFO, logger="asap")
    return lambda: "\n".join(record.getMessage() for record in caplog.records)


def keys(results) -> dict[str, str]:
    records = [json.loads(p.read_text()) for p in results.glob("runs/*/accuracy.json")]
    return {method_of(record)["name"]: record["key"] for record in records}


def test_the_command_lists_compares_and_draws(results, said):
    assert main(["--results", str(results)]) == 0
    key = keys(results)
    listed = said()
    assert all(name in listed for name in key.values())
    assert main([key["dense"][:8], key["random_drop"][:8], "--results", str(results)]) == 0
    assert "second - first:" in said() and "McNemar's exact p" in said()
    stem = f"compare-{key['dense']}-{key['random_drop']}"
    drawn = {p.name for p in (results / "figures").glob("compare-*")}
    differing = "different predictions on 0 images" not in said()
    assert drawn == ({f"{stem}.png", f"{stem}.svg"} if differing else set())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["zz", "zz"], "no record with a key that begins with 'zz'"),
        (["", ""], "2 records with a key that begins with ''"),
    ],
)
def test_a_wrong_key_is_one_line(results, said, given, message):
    assert main([*given, "--results", str(results)]) == 2
    (line,) = said().splitlines()
    assert line.startswith("error: ") and message in line


def test_one_record_is_not_compared_with_itself_or_alone(results, said):
    key = keys(results)["dense"]
    for given in ([key], [key, key[:8]]):
        assert main([*given, "--results", str(results)]) == 2
    alone, itself = said().splitlines()
    assert "alone cannot be compared" in alone and "are one record" in itself


def test_records_are_named_with_the_options_that_are_not_the_default(results, said):
    assert main(["--results", str(results)]) == 0
    assert "keep=0.1" in said()


TABLE = Manifest(
    "My table, é", (),
    tuple(
        RowRef(label, records={} if key is None else {"accuracy": key})
        for label, key in [
            ("Dense", "1"), ("ToMe", "2"), ("ASAP (pool.)", "3"), ("ASAP (prun.)", "4"),
            ("DynamicViT", None), ("Twice", "5"), ("Twice", "6"), ("Same", "7"), ("Same", "7"),
        ]
    ),
)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "key"),
    [("ToMe", "2"), ("tome", "2"), ("to", "2"), ("asap (pool", "3"), ("D", None), ("Same", "7")],
)
def test_a_row_is_found_by_its_label_or_its_only_beginning(name, key):
    if name == "D":
        with pytest.raises(RequestError, match="2 begin so: 'Dense', 'DynamicViT'"):
            row_named(TABLE, name)
    else:
        assert row_named(TABLE, name).records["accuracy"] == key


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("asap", "2 begin so: 'ASAP .pool..', 'ASAP .prun..'"),
        ("PPT", "there is: 'Dense', 'ToMe', "),
        ("", "there is: 'Dense'"),
        ("DynamicViT", "has no accuracy record"),
        ("Twice", "2 rows of 'My table, é' are called 'Twice': give two keys, here 5, 6"),
    ],
)
def test_a_name_that_means_no_one_row_lists_what_there_is(name, said):
    with pytest.raises(RequestError, match=said) as refused:
        row_named(TABLE, name)
    assert "\n" not in str(refused.value)


def test_rows_of_a_table_are_compared_by_name(results, said, tmp_path):
    key = keys(results)
    rows = [
        RowRef(label, records={"accuracy": key[name]})
        for label, name in (("Dense", "dense"), ("Random drop", "random_drop"))
    ]
    write_manifest(Manifest("Drops (1)", (), tuple(rows)), results / "tables/drops--1.rows.json")
    for table in ("Drops (1)", "drops", "drops--1"):
        assert main([table, "dense", "random", "--images=0", "--results", str(results)]) == 0
    assert said().count("second: Random drop (digits_vit)") == 3
    assert main([f"results={results}", "drops", "dense", "random", "--images=0"]) == 0
    assert main(["drops", "--results", str(results)]) == 0
    assert f"{key['dense']}  top-1" in said()
    assert main(["Demo", "dense", "random", "--results", str(results)]) == 2
    assert "'Demo' is not the name of one table: there is: 'Drops (1)'" in said()
    assert main(["a", "b", "c", "d", "--results", str(results)]) == 2
    assert "give two keys, or a table and two rows" in said()


def test_no_records_is_one_line(tmp_path, said):
    assert main(["--results", str(tmp_path)]) == 2
    assert "run an experiment first" in said()
