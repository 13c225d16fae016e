"""What people type: flags anywhere, paths with any signs, and lines that lead somewhere."""

import errno
import gc
import importlib
import logging
import os
import re
import shlex
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
from composed_once import composed_once
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from asap.cli import compare, console
from asap.cli import report as report
from asap.cli import start as interrupts
from asap.cli.arguments import arranged, typed
from asap.cli.command import exit_with
from asap.cli.compose import command_line, not_composed, texts
from asap.cli.signals import Terminated
from asap.errors import RequestError
from asap.spec.configs import config_dir

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


@pytest.mark.parametrize("flag", ["--info", "-i"])
def test_a_flag_whose_value_is_left_out_takes_no_other_word(flag: str) -> None:
    for typed_in in (["a=1", flag], [flag, "a=1"], ["a=1", flag, "b=2"]):
        words = [word for word in typed_in if word != flag]
        assert arranged(typed_in, texts()) == ["--info=all", *words]
    assert arranged(["a=1", flag, "config"], texts()) == [flag, "config", "a=1"]


def test_help_beside_several_values_is_help() -> None:
    given_words = ["-m", "--config-dir=d", "method=tome,ats", "limit=3", "title=a,b", "--help"]
    words = command_line(given_words, "about")
    assert words[:-1] == ["-m", "--config-dir=d", "--help", "limit=3"]


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
        (["photo (1).jpg"], ["'photo (1).jpg'", "key=value"]),
        (["limit=3", "="], ["'='", "key=value"]),
        (["-m", "method=asap,"], ["method=asap,", "leave the comma out"]),
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
        ("Could not find 'data/POPE' Available options in 'data': gqa pope", ["mean 'pope'?"]),
        ("Ambiguous value for argument 'data=gqa,pope'\n1. To use it as a list, ...",
         ["data=gqa,pope has several values: add -m for a run of each; as one list, data=[...]"]),
        ("Ambiguous value for argument 'method.tau=2,3' 1. To use it as a list, use key=[value1,"
         "value2] 2. To use it as string, quote the value: key=\\'value1,value2\\' 3. To sweep",
         ["method.tau=2,3 has several values: add -m for a run of each; as one list, method.tau="]),
        ("BasicSweeper does not support sweep type : INTERVAL_SWEEP", ["range(2,3.5,0.5)"]),
        ("Could not append to config. An item is already at 'measure.also.latency.warmup'. Or",
         ["measure.also.latency.warmup has a value already: leave out the + of +measure.also.l"]),
        ("Could not find 'backbone/vit_tiny_patch16_224' Available options in 'backbone': timm x",
         ["use one of timm, x, or any timm ViT: backbone=timm backbone.name="]),
        ("Could not find 'method/mine' Available options in 'method': asap tome",
         ["asap, tome, or one of your own: --config-dir="]),
        ("In 'config': Could not find 'method/' Available options in 'method': asap ats tome",
         ["method= is empty: use one of asap, ats, tome"]),
        ("Could not override 'metod'. Key 'metod' is not in struct", ["did you mean 'method'?"]),
        ("Could not override 'method.cluster'. Key", ["did you mean 'method.clusters'?"]),
        ("Could not override 'bakbone.name'. Key", ["did you mean 'backbone.name'?"]),
        ("Could not override 'method.start_at'. Key",  # no name is near, only the group
         ["'method.start_at': the chosen method has no such option, or its YAML file does not"]),
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
    from asap.cli.compare import _parser
    from asap.cli.dashboards import _values

    module, *words = command
    if module == "asap.compare":
        assert _parser().parse_args(words).names[0] in ("demo", "Demo of VLM questions")
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
            whole = initialize_config_dir(str(config_dir()), version_base="1.3")
            with composed_once(), whole:
                compose("config", own, return_hydra_config=True)


# ---- how a command ends


