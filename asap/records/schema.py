"""The fields of records, and the environment of a run.

A change of a field's meaning raises the version of the kind of record, in kinds.py.
"""

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any, Literal, NotRequired, TypedDict

from asap.records.question_schema import QuestionsRecord

TimedBy = Literal["cpu", "wall", "cuda events"]
CLOCKS: dict[TimedBy, str] = {
    "cpu": "CPU time",  # of the one thread that computes
    "wall": "wall time",
    "cuda events": "CUDA events",
}

_RECORDED_PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")


class MethodRecord(TypedDict):
    """A method in identities: module name, every option, version."""

    name: str
    options: dict[str, Any]
    version: int
    code: NotRequired[str]  # SHA-256 of the files of a user's own method


class WeightsRecord(TypedDict):
    """The file that the weights came from, None in the record for random ones."""

    origin: str  # "hub, owner/name", "bundled" or "file"
    file: str  # its name, without the folder
    sha256: str  # of the file; the digest in the key is of the tensors
    entry: NotRequired[str]  # the entry of the file with the tensors, if it has entries
    others: NotRequired[list[str]]  # other entries with weights, which were not used
    assumed: NotRequired[str]  # about the grid of the positions, if the file does not state it


class Quartiles(TypedDict):
    """Median and quartiles over the timed rounds."""

    median: float
    q1: float
    q3: float


class Ratio(Quartiles):
    """A ratio paired per round, with the 95 % interval [lo, hi] of its median."""

    lo: float
    hi: float


class Latency(TypedDict):
    """The time of a call with one image, in milliseconds: median and 95th percentile."""

    p50_ms: float
    p95_ms: float
    calls: int


class Spread(TypedDict):
    """A mean over the n examples that have the quantity, with its 95 % interval [lo, hi].

    The bounds are None where nothing is known of the spread, as with one example.
    """

    mean: float
    lo: float | None
    hi: float | None
    n: int


class ClipsRecord(TypedDict):
    """What only a record of clips has. The last four are those of `asap/tasks/motion.py`."""

    images: int  # frames of a clip, over all of its views
    gmacs_head: float  # per clip, in 1e9; not among the other MACs, which are of the backbone
    failed: dict[str, int]  # kind of the error -> clips that could not be read
    decoders: dict[str, int]  # -> clips that it read
    unverified: int  # clips read whose container has no duration to check their length by
    ended_early: int  # clips read that lack the last frames that their container promises
    frame_difference: NotRequired[Spread]
    sink_distance: NotRequired[Spread]
    stop_changes: NotRequired[Spread]
    kept_overlap: NotRequired[Spread]


class ClipSpeeds(TypedDict):
    """What only a throughput record of videos has."""

    images: int  # frames of a clip, over all of its views
    per_s_with_decoding: float | None  # from the files, by wall time; None: not timed
    decoded: int  # clips of that pass
    workers: int  # processes that decoded


class RecordHead(TypedDict):
    """What every record has."""

    schema_version: int
    key: str
    identity: dict[str, Any]  # exactly what was hashed to the key
    label: str  # the row's name in tables
    metrics: dict[str, float]  # more numbers by name, from `Method.metrics`
    backbone: str
    data: str  # the data set's description, with the user's title in front if there is one
    precision: str
    environment: dict[str, Any]  # versions of software, and the platform
    created: str  # ISO 8601


