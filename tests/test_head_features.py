"""The features file: what it holds, what is left after interruptions, damage and a full disk."""

import json
import shutil
from collections import namedtuple

import pytest
import torch
from heads import clips, encoder, extracted

from asap.errors import RequestError
from asap.measure.heads import extraction, features
from asap.measure.heads.extraction import Extraction
from asap.measure.heads.features import TYPES


class Counted(Exception):
    """Ends a computation where a test wants it to."""


def counting(monkeypatch, stop_after: int | None = None) -> list[int]:
    """The clips that are computed from now on; after so many batches an error comes."""
    seen: list[int] = []
    batches = 0
    of = Extraction._of

    def counted(self, samples):
        nonlocal batches
        batches += 1
        if stop_after is not None and batches > stop_after:
            raise Counted
        seen.extend(s.index for s in samples)
        return of(self, samples)

    monkeypatch.setattr(Extraction, "_of", counted)
    monkeypatch.setattr(extraction, "MOST_CLIPS", 3)  # every batch is written at once
    return seen


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize("reads", ["class", "tokens"])
def test_features_read_back_are_those_computed_afresh_and_rounded(kind, reads, tmp_path) -> None:
    data = clips()
    found, model = extracted(tmp_path, data, kind, reads), encoder(reads)
    width = 32 if reads == "class" else 128
    assert tuple(found.shape) == (20, 2, 4, width, kind) and len(found) == 40
    for i in range(len(data)):
        for view in range(2):
            afresh = model(data[i].inputs[4 * view : 4 * view + 4]).to(TYPES[kind])
            assert torch.equal(found.clip(i)[view], afresh)
            assert torch.equal(found.views([2 * i + view])[0], afresh.float())
    assert found.labels.tolist() == [i % 3 for i in range(20) for _ in range(2)]
    size = torch.empty(0, dtype=TYPES[kind]).element_size()
    assert found.file.stat().st_size == 20 * 2 * 4 * width * size == found.shape.bytes


def test_an_interrupted_computation_goes_on_with_the_clips_that_are_missing(
    tmp_path, monkeypatch
) -> None:
    whole = extracted(tmp_path / "whole", clips())
    for stop_after in (2, 3):
        with monkeypatch.context() as patched:
            seen = counting(patched, stop_after)
            with pytest.raises(Counted):
                extracted(tmp_path / "cut", clips())
    (journal,) = tmp_path.glob("cut/*/journal-*.jsonl")
    with journal.open("ab") as file:  # the line that a killed process was writing
        file.write(b"[[15, 0, 1")
    with monkeypatch.context() as patched:
        seen = counting(patched)
        again = extracted(tmp_path / "cut", clips())
    assert seen == list(range(15, 20))
    assert again.file.read_bytes() == whole.file.read_bytes()
    assert again.entries == whole.entries
    assert {path.name for path in again.file.parent.iterdir()} == {"features.bin", "index.json"}
    with monkeypatch.context() as patched:
        seen = counting(patched)
        extracted(tmp_path / "cut", clips())
    assert seen == []


def test_a_damaged_clip_alone_is_computed_again(tmp_path, monkeypatch, caplog) -> None:
    whole = extracted(tmp_path, clips())
    content = whole.file.read_bytes()
    with whole.file.open("r+b") as file:
        file.seek(7 * whole.shape.clip_bytes + 5)
        file.write(bytes([content[7 * whole.shape.clip_bytes + 5] ^ 1]))
    seen = counting(monkeypatch)
    again = extracted(tmp_path, clips())
    assert seen == [7] and again.file.read_bytes() == content
    assert "1 clips are damaged: computed again" in caplog.text


@pytest.mark.parametrize("damage", ["cut", "digit", "gone", "size"])
def test_a_file_without_its_index_is_computed_again(damage, tmp_path, monkeypatch) -> None:
    whole = extracted(tmp_path, clips())
    content, index = whole.file.read_bytes(), whole.file.with_name("index.json")
    text = index.read_text()
    if damage == "gone":
        index.unlink()
    elif damage == "size":
        whole.file.write_bytes(content[:-1])
    else:
        checksum = str(json.loads(text)["clips"][3][1])
        other = str(int(checksum) ^ 1)
        index.write_text(text[:-9] if damage == "cut" else text.replace(checksum, other))
    seen = counting(monkeypatch)
    assert extracted(tmp_path, clips()).file.read_bytes() == content and seen == list(range(20))


