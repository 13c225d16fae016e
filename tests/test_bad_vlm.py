"""Bad input of runs on questions: exit code 2 and one line, or a failure that is counted and named.

What a checkpoint's files, a file of questions and a method's options can have wrong is in
test_llava_loading.py, test_question_sets.py and test_pruners.py; here it comes through a command.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import forked
import pytest
import torch
from composed_once import composed_once
from made_llava import made_llava
from PIL import Image
from safetensors.torch import load_file, save_file
from test_questions_run import spec_of

import asap.engine.decoder.decoder
from asap.experiment.pipeline import run
from asap.report.result import Result
from asap.spec.read import spec_from
from asap.spec.run_spec import RunSpec

pytestmark = pytest.mark.whole_run
QUESTION = {"id": 1, "image": "a.png", "question": "Is there a three?", "answers": "yes"}
QUESTION |= {"kind": "yes_no"}


@pytest.fixture(scope="module", autouse=True)  # the commands find transformers imported
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_llava(tmp_path_factory.mktemp("llava"))


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "a.png"
    Image.linear_gradient("L").convert("RGB").save(path)
    return path


def refused(tmp_path: Path, *arguments: str, module: str = "asap.run") -> str:
    """The line on standard error of a command that refuses its request and records nothing."""
    given = (*arguments, f"results={tmp_path / 'results'}", "device=cpu")
    with composed_once():
        done = forked.run(*given, module=module)
    (line,) = done.stderr.splitlines()
    assert done.returncode == 2 and line.startswith("error: ") and len(line) < 600, done
    assert not list(tmp_path.glob("results/runs/*/accuracy.json"))
    return line


REQUESTS = {
    "images for a model that answers": (
        "task=vlm data=digits", "data=digits has none: use data=digits_qa, data=questions",
    ),
    "questions for a model that does not": ("data=digits_qa", "has questions.*add task=vlm"),
    "a language stage without a language model": (
        "method=fastv", "stage 'language' is not there for backbone digits_vit: use .*task=vlm",
    ),
    "a folder for another backbone": ("model=/x", "model='/x' is for task=vlm"),
    "a folder that is not there": ("task=vlm model=/nowhere", "'/nowhere' is not a folder"),
    "a file of questions that is not there": (
        "task=vlm data=questions data.path=/nowhere.jsonl", "/nowhere.jsonl cannot be read",
    ),
    "no file of questions": ("task=vlm data=questions", "data.path is missing"),
    "speed": ("task=vlm measure=throughput", "measure.throughput=true times images alone"),
    "a head": ("task=vlm head=attention", "head= is for the frames of clips"),
    "a head with hydra's sign": ("task=vlm +head=linear", r"leave out the \+ of \+head="),
    "calibration": ("task=vlm calibrate.macs_pct=-30", "calibrate.macs_pct is for classes"),
    "an unknown order": ("task=vlm answer.order=row", "use one of method, spatial"),
    "no token": ("task=vlm answer.max_new_tokens=0", "give 1 or more"),
    "an unknown mode of pictures": (
        "task=vlm backbone.preprocess.picture=squash", "use one of pad, crop",
    ),
    "a setting that the folder states": (
        "task=vlm backbone.preprocess.img_size=336", "img_size is not for backbone=llava",
    ),
    "averaged weights": ("task=vlm backbone.ema=true", "backbone.ema is not for backbone=llava"),
    "FastV before the first layer": ("task=vlm method=fastv method.layer=0", "layer=0"),
    "FastV behind the last layer": (
        "task=vlm method=fastv method.layer=99 method.rank=4", "layer=99",
    ),
    "FastV with more rows than there are": (
        "task=vlm method=fastv method.layer=1 method.rank=4000", "rank=4000",
    ),
    "SparseVLM behind the last layer": (
        "task=vlm method=sparsevlm method.layers=[1,2,70] method.keep=[9,5,3]", "70",
    ),
    "a budget above the patches": ("task=vlm method=vispruner method.tokens=4000", "tokens=4000"),
    "no budget": ("task=vlm method=visionzip method.dominant=0", "dominant=0"),
    "one token for pooling": ("task=vlm method=asap method.max_tokens=1", "at least 2"),
    "objects that nobody marked": (
        "task=vlm method=object_rows data=questions data.path={questions}", "masks",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REQUESTS)
def test_a_request_that_cannot_be_is_refused_in_one_line(
    case: str, photo: Path, tmp_path: Path
) -> None:
    given, said = REQUESTS[case]
    questions = photo.parent / "questions.jsonl"
    questions.write_text(json.dumps(QUESTION), "utf-8")
    line = refused(tmp_path, *given.format(questions=questions).split())
    assert re.search(said, line), line


SHOWN = {
    "no question": ((), "question is missing"),
    "an empty question": (("question= ",), "question"),
    "no picture": (("image=null", "question=Is there?"), "image is missing"),
    "a picture that is not there": (("image=/nowhere.png", "question=Is there?"), "is no file"),
    "a placeholder in the question": (
        ("question=Is <image> there?",),
        "cannot answer.*placeholder",
    ),
    "objects that nobody marked": (("question=Is there?", "method=object_rows"), "cannot answer"),
}


@pytest.mark.parametrize("case", SHOWN)
def test_a_picture_of_ones_own_that_cannot_be_asked_about(
    case: str, photo: Path, model: Path, tmp_path: Path
) -> None:
    given, said = SHOWN[case]
    words = ("task=vlm", f"model={model}", f"image={photo}", *given)
    line = refused(tmp_path, *words, module="asap.show")
    assert re.search(said, line), line


def test_settings_are_not_calibrated_on_questions(tmp_path: Path) -> None:
    line = refused(tmp_path, "task=vlm", "method=asap", module="asap.calibrate")
    assert "calibration is for classes and clips" in line


def test_a_question_without_a_model_that_answers(photo: Path, tmp_path: Path) -> None:
    words = (f"image={photo}", "question=Is there?")
    assert "is for task=vlm" in refused(tmp_path, *words, module="asap.show")


@pytest.mark.parametrize("module", ["asap.run", "asap.calibrate"])
def test_one_picture_is_not_silently_left_out(module: str, photo: Path, tmp_path: Path) -> None:
    line = refused(tmp_path, "method=tome", f"image={photo}", module=module)
    assert "image=" in line and "is for python -m asap.show: leave it out" in line


# ---- failures that are counted


def one_row(model: Path, tmp_path: Path, method: dict | None = None, **about: Any) -> Result:
    _, (result,) = run(spec_of(model, tmp_path / "results", method or {"method": "dense"}, **about))
    return result


def asked(photo: Path, tmp_path: Path, *texts: str) -> dict[str, Any]:
    """A file of questions about one picture."""
    folder = tmp_path / "asked"
    folder.mkdir()
    shutil.copy(photo, folder)
    lines = [json.dumps({**QUESTION, "id": i, "question": t}) for i, t in enumerate(texts)]
    (folder / "q.jsonl").write_text("\n".join(lines), "utf-8")
    return {"data": {"name": "questions", "path": str(folder / "q.jsonl")}}


def test_a_prompt_that_is_too_long_and_a_placeholder_fail_alone(
    model: Path, photo: Path, tmp_path: Path
) -> None:
    texts = ("Is there a three?", "three " * 400, "Is <image> there?", "How many?")
    result = one_row(model, tmp_path, **asked(photo, tmp_path, *texts))
    frame = result.answers()
    assert (result.measured["n"], result.measured["n_failed"]) == (2, 2)
    assert list(frame["n"]) == [1, 0, 0, 1] and len(result.traces()) == 2
    assert "256" in frame["error"][1] and "placeholder" in frame["error"][2]


def test_a_question_for_which_memory_is_short_fails_alone(
    model: Path, photo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next run answers it."""
    generate = asap.engine.decoder.decoder.Decoder.generate
    calls: list[int] = []

    def short(*given: Any) -> Any:
        calls.append(len(calls))
        if len(calls) == 2:
            raise torch.OutOfMemoryError
        return generate(*given)

    monkeypatch.setattr(asap.engine.decoder.decoder.Decoder, "generate", short)
    about = asked(photo, tmp_path, "One?", "Two?", "Three?")
    result = one_row(model, tmp_path, **about)
    assert (result.measured["n"], result.measured["n_failed"]) == (2, 1)
    assert "out of memory" in result.answers()["error"][1]
    again = one_row(model, tmp_path, **about)
    assert (again.measured["n"], again.measured["n_failed"]) == (3, 0) and len(calls) == 4


