"""The make targets of the tables over benchmarks, run as make would, on a tiny LLaVA."""

import csv
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from in_process import quick, run_here
from made_benchmarks import made_gqa, made_mme, made_pope
from made_llava import made_llava

from asap.cli.report import main as report

pytestmark = pytest.mark.process

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "device=cpu", "answer.max_new_tokens=2",
    'rows=[{method: dense, label: Full, paper: "LLaVA (Full)"}, {method: tome, label: "ToMe, 64", '
    'paper: "ToMe, 64", with: {r: 2}}]',
)  # fmt: skip
Run = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_llava(tmp_path_factory.mktemp("models") / "llava-1.5-7b-hf")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("all") / "ev al"
    for make in (made_pope, made_gqa):
        make(folder)
    return folder


def commands(*given: str) -> list[list[str]]:
    """The words of the commands that make would run, the two of the target last."""
    done = subprocess.run(["make", "-n", *given], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    line = next(x for x in done.stdout.replace("\\\n", " ").split("\n") if "asap.run" in x)
    first, _, second = line.removeprefix("names=$(").partition(") && ")
    return [shlex.split(first), shlex.split(second)]


def script(*words: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    """Exit code, output and error output of a script, run in this process."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit) as end:
        patch.setattr(sys, "argv", list(words))
        runpy.run_path(str(ROOT / words[0]), run_name="__main__")
    out, err = capsys.readouterr()
    return int(str(end.value.code)), out, err


def asked(target: str, *given: str, capsys: pytest.CaptureFixture[str]) -> tuple[list[str], str]:
    """The arguments of asap.run, with the names that the folder gives; what was said of others."""
    found, run = commands(target, *given)
    code, out, err = script(*found[1:], capsys=capsys)
    assert code == 0, err
    names = [word.replace("$names", out.strip()) for word in run]
    return names[names.index("asap.run") + 1 :], err


@pytest.fixture
def call(tmp_path: Path, capsys) -> Iterator[Run]:
    """`call(*arguments)`: exit code and output of asap.run with them, in this process."""

    def run(*arguments: str, rows: str = SMALL[2]) -> tuple[int, str]:
        results = f"results={tmp_path / 'results'}"
        done = run_here(*arguments, *SMALL[:2], rows, results, capsys=capsys)
        return done.code, " ".join((done.out + done.err).split())

    with quick():
        yield run


def test_the_benchmarks_of_a_folder_become_one_table(
    model: Path, data: Path, call: Run, tmp_path: Path, capsys
) -> None:
    given = (f"LLAVA={model}", f"DATA={data}", "ARGS=precision=fp32")
    arguments, missing = asked("llava15", *given, capsys=capsys)
    assert "data=gqa,pope" in arguments and "precision=fp16" not in arguments
    assert "does not have mme (a folder mme), scienceqa (" in missing
    code, said = call(*arguments)
    assert code == 0 and "LLaVA-1.5 on pope" in said and "Scores, rows and costs: LLaVA-1.5" in said
    with (tmp_path / "results/tables/llava-1-5.csv").open(newline="") as file:
        full, tome = csv.DictReader(file)
    assert (full["gqa_n"], full["pope_n"], tome["paper_pope"]) == ("3", "18", "52.5")
    assert full["gqa_comparable"] == "no: not applicable (3 of 12,578 questions)"
    assert tome["gqa_minus_paper"] == "" and float(full["rel_pct"]) == 100
    assert "MMB" not in (tmp_path / "results/tables/llava-1-5.md").read_text()
    page = (tmp_path / "results/report.html").read_text()
    assert "Scores, rows and costs" in page and "Paper, and ours minus" in page
    assert "the paper has no numbers" not in page
    # A second time nothing is asked, and the table is the same.
    before = (tmp_path / "results/tables/llava-1-5.csv").read_bytes()
    code, said = call(*arguments)
    assert code == 0 and "Full: 3 questions" not in said
    assert (tmp_path / "results/tables/llava-1-5.csv").read_bytes() == before


def test_a_benchmark_that_cannot_be_read_is_an_empty_column_with_its_reason(
    model: Path, data: Path, call: Run, tmp_path: Path
) -> None:
    code, said = call(
        "-m", "experiment=llava15", "data=pope,mme,gqa", f"benchmarks='{data}'", f"model={model}"
    )
    assert code == 1 and "1 failed: " in said
    table = (tmp_path / "results/tables/llava-1-5.md").read_text()
    assert "No record of MME: benchmarks=" in table and "Mean over GQA, POPE. Without MME" in table


def test_rows_with_other_options_are_in_a_table_of_their_own(
    model: Path, data: Path, call: Run, tmp_path: Path
) -> None:
    """The page and all tables can be made again from the records."""
    code, said = call(
        "-m", "experiment=llava15", "data=pope,gqa", f"benchmarks='{data}'", f"model={model}",
        "++points.tome=1,2", rows=SMALL[2].replace("r: 2", "r: ${points.tome}"),
    )  # fmt: skip
    assert code == 0, said
    for r in (1, 2):
        path = tmp_path / f"results/tables/llava-1-5--points-tome-{r}.csv"
        with path.open(newline="") as file:
            _, tome = csv.DictReader(file)
        assert float(tome["visual_rows"]) == 16 - 3 * r and tome["gqa_n"] == "3"
    assert report([str(tmp_path / "results")]) == 0
    page = (tmp_path / "results/report.html").read_text()
    assert page.count("Scores, rows and costs") == 4  # two tables, each named twice


def test_every_table_has_its_own_benchmarks(tmp_path: Path, capsys) -> None:
    for make in (made_pope, made_mme):
        make(tmp_path)
    (tmp_path / "vizwiz").mkdir()
    given = (f"LLAVA={tmp_path}", f"DATA={tmp_path}")
    arguments, _ = asked("llava-next", *given, capsys=capsys)
    assert {"experiment=llava_next", "data=mme,pope", "precision=fp16"} <= set(arguments)
    some, _ = asked("llava-next", *given, "ARGS=data=pope limit=2", capsys=capsys)
    assert "data=pope" in some and not any("mme" in word for word in some)
    assert "vizwiz" in " ".join(asked("llava15", *given, capsys=capsys)[0])
    arguments, _ = asked("llava-composition", *given, capsys=capsys)
    assert {"experiment=composition", "data=mme,pope,vizwiz"} <= set(arguments)
    arguments, _ = asked("llava-anchors", *given, capsys=capsys)
    assert {"experiment=anchor_llava_next", "data=mme,pope"} <= set(arguments)


@pytest.mark.parametrize("given", [(), ("LLAVA=/x",), ("DATA=/x",)])
def test_without_a_folder_make_says_which(given: tuple[str, ...]) -> None:
    command = ["make", "--no-print-directory", "llava15", *given]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    name = "DATA" if given == ("LLAVA=/x",) else "LLAVA"
    assert done.returncode == 2 and f"{name} is empty: make llava15 LLAVA=" in done.stderr


@pytest.mark.parametrize(("folder", "said"), [("", "has no benchmark"), ("x", "is not a folder")])
def test_a_folder_without_benchmarks_is_refused_in_one_line(
    folder: str, said: str, tmp_path: Path, capsys
) -> None:
    given = ("scripts/benchmarks_in.py", str(tmp_path / folder))
    code, out, err = script(*given, capsys=capsys)
    (line,) = err.splitlines()
    assert (code, out) == (2, "") and line.startswith("error: ") and said in line


def test_the_targets_of_times_and_costs(model: Path, data: Path, call: Run) -> None:
    """Questions of POPE are timed; costs need neither model nor data."""
    given = f"LLAVA={model}", f"DATA={data}"
    args = "precision=fp32 measure.threads=1 measure.also.latency.questions=4"
    line = made("llava-latency", *given, f"ARGS={args} measure.also.latency.warmup=0")
    code, said = call(*line[line.index("asap.run") + 1 :])
    assert code == 0 and "Time of a question: Times of LLaVA-1.5 on a question" in said
    assert "A100 with 80 GB; these are of" in " ".join(said.split())
    next_line = made("llava-next-latency", *given)
    assert "experiment=llava_next_latency" in next_line and "precision=fp16" in next_line
    assert made("modular-cost")[-3:] == ["-m", "asap.run", "experiment=modular_cost"]


def made(*given: str) -> list[str]:
    """The words of the one command that make would run for a target."""
    done = subprocess.run(["make", "-n", *given], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return shlex.split(next(x for x in done.stdout.splitlines() if "asap.run" in x))
