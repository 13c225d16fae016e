"""Check a copy of Kinetics-400 before an evaluation: decode every clip once, list what is wrong.

python scripts/prepare_kinetics.py /data/k400                         # validation clips
python scripts/prepare_kinetics.py /data/k400 --split train --workers 16
python scripts/prepare_kinetics.py /data/k400 --no-decode             # counts only, seconds

The report, a CSV file, has one row a clip: ok, missing, undecodable, short, no video stream or
timeout. It is written as the clips are read: the same command goes on where it was stopped, and
reads files again that have changed since. Exit codes: 0 complete; 1 usable, but clips are missing
or damaged; 2 no clips found (one line tells what to do); 130 stopped. No clip is changed or
downloaded.
"""

import argparse
import csv
import os
import signal
import sys
from collections import Counter
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

from preparing import at_least_one, concluded, console, list_names, refused
from rich.console import Console
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from asap.data.base import files_left_out
from asap.data.kinetics.clips import Clips
from asap.data.kinetics.kinetics import KineticsOptions
from asap.data.kinetics.layouts import SPLITS
from asap.data.kinetics.names import N_CLIPS, Classes
from asap.data.video.reader import DECODERS
from asap.data.video.unreadable import (
    MISSING,
    NO_VIDEO,
    SHORT,
    TIMEOUT,
    UNDECODABLE,
    UnreadableClip,
)
from asap.data.video.watchdog import decode_whole
from asap.errors import RequestError
from asap.records.files_left_out import counts_in_words
from asap.spec.paths import path_argument