Spoil = Callable[[dict[str, Any]], None]


def _spoiled(model: Path, to: Path, spoil: Spoil) -> Path:
    shutil.copytree(model, to)
    tensors = load_file(to / "model.safetensors")
    spoil(tensors)
    save_file(tensors, to / "model.safetensors")
    return to


def test_logits_that_are_not_finite_are_counted(model: Path, tmp_path: Path) -> None:
    """As half precision gives them: the question stays in n, is wrong, and is counted."""

    def overflow(tensors: dict[str, Any]) -> None:
        tensors[next(k for k in tensors if k.endswith("lm_head.weight"))].fill_(3e38)

    folder = _spoiled(model, tmp_path / "spoiled", overflow)
    record = one_row(folder, tmp_path).measured
    assert record["n_nonfinite"] == record["n"] > 0 and record["top1"] == 0 == record["n_failed"]


def test_an_answer_that_ends_at_the_first_step_is_empty(
    model: Path, photo: Path, tmp_path: Path
) -> None:
    ends = tmp_path / "ends"
    shutil.copytree(model, ends)
    frame = one_row(model, tmp_path, **(about := asked(photo, tmp_path, "Is there?"))).answers()
    first = int(frame["ids"][0][0])
    (ends / "generation_config.json").write_text(json.dumps({"eos_token_id": first}), "utf-8")
    result = one_row(ends, tmp_path, **about)
    assert list(result.answers()["text"]) == [""] and result.measured["n_failed"] == 0
    assert result.measured["questions"]["n_empty"] == 1


@pytest.mark.process
def test_the_library_is_not_imported_where_no_question_is_answered(tmp_path: Path) -> None:
    """A run on images with every module of the package loaded, in a process of its own."""
    program = (
        "import sys, asap.cli.run, asap.cli.show\n"
        "from test_resume import spec_of\n"
        "from pathlib import Path\n"
        "from asap.experiment.pipeline import run\n"
        f"run(spec_of(Path({str(tmp_path)!r}), {{'method': 'dense'}}, images=2))\n"
        "assert 'transformers' not in sys.modules and 'tokenizers' not in sys.modules\n"
    )
    here = str(Path(__file__).parent)
    environment = {**os.environ, "PYTHONPATH": f"{here}:{os.environ.get('PYTHONPATH', '')}"}
    subprocess.run([sys.executable, "-c", program], check=True, env=environment, timeout=300)


def test_a_spec_of_questions_is_read_again(model: Path, tmp_path: Path) -> None:
    """As the config.yaml beside its record keeps it, with both stages."""
    spec: RunSpec = spec_of(model, tmp_path)
    again = spec_from(json.loads(json.dumps(asdict(spec), default=str)))
    assert again == spec and again.rows[3].pruner is not None
