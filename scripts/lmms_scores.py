"""lmms-eval's scores of answers; run by check_scores.py with the Python that has lmms-eval.

    python lmms_scores.py words  < nothing       the words that its VQA rule treats specially
    python lmms_scores.py scores < answers.json  a score for each answer, and totals

Needs nothing of this project. Of lmms-eval only the modules with the rules are imported, so that
neither torch nor its other 130 packages are needed.
"""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

OPTIONS = "ABCD"
Question = dict[str, Any]  # as check_scores.py writes it


def rules() -> dict[str, ModuleType]:
    """The modules with the rules, by name. Packages whose own import needs much are stood in for:
    by one that only knows its folder, or whose functions give back what they are given.
    """
    found = importlib.util.find_spec("lmms_eval")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("lmms-eval is not installed for this Python: see check_scores.py --help")
    folder = Path(next(iter(found.submodule_search_locations)))
    tasks = ModuleType("lmms_eval.tasks")
    tasks.__path__ = [str(folder / "tasks")]
    registry = ModuleType("lmms_eval.api.registry")
    for name in ("register_aggregation", "register_metric"):
        setattr(registry, name, lambda *names, **about: lambda given: given)
    sys.modules |= {"lmms_eval.tasks": tasks, "lmms_eval.api.registry": registry}
    importlib.import_module("loguru").logger.remove()
    names = ("pope", "mme", "scienceqa", "vizwiz_vqa", "vqav2")
    modules = {name: importlib.import_module(f"lmms_eval.tasks.{name}.utils") for name in names}
    return modules | {
        "mmbench": importlib.import_module("lmms_eval.tasks.mmbench.en_utils"),
        "metrics": importlib.import_module("lmms_eval.api.metrics"),
        "vqa": importlib.import_module("lmms_eval.tasks._task_utils.vqa_eval_metric"),
        "gqa_yaml": _yaml(folder / "tasks" / "gqa" / "gqa.yaml"),
    }


def _yaml(file: Path) -> Any:
    """A task's file, without the functions that it names."""
    yaml = importlib.import_module("yaml")

    class Loader(yaml.SafeLoader):
        pass

    Loader.add_constructor("!function", lambda loader, node: None)
    return yaml.load(file.read_text("utf-8"), Loader)


class Scored:
    """Scores by the functions of lmms-eval; `question` as lmms-eval's data sets have them."""

    def __init__(self, modules: dict[str, Any]) -> None:
        self.of = modules

    def pope(self, one: Question) -> dict[str, Any]:
        doc = {"question_id": one["id"], "answer": one["right"][0]}
        return self.of["pope"].pope_process_results(doc, [one["text"]])["pope_f1_score"]

    def mme(self, one: Question) -> tuple[str, dict[str, Any]]:
        doc = {
            "question_id": one["picture"], "answer": one["right"][0], "category": one["category"],
        }  # fmt: skip
        [(group, found)] = self.of["mme"].mme_process_results(doc, [one["text"]]).items()
        return group, found

    def gqa(self, one: Question) -> float:
        [metric] = self.of["gqa_yaml"]["metric_list"]
        options = {name: metric[name] for name in metric if name.startswith("ignore")}
        rule = self.of["metrics"].exact_match_hf_evaluate
        return float(rule([one["text"]], one["right"], **options)["exact_match"])

    def scienceqa(self, one: Question) -> float:
        doc = {"choices": ["x"] * 5, "answer": "ABCDE".index(one["right"][0])}
        return self.of["scienceqa"].sqa_process_results(doc, [one["text"]])["exact_match"]

    def vizwiz(self, one: Question) -> float:
        doc = {"question_id": one["id"], "answers": list(one["right"])}
        return float(
            self.of["vizwiz_vqa"].vizwiz_vqa_process_results(doc, [one["text"]])["exact_match"]
        )

    def vqav2(self, one: Question) -> float:
        answers = [{"answer": text, "answer_id": i} for i, text in enumerate(one["right"])]
        doc = {"question_id": one["id"], "answers": answers}
        return float(self.of["vqav2"].vqav2_process_results_val(doc, [one["text"]])["exact_match"])

    def mmbench(self, asked: list[Question]) -> float:
        """The share of the questions whose every turn is right, by the static rule."""
        rows = []
        for one in asked:
            right, *options = one["right"]
            given = dict(zip(OPTIONS, options, strict=False))
            doc = {
                "index": one["id"], "answer": right, "category": "made", "L2-category": "made",
                **dict.fromkeys(("question", "hint", "source", "split"), "made"),
                **{letter: given.get(letter, math.nan) for letter in OPTIONS},
            }  # fmt: skip
            found = self.of["mmbench"].mmbench_process_results(doc, [one["text"]])
            rows.append(found["gpt_eval_score"])
        with contextlib.redirect_stdout(sys.stderr):
            return float(
                self.of["mmbench"].mmbench_evaluator.eval_result(rows, eval_method="static")[0]
            )


def each(scored: Scored, task: str, asked: list[Question]) -> list[float]:
    """The score of each answer."""
    if task == "mmbench":  # a turn alone, as if it were a question
        return [scored.mmbench([{**one, "id": one["id"] % 1_000_000}]) for one in asked]
    if task == "pope":
        return [scored.pope(one)["score"] for one in asked]
    if task == "mme":
        return [scored.mme(one)[1]["score"] for one in asked]
    rule: Callable[[Question], float] = getattr(scored, task)
    return [rule(one) for one in asked]


def total(scored: Scored, task: str, asked: list[Question]) -> float:
    """The benchmark's number, in its own unit; of POPE the mean over the subsets."""
    if task == "mmbench":
        return 100 * scored.mmbench(asked)
    if task == "pope":
        subsets = dict.fromkeys(one["subset"] for one in asked)
        f1 = scored.of["pope"].pope_aggregate_f1_score
        found = [f1([scored.pope(o) for o in asked if o["subset"] == s]) for s in subsets]
        return 100 * sum(found) / len(found)
    if task == "mme":
        pairs = [scored.mme(one) for one in asked]
        groups = dict.fromkeys(group for group, _ in pairs)
        points = scored.of["mme"].mme_aggregate_results
        return sum(points([found for name, found in pairs if name == group]) for group in groups)
    scores = each(scored, task, asked)
    return 100 * sum(scores) / len(scores)


def main(wanted: str) -> None:
    modules = rules()
    rule = modules["vqa"].EvalAIAnswerProcessor
    if wanted == "words":
        found: Any = [
            *rule.CONTRACTIONS, *rule.CONTRACTIONS.values(), *rule.NUMBER_MAP, *rule.ARTICLES,
            *rule.PUNCTUATIONS,
        ]  # fmt: skip
    else:
        scored = Scored(modules)
        found = {
            task: {
                "scores": each(scored, task, asked),
                "total": total(scored, task, asked),
                "total_plain": total(scored, task, [one for one in asked if one["plain"]]),
            }
            for task, asked in json.load(sys.stdin).items()
        }
    version = importlib.metadata.version("lmms-eval")
    json.dump({"version": version, "found": found}, sys.stdout)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wanted", choices=("words", "scores"))
    main(parser.parse_args().wanted)