class AccuracyRecord(RecordHead):
    """`accuracy.json`. Shares are in [0, 1]; `top1`, `top5` and their interval are percentages.

    GMACs are means per example (image, clip) of exact integers, in 1e9 multiply-accumulates;
    intervals are 95 %.
    """

    weights: NotRequired[WeightsRecord | None]
    parameters: NotRequired[int]  # of the backbone
    preprocessing_from: NotRequired[str | None]  # None: the architecture's own
    data_title: NotRequired[str | None]
    data_differs: NotRequired[list[str]]  # why they are not the published images
    files_left_out: NotRequired[dict[str, int]]  # beside the images, by ending or kind
    n: int  # images evaluated, without the unreadable ones
    n_failed: int  # images that could not be read
    n_nonfinite: int  # of the n, images whose answer has a NaN or infinity: they count as wrong
    correct1: int
    correct5: int
    top1: float
    top5: float
    top1_interval: list[float]  # [lo, hi]
    clustered: bool  # the interval treats images of one source as one draw
    gmacs_backbone: float
    gmacs_method: float
    gmacs_sd: float
    gmacs_no_attention: float | None  # the convention that leaves out the attention products
    tokens_mean: list[float]  # per block, L+1
    final_tokens_mean: float
    stop_histogram: dict[str, int]  # block number from 1 -> images; "0" = never
    missed_share: float | None  # images that never stopped; None for dense
    object_recall: float | None
    sink_on_object: float | None  # images whose sink is an object patch
    object_share: float | None  # object patches among patches: the chance level of the above
    clips: NotRequired[ClipsRecord]  # of videos alone: their example is a clip
    questions: NotRequired[QuestionsRecord]  # of questions alone
    device: str
    seed: int
    seconds: float
    batch_size: int
    batch_halved: int  # times the batch was halved for lack of memory


class ThroughputRecord(RecordHead):
    """`throughput.json`. Speeds are images per second of `clock`; ratios are method over dense,
    paired.

    The dense models are those of `measure/baselines.py`. What differs from candidate to candidate
    is by its name: "method", "fused", "eager", "best" or "compiled".
    """

    device: str
    device_name: str
    batch_size: int
    n_images: int
    threads: int
    rounds: int
    seconds_per_round: float
    short: bool  # timed as briefly as in the demo: too short for a published number
    images_per_s: Quartiles
    path: str  # how the engine ran the method
    fused_dense: Quartiles
    eager_dense: Quartiles
    best_dense: Quartiles | None  # None: it was not asked for, or `missing` has the reason
    compiled_dense: Quartiles | None
    ratio_fused: Ratio | None
    ratio_eager: Ratio | None
    ratio_best: Ratio | None
    ratio_compiled: Ratio | None
    refused: str | None  # why a ratio is not given
    latency: dict[str, Latency]  # at batch 1, of the same clock, on CUDA of the wall
    peak_memory_mb: dict[str, float]  # 2^20 bytes beside weights and images
    joules_per_image: dict[str, float]
    missing: dict[str, str]  # what was asked for and could not be measured -> the reason
    gmacs_backbone: float  # of the timed images, per image
    gmacs_method: float
    gmacs_dense: float  # of the backbone without a reduction
    clock: NotRequired[TimedBy]  # the clock of all the times above
    cpu_share: NotRequired[float | None]  # CPU time over wall time, if the clock is CPU time
    wall_fused: NotRequired[Ratio | None]  # the ratios by wall-clock time, if the clock is CPU
    wall_eager: NotRequired[Ratio | None]  # time and the machine was idle
    tokens_mean: float
    stop_histogram: dict[str, int]
    clips: NotRequired[ClipSpeeds]  # of videos alone: the images above are their frames


def environment(*more: str) -> dict[str, str]:
    """Versions of software that affects the numbers, platform, and the git commit if any.

    more: packages that only this kind of run uses.
    """
    snapshot = {"python": platform.python_version()}
    packages = (*_RECORDED_PACKAGES, *more)
    snapshot |= {name: version for name in packages if (version := _version(name))}
    snapshot |= {"platform": platform.platform(), "machine": platform.machine()}
    if commit := _commit():
        snapshot["commit"] = commit
    return snapshot


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of the repository that tracks this file, "-dirty" when it has changes.

    A package that is installed inside another repository is not tracked there, and the commit of
    that repository would tell nothing about this code.
    """
    here = Path(__file__).resolve()
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return None
    return _git(here.parent, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*")


def _git(folder: Path, *arguments: str) -> str | None:
    """What git prints; None if it is missing, too slow or prints nothing."""
    command = ["git", "-C", str(folder), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
