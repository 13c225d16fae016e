"""Compare our scores of made answers with the scripts that the benchmarks' authors publish.

    python scripts/check_official.py --llava LLaVA --vqa VQA --mme /data/eval/MME/eval_tool

--llava: a checkout of github.com/haotian-liu/LLaVA, for POPE, GQA, ScienceQA and VizWiz; --vqa: one
of github.com/GT-Vision-Lab/VQA; --mme: the eval_tool of MME's release, which needs scikit-learn.
What is not given is left out. The scripts run as they are, on the answers of made_answers.py; where
the annotators' or right answers of a benchmark have a form of their own (no capitals in GQA, VQA's
words in normal form), the made ones have it too. The exit code is 1 if an answer has another score.
"""

import argparse
import contextlib
import importlib.util
import io
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from check_scores import CLOSE, our_scores, our_total
from made_answers import Question, made

from asap.spec.paths import path_argument
from asap.tasks.scoring.vqa import normalised_vqav2

EVALUATOR = "llava/eval/m4c_evaluator.py"
WORDS = ("dont", "don't", "yall'll", "seven", "the", "-")
Found = tuple[list[float], float | None]  # of each answer; the total, if the script has one


def script(folder: Path, *names: str) -> Path:
    """The first of these files; SystemExit if the folder has none."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise SystemExit(f"{folder} has no {' or '.join(names)}: see --help")


def module(file: Path) -> Any:
    """A script as a module; SystemExit if it cannot be imported."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    found = ModuleType(file.stem)
    try:
        spec.loader.exec_module(found)
    except ImportError as error:
        raise SystemExit(f"{file} cannot be imported ({error}): install what it needs") from None
    return found


def lines(file: Path, rows: Sequence[Any]) -> Path:
    file.write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return file


def started(file: Path, **options: Path) -> None:
    """Run a script with these options; SystemExit, with its last line, if it fails."""
    given = [part for k, v in options.items() for part in (f"--{k.replace('_', '-')}", str(v))]
    command = [sys.executable, str(file), *given]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip() or "it said nothing").splitlines()[-1]
        raise SystemExit(f"{file} fails: {said}")


def pope(llava: Path, asked: Sequence[Question], folder: Path) -> Found:
    eval_pope = module(script(llava, "llava/eval/eval_pope.py")).eval_pope
    scores: dict[str, float] = {}
    f1 = []
    for subset in dict.fromkeys(one["subset"] for one in asked):
        own = [one for one in asked if one["subset"] == subset]
        labels = lines(folder / "labels.json", [{"label": one["right"][0]} for one in own])
        said = [{"text": one["text"]} for one in own]
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            eval_pope(said, str(labels))
        f1.append(float(re.findall(r"F1 score: (\S+)", printed.getvalue())[0]))
        pairs = zip(own, said, strict=True)
        scores |= {one["id"]: float(read["text"] == one["right"][0]) for one, read in pairs}
    return [scores[one["id"]] for one in asked], 100 * sum(f1) / len(f1)


def gqa(llava: Path, asked: Sequence[Question], folder: Path) -> Found:
    """LLaVA's conversion; GQA's own script compares its texts with the answers."""
    said = [{"question_id": one["id"], "text": one["text"]} for one in asked]
    convert = script(llava, "scripts/convert_gqa_for_eval.py")
    started(convert, src=lines(folder / "said.jsonl", said), dst=folder / "converted.json")
    converted = json.loads((folder / "converted.json").read_text("utf-8"))
    texts = {one["questionId"]: one["prediction"] for one in converted}
    scores = [float(texts[one["id"]] == one["right"][0]) for one in asked]
    return scores, 100 * sum(scores) / len(scores)


def scienceqa(llava: Path, asked: Sequence[Question], folder: Path) -> Found:
    problems = {
        q["id"]: {"choices": ["x"] * 5, "answer": "ABCDE".index(*q["right"])} for q in asked
    }
    (folder / "problems.json").write_text(json.dumps(problems))
    (folder / "pid_splits.json").write_text(json.dumps({"test": list(problems)}))
    said = [{"question_id": q["id"], "text": q["text"], "prompt": "<image>"} for q in asked]
    started(
        script(llava, "llava/eval/eval_science_qa.py"), base_dir=folder,
        result_file=lines(folder / "said.jsonl", said), output_file=folder / "output.json",
        output_result=folder / "result.json",
    )  # fmt: skip
    found = json.loads((folder / "result.json").read_text("utf-8"))
    right = {id: float(found["results"][id] == one["answer"]) for id, one in problems.items()}
    return [right[one["id"]] for one in asked], found["acc"]


