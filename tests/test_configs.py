"""Every config composes, builds, and says what the code does."""

import json
from dataclasses import MISSING, asdict, fields
from pathlib import Path

import pytest
import yaml
from composed_once import composed_once
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

import asap.methods
from asap.backbones.weights.load import BUNDLED, BUNDLED_FOLDER, file_digest
from asap.data.images.folder import FolderOptions
from asap.data.open import options_of
from asap.errors import RequestError
from asap.methods import build, find, registry
from asap.methods.registry import build_pruner, find_pruner, names, pruner_names
from asap.spec.configs import choices, config_dir, read_method
from asap.spec.read import read_spec, spec_from
from asap.spec.run_spec import HeadSpec, MethodOf, MethodSpec, RunSpec

ABOUT = {"name", "stage", "made_for", *(f.name for f in fields(MethodSpec))}
PRUNERS = [n for n in choices("method") if read_method(n).get("stage") == "language"]
VARIANTS = [n for n in choices("method") if n not in (*names(), *PRUNERS)]


def spec_of(*overrides: str) -> RunSpec:
    here = initialize_config_dir(version_base="1.3", config_dir=str(config_dir()))
    with composed_once(), here:
        config = compose("config", overrides=list(overrides))
    plain = OmegaConf.to_container(config, resolve=True)
    return read_spec({k: v for k, v in plain.items() if k != "hydra"}, read_method)


@pytest.mark.parametrize("name", choices("method"))
def test_a_method_config_lists_every_option(name: str) -> None:
    config = read_method(name)
    find_it, build_it = (find_pruner, build_pruner) if name in PRUNERS else (find, build)
    options = {k: v for k, v in config.items() if k not in ABOUT}
    assert set(options) == {f.name for f in fields(find_it(config["name"]))}
    build_it(config["name"], options)


@pytest.mark.parametrize("name", [n for n in choices("method") if n in (*names(), *pruner_names())])
def test_a_method_config_has_the_class_defaults(name: str) -> None:
    config = read_method(name)
    for option in fields(find_pruner(name) if name in PRUNERS else find(name)):
        if option.default is not MISSING:
            listed = config[option.name]
            listed = tuple(listed) if isinstance(listed, list) else listed
            assert listed == option.default, option.name


@pytest.mark.parametrize("name", ["visionzip", "vispruner", "prunesid"])
def test_a_method_for_a_language_models_tower_is_ours_in_a_classifier_alone(name: str) -> None:
    published = spec_of("task=vlm", f"method={name}").rows[-1]
    ours = spec_of(f"method={name}").rows[-1]
    assert not published.ours and published.label == published.paper
    assert ours.ours and ours.label == f"{published.label} (not published here)"
    assert ours.methods == published.methods


@pytest.mark.parametrize("name", choices("experiment"))
def test_an_experiment_composes_and_builds(name: str) -> None:
    spec = spec_of(f"experiment={name}")
    assert spec.rows and options_of(spec.data)
    for row in spec.rows:
        build(row.name, row.options)
        if row.pruner is not None:
            build_pruner(row.pruner.name, row.pruner.options)
    text = (config_dir() / "experiment" / f"{name}.yaml").read_text()
    assert text.startswith("# @package _global_\n#   "), "an experiment opens with its command"


def test_an_experiment_on_scenes_takes_other_data_too() -> None:
    """How many scenes it draws is an option of the scenes alone."""
    assert spec_of("experiment=demo").data.options["images"] == 1000
    assert spec_of("experiment=demo", "data.images=24").data.options["images"] == 24
    assert spec_of("data=digits").data.options["images"] == 2000
    other = spec_of("experiment=demo", "data=folder", "data.path=/x").data
    assert options_of(other) == FolderOptions()


@pytest.mark.parametrize("group", ["backbone", "data", "measure", "head"])
def test_every_choice_composes(group: str) -> None:
    for name in choices(group):
        needed = ["backbone.name=vit_tiny_patch16_224"] if name == "timm" else []
        spec_of(f"{group}={name}", *needed)


