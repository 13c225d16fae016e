"""Questions of lmms-eval answered by this project, and scored by lmms-eval.

    lmms/bin/python scripts/lmms_bridge.py export --task pope --out asked
    python -m asap.run task=vlm model=<LLaVA> data=questions data.path=asked/pope.jsonl method=...
    lmms/bin/python scripts/lmms_bridge.py score --task pope --out asked --answers <answers.parquet>

`answers.parquet` lies in the record of each row, results/runs/<key>/. lmms/bin/python has all of
lmms-eval: pip install lmms-eval==0.7.3 "filelock<4". Further options are for lmms-eval itself, such
as --limit 100 or --include_path; give both steps the same. Our own table scores these answers by
the kind of the right one (yes or no, a letter, annotators, else the exact words), not by the task.
"""

import argparse
import hashlib
import importlib
import json
import runpy
import sys
import time
from pathlib import Path
from typing import Any

_compat: dict[str, Any] = {}
FEWEST = 4  # annotators, below which data=questions takes no answer for theirs


def model_class() -> type:
    """The model of lmms-eval that writes its questions down and answers nothing."""
    base: Any = importlib.import_module("lmms_eval.api.model").lmms

    class Export(base):
        is_simple = True

        def __init__(self, out: str, **_: Any) -> None:
            super().__init__()
            self.out = Path(out)

        def generate_until(self, requests: list[Any]) -> list[str]:
            lines: dict[str, list[str]] = {}
            for one in requests:
                text, _, visuals_of, number, task, split = one.args
                doc = self.task_dict[task][split][number]
                visuals = visuals_of(doc)
                if len(visuals) != 1 or not hasattr(visuals[0], "save"):
                    raise SystemExit(
                        f"question {number} of {task} has {len(visuals)} pictures or films: only "
                        "tasks with one picture a question can be exported"
                    )
                kind, answers = right(doc)
                question = {
                    "id": number, "image": self.picture(visuals[0].convert("RGB")),
                    "question": text, "answers": answers, "kind": kind, "category": task,
                }  # fmt: skip
                lines.setdefault(task, []).append(json.dumps(question, ensure_ascii=False) + "\n")
            for task, found in lines.items():
                file = self.out / f"{task}.jsonl"
                file.write_text("".join(found), "utf-8")
                print(f"{file}: {len(found):,} questions", file=sys.stderr)
            raise SystemExit(0)  # before lmms-eval scores answers that were not given

        def picture(self, image: Any) -> str:
            """The path of a picture below `out`, which it is saved to once."""
            name = hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest()[:24]
            path = self.out / "pictures" / f"{name}.png"
            if not path.exists():
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)
            return path.relative_to(self.out).as_posix()

        def loglikelihood(self, requests: list[Any]) -> list[Any]:
            raise SystemExit("tasks that compare likelihoods cannot be exported")

        def generate_until_multi_round(self, requests: list[Any]) -> list[str]:
            raise SystemExit("tasks of several rounds cannot be exported")

    return Export


def __getattr__(name: str) -> Any:  # lmms-eval finds the class by this module's name
    if name == "Export":
        return model_class()
    raise AttributeError(name)


def right(doc: dict[str, Any]) -> tuple[str, list[str]]:
    """A kind of data=questions and right answers for it, from a question of lmms-eval."""
    many = [one["answer"] if isinstance(one, dict) else one for one in doc.get("answers") or []]
    if len(many) >= FEWEST:
        return "vqa", [str(one) for one in many]
    given = doc.get("answer", many[0] if many else None)
    if isinstance(given, int) and given < len(doc.get("choices") or []):
        return "letter", [chr(ord("A") + given)]
    answer = "" if given is None else str(given).strip()
    if answer.lower().rstrip(".") in ("yes", "no"):
        return "yes_no", [answer.lower().rstrip(".")]
    if len(answer) == 1 and "A" <= answer <= "Z":
        return "letter", [answer]
    return "exact", [answer or "not known"]


def log_of(task: str, asked: Path, answers: Path) -> dict[str, Any]:
    """What lmms-eval's model from_log reads. SystemExit unless every question has its answer: the
    model would leave out a log that lacks one without a word.
    """
    import pandas as pd  # theirs

    for file, remedy in ((asked, "run the step export"), (answers, "give that of a record")):
        if not file.is_file():
            raise SystemExit(f"{file} is not there: {remedy}")
    lines = asked.read_text("utf-8").split("\n")
    numbers = {str(number): number for number in (json.loads(one)["id"] for one in lines if one)}
    table = pd.read_parquet(answers, columns=["path", "text", "error"])
    if failed := int(table["error"].notna().sum()):
        raise SystemExit(f"{answers} has no answer to {failed} questions: ask them again first")
    ids = table["path"].str.rpartition("#")[2]
    found = dict(zip(ids, table["text"], strict=True))
    if found.keys() != numbers.keys():
        raise SystemExit(
            f"{answers} lacks {len(numbers.keys() - found.keys())} of the {len(numbers)} questions "
            f"of {asked} and has {len(found.keys() - numbers.keys())} others: give the answers to "
            "that file"
        )
    return {
        "args": {"model": "asap", "model_args": "", "limit": None},
        "model_configs": {"task": task},
        "time": time.strftime("%m%d_%H%M"),
        "logs": [{"doc_id": numbers[id], "resps": [[found[id]]]} for id in numbers],
    }


def run(arguments: list[str]) -> None:
    """lmms-eval's command, with the model above."""
    global _compat  # what it declares lives as long as it does
    _compat = runpy.run_path(str(Path(__file__).parents[1] / "asap" / "_compat.py"))
    models = importlib.import_module("lmms_eval.models")
    manifest = models.ModelManifest("asap_export", simple_class_path="lmms_bridge.Export")
    models.MODEL_REGISTRY_V2.register_manifest(manifest, overwrite=True)
    sys.argv = ["lmms_eval", *arguments]
    runpy.run_module("lmms_eval", run_name="__main__")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("step", choices=("export", "score"))
    parser.add_argument("--task", required=True, help="its name in lmms-eval")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the questions")
    parser.add_argument("--answers", type=Path, help="the answers.parquet of a record")
    given, further = parser.parse_known_args()
    given.out.mkdir(parents=True, exist_ok=True)
    if given.step == "export":
        model, options = "asap_export", f"out={given.out}"
    else:
        if given.answers is None:
            parser.error("--answers is missing: give the answers.parquet of a record")
        logs = given.out / f"answers-{given.task}"
        logs.mkdir(exist_ok=True)
        log = log_of(given.task, given.out / f"{given.task}.jsonl", given.answers)
        (logs / "answers.json").write_text(json.dumps(log), "utf-8")
        model, options = "from_log", f"logs={logs}"
    asked = ["--model", model, "--model_args", options, "--tasks", given.task]
    run([*asked, "--batch_size", "1", *further])


if __name__ == "__main__":
    main()