def vizwiz(llava: Path, asked: Sequence[Question], folder: Path) -> Found:
    """EvalAI's processor on both sides, as LLaVA's evaluator of TextVQA has it."""
    evaluator = module(script(llava, EVALUATOR)).TextVQAAccuracyEvaluator()
    said = [evaluator.answer_processor(one["text"]) for one in asked]
    each = [evaluator._compute_answer_scores(one["right"]) for one in asked]
    return [known.get(text, 0.0) for text, known in zip(said, each, strict=True)], None


def vqav2(vqa: Path, asked: Sequence[Question], folder: Path) -> Found:
    file = script(vqa, "PythonEvaluationTools/vqaEvaluation/vqaEval.py")
    right = {
        one["id"]: {
            "answers": [{"answer": text, "answer_id": i} for i, text in enumerate(one["right"])],
            "question_type": "made", "answer_type": "made",
        }
        for one in asked
    }  # fmt: skip
    said = SimpleNamespace(qa={one["id"]: {"answer": one["text"]} for one in asked})
    ids = list(right)
    found = module(file).VQAEval(SimpleNamespace(qa=right, getQuesIds=lambda: ids), said, n=12)
    with contextlib.redirect_stdout(io.StringIO()):
        found.evaluate()
    return [found.evalQA[id] / 100 for id in ids], found.accuracy["overall"]


def mme(tool: Path, asked: Sequence[Question], folder: Path) -> Found:
    """The total is of pictures whose answers fit on a line of the tool's files."""
    metrics = module(script(tool, "calculation.py")).calculate_metrics()
    said = [metrics.parse_pred_ans(one["text"].lower()) for one in asked]
    for category in dict.fromkeys(one["category"] for one in asked):
        rows = [f"x\tx\t{q['right'][0]}\t{q['text']}\n" for q in asked if q["category"] == category]
        (folder / f"{category}.txt").write_text("".join(rows), "utf-8")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        metrics.process_result(str(folder))
    total = sum(map(float, re.findall(r"total score: (\S+)", printed.getvalue())))
    return [float(s == q["right"][0]) for s, q in zip(said, asked, strict=True)], total


TASKS: dict[str, tuple[str, Callable[[Path, Sequence[Question], Path], Found]]] = {
    "pope": ("llava", pope), "gqa": ("llava", gqa), "scienceqa": ("llava", scienceqa),
    "vizwiz": ("llava", vizwiz), "vqav2": ("vqa", vqav2), "mme": ("mme", mme),
}  # fmt: skip


def as_asked(task: str, questions: Sequence[Question]) -> list[Question]:
    """The questions with right answers in the form of the benchmark's own files."""
    if task == "gqa":
        return [{**one, "right": [one["right"][0].rstrip(".").lower()]} for one in questions]
    if task == "vqav2":
        made_ones = [{**q, "right": [*map(normalised_vqav2, q["right"])]} for q in questions]
        return [q for q in made_ones if q["right"] == [*map(normalised_vqav2, q["right"])]]
    if task == "mme":  # a line for each answer
        lost = {one["picture"] for one in questions if len(one["text"].splitlines()) > 1}
        lost |= {one["picture"] for one in questions if "\t" in one["text"]}
        return [one for one in questions if one["picture"] not in lost]
    return list(questions)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("llava", "vqa", "mme"):
        parser.add_argument(f"--{name}", type=path_argument)
    parser.add_argument("--seed", type=int, default=0, help="of the answers")
    given = vars(parser.parse_args(arguments))
    words: Sequence[str] = WORDS
    if given["llava"] is not None:
        rule = module(script(given["llava"], EVALUATOR)).EvalAIAnswerProcessor
        words = [*rule.CONTRACTIONS, *rule.CONTRACTIONS.values(), *rule.NUMBER_MAP, *rule.ARTICLES]
        words += rule.PUNCTUATIONS
    asked, differs = made(given["seed"], words), False
    for task, (source, rule) in TASKS.items():
        if given[source] is None:
            continue
        questions = as_asked(task, asked[task])
        with tempfile.TemporaryDirectory() as folder:
            theirs, total = rule(given[source], questions, Path(folder))
        ours = our_scores(task, questions)
        triples = zip(questions, ours, theirs, strict=True)
        wrong = [(q, a, b) for q, a, b in triples if abs(a - b) > CLOSE]
        own = our_total(task, questions)
        line = f"{task}: {len(questions):,} answers, {len(wrong)} with another score"
        line += "" if total is None else f"; total {own:.10g}, theirs {total:.10g}"
        sys.stdout.write(f"{line}\n")
        for q, a, b in wrong[:5]:
            sys.stdout.write(
                f"  {q['text'][:60]!r}, right {q['right'][:4]}: {a:.4g}, theirs {b:.4g}\n"
            )
        differs |= bool(wrong) or (total is not None and abs(own - total) > 1e-6)
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())
