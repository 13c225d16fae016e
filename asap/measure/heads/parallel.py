"""Features and gradients by all processes of a run: the leader's part and the workers'."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

from jaxtyping import Int
from torch import Tensor, nn

from asap.backbones.video_head import HeadConfig, build_head
from asap.errors import RequestError
from asap.measure.accuracy import Ranges, count_of
from asap.measure.device import pick_device
from asap.measure.heads.extraction import Extraction
from asap.measure.heads.features import FeatureFile, Features
from asap.measure.heads.gradients import Alone, Gradient, Gradients
from asap.measure.processes import ask, rank, share, size
from asap.measure.session import Session
from asap.measure.workers import Scaled, Worker, wait_for
from asap.methods import Dense
from asap.records.key import key_of
from asap.spec.run_spec import RunSpec

KEPT = "head"  # what a worker keeps of the head that is being trained


def extraction_of(session: Session, file: FeatureFile) -> Extraction:
    """What computes the features of a session's clips, with its backbone unreduced."""
    return Extraction(session.model(Dense()), session.data, session.evaluation(), file)


# ---- features


def spread_features(
    spec: RunSpec,
) -> Callable[[Extraction, Ranges, Callable[[int], object]], None]:
    """Computes clips with all processes; each writes its part into the file."""

    def write(own: Extraction, clips: Ranges, advance: Callable[[int], object]) -> None:
        if size() == 1:
            own.write(clips, advance)
            return
        mine = share(clips, 0, size())
        scaled = Scaled(advance, count_of(clips), count_of(mine))
        ask(_Extract(spec, own.file, clips), lambda: own.write(mine, scaled.add))
        wait_for(lambda: len(own.file.done()) == own.file.shape.clips)

    return write


@dataclass(frozen=True)
class _Extract:
    """A worker's part of the clips."""

    spec: RunSpec
    file: FeatureFile
    clips: Ranges

    def __call__(self, worker: Worker) -> None:
        extraction = extraction_of(worker.session(self.spec), self.file)
        extraction.write(share(self.clips, rank(), size()))


# ---- gradients


def spread_gradients(
    features: Features,
    file: FeatureFile,
    config: HeadConfig,
    smoothing: float,
    device: str,
) -> Gradients:
    """What computes the gradient of a batch with all processes, in contiguous parts by rank.

    The parts' gradients are summed in the order of the ranks, in float64. So the same number of
    processes gives the same bits on a CPU, and another number the same weights up to rounding.
    device: as a run asks for it; every process takes its own.
    """
    own = Alone(features, smoothing, pick_device(device))
    if size() == 1:
        return own
    digest = features.digest

    def compute(head: nn.Module, batch: Int[Tensor, "b"]) -> Gradient:
        weights = {name: value.detach().cpu() for name, value in head.state_dict().items()}
        task = _Part(file, digest, config, smoothing, device, weights, batch)
        parts = ask(task, lambda: own(head, task.part(batch), len(batch)))
        return Gradient.sum(parts)

    return compute


@dataclass(frozen=True)
class _Part:
    """A process's part of the gradient of a batch, for a head with these weights.

    features: the digest of what the file must hold.
    """

    file: FeatureFile
    features: str
    config: HeadConfig
    smoothing: float
    device: str
    weights: Mapping[str, Tensor]
    batch: Int[Tensor, "b"]

    def __call__(self, worker: Worker) -> Gradient:
        head, own = self._kept(worker)
        head.load_state_dict(self.weights)
        return own(head, self.part(self.batch), len(self.batch))

    @staticmethod
    def part(batch: Int[Tensor, "b"]) -> Int[Tensor, "part"]:
        """This process's part of the batch; none of a small batch of many processes."""
        found = share([(0, len(batch))], rank(), size())
        return batch[slice(*found[0])] if found else batch[:0]

    def _kept(self, worker: Worker) -> tuple[nn.Module, Alone]:
        """The worker's head and what computes gradients, made for the first batch."""
        name = key_of(
            {
                "features": self.features,
                "head": asdict(self.config),
                "smoothing": self.smoothing,
                "device": self.device,
            }
        )
        known, made = worker.kept.get(KEPT, (None, None))
        if known != name:
            wait_for(lambda: self._features() is not None)
            features = self._features()
            if features is None:
                raise RequestError(
                    f"{self.file.folder} is not to be seen by all processes: choose a results "
                    "folder that is shared by all machines"
                )
            device = pick_device(self.device)
            head = build_head(self.config).to(device)
            made = head, Alone(features, self.smoothing, device)
            worker.kept[KEPT] = name, made
        return made

    def _features(self) -> Features | None:
        """The features that are meant; None while this process sees others, or none."""
        found = self.file.finished()
        return found if found is not None and found.digest == self.features else None
