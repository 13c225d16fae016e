"""The spec of a run: frozen dataclasses, made from a composed config by read.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Any, get_args

from asap.spec.answer_spec import AnswerSpec
from asap.spec.paths import PathText, folder_name

VISION = "vision"  # the stage that encodes images; records name stages in the same way
LANGUAGE = "language"  # the stage that reads the images' rows beside a text, and answers
STAGES = (VISION, LANGUAGE)
LLAVA = "llava"  # the backbone with both stages; the others have the first


@dataclass(frozen=True)
class BackboneSpec:
    """A backbone and its weights, see `asap.load_backbone`.

    preprocess: mean, std, crop_pct, crop_mode, interpolation, img_size instead of the weights' own.
    ema: of a checkpoint with both, load the averaged weights (true) or the others; null: as timm.
    top1, source: published accuracy in % and where it is published, null: there is no reference;
    tolerance: the largest difference, in points, of a measured accuracy; note: for readers.
    """

    name: str
    weights: PathText = "hub"
    sha256: str | None = None
    model_args: Mapping[str, Any] = field(default_factory=dict)
    preprocess: Mapping[str, Any] = field(default_factory=dict)
    ema: bool | None = None
    top1: float | None = None
    source: str | None = None
    tolerance: float = 0.05
    note: str | None = None

    @property
    def shown(self) -> str:
        """The name in records and tables; for a folder its name, without the path."""
        kind, found, place = self.name.partition(":")
        kind = kind.lower().replace("_", "-")
        if self.name == LLAVA and self.weights != "bundled":
            return f"{LLAVA}:{folder_name(self.weights)}"
        if not found:
            return self.name
        return f"{kind}:{Path(place).expanduser().resolve().name if kind == 'local-dir' else place}"


@dataclass(frozen=True)
class MethodOf:
    """The method of a stage: its name among the methods, and its options."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MethodSpec:
    """One row of a table: a method for every stage of the backbone, the row's names in tables, and
    the source of options of its vision method that are not given.

    methods: by stage. paper: the row's name in the paper's tables.
    ours: the paper does not have this method. (A method's `extension` tells the same of options.)
    macs_pct: the row's own MACs budget, for a row whose options are not given by hand.
    grid: option -> values to try, for options that are not given; without a budget, the values with
        the best accuracy on training images are taken. point_of: label of the row whose calibrated
        or given options this row gets too.
    file, needs: the row's own checkpoint, for its method and backbone, and a description of it. A
        row with `needs` and without `file` is not run.
    given: names of the vision method's options that are set in the row, in `with` or `methods`.
    """

    methods: Mapping[str, MethodOf]
    label: str
    paper: str | None = None
    ours: bool = False
    note: str | None = None
    macs_pct: float | None = None
    grid: Mapping[str, Any] | None = None
    point_of: str | None = None
    file: PathText | None = None
    needs: str | None = None
    given: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, options: Mapping[str, Any], label: str, **about: Any) -> "MethodSpec":
        """A row with a method for the images."""
        return cls({VISION: MethodOf(name, options)}, label, **about)

    @property
    def pruner(self) -> MethodOf | None:
        """The method of the language stage; None: it leaves all rows there."""
        return self.methods.get(LANGUAGE)

    @property
    def name(self) -> str:
        """The name of its vision method."""
        return self.methods[VISION].name

    @property
    def options(self) -> Mapping[str, Any]:
        """The options of its vision method."""
        return self.methods[VISION].options

    def with_options(self, options: Mapping[str, Any], **about: Any) -> "MethodSpec":
        """The row with these options of its vision method, added to its own or replacing them."""
        vision = MethodOf(self.name, {**self.options, **options})
        return replace(self, methods={**self.methods, VISION: vision}, **about)

    @property
    def open_grid(self) -> dict[str, Any]:
        """The part of the grid for options that are not given."""
        return {k: v for k, v in (self.grid or {}).items() if k not in self.given}

    @property
    def budget(self) -> float | None:
        """The row's own budget; None if its options are given by hand."""
        return self.macs_pct if self.open_grid or not self.given else None


@dataclass(frozen=True)
class DataSpec:
    """Which images: a data set by its name, with its own options.

    options: those that the data set has, see `asap/data/open.py`. part: all | slice | rest: of
    validation images, see `asap/data/slices.py`. strict: refuse images that are missing or cannot
    be read. cache: a folder for decoded crops, auto: the folder cache in the results folder, null:
    none. title: the user's name of the data.
    """

    name: str
    path: PathText | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    part: str = "all"
    strict: bool = False
    cache: PathText | None = None
    title: str | None = None


@dataclass(frozen=True)
class MeasureSpec:
    """What is measured. Throughput: rounds of `seconds` for every method and the dense models.

    opponents: best | compiled, dense models that methods are compared with beside the fused and the
        eager one. latency_calls: calls of each with a single image, for the latency; 0: none.
    also: further measurements by the name of their kind, each with its options.
    """

    accuracy: bool = True
    throughput: bool = False
    rounds: int = 20
    seconds: float = 0.5
    throughput_images: int = 2048
    throughput_batch_size: int | None = None  # null: the batch size of the run
    opponents: tuple[str, ...] = ("best",)
    latency_calls: int = 0
    threads: int | None = None  # of the CPU while timing; null: torch's number
    short: bool = False  # a demonstration, which records note
    panels: int = 0  # pictures of this many images
    also: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class LogSpec:
    """Mirrors of finished records; their failures never affect a result."""

    wandb: str = "disabled"
    project: str = "asap"
    entity: str | None = None
    group: str | None = None
    examples: int = 8  # images in the table of every W&B run
    tensorboard: bool = False


