"""Kinetics as a data set: what is decoded, how it is named, and the script that checks a copy."""

import csv
import logging
import sys
from pathlib import Path

import prepare_kinetics
import pytest
from clips import KINDS, encode, sound
from fake_kinetics import CLASSES, FakeKinetics, encoded
from samples import data_spec, open_data, same
from timm.data import create_transform

from asap.data.kinetics.names import kinetics_400
from asap.data.video.options import with_split
from asap.errors import RequestError

TO_32 = create_transform(32)
FAKE = FakeKinetics.make(12, 12, encoded)


@pytest.fixture(scope="module")
def roots(tmp_path_factory) -> dict[str, Path]:
    """By layout."""
    folder = tmp_path_factory.mktemp("kinetics")
    return {name: getattr(FAKE, name)(folder / name) for name in FakeKinetics.LAYOUTS}


def opened(root: Path, **given):
    return open_data("kinetics", TO_32, (2, 2), path=root, frames=4, **given)


@pytest.mark.process
@pytest.mark.parametrize("split", FAKE.clips)
def test_every_layout_gives_the_same_samples(split, roots):
    first, *others = (opened(root, split=split) for root in roots.values())
    whole = [first[i] for i in range(len(first))]
    assert {(s.source, kinetics_400()[s.label]) for s in whole} == {
        (f"{CLASSES[clip.label]}/{clip.name}", CLASSES[clip.label]) for clip in FAKE.clips[split]
    }
    for sample in whole:
        assert sample.error is None and sample.inputs is not None
        assert sample.inputs.shape == (4, 3, 32, 32) and sample.extras["length"] == "verified"
    assert first.n_classes == 400 and first.clustered and first.task == "video"
    for other in others:
        assert (other.digest, other.label_digest) == (first.digest, first.label_digest)
        assert other.description == first.description
        assert all(same(other[i], whole[i]) for i in (0, 7))


def test_the_description_states_how_many_clips_and_which_list(roots, caplog):
    validation, train = (opened(roots["cvdf"], split=split) for split in FAKE.clips)
    known = "6 of the 400 classes of Kinetics-400, list "
    assert f"Kinetics-400 validation, 12 of 19,907 clips, {known}" in validation.description
    assert f"Kinetics-400 train, 12 of 246,535 clips, {known}" in train.description
    assert validation.differs == () and not caplog.records


@pytest.mark.process
def test_missing_damaged_and_short_clips_are_told_apart(tmp_path, caplog):
    broken = break_clips(FAKE.cvdf(tmp_path))
    data = opened(tmp_path)
    assert "10 of 19,907 clips" in data.description
    assert "2 more are listed and not there" in data.description
    said = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(said) == 2 and "2 of 12 listed clips are not in" in said[0]
    errors = {s.source.split("/")[1]: s.error for s in map(data.__getitem__, range(len(data)))}
    assert len(errors) == 12
    for name, error in errors.items():
        kind = broken.get(name)
        assert error is None if kind is None else (error or "").startswith(f"{kind}: "), name
    with pytest.raises(RequestError, match=r"data\.strict=true: 2 of 12 listed clips are not in"):
        opened(tmp_path, strict=True)


def break_clips(root: Path) -> dict[str, str]:
    """Damage six validation clips of CVDF's layout; the kind of error by the clip's name."""
    names = [clip.name for clip in FAKE.clips["validation"]]
    files = [root / "val" / f"{name}.mp4" for name in names]
    files[3].unlink()
    files[4].write_bytes(b"")
    files[5].write_bytes(files[5].read_bytes()[:-200])  # the index at its end is cut off
    files[6].unlink()
    files[6].mkdir()  # called like a clip
    (files[6] / "x.txt").write_text("x")
    sound(files[7])
    encode(files[8], KINDS["h264"], muxer={"movflags": "+faststart"})
    files[8].write_bytes(files[8].read_bytes()[:-4000])  # the index at its beginning is whole
    kinds = ("missing", "undecodable", "undecodable", "missing", "no video stream", "short")
    return dict(zip(names[3:], kinds, strict=False))


def test_other_classes_are_named_and_their_set_is_not_called_kinetics(tmp_path):
    root = FAKE.folders(tmp_path / "data")
    (tmp_path / "six.txt").write_text("\n".join(CLASSES))
    data = opened(root, classes=str(tmp_path / "six.txt"))
    assert data.classes == CLASSES and data.differs == ()
    assert "12 of 19,907 clips, 6 of the 6 classes of data.classes" in data.description
    (root / "val" / "abseiling").rename(root / "val" / "climbing down")
    names = sorted(["climbing down", *CLASSES[1:]])
    (tmp_path / "six.txt").write_text("\n".join(names))
    data = opened(root, classes=str(tmp_path / "six.txt"))
    assert data.differs == ("other classes than Kinetics-400's",)
    assert data.description.startswith("clips in the layout of Kinetics, 12 clips, 6 of the 6")


def test_training_clips_have_options_of_their_own(tmp_path, roots):
    FAKE.folders(tmp_path)
    (tmp_path / "train").rename(tmp_path / "elsewhere")
    expected = opened(roots["cvdf"], split="train").digest
    assert (
        opened(tmp_path, split="train", train_path=str(tmp_path / "elsewhere")).digest == expected
    )
    given = str(FAKE.annotate(tmp_path, "train", "{}.csv"))
    data = opened(roots["folders"], split="train", labels="none", train_labels=given)
    assert data.digest == expected
    spec = with_split(data_spec("kinetics", path=roots["cvdf"], frames=4), "train")
    assert spec.options == {"frames": 4, "split": "train"}