@pytest.mark.parametrize("name", choices("head"))
def test_a_head_config_has_the_defaults_of_its_spec_and_is_read_again(name: str) -> None:
    assert spec_of().head is None
    spec = spec_of(f"head={name}")
    assert spec.head == HeadSpec(kind=name)
    listed = yaml.safe_load((config_dir() / "head" / f"{name}.yaml").read_text())
    assert set(listed) == {f.name for f in fields(HeadSpec)}
    assert spec_from(json.loads(json.dumps(asdict(spec), default=str))).head == spec.head


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("head.kind=mlp", "head.kind='mlp' is not possible: use one of linear, attention"),
        ("head.reads=all", "head.reads='all' is not possible"),
        ("head.features=int8", "head.features='int8' is not possible: use one of fp16, fp32"),
        ("head.epochs=0", "head.epochs=0 is not possible: give 1 or more"),
        ("head.lr=0", "head.lr=0.0 is not possible: give a number above 0"),
        (
            "head.warmup_epochs=10",
            "head.warmup_epochs=10.0 is not possible: .* from 0 and below 10",
        ),
        (
            "head.smoothing=1",
            "head.smoothing=1.0 is not possible: give a number from 0 and below 1",
        ),
        ("head.weight_decay=-1", "head.weight_decay=-1.0 is not possible: give a number from 0$"),
        ("+head.momentum=1", "head: unknown key 'momentum'"),
    ],
)
def test_a_head_that_cannot_be_trained_is_refused(given: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        spec_of("head=attention", given)


def test_ablations_keep_the_point_of_the_pooling_row() -> None:
    rows = {row.label: row for row in spec_of("experiment=demo").rows}
    point = {k: rows["ASAP (pool.)"].options[k] for k in ("tau", "clusters")}
    for label in ("ASAP w/o accumulation", "Random anchor"):
        assert {k: rows[label].options[k] for k in point} == point


@pytest.mark.parametrize("name", BUNDLED)
def test_the_config_states_the_digest_of_the_bundled_weights(name: str) -> None:
    config = yaml.safe_load((config_dir() / "backbone" / f"{name}.yaml").read_text())
    digest = file_digest(BUNDLED_FOLDER / f"{name}.safetensors")
    assert config["sha256"] == BUNDLED[name] == digest
    assert digest in (BUNDLED_FOLDER / "README.md").read_text()


@pytest.mark.parametrize("name", VARIANTS)
def test_a_variant_names_only_what_differs_from_asap(name: str) -> None:
    own = yaml.safe_load((config_dir() / "method" / f"{name}.yaml").read_text())
    assert own.pop("defaults") == ["asap", "_self_"]
    asap = read_method("asap")
    assert all(asap[key] != value for key, value in own.items())
    assert read_method(name) == {**asap, **own}


@pytest.mark.parametrize("name", choices("method"))
def test_a_row_has_the_options_that_hydra_composes_for_the_command_line(name: str) -> None:
    here = initialize_config_dir(version_base="1.3", config_dir=str(config_dir()))
    with composed_once(), here:
        composed = compose("config", overrides=[f"method={name}"]).method
    assert OmegaConf.to_container(composed, resolve=True) == read_method(name)


@pytest.mark.parametrize(
    "text", ["defaults: [mine, _self_]", "defaults: [asap]", "defaults: [{/method: asap}, _self_]"]
)
def test_defaults_that_a_row_cannot_follow_are_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "mine.yaml").write_text(f"{text}\nlabel: Mine\n")
    with pytest.raises(RequestError, match="cannot be followed here"):
        read_method("mine", [tmp_path])


