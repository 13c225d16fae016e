"""Paths as people give them: an empty one never means the current folder, ~ is the home folder."""

import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from samples import open_data
from timm.data import create_transform

import asap.cli.compare
import asap.cli.report
from asap import load_backbone
from asap.cli.command import _refuse_no_results
from asap.data.images.folder import ImageFolder
from asap.data.open import DATA_SETS
from asap.errors import RequestError
from asap.spec.configs import read_method
from asap.spec.paths import PathText, folder_name, given_path
from asap.spec.read import read_spec
from asap.spec.run_spec import BackboneSpec, DataSpec, MethodSpec, RunSpec, groups

TO_32 = create_transform(32)
PLAIN = {
    "backbone": {"name": "digits_vit"},
    "data": {"name": "digits"},
    "rows": [{"method": "dense"}],
}


def path_options(kind: Any = RunSpec, above: str = "") -> Iterator[str]:
    """Every option of a spec whose type says that it may be a path; of data, of every data set."""
    if kind is DataSpec:
        found = (option for own in DATA_SETS.values() for option in path_options(own, above))
        yield from dict.fromkeys(found)
    for field in fields(kind):
        options = typing.get_args(field.type) or (field.type,)
        if PathText in (field.type, *options) or Path in options:
            yield f"{above}{field.name}"
        elif is_dataclass(group := groups().get(field.name, field.type)):
            yield from path_options(group, f"{above}{field.name}.")


def config_with(option: str, value: str) -> dict:
    group, _, name = option.rpartition(".")
    if not group:
        return PLAIN | {option: value}
    return PLAIN | {group: dict(PLAIN.get(group, {})) | {name: value}}


def spec_of(config: dict) -> RunSpec:
    return read_spec(config, read_method)


def test_the_options_that_are_paths_say_so():
    """A new option with a name like these gets `PathText`, and with it all of this file."""
    assert set(path_options()) >= {
        "results", "image", "data.path", "data.labels", "data.boxes", "data.cache",
        "backbone.weights", "calibrate.path", "head.file",
    }  # fmt: skip
    assert "file" in set(path_options(MethodSpec))
    for option in (*path_options(), *path_options(MethodSpec)):
        assert option.rpartition(".")[2] not in ("name", "title", "note")


@pytest.mark.parametrize("option", list(path_options()))
@given(blank=st.text(" \t\n", max_size=3))
def test_an_empty_path_is_refused_by_its_key_with_the_likely_reason(option, blank):
    with pytest.raises(RequestError) as error:
        spec_of(config_with(option, blank))
    said = str(error.value)
    assert said.startswith(f"{option}={blank!r} is empty") and "variable" in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("row", "option"),
    [
        ({"method": "dense", "file": ""}, "rows.file"),
        ({"method": "dynamicvit", "with": {"weights": " "}}, "method.weights"),
    ],
)
def test_an_empty_path_in_a_row_is_refused(row, option):
    with pytest.raises(RequestError, match=f"^{option}='.?' is empty"):
        spec_of(PLAIN | {"rows": [row]})


@pytest.mark.parametrize("option", list(path_options()))
def test_the_home_folder_is_meant_by_a_tilde_at_the_beginning(option, monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    for given_text, meant in (("~/x~y", "/home/ada/x~y"), ("/a/~b", "/a/~b"), ("hub", "hub")):
        found: Any = spec_of(config_with(option, given_text))
        for name in option.split("."):
            own = isinstance(found, DataSpec) and name in found.options
            found = found.options[name] if own else getattr(found, name)
        assert str(found) == meant


def test_a_snapshot_of_the_hub_is_called_after_its_repository(tmp_path):
    snapshot = tmp_path / "models--llava-hf--llava-1.5-7b-hf" / "snapshots" / ("c" * 40)
    snapshot.mkdir(parents=True)
    assert BackboneSpec("llava", str(snapshot)).shown == "llava:llava-1.5-7b-hf"
    assert folder_name(str(snapshot.parent)) == "snapshots"
    (tmp_path / "mine").symlink_to(snapshot)
    assert BackboneSpec("llava", str(tmp_path / "mine")).shown == "llava:llava-1.5-7b-hf"
    assert BackboneSpec("llava", "bundled").shown == "llava"
    assert BackboneSpec(f"local-dir:{snapshot}").shown == f"local-dir:{'c' * 40}"  # it is in keys


def test_an_environment_variable_that_is_set_to_nothing_is_named(monkeypatch):
    monkeypatch.setenv("IMAGENET", " ")
    with pytest.raises(RequestError, match=r"^data\.path='' is empty: .*IMAGENET in the environ"):
        spec_of(config_with("data.path", ""))


def test_python_callers_are_refused_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"")
    with pytest.raises(RequestError, match=r"data\.path='' is empty"):
        open_data("folder", TO_32, (2, 2), path="")
    with pytest.raises(RequestError, match=r"data\.cache=' ' is empty"):
        open_data("folder", TO_32, (2, 2), path=".", cache=" ")
    with pytest.raises(RequestError, match=r"data\.path='' is empty"):
        ImageFolder("", TO_32)
    with pytest.raises(RequestError, match=r"backbone\.weights='' is empty"):
        load_backbone("digits_vit", "")
    assert len(ImageFolder(".", TO_32)) == 1  # said in so many words, it is meant


@pytest.mark.parametrize("argument", ["results=", "results=''", 'results=" "'])
def test_an_empty_results_folder_is_refused_before_hydra_makes_one(argument):
    with pytest.raises(RequestError, match=r"results='.?' is empty"):
        _refuse_no_results(["experiment=demo", argument, "-m"])
    _refuse_no_results(["results=there", "results_of=", "-m"])


@pytest.mark.parametrize(
    ("main", "arguments"),
    [(asap.cli.compare.main, ["--results", ""]), (asap.cli.report.main, ["results="])],
)
def test_the_other_commands_refuse_it(main, arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and "path='' is empty" in capsys.readouterr().err


@given(st.text(min_size=1).filter(str.strip))
def test_any_other_text_without_a_tilde_is_kept(text):
    if not text.startswith("~"):
        assert given_path("x", text) == text