@pytest.mark.process
def test_ctrl_c_while_a_command_imports_ends_it_at_once() -> None:
    """The file alone, as `python -m asap...` comes to it first of all."""
    lines = [
        "import importlib.util, os, signal, sys",
        "signal.signal(signal.SIGINT, signal.default_int_handler)",  # ignored in a background job
        "sys.argv = ['-m']",
        f"spec = importlib.util.spec_from_file_location('interrupts', {interrupts.__file__!r})",
        "spec.loader.exec_module(importlib.util.module_from_spec(spec))",
        "os.kill(os.getpid(), signal.SIGINT)",
    ]
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr == "interrupted before anything began\n"


def test_once_begun_ctrl_c_is_an_exception_again_and_imports_by_others_change_nothing(
    monkeypatch,
) -> None:
    for argv, handler in ((["-m"], interrupts._end_at_once), (["x.py"], interrupts._default)):
        monkeypatch.setattr(sys, "argv", argv)
        before = signal.signal(signal.SIGINT, interrupts._default)
        try:
            interrupts._watch_start()
            with interrupts.without_collections():
                assert not gc.isenabled()
            assert gc.isenabled() is (argv != ["-m"])
            assert signal.getsignal(signal.SIGINT) is handler
            interrupts.begun()
            assert signal.getsignal(signal.SIGINT) is interrupts._default and gc.isenabled()
        finally:
            gc.enable()
            gc.unfreeze()
            signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130), (Terminated(), 143),
        (BrokenPipeError(errno.EPIPE, "gone"), 0), (OSError(errno.ENOSPC, "full"), 0),
    ],
)  # fmt: skip
def test_a_command_ends_without_a_traceback(error: BaseException, code: int, monkeypatch) -> None:
    monkeypatch.setattr("asap.cli.command.send_nowhere", lambda stream, error: None)

    def act() -> int:
        raise error

    with pytest.raises(SystemExit) as end:
        exit_with(act)
    assert end.value.code == code


def test_a_reader_that_has_gone_costs_no_message_and_no_work(capfd) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as stream:
        handler = console._Messages(stream)
        for number in range(3):
            handler.handle(logging.makeLogRecord({"msg": f"line {number}"}))
        console.let_go(stream)
    assert capfd.readouterr() == ("", "")


def test_a_full_disk_costs_one_line_and_no_work(capfd) -> None:
    with Path("/dev/full").open("w") as stream:
        handler = console._Messages(stream)
        for number in range(3):
            handler.handle(logging.makeLogRecord({"msg": f"line {number}"}))
        console.let_go(stream)
    console.let_go(None)  # of a process that was started without a standard output
    said, problem = capfd.readouterr()
    assert said == "" and len(problem.splitlines()) == 1 and "No space left" in problem


@pytest.mark.parametrize("given", [["--foo"], ["--results", ""], ["--images", "x"]])
def test_a_wrong_word_to_another_command_is_one_line(given: list[str], capsys) -> None:
    for main in (compare.main, report.main):
        with pytest.raises(SystemExit) as end:
            main(given)
        (line,) = capsys.readouterr().err.splitlines()
        assert end.value.code == 2 and line.startswith("error: ") and "--help" in line


def test_the_version_is_the_projects(capsys) -> None:
    with pytest.raises(SystemExit) as end:
        command_line(["a=1", "--version"], "about")
    assert end.value.code in (0, None)
    assert capsys.readouterr().out == f"asap-vit {version('asap-vit')}\n"


@pytest.mark.parametrize("module", ["run", "calibrate.__main__", "show"])
def test_every_command_has_its_own_help(module: str, monkeypatch, capsys) -> None:
    found = importlib.import_module(f"asap.{module}")
    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["asap", "data=imagenet", "-h", "method=tome"])
    with composed_once(), pytest.raises(SystemExit) as end:
        found.main()
    said = capsys.readouterr().out
    name = module.removesuffix(".__main__")
    about = sys.modules[found.main.__module__].__doc__ or ""
    assert end.value.code == 0 and about and said.startswith(f"{about.splitlines()[0]}\n")
    assert said.count(f"python -m asap.{name} ") >= 3 and "deit_base, deit_small" in said
    assert "shard_seconds:" in said