def test_validation_clips_among_the_training_clips_are_refused(roots, tmp_path):
    remedy = r"are validation clips, such as .*data\.train_path.*data\.train_labels"
    for root, folder, labels in (
        (roots["folders"], "val", None),
        (roots["mmaction2"], "videos_val", "kinetics400_val_list_videos.txt"),
    ):
        own = {"train_path": str(root / folder), "train_labels": labels and str(root / labels)}
        with pytest.raises(RequestError, match=f"12 of the 12 training clips in .* {remedy}"):
            opened(root, split="train", **own)
    made = FakeKinetics(FAKE.clips | {"train": FAKE.clips["validation"][:2]}, FAKE.content,
                        FAKE.positions).folders(tmp_path / "copied")  # fmt: skip
    with pytest.raises(RequestError, match=f"2 of the 2 training clips in .* {remedy}"):
        opened(made, split="train")
    for split in ("train", "val"):  # names of one's own say nothing
        (tmp_path / "own" / split / "abseiling").mkdir(parents=True)
        (tmp_path / "own" / split / "abseiling" / "1.mp4").write_bytes(b"clip")
    assert len(opened(tmp_path / "own", split="train")) == 1


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"split": "test"}, r"data\.split='test' is not possible: use one of validation, train"),
        ({"classes": "none"}, r"data\.classes='none' cannot be read"),
        ({"path": " "}, r"no folder is given for Kinetics: set KINETICS"),
        ({"cache": "x"}, r"data\.cache"),
    ],
)
def test_impossible_options_are_refused(given, reason, roots):
    with pytest.raises(RequestError, match=reason):
        open_data("kinetics", TO_32, (2, 2), **({"path": roots["cvdf"]} | given))


def prepare(monkeypatch, capsys, *arguments: object) -> tuple[int, str, str]:
    """Exit code, output and errors of scripts/prepare_kinetics.py, in this process."""
    monkeypatch.setattr(sys, "argv", ["prepare_kinetics.py", *map(str, arguments)])
    code = prepare_kinetics.main()
    return code, *capsys.readouterr()


@pytest.mark.process
def test_preparation_decodes_every_clip_once_and_goes_on(tmp_path, monkeypatch, capsys):
    broken = break_clips(FAKE.cvdf(tmp_path / "data"))
    arguments = (tmp_path / "data", "--workers", 2, "--report", tmp_path / "report.csv")
    code, out, _ = prepare(monkeypatch, capsys, *arguments)
    assert code == 1
    for part in (
        "clips with annotations", "clips      10 of 19,907", "6 of the 400 classes",
        "decoded    6 of 10",
        "not complete: 19,897 clips are absent; 2 are damaged; 1 is shorter than promised; 1 is wi",
        "github.com/cvdfoundation",
    ):  # fmt: skip
        assert part in out
    rows = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert {row["clip"].split("/")[1]: row["state"] for row in rows} == {
        clip.name: broken.get(clip.name, "ok") for clip in FAKE.clips["validation"]
    }
    assert {row["frames"] for row in rows if row["state"] == "ok"} == {"16"}
    # The last line is cut off and a clip is repaired: only these two are decoded again.
    text = (tmp_path / "report.csv").read_text().replace(",16,", ",99,")
    (tmp_path / "report.csv").write_text(text[:-9])
    repaired = FAKE.clips["validation"][4]
    FAKE.write(tmp_path / "data" / "val" / f"{repaired.name}.mp4", repaired)
    for _ in range(2):
        code, out, _ = prepare(monkeypatch, capsys, *arguments)
        assert code == 1 and "1 is damaged" in out and "decoded    7 of 10" in out
        again = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
        assert [row["clip"] for row in again] == [row["clip"] for row in rows]
        new = {row["clip"] for row in again if row["frames"] == "16"}
        assert new == {f"{CLASSES[repaired.label]}/{repaired.name}", rows[-1]["clip"]}
    file = tmp_path / "data" / "val" / f"{repaired.name}.mp4"
    file.unlink()
    file.symlink_to(tmp_path / "gone.mp4")
    code, out, _ = prepare(monkeypatch, capsys, *arguments)
    assert code == 1 and "decoded    6 of 9" in out and "; 1 is listed and not there; " in out


def test_preparation_of_a_complete_set_and_of_none(tmp_path, monkeypatch, capsys):
    root = FAKE.folders(tmp_path / "data")
    (tmp_path / "six.txt").write_text("\n".join(CLASSES))
    arguments = (root, "--no-decode", "--classes", tmp_path / "six.txt", "--split", "train")
    code, out, _ = prepare(monkeypatch, capsys, *arguments)
    assert code == 0 and out.endswith("complete\n") and "12 of 12" in out
    code, out, error = prepare(monkeypatch, capsys, tmp_path / "none")
    assert code == 2 and error.startswith("error: ") and error.count("\n") == 1
    assert "How to get Kinetics-400" in out
    (tmp_path / "x.csv").write_text("something else\n")
    with pytest.raises(SystemExit, match=r"x\.csv is no report of this script"):
        prepare(monkeypatch, capsys, root, "--report", tmp_path / "x.csv")


def test_the_fake_clips_are_the_same_bytes_every_time():
    assert encoded(2, 5) == encoded(2, 5) != encoded(2, 6)
