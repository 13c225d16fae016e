"""What people type: flags anywhere, paths with any signs, and lines that lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from asap.composed import command_line, not_composed, texts
from asap.errors import RequestError
from asap.runs.arguments import arranged, typed
from asap.runs.configs import config_dir

PATHS = (
    "data.path", "data.labels", "data.boxes", "data.cache", "results", "image", "calibrate.path",
    "backbone.weights", "method.weights",
)  # fmt: skip
SIGNS = "/-_.~ '\"\\$(){}[],=:#&!%*?<>^`;|@+"
LETTERS = st.sampled_from("abz019" + SIGNS + "éß日本😀") | st.characters(
    codec="utf-8", exclude_categories=["C", "Zl", "Zp"]
)


def meant(word: str) -> object:
    """The value that Hydra and OmegaConf make of a key=value word."""
    override = OverridesParser.create().parse_override(word)
    assert not override.is_sweep_override(), word
    config = OmegaConf.create({"x": override.value()})
    return OmegaConf.to_container(config, resolve=True)["x"]  # type: ignore[index]


def test_every_path_option_is_one_of_the_texts() -> None:
    assert set(PATHS) | {"title", "table", "log.group", "backbone.name"} <= texts()
    assert {"batch_size", "rows", "data", "method.tau", "method.clusters"}.isdisjoint(texts())


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(LETTERS, min_size=1, max_size=12), st.booleans())
@example("a,b", True)
@example("1e5", False)
@example("1_000", False)
@example("'quoted'", False)
@example("${a}", False)
@example("\\${a", False)
@example("choice(a,b)", True)
def test_a_path_that_is_there_is_taken_to_the_letter(tmp_path, name, several) -> None:
    """In a multirun too, whatever signs it has."""
    name = name.replace("/", "-")
    path = tmp_path / "x" / name
    path.parent.mkdir(exist_ok=True)
    if name not in (".", ".."):
        path.touch()
    flags = ["-m"] if several else []
    (*_, word) = arranged([*flags, f"data.path={path}"], texts())
    assert meant(word) == str(path)


@settings(max_examples=150)
@given(st.text(LETTERS, max_size=12))
def test_a_path_that_is_not_there_too_but_for_what_has_a_meaning(text: str) -> None:
    """The form that messages show works for all of them when it is pasted into a shell."""
    (pasted,) = shlex.split(typed("results", text))
    (word,) = arranged([pasted], texts())
    assert meant(word) == text or "???" in text  # OmegaConf's sign for what is missing
    (word,) = arranged([f"results={text}"], texts())
    special = text.lower() == "null" or text[:1] in ("'", '"', "~") or "${" in text
    if not special and text != "???":
        assert meant(word) == text


@pytest.mark.parametrize("value", ["null", "'/x/a b'", '"/x/it\'s"', "${oc.env:HOME}/x", "/a/b.c"])
def test_what_has_a_meaning_keeps_it(value: str) -> None:
    assert arranged([f"data.path={value}"], texts()) == [f"data.path={value}"]


def test_the_home_is_meant_where_the_shell_leaves_it(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/me (1)")
    assert meant(arranged(["results=~/out"], texts())[0]) == "/home/me (1)/out"


def test_texts_that_look_like_something_else_stay_texts() -> None:
    for key in ("title", "log.group", "+backbone.weights"):
        for value in ("3", "1e5", "true", "[a]", "{a: b}", "a, b", "x=(1)"):
            assert meant(arranged([f"{key}={value}"], texts())[0]) == value
    assert arranged(["limit=3", "rows=[{a: b}]"], texts()) == ["limit=3", "rows=[{a: b}]"]


def test_a_comma_in_a_multirun_is_several_values() -> None:
    assert arranged(["data.path=/a,/b", "-m"], texts()) == ["-m", "data.path=/a,/b"]
    with pytest.raises(RequestError) as refused:
        arranged(["-m", "data.path=/a(1),/b"], texts())
    said = str(refused.value)
    one, several = re.findall(r'type (".+?") for one value, (".+?") for several', said)[0]
    assert meant(shlex.split(one)[0]) == "/a(1),/b"
    found = OverridesParser.create().parse_override(shlex.split(several)[0])
    assert [part.text for part in found.value().list] == ["/a(1)", "/b"]  # type: ignore[union-attr]


def test_other_options_show_the_form_that_works() -> None:
    with pytest.raises(RequestError) as refused:
        arranged(["hydra.sweep.dir=/x/it's (1)"], texts())
    (pasted,) = shlex.split(str(refused.value).rpartition("type ")[2])
    assert meant(pasted) == "/x/it's (1)"


FLAGS = [["-m"], ["--multirun"], ["--config-dir", "d"], ["--config-dir=d"], ["--cfg", "job"],
         ["--resolve"], ["-p", "hydra"], ["--info", "all"], ["-h"], ["--run"]]  # fmt: skip


@given(st.lists(st.sampled_from(FLAGS), max_size=3), st.integers(0, 4), st.randoms())
def test_flags_may_stand_anywhere(flags: list[list[str]], words: int, draw) -> None:
    parts = [*flags, *([f"k{i}={i}"] for i in range(words))]
    mixed = list(parts)
    draw.shuffle(mixed)
    found = arranged([word for part in mixed for word in part], texts())
    count = len(found) - words
    assert found[:count] == [word for part in mixed if part in flags for word in part]
    assert found[count:] == [word for part in mixed if part not in flags for word in part]


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (["--multrun"], ["--multrun", "did you mean --multirun?"]),
        (["a=1", "--foo", "b=2"], ["--foo", "--help"]),
        (["--cfg", "foo"], ["--cfg", "'foo'", "job"]),
        (["--config-dir"], ["--config-dir", "expected one argument"]),
        (["data.path=/x/\udcff"], [r"\udcff", "rename"]),
    ],
)
def test_a_wrong_flag_is_one_line(given: list[str], parts: list[str]) -> None:
    with pytest.raises(RequestError) as refused:
        arranged(given, texts())
    assert "\n" not in str(refused.value)
    for part in parts:
        assert part in str(refused.value)


@pytest.mark.parametrize(
    ("reason", "parts"),
    [
        ("In 'config': Could not find 'method/asp' Available options in 'method': asap ats tome",
         ["'method/asp'", "did you mean 'asap'?", "asap, ats, tome"]),
        ("Could not override 'metod'. Key 'metod' is not in struct", ["did you mean 'method'?"]),
    ],
)  # fmt: skip
def test_a_misspelt_choice_is_answered_with_what_may_be_meant(reason, parts) -> None:
    for part in parts:
        assert part in not_composed(reason)


def documented() -> list[list[str]]:
    """The commands of the README, as a shell splits them."""
    text = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    lines = re.findall(r"^(?:torchrun \S+ -m|python -m) (asap\..+)$", text, re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("command", documented(), ids=" ".join)
def test_the_commands_of_the_readme_can_be_read(command: list[str]) -> None:
    from asap.compare import _parser
    from asap.dashboards import _values

    module, *words = command
    if module == "asap.compare":
        assert _parser().parse_args(words).names[0] == "demo"
    elif module == "asap.dashboards":
        assert _values(words[1:])
    elif module != "asap.report":
        words = command_line(words, "about")
        given = [word for word in words if "=" in word]
        sweeps = "-m" in words
        given = [re.sub(r",[^=]*$", "", word) for word in given] if sweeps else given
        own = [word for word in given if not word.startswith("hydra/launcher")]
        GlobalHydra.instance().clear()
        if "--config-dir" not in words:
            with initialize_config_dir(str(config_dir()), version_base="1.3"):
                compose("config", own, return_hydra_config=True)