HOW_TO_GET = """How to get Kinetics-400 (the videos belong to those who made them: for research, on
the terms of the place they are from):
  CVDF, with the annotations (CC BY 4.0): github.com/cvdfoundation/kinetics-dataset has scripts that
      download and unpack val/, train/ (hundreds of GB), annotations/, and
      replacement_for_corrupted_k400.tgz for files that are damaged in the archives
  OpenDataLab: make an account, accept the terms, OpenMMLab/Kinetics-400 (short side 320)
Clips that YouTube no longer has are in no copy: state how many you evaluate, as the tables do.
Then set KINETICS to the folder."""
OK, STOPPED = "ok", 130
KINDS = {
    MISSING: "listed and not there", UNDECODABLE: "damaged", SHORT: "shorter than promised",
    NO_VIDEO: "without a picture", TIMEOUT: "not decoded in time",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A clip in the report. bytes and changed (ns) tell whether a file is still the same."""

    clip: str
    state: str
    reason: str = ""
    file: str = ""
    bytes: str = ""
    changed: str = ""
    frames: str = ""
    missing_frames: str = ""
    decoder: str = ""
    length: str = ""


NAMES = [field.name for field in fields(Row)]


def main() -> int:
    """Check and report; returns the exit code."""
    given = _arguments()
    out = console()
    options = KineticsOptions(
        split=given.split, labels=given.labels, train_labels=given.labels,
        classes=given.classes, replacements=given.replacements,
    )  # fmt: skip
    try:
        clips, classes, layout = options.found(given.path)
    except RequestError as error:
        return refused(error, HOW_TO_GET)
    out.print(f"layout     {layout.name}: {layout.folder}", markup=False)
    problems = _counts(out, clips, classes, given.split)
    if given.decode:
        report = Path(given.report or f"kinetics-{given.split}-check.csv")
        try:
            rows = _checked(clips, report, given)
        except KeyboardInterrupt:
            out.print(
                f"stopped: {report} has what was found; the same command goes on", markup=False
            )
            return STOPPED
        problems += _results(out, rows)
        out.print(f"report     {report}", markup=False)
    return concluded(out, problems, HOW_TO_GET)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=path_argument, help="what KINETICS will be set to")
    parser.add_argument("--split", choices=SPLITS, default=SPLITS[0])
    parser.add_argument("--labels", type=_path, help="the list, if it is not beside the clips")
    parser.add_argument("--classes", type=_path, help="a file of class names, or sorted")
    parser.add_argument("--replacements", type=_path, help="the folder of replacements, or off")
    parser.add_argument("--no-decode", dest="decode", action="store_false", help="only count")
    parser.add_argument("--decoder", choices=DECODERS, default=DECODERS[0])
    parser.add_argument("--seconds", type=at_least_one, default=60, help="time limit of a clip")
    parser.add_argument("--workers", type=at_least_one, default=1, help="processes that decode")
    parser.add_argument(
        "--report", type=_path, help="the file to write, kinetics-<split>-check.csv"
    )
    return parser.parse_args()


def _path(text: str) -> str:
    return str(path_argument(text))


def _counts(out: Console, clips: Clips, classes: Classes, split: str) -> list[str]:
    """Report counts and classes; returns the problem if clips are absent."""
    there, listed = len(clips.present), len(clips.source.paths)
    total = listed if classes.own else max(N_CLIPS[split], listed)
    present = len({path.split("/")[0] for path in clips.present})
    out.print(f"clips      {there:,} of {total:,}, list {clips.list_digest[:8]}")
    if left_out := files_left_out(clips.source):
        out.print(f"left out   {counts_in_words(left_out)}", markup=False)
    out.print(f"classes    {present:,} of {classes.which}")
    list_names(out, MISSING, clips.missing, KINDS[MISSING])
    return [f"{total - there:,} clips are absent"] if there < total else []


def _checked(clips: Clips, report: Path, given: argparse.Namespace) -> list[Row]:
    """Decode the clips that the report does not have yet; all rows, in canonical order."""
    wanted = [_row(clips, i) for i in range(len(clips.source.paths))]
    known = {_file(row): row for row in _read(report)}
    rows = {row.clip: known.get(_file(row), row) for row in wanted}
    _write(report, [row for row in rows.values() if row.state])
    todo = Decoded([row for row in rows.values() if not row.state], given.decoder, given.seconds)
    # Its workers end with this process, however that ends.
    found = DataLoader(
        todo, batch_size=None, num_workers=given.workers, worker_init_fn=_ignore_ctrl_c
    )
    with report.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, NAMES, lineterminator="\n")
        for row in tqdm(found, "decode", len(todo), unit="clip"):
            rows[row.clip] = row
            writer.writerow(asdict(row))
            file.flush()
    _write(report, list(rows.values()))
    return list(rows.values())


def _row(clips: Clips, i: int) -> Row:
    """A clip with its file, not read yet unless it is missing."""
    path, file = clips.source.paths[i], clips.source.files[i]
    if file is None:
        return Row(path, MISSING, KINDS[MISSING])
    place = os.path.join(clips.source.root, file)  # noqa: PTH118
    try:
        found = os.stat(place)  # noqa: PTH116
    except OSError:
        return Row(path, "", file=place)
    return Row(path, "", file=place, bytes=str(found.st_size), changed=str(found.st_mtime_ns))


def _file(row: Row) -> tuple[str, ...]:
    """What a row of the report must agree in to hold for a clip."""
    return row.clip, row.file, row.bytes, row.changed


class Decoded(Dataset):
    """Rows with what comes of decoding the whole clip."""

    def __init__(self, rows: list[Row], decoder: str, seconds: int):
        self.rows, self.decoder, self.seconds = rows, decoder, float(seconds)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, i: int) -> Row:
        row = self.rows[i]
        try:
            found = decode_whole(Path(row.file), self.decoder, self.seconds)
        except UnreadableClip as error:
            return replace(row, state=error.kind, reason=error.reason)
        return replace(
            row, state=OK, frames=str(found.num_frames), missing_frames=str(found.missing_frames),
            decoder=found.decoder, length=found.length,
        )  # fmt: skip


def _ignore_ctrl_c(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # it is the parent's


def _read(report: Path) -> list[Row]:
    """The complete rows of a report; none if there is none. A last line may have been cut off."""
    try:
        text = report.read_text("utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise SystemExit(f"error: {report} is no report ({error}): give another") from None
    lines = text.splitlines(keepends=True)
    if lines and lines[0].strip() != ",".join(NAMES):
        raise SystemExit(f"error: {report} is no report of this script: give another as --report")
    whole = (row for row in csv.DictReader(line for line in lines if line.endswith("\n")))
    return [Row(**row) for row in whole if None not in row and None not in row.values()]


def _write(report: Path, rows: list[Row]) -> None:
    """Write the report as a whole, in the place of the old one."""
    report.parent.mkdir(parents=True, exist_ok=True)
    new = report.with_name(f"{report.name}.new")
    with new.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, NAMES, lineterminator="\n")
        writer.writeheader()
        writer.writerows([asdict(row) for row in rows])
    new.replace(report)


def _results(out: Console, rows: list[Row]) -> list[str]:
    """Report what came of decoding; returns the problems found."""
    counts = Counter(row.state for row in rows)
    there = len(rows) - counts[MISSING]
    out.print(f"decoded    {counts[OK]:,} of {there:,}")
    decoders = Counter(row.decoder for row in rows if row.state == OK)
    for name, count in sorted(decoders.items()):
        out.print(f"decoder    {name}: {count:,}")
    unverified = sum(row.length == "unverified" for row in rows)
    if unverified:
        out.print(f"length     not verified for {unverified:,}: the container states no duration")
    problems = []
    for kind, what in KINDS.items():
        # Clips without a file are reported with the counts; a link may lead nowhere.
        found = [row for row in rows if row.state == kind and (kind != MISSING or row.file)]
        if found:
            list_names(out, kind, [f"{row.clip}: {row.reason}" for row in found], what)
            problems.append(f"{len(found):,} {'is' if len(found) == 1 else 'are'} {what}")
    return problems


if __name__ == "__main__":
    sys.exit(main())
