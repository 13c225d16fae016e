"""What the rows of a run share: methods, backbone, data, store. Made when first needed, once."""

import re
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import nn

from asap.backbones.load import load_backbone, weights_digest
from asap.backbones.preprocess import Preprocessing, preprocessing_of
from asap.data.base import DataSet
from asap.data.open import open_data
from asap.engine import ENGINE_VERSION
from asap.engine.executor import ReducedViT
from asap.errors import RequestError
from asap.methods import Method, build
from asap.runs.record import SCHEMA_VERSION, MethodRecord
from asap.runs.spec import MethodSpec, RunSpec
from asap.runs.store import Store

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Shared:
    """What a cell's images cost in a pass with other cells: its part of the time, halvings."""

    seconds: float
    halved: int


NOTHING_SHARED = Shared(0.0, 0)


@dataclass
class Session:
    """What the rows of a run share. Everything is made when it is first needed, once.

    lender: a session whose backbone and data this one takes; their specs must agree on both.
    """

    spec: RunSpec
    lender: "Session | None" = None
    shared: dict[str, Shared] = field(default_factory=dict)  # by key
    store: Store = field(init=False)
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        self.device = pick_device(self.spec.device)
        self.methods = [build(row.name, row.options) for row in self.spec.rows]
        self.store = Store(self.spec.results / "runs")
        if self.lender is not None:
            self.shared = self.lender.shared

    @cached_property
    def backbone(self) -> nn.Module:
        """The backbone in the run's precision, on its device."""
        loaded = self._loaded[0]
        if self.lender is not None:
            return self.lender.backbone
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
        return loaded.to(self.device, DTYPES[self.spec.precision])

    @cached_property
    def _loaded(self) -> tuple[nn.Module, str]:
        b = self.spec.backbone
        if self.lender is not None:
            model, digest = self.lender._loaded
        else:
            model = load_backbone(b.name, b.weights, b.sha256, b.model_args, self.spec.seed)
            digest = weights_digest(model)
        for row, method in zip(self.spec.rows, self.methods, strict=True):
            try:
                ReducedViT(model, method)
            except ValueError as error:
                raise RequestError(f"{row.label} on backbone {b.name!r}: {error}") from None
        return model, digest

    @property
    def weights_digest(self) -> str:
        return self._loaded[1]

    @cached_property
    def preprocessing(self) -> Preprocessing:
        return preprocessing_of(self._loaded[0])

    @cached_property
    def data(self) -> DataSet:
        if self.lender is not None:
            return self.lender.data
        p = self.preprocessing
        d = asdict(self.spec.data)
        data = open_data(d.pop("name"), p.transform, p.patch_grid, **d, limit=self.spec.limit)
        outputs = getattr(self._loaded[0], "num_classes", None)
        if outputs is not None and outputs != data.n_classes:
            raise RequestError(
                f"backbone {self.spec.backbone.name!r} has {outputs} classes and the data set "
                f"{data.name!r} has {data.n_classes}: use weights trained for these classes"
            )
        return data

    def identity(self, method: Method) -> dict[str, Any]:
        """Exactly what changes an accuracy number, and nothing else."""
        b = self.spec.backbone
        return {
            "schema": SCHEMA_VERSION,
            "engine": ENGINE_VERSION,
            "method": describe(method),
            "method_version": method.method_version,
            "backbone": {
                "name": b.name,
                "args": dict(b.model_args),
                "weights": self.weights_digest,
            },
            "data": {"content": self.data.digest, "labels": self.data.label_digest},
            "preprocessing": self.preprocessing.identity,
            "precision": self.spec.precision,
            "device": self.device.type,
            "seed": self.spec.seed,
        }


def describe(method: Method) -> MethodRecord:
    """A method's module and all of its options, as they go into records."""
    name = type(method).__module__.removeprefix("asap.methods.")
    options = {
        k: list(v) if isinstance(v, tuple) else _finite(v) for k, v in method.identity().items()
    }
    return {"name": name, "options": options}


def _finite(value: Any) -> Any:
    """JSON has no infinity."""
    return str(value) if value in (float("inf"), float("-inf")) else value


def pick_device(name: str) -> torch.device:
    """The device of a name; "auto" is CUDA where there is one. RequestError if it is not there."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        raise RequestError(f"device={name!r} is not possible: use auto, cpu, cuda or cuda:0")
    try:
        torch.zeros(1, device=name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise RequestError(f"device={name!r} cannot be used ({reason}): use device=cpu") from None
    return torch.device(name)


def config_of(spec: RunSpec, row: MethodSpec) -> dict[str, Any]:
    """The settings of one row as plain data: what config.yaml beside its record says."""
    plain = asdict(spec)
    del plain["rows"]
    return {**plain, "results": str(spec.results), "method": asdict(row)}