def test_clips_that_cannot_be_read_are_left_out_and_tried_again(tmp_path, monkeypatch) -> None:
    broken = clips(broken=((4, "short"), (19, "missing")))
    found = extracted(tmp_path, broken)
    assert len(found) == 36 and found.entries[4].error == "short: clip 4.mp4 is not to be had"
    assert found.readable == [i for i in range(20) if i not in (4, 19)]
    labels = [i % 3 for i in found.readable for _ in range(2)]
    assert found.labels.tolist() == labels
    assert torch.equal(found.views([9])[0], found.clip(5)[1].float())
    seen = counting(monkeypatch)
    extracted(tmp_path, broken)
    assert seen == [4, 19]
    monkeypatch.setattr(type(broken), "digest", broken.digest)
    mended = extracted(tmp_path, clips())
    assert len(mended) == 40 and seen == [4, 19, 4, 19]
    assert mended.file.read_bytes() == extracted(tmp_path / "other", clips()).file.read_bytes()


def test_features_take_precedence_over_an_error_of_another_process(tmp_path) -> None:
    """Rank 2 of three could not read clip 4; then two processes went on, and rank 0 could."""
    whole = extracted(tmp_path, clips())
    journals = whole.file.parent
    (journals / "index.json").unlink()
    lines = [[i, *entry] for i, entry in enumerate(whole.entries)]
    (journals / "journal-0.jsonl").write_text(json.dumps(lines) + "\n")
    (journals / "journal-2.jsonl").write_text('[[4, 1, 0, "timeout: not read within 60 s"]]\n')
    assert extracted(tmp_path, clips()).entries == whole.entries


def test_journals_that_a_kill_left_beside_the_index_hide_no_damage(tmp_path, monkeypatch) -> None:
    whole = extracted(tmp_path, clips())
    content = whole.file.read_bytes()
    lines = [[i, *entry] for i, entry in enumerate(whole.entries)]
    whole.file.with_name("journal-1.jsonl").write_text(json.dumps(lines) + "\n")
    whole.file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    seen = counting(monkeypatch)
    assert extracted(tmp_path, clips()).file.read_bytes() == content and seen == [0]


def test_features_that_are_not_finite_are_an_error_of_their_clip(tmp_path, monkeypatch) -> None:
    overflow = encoder()
    with torch.no_grad():
        overflow.backbone.norm.bias[0] = 1e5  # more than fp16 holds
    monkeypatch.setattr("heads.encoder", lambda reads: overflow)
    assert extracted(tmp_path, clips(3)).entries[2].error.startswith("nonfinite: ")
    assert len(extracted(tmp_path, clips(3), "fp32")) == 6


def test_too_small_a_disk_is_told_before_anything_is_computed(tmp_path, monkeypatch) -> None:
    seen = counting(monkeypatch)
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1000))
    with pytest.raises(RequestError, match=r"features need 0.01 MB in .*, where 0.00 MB are free"):
        extracted(tmp_path, clips())
    assert seen == []


def test_a_disk_that_fills_up_is_one_line_and_loses_nothing(tmp_path, monkeypatch) -> None:
    flush, calls = features._flush, 0

    def full(file) -> None:
        nonlocal calls
        calls += 1
        if calls == 6:  # two batches and their lines are on the disk
            raise OSError(28, "No space left on device")
        flush(file)

    with monkeypatch.context() as patched:
        counting(patched)
        patched.setattr(features, "_flush", full)
        with pytest.raises(
            RequestError, match=r"cannot be used \(No space left on device\)"
        ) as error:
            extracted(tmp_path, clips())
    assert "\n" not in str(error.value)
    seen = counting(monkeypatch)
    again = extracted(tmp_path, clips())
    # The line of the third batch was written, though not flushed: its clips are on the disk.
    assert seen[0] in (6, 9) and len(again) == 40
    whole = extracted(tmp_path / "whole", clips())
    assert again.file.read_bytes() == whole.file.read_bytes()
