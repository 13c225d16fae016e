"""A session: the backbone, data, device and store of a run, and the identity of its records."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from asap.backbones.heads import n_outputs
from asap.backbones.preprocess import Preprocessing, preprocessing_of
from asap.backbones.video_head import HeadConfig
from asap.backbones.weights.load import Loaded
from asap.data.base import DataSet, files_left_out, images_per_example
from asap.data.open import open_data, options_of
from asap.engine.backend import Backend, backend_of, explicit_attention
from asap.engine.decoder import Decoder
from asap.engine.executor import ReducedViT
from asap.measure.clip_head import frame_head, head_config
from asap.measure.device import DTYPES, pick_device
from asap.measure.fitting import pruner_of, refuse_unfit, refuse_unmarked
from asap.measure.in_memory import Backbone, Images, InMemory
from asap.measure.joint_evaluation import Evaluation
from asap.measure.loading import backbone_for
from asap.measure.outputs_check import refuse_other_outputs
from asap.measure.questions import LlavaAnswerer, PictureEncoder
from asap.measure.record_parts import describe, weights_record
from asap.measure.traces import fields_of
from asap.methods import Method, build
from asap.methods.language.base import Pruner
from asap.records.identity import LANGUAGE, VISION, identity_of
from asap.records.key import key_of
from asap.records.kinds import ACCURACY, Kind
from asap.records.schema import WeightsRecord, environment
from asap.records.store import Cell, Store
from asap.records.tables import ANSWER_COLUMNS, Columns
from asap.spec.run_spec import LLAVA, RunSpec
from asap.tasks.base import Task
from asap.tasks.registry import task_of
from asap.tasks.video import FrameHead

INDEX = Path("digests") / "index"  # in the results folder: the hashes of picture files


@dataclass
class Session:
    """The methods, backbone, data, device and store with which the rows of a run are measured.

    Backbone and data are made when first needed, or taken from `memory` if they are there.
    """

    spec: RunSpec
    memory: InMemory = field(default_factory=InMemory)
    store: Store = field(init=False)
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        self.device = pick_device(self.spec.device)
        options_of(self.spec.data)  # refuses what the data set does not have, before anything else
        self.methods = [build(row.name, row.options) for row in self.spec.rows]
        self.pruners = [pruner_of(row) for row in self.spec.rows]
        self.store = Store(self.spec.results / "runs")
        self._fitting = False

    @property
    def backbone(self) -> nn.Module:
        """The backbone in the run's precision, on its device."""
        _ = self._loaded  # refuses methods that do not fit
        return self._backbone.on(self.device, DTYPES[self.spec.precision])

    def model(self, method: Method) -> ReducedViT:
        """The run's backbone under a method, computed as the run's `engine` asks."""
        return ReducedViT(self.backbone, method, backend=self.backend())

    def encoder(self, method: Method) -> ReducedViT | PictureEncoder:
        """What the examples' images go through: the model, or with questions its visual rows."""
        model = self.model(method)
        llava = self._backbone.llava
        return model if llava is None else PictureEncoder(model, self.spec.answer, llava.anyres)

    def backend(self, graphs: bool = True) -> Backend:
        """How the device computes, as the run's `engine` asks; `graphs`: False never records."""
        graphs = graphs and self.spec.engine.graphs != "off"
        return backend_of(self.device, graphs, self.eager, self.spec.engine.strict)

    @property
    def eager(self) -> bool:
        """Whether the methods' attention is explicit everywhere."""
        dtype = DTYPES[self.spec.precision]
        return explicit_attention(self.spec.engine.attention, self.device, dtype)

    @property
    def _backbone(self) -> Backbone:
        """The backbone from memory; the key has all that changes its tensors, or their place."""
        spec = self.spec
        b = replace(spec.backbone, top1=None, source=None, tolerance=0.0, note=None)
        reads = None if spec.head is None else spec.head.reads

        def make() -> Backbone:
            return backbone_for(b, spec.seed, reads)

        return self.memory.backbones.get((b, reads, spec.seed, spec.precision, self.device), make)

    @property
    def _loaded(self) -> Loaded:
        """The backbone as it was loaded. RequestError if a method does not fit it."""
        loaded = self._backbone.loaded
        if not self._fitting:
            refuse_unfit(self.spec, self._backbone, self.methods, self.pruners)
            self._fitting = True
        return loaded

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the weights as they were loaded."""
        _ = self._loaded
        return self._backbone.digest

    @property
    def parameters(self) -> int:
        """Of the backbone, with its language model if it has one."""
        whole = self._backbone.llava
        return sum(p.numel() for p in (whole or self._loaded.model).parameters())

    @property
    def weights_record(self) -> WeightsRecord | None:
        """The file that the weights come from, as it goes into records."""
        return weights_record(self._loaded)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        llava = self._backbone.llava
        return preprocessing_of(self._loaded.model) if llava is None else llava.preprocessing

    @property
    def preprocessing_from(self) -> str | None:
        """The origin of the preprocessing; None if it is the architecture's own."""
        return self._loaded.preprocessing_from

    @property
    def data(self) -> DataSet:
        """The images of the run's spec."""
        return self._images.data

    @cached_property
    def _images(self) -> Images:
        spec, pre = self.spec, self.preprocessing
        taken = (pre.identity, pre.patch_grid, self._outputs, spec.head is None)
        asked = (spec.data, spec.limit, spec.results, spec.measure.accuracy)
        return self.memory.images.get((asked, taken), lambda: Images(self.data_of(spec)))

    @property
    def about_data(self) -> dict[str, Any]:
        """The description of the data set in records. No key depends on it."""
        differs = list(getattr(self.data, "differs", ()))
        about = {"data": self.data.description, "data_differs": differs}
        about["files_left_out"] = dict(files_left_out(self.data))  # as the folder is now
        return about | {"data_title": self.spec.data.title}

    def data_of(self, spec: RunSpec) -> DataSet:
        """The images of a spec, with the preprocessing of this session's backbone."""
        p, d = self.preprocessing, spec.data
        if d.cache == "auto":
            d = replace(d, cache=str(spec.results / "cache"))
        data = open_data(
            d,
            p.transform,
            p.patch_grid,
            outputs=self._outputs,
            limit=spec.limit,
            index=spec.results / INDEX,
        )
        refuse_other_outputs(spec, self._loaded.model, data)
        refuse_unmarked(self.spec, self.pruners, data)
        return data

    @property
    def _outputs(self) -> int | None:
        """The number of the backbone's classes; None if its outputs are not classes, or unknown."""
        classless = self.spec.head is not None or self.spec.answers
        return None if classless else n_outputs(self._loaded.model)

    @property
    def head_config(self) -> HeadConfig | None:
        """What the head of the run's videos has to be for; None if the run has no head."""
        s = self.spec
        if s.head is None:
            return None
        encoder, weights = self._loaded.model, self.weights_digest
        return head_config(s.head, encoder, s.backbone, weights, self.preprocessing, self.data)

    @cached_property
    def video_head(self) -> FrameHead | None:
        """The trained head from `head.file`; None without one."""
        wanted = self.head_config
        if wanted is None or self.spec.head is None or self.spec.head.file is None:
            return None
        return frame_head(Path(self.spec.head.file), wanted, self.preprocessing, self.data)

    @property
    def task(self) -> Task:
        """What is asked of the run's examples."""
        return task_of(self.data, self.video_head)

    def readable(self, positions: Iterable[int]) -> list[int]:
        """The positions of images that can be read, among these; each image is tried once."""
        chosen, tried = list(positions), self._images.tried
        for i in chosen:
            if i not in tried:
                tried[i] = self.data[i].inputs is not None
        return [i for i in chosen if tried[i]]

    def evaluation(self, pruner: Pruner | None = None) -> Evaluation:
        """How the run feeds its images through a model; a batch has `batch_size` images.

        pruner: of the language model that answers questions.
        """
        s, task = self.spec, self.task
        if s.answers:
            task = task_of(self.data, self.answerer(pruner))
        dtype, examples = DTYPES[s.precision], max(1, s.batch_size // images_per_example(self.data))
        return Evaluation(examples, s.workers, self.device, dtype, task, s.shard_seconds)

    def answerer(self, pruner: Pruner | None) -> LlavaAnswerer:
        """What answers the run's questions, on the device."""
        _ = self.backbone  # places all parts
        llava = self._backbone.llava
        assert llava is not None
        return LlavaAnswerer(llava, Decoder(llava.language, pruner), self.spec.answer)

    def cell(self, method: Method, pruner: Pruner | None = None) -> Cell:
        """The cell of a row's accuracy record, with the columns of its task and its method."""
        answers = (*ANSWER_COLUMNS, *task_of(self.data).columns)
        key = key_of(self.identity(method, pruner=pruner))
        return self.store.cell(key, Columns(answers, fields_of(method)))

    def identity(
        self,
        method: Method,
        kind: Kind = ACCURACY,
        conditions: Mapping[str, Any] | None = None,
        pruner: Pruner | None = None,
    ) -> dict[str, Any]:
        """The identity of a record of this kind, for a row with these methods."""
        s, llava, methods = self.spec, self._backbone.llava, {VISION: describe(method)}
        methods |= {} if pruner is None else {LANGUAGE: describe(pruner)}
        subject = {
            "backbone": self._about_backbone(),
            "data": {"content": self.data.digest, "labels": self.data.label_digest},
            "preprocessing": self.preprocessing.identity,
            "precision": s.precision,
            "device": self.device.type,
            "seed": s.seed,
            **({"attention": "eager"} if self.eager else {}),
            **({} if s.head is None else {"head": self._about_head()}),
            **({} if llava is None else {"answer": s.answer.identity(cuts=llava.crops > 1)}),
        }
        return identity_of(kind, methods, subject, conditions)

    def _about_backbone(self) -> dict[str, Any]:
        """The backbone in identities; of a vision-language model, the digest of each part too."""
        args, weights = dict(self._loaded.args), self.weights_digest
        if (llava := self._backbone.llava) is not None:
            return {"name": LLAVA, "args": args, "weights": weights, "parts": dict(llava.digests)}
        return {"name": self.spec.backbone.shown, "args": args, "weights": weights}

    def _about_head(self) -> dict[str, Any]:
        """The head in identities: what it reads, and which it is."""
        assert self.spec.head is not None
        known = {} if self.video_head is None else {"digest": self.video_head.digest}
        return {"reads": self.spec.head.reads, **known}

    def head(
        self,
        kind: Kind,
        method: Method,
        label: str,
        conditions: Mapping[str, Any] | None = None,
        pruner: Pruner | None = None,
    ) -> dict[str, Any]:
        """The fields that records of all kinds have, `HEAD`, except `metrics`."""
        identity = self.identity(method, kind, conditions, pruner)
        return {
            "schema_version": kind.version,
            "key": key_of(identity),
            "identity": identity,
            "label": label,
            "backbone": self.spec.backbone.shown,
            "data": self.data.description,
            "precision": self.spec.precision,
            "environment": environment(*(("transformers",) if self.spec.answers else ())),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
