"""The comparison with the official scripts, with scripts of the same form made here."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

import check_official
from check_official import TASKS

LLAVA = {
    "llava/eval/eval_pope.py": """
import json
def eval_pope(answers, label_file):
    labels = [json.loads(line)["label"] == "yes" for line in open(label_file)]
    for one in answers:
        words = one["text"].split(".")[0].replace(",", "").split(" ")
        one["text"] = "no" if {"No", "not", "no"} & set(words) else "yes"
    said = [one["text"] == "yes" for one in answers]
    hits = sum(a and b for a, b in zip(said, labels))
    print("F1 score:", 2 * hits / (sum(said) + sum(labels)))
""",
    "scripts/convert_gqa_for_eval.py": """
import argparse, json
parser = argparse.ArgumentParser()
parser.add_argument("--src"); parser.add_argument("--dst")
given = parser.parse_args()
rows = [json.loads(line) for line in open(given.src)]
json.dump([{"questionId": one["question_id"], "prediction": one["text"].rstrip(".").lower()}
           for one in rows], open(given.dst, "w"))
""",
    "llava/eval/eval_science_qa.py": """
import argparse, json, re
parser = argparse.ArgumentParser()
for name in ("base-dir", "result-file", "output-file", "output-result"):
    parser.add_argument(f"--{name}")
given = parser.parse_args()
problems = json.load(open(f"{given.base_dir}/problems.json"))
found = {}
for line in open(given.result_file):
    one = json.loads(line)
    text = one["text"]
    named = text[:1] if len(text) == 1 or text[1:3] == ". " else ""
    if named not in tuple("ABCDE"):
        said = re.findall("The answer is ([A-Z]).", text)
        named = said[0] if len(said) == 1 else ""
    found[one["question_id"]] = "ABCDE".find(named) if named else -1
right = [found[id] == one["answer"] for id, one in problems.items()]
json.dump({"results": found, "acc": 100 * sum(right) / len(right)}, open(given.output_result, "w"))
""",
    "llava/eval/m4c_evaluator.py": """
from asap.tasks.scoring import vqa
class EvalAIAnswerProcessor:
    CONTRACTIONS, NUMBER_MAP, ARTICLES, PUNCTUATIONS = {"dont": "don't"}, {"two": "2"}, ["a"], ["-"]
    def __call__(self, text):
        return vqa.normalised(text)
class TextVQAAccuracyEvaluator:
    answer_processor = EvalAIAnswerProcessor()
    def _compute_answer_scores(self, raw):
        return {vqa.normalised(text): vqa.score(text, raw) for text in raw}
""",
}


@pytest.fixture
def llava(tmp_path: Path) -> Path:
    for name, content in LLAVA.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.process
def test_equal_scores_pass_and_others_are_shown(
    llava: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check_official.main(["--llava", str(llava)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in said] == ["pope", "gqa", "scienceqa", "vizwiz"]
    assert all("answers, 0 with another score" in line for line in said)
    changed = llava / "scripts/convert_gqa_for_eval.py"
    changed.write_text(changed.read_text().replace(".lower()", ""))
    assert check_official.main(["--llava", str(llava)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == said[0] and " 0 with another" not in lines[1] and len(lines) == 9


def test_answers_have_the_form_of_the_benchmarks_files() -> None:
    asked = [
        {"id": 1, "picture": "a", "text": "x\ty", "right": ["New York."], "category": "OCR"},
        {"id": 2, "picture": "b", "text": "yes", "right": ["The two"], "category": "OCR"},
    ]
    assert [q["right"] for q in check_official.as_asked("gqa", asked)] == [
        ["new york"],
        ["the two"],
    ]
    assert check_official.as_asked("vqav2", asked)[1]["right"] == ["2"]
    assert [q["id"] for q in check_official.as_asked("mme", asked)] == [2]
    assert {name for name, _ in TASKS.values()} == {"llava", "vqa", "mme"}


@pytest.mark.parametrize("option", ["--llava", "--vqa", "--mme"])
def test_a_folder_without_the_scripts_is_refused(option: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=f"{tmp_path} has no .*: see --help"):
        check_official.main([option, str(tmp_path)])