@dataclass(frozen=True)
class CalibrateSpec:
    """The MACs budget to which rows are calibrated first, and how settings are searched.

    macs_pct: MACs of backbone and method against dense, in %, negative; null: no calibration.
    images: of the calibration slice. cost_images: number of training images on which costs are
        measured, without labels; null: on the slice. Unused if there are no training images.
    window: points below the budget that count as meeting it.
    path: a folder of training images. grid: option -> values, instead of a method's own.
    slice: train | validation | auto. train: training images. validation: a fixed slice of the
        validation images, without labels, for MACs alone; evaluation leaves it out. auto:
        validation if ImageNet has no training images, else train.
    unreachable: leave | nearest: for a row that cannot meet its budget, no result or the nearest.
    """

    macs_pct: float | None = None
    images: int = 500
    cost_images: int | None = None
    window: float = 1.5
    path: PathText | None = None
    grid: Mapping[str, Any] | None = None
    slice: str = "auto"
    unreachable: str = "leave"


@dataclass(frozen=True)
class EngineSpec:
    """How the device computes. No result depends on it but by rounding.

    attention: of the methods' blocks whose map nothing reads: fused: the library's kernel; eager:
        an explicit softmax, by slabs; auto: eager on a CPU in bfloat16, where it is faster, else
        fused. Eager attention is part of every key, since it changes last bits.
    graphs: auto: forward passes are recorded as CUDA graphs where possible; off: never, every
        kernel is launched by itself. Part of the key of a throughput record, as the path it took.
    strict: on a GPU too an image's bits do not depend on its batch, which takes longer: products on
        a fixed number of rows, and one kernel for attention. Methods that run step by step there
        (see `docs/architecture.md`) are not covered. Part of the path as well.
    """

    attention: str = "fused"
    graphs: str = "auto"
    strict: bool = False


@dataclass(frozen=True)
class HeadSpec:
    """The head on the frames of a clip, and how it is trained; see `asap/backbones/video_head.py`.

    kind: linear | attention. reads: class | tokens, see `asap/backbones/frame_encoder.py`.
    file: a trained head; null: it is trained on the data set's training clips, or its record found.
    batch_size: clips of a step, which has the learning rate `lr`. warmup_epochs: may be a fraction.
    smoothing: of the labels. heads: of the attention. features: fp16 | fp32, the type in which
    features are stored and read by the head. train_clips: so many, evenly spaced; null: all.
    """

    kind: str = "attention"
    reads: str = "class"
    file: PathText | None = None
    epochs: int = 10
    batch_size: int = 512
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup_epochs: float = 0.5
    smoothing: float = 0.1
    heads: int = 16
    features: str = "fp16"
    seed: int = 0
    train_clips: int | None = None


@dataclass(frozen=True)
class RunSpec:
    """Everything a run needs. `rows` are its methods, in the order of its table.

    head: of videos; null: the backbone's outputs are answers. paper_table: the paper's table whose
    numbers stand beside ours, a file of results/paper. table: runs of a multirun with the same name
    here share a table, with one block for each.
    """

    title: str
    backbone: BackboneSpec
    data: DataSpec
    rows: tuple[MethodSpec, ...]
    measure: MeasureSpec = field(default_factory=MeasureSpec)
    log: LogSpec = LogSpec()
    engine: EngineSpec = EngineSpec()
    calibrate: CalibrateSpec = field(default_factory=CalibrateSpec)
    head: HeadSpec | None = None
    answer: AnswerSpec = field(default_factory=AnswerSpec)
    results: Path = Path("results")
    device: str = "auto"
    precision: str = "fp32"
    batch_size: int = 64
    workers: int = 0
    limit: int | None = None
    shard_seconds: float = 10.0
    shared_trunk: bool = True  # evaluate rows that share a prefix of dense blocks in one pass
    seed: int = 0
    remarks: tuple[str, ...] = ()
    paper_table: str = "image_classification"
    table: str | None = None
    image: PathText | None = None  # the picture for asap.show
    question: str | None = None  # about the picture, for a vision-language model

    @property
    def answers(self) -> bool:
        """Whether its backbone answers questions about pictures."""
        return self.backbone.name == LLAVA

    @property
    def stages(self) -> tuple[str, ...]:
        """The stages of its backbone."""
        return STAGES if self.answers else (VISION,)


def groups() -> dict[str, type]:
    """The fields of `RunSpec` that are groups of settings, with their dataclasses."""
    kinds = {f.name: f.type for f in fields(RunSpec)}
    kinds |= {k: get_args(one)[0] for k, one in kinds.items() if isinstance(one, UnionType)}
    return {k: one for k, one in kinds.items() if isinstance(one, type) and is_dataclass(one)}
