"""What records say of methods, weights and settings."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from asap.backbones.weights.load import Loaded
from asap.methods import Method, build
from asap.methods.language.base import Pruner
from asap.methods.registry import build_pruner, code_of, name_of
from asap.records.schema import MethodRecord, WeightsRecord
from asap.spec.run_spec import MethodSpec, RunSpec


def describe(method: Method | Pruner) -> MethodRecord:
    """A method's module, all of its options and its version, as they go into records."""
    kind = type(method)
    options = {
        k: list(v) if isinstance(v, tuple) else _finite(v) for k, v in method.identity().items()
    }
    pruner = isinstance(method, Pruner)
    version = method.pruner_version if pruner else method.method_version
    found = MethodRecord(name=name_of(kind), options=options, version=version)
    if (code := code_of(kind)) is not None:
        found["code"] = code
    return found


def method_of_record(recorded: Mapping[str, Any]) -> Method:
    """The method from the result of `describe`. RequestError if it can no longer be built."""
    return build(recorded["name"], _options(recorded))


def pruner_of_record(recorded: Mapping[str, Any]) -> Pruner:
    """The pruner from the result of `describe`. RequestError if it can no longer be built."""
    return build_pruner(recorded["name"], _options(recorded))


def _options(recorded: Mapping[str, Any]) -> dict[str, Any]:
    return {k: float(v) if v in ("inf", "-inf") else v for k, v in recorded["options"].items()}


def _finite(value: Any) -> Any:
    """The value for a record: infinity as a text, since JSON has none."""
    return str(value) if value in (float("inf"), float("-inf")) else value


def weights_record(loaded: Loaded) -> WeightsRecord | None:
    """The file that a backbone's weights come from; None for random ones."""
    file, fitted = loaded.file, loaded.fitted
    if file is None:
        return None
    record = WeightsRecord(origin=file.origin, file=file.path.name, sha256=file.sha256)
    if fitted.entry is not None:
        record["entry"] = fitted.entry
    if fitted.others:
        record["others"] = list(fitted.others)
    if fitted.assumed is not None:
        record["assumed"] = fitted.assumed
    return record


def config_of(spec: RunSpec, row: MethodSpec) -> dict[str, Any]:
    """The settings of one row as plain data: the content of config.yaml beside its record."""
    plain = asdict(spec)
    del plain["rows"]
    return {**plain, "results": str(spec.results), "row": asdict(row)}