def test_own_method_config_builds_on_asap(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    text = "defaults: [asap_pruning, _self_]\nlabel: Mine\ntau: 2.0\n"
    (tmp_path / "method" / "mine.yaml").write_text(text)
    assert read_method("mine", [tmp_path]) == {
        **read_method("asap_pruning"), "label": "Mine", "tau": 2.0,
    }  # fmt: skip


def test_own_config_folders_come_first(tmp_path: Path) -> None:
    (tmp_path / "method").mkdir()
    (tmp_path / "method" / "tome.yaml").write_text("name: tome\nlabel: mine\nr: 1\n")
    assert read_method("tome", [tmp_path])["label"] == "mine"
    assert read_method("asap", [tmp_path])["label"] == "ASAP (pool.)"


def test_a_helper_file_among_the_methods_is_no_method(tmp_path, monkeypatch) -> None:
    """Not even one that imports a method: a method is defined where its name says."""
    (tmp_path / "helper_of_tests.py").write_text("from asap.methods import ToMe\nBASE = ToMe\n")
    (tmp_path / "method_of_tests.py").write_text(
        "from asap.methods import ToMe\n\n\nclass Own(ToMe):\n    pass\n"
    )
    before = names()
    monkeypatch.setattr(registry, "__file__", str(tmp_path / "registry.py"))
    monkeypatch.setattr(asap.methods, "__path__", [str(tmp_path), *asap.methods.__path__])
    assert names() == ("method_of_tests",)
    assert find("method_of_tests").__name__ == "Own"
    with pytest.raises(RequestError, match="helper_of_tests"):
        find("helper_of_tests")
    assert "asap" in before and "schedule" not in before and "base" not in before


def rows_of(*rows: dict) -> tuple[MethodSpec, ...]:
    backbone = {"name": "digits_vit"}
    config = {"backbone": backbone, "data": {"name": "digits"}, "rows": list(rows)}
    spec = read_spec({**config, "method": read_method("asap")}, read_method)
    plain = json.loads(json.dumps(asdict(spec), default=str))
    assert spec_from(plain).rows == spec.rows  # as config.yaml beside a record holds it
    return spec.rows


def test_a_row_is_a_method_for_every_stage() -> None:
    chosen, named, own = rows_of(
        {},
        {"method": "tome", "with": {"r": 4}},
        {"methods": {"vision": {"name": "tome", "r": 4}}, "label": "Mine"},
    )
    assert chosen.methods.keys() == {"vision"} and chosen.name == "asap"
    assert named.methods == {"vision": MethodOf("tome", {**named.options, "r": 4})}
    assert own.methods == {"vision": MethodOf("tome", {"r": 4})} and own.label == "Mine"
    assert own.given == named.given == ("r",)
    swept = rows_of({"methods": {"vision": {"name": "tome"}}, "sweep": {"r": [2, 4]}})
    assert [(row.label, row.options) for row in swept] == [
        ("tome r=2", {"r": 2}), ("tome r=4", {"r": 4})
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"methods": {"vision": {"name": "tome", "r": 4}, "language": {"name": "tome", "r": 4}}},
            "row 'tome': stage 'language' is not there for backbone digits_vit: use vision",
        ),
        ({"methods": {"language": {"name": "tome"}}}, "stage 'language' is not there"),
        ({"methods": {}}, r"give vision: \{name: ...\}"),
        ({"methods": {"vision": {"r": 4}}}, r"methods\.vision\.name is missing"),
        ({"methods": {"vision": "tome"}}, "give a group of settings"),
        ({"methods": {"vision": {"name": "tome"}}, "method": "asap"}, "leave one out"),
    ],
)
def test_a_stage_that_is_not_there_is_one_line(row: dict, message: str) -> None:
    with pytest.raises(RequestError, match=message) as refused:
        rows_of(row)
    assert len(str(refused.value).splitlines()) == 1


def test_a_method_of_the_language_stage_is_a_row_whose_images_are_not_reduced() -> None:
    """Its options are reached as those of any method."""
    pruner = {"name": "fastv", "stage": "language", "label": "FastV", "layers": 2, "rank": 98}
    given = {
        "backbone": {"name": "llava"},
        "data": {"name": "digits_qa"},
        "rows": [{"method": "fastv", "with": {"rank": 30}}, {"method": "tome"}],
    }
    row, other = read_spec(given, {"fastv": pruner, "tome": {"name": "tome"}}.__getitem__).rows
    assert (row.name, row.label, row.given) == ("dense", "FastV", ())
    assert row.pruner == MethodOf("fastv", {"layers": 2, "rank": 30})
    assert other.pruner is None
    chosen = read_spec({**given, "rows": None, "method": pruner}, read_method).rows
    assert [one.pruner and one.pruner.name for one in chosen] == [None, "fastv"]
    both = {"methods": {"vision": {"name": "tome"}, "language": {"name": "fastv"}}, "label": "x"}
    (row,) = read_spec({**given, "rows": [both]}, read_method).rows
    assert (row.name, row.pruner) == ("tome", MethodOf("fastv"))


def test_a_model_is_for_the_backbone_that_reads_it() -> None:
    with pytest.raises(RequestError, match="model='/x' is for task=vlm"):
        spec_of("model=/x")
    assert not spec_of("task=vlm", "model='~/x'").backbone.weights.startswith("~")
    with pytest.raises(RequestError, match="'/y' are two models: leave one"):
        spec_of("task=vlm", "model=/x", "backbone.weights=/y")
