"""Folders of benchmarks with a few questions, in the layout of LLaVA's evaluation."""

import csv
import json
from base64 import b64encode
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from PIL import Image

SHORT = "Answer the question using a single word or phrase."
POPE_SUBSETS = ("random", "popular", "adversarial")
MME_CATEGORIES = (
    *("existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark"),
    *("artwork", "OCR", "commonsense_reasoning", "numerical_calculation", "text_translation"),
    "code_reasoning",
)
IN_FOLDERS = ("posters", "celebrity", "scene", "landmark", "artwork")  # the one form of MME's


def picture(path: Path, k: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20 + k % 9, 30), (200, 20 * k % 256, 40)).save(path)


def lines(path: Path, rows: Iterable[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def document(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def made_pope(root: Path, llava: bool = True, pictures: int = 3) -> Path:
    """Two questions a subset about each picture."""
    folder, asked = root / "pope", []
    names = [f"COCO_val2014_{i:012d}.jpg" for i in range(pictures)]
    for k, name in enumerate(names):
        picture(folder / "val2014" / name, k)
    for subset in POPE_SUBSETS:
        rows = [
            {"question_id": 2 * i + j + 1, "image": name,
             "text": f"Is there a {subset} {thing} in the image?", "label": label}
            for i, name in enumerate(names)
            for j, (thing, label) in enumerate((("dog", "yes"), ("cat", "no")))
        ]  # fmt: skip
        lines(folder / "coco" / f"coco_pope_{subset}.json", rows)
        asked += [(subset, row) for row in rows]
    if llava:
        ordered = [one for name in reversed(POPE_SUBSETS) for one in asked if one[0] == name]
        lines(folder / "llava_pope_test.jsonl", [
            {"question_id": n, "image": row["image"], "text": f"{row['text']}\n{SHORT}",
             "category": subset}
            for n, (subset, row) in enumerate(ordered)
        ])  # fmt: skip
    return folder


def made_gqa(root: Path, llava: bool = True) -> Path:
    folder = root / "gqa"
    asked = {
        "201307251": ("n1", "Is it overcast?", "no"),
        "201640614": ("n2", "Who is wearing the dress?", "woman"),
        "202225914": ("n1", "What color is the sky?", "light blue"),
    }
    for k, name in enumerate(("n1", "n2")):
        picture(folder / "data/images" / f"{name}.jpg", k)
    document(folder / "data/testdev_balanced_questions.json", {
        id: {"question": text, "imageId": image, "answer": right, "isBalanced": True}
        for id, (image, text, right) in asked.items()
    })  # fmt: skip
    if llava:
        lines(folder / "llava_gqa_testdev_balanced.jsonl", [
            {"question_id": id, "image": f"{image}.jpg", "text": f"{text}\n{SHORT}",
             "category": "default"}
            for id, (image, text, _) in reversed(asked.items())
        ])  # fmt: skip
    return folder


def made_mme(root: Path, llava: bool = True, below: str = "") -> Path:
    """Two pictures of each category."""
    folder = root / "MME"
    release = folder / "MME_Benchmark_release_version" / below
    asked = []
    for c, category in enumerate(MME_CATEGORIES):
        inside = category in IN_FOLDERS
        ending = ".png" if category == "code_reasoning" else ".jpg"
        for k in range(2):
            stem = f"{k + 1:04d}"
            image = f"{category}/images/{stem}{ending}" if inside else f"{category}/{stem}{ending}"
            texts = release / category / ("questions_answers_YN" if inside else "") / f"{stem}.txt"
            picture(release / image, c + k)
            texts.parent.mkdir(parents=True, exist_ok=True)
            # As in the official files: wide signs and none, two blanks, no line end at the end.
            sign, blanks, end = ("\uff1f", "  ", "") if k else ("?", " ", "\n")
            both = [
                (f"Is it {category} {k}{sign}", "Yes"),
                (f"Is it other than {category} {k}", "No"),
            ]
            asks = [f"{q}{blanks}Please answer yes or no.\t{a}" for q, a in both]
            texts.write_text("\n".join(asks) + end, "utf-8")
            asked += [(image, q, category) for q, _ in both]
    if llava:
        lines(folder / "llava_mme.jsonl", [
            {"question_id": image, "image": image, "text": f"{text}\n{SHORT}", "category": category}
            for image, text, category in reversed(asked)
        ])  # fmt: skip
    return folder


def texts_of(data: Any) -> list[tuple[str, str, str, Sequence[str]]]:
    """Source, question, kind and right answers of every question."""
    samples = [data[i] for i in range(len(data))]
    return [(s.source, s.extras["question"], s.extras["kind"], s.target) for s in samples]


def made_scienceqa(root: Path, llava: bool = True) -> Path:
    """Three problems of the test split, of which two have a picture, and one of train."""
    folder = root / "scienceqa"
    problems = {
        "4": {"question": "Which figure?", "choices": ["chiasmus", "apostrophe"], "answer": 1,
              "hint": "", "image": None},
        "5": {"question": "What could it show?", "choices": ["speed", "height", "mass"],
              "answer": 2, "hint": "A passage.\nFigure: a parachute.", "image": "image.png"},
        "11": {"question": "What is the colony?", "choices": ["Maryland", "Vermont"], "answer": 0,
               "hint": "", "image": "image.png"},
        "12": {"question": "Which?", "choices": ["a", "b"], "answer": 0, "hint": "",
               "image": "image.png"},
    }  # fmt: skip
    document(folder / "problems.json", problems)
    document(folder / "pid_splits.json", {"train": ["12"], "test": ["4", "5", "11"]})
    for k, name in enumerate(("5", "11")):
        picture(folder / "images/test" / name / "image.png", k)
    if llava:
        texts = {
            "4": "Which figure?\nA. chiasmus\nB. apostrophe",
            "5": "<image>\nContext: A passage.\nFigure: a parachute.\nWhat could it show?\n"
            "A. speed\nB. height\nC. mass",
            "11": "<image>\nWhat is the colony?\nA. Maryland\nB. Vermont",
        }
        document(folder / "llava_test_CQM-A.json", [
            {"id": id, **({"image": f"{id}/image.png"} if "<image>" in text else {}),
             "conversations": [{"from": "human", "value": text}, {"from": "gpt", "value": "B"}]}
            for id, text in texts.items()
        ])  # fmt: skip
    return folder


UNANSWERABLE = (
    f"When the provided information is insufficient, respond with 'Unanswerable'.\n{SHORT}"
)


def made_vizwiz(root: Path, llava: bool = True, split: str = "val") -> Path:
    folder, asked = root / "vizwiz", ["What is this?", "What colour?", "Whats the date? "]
    images = [f"VizWiz_{split}_{k:08d}.jpg" for k in range(3)]
    for k, name in enumerate(images):
        picture(folder / split / name, k)
    rows: list[dict[str, Any]] = [
        {"image": i, "question": q} for i, q in zip(images, asked, strict=True)
    ]
    if split == "val":
        for k, row in enumerate(rows):
            said = ["unanswerable"] * 10 if k == 1 else ["red"] * 8 + ["dark red", ""]
            row["answers"] = [{"answer": one, "answer_confidence": "yes"} for one in said]
            row |= {"answer_type": "other", "answerable": int(k != 1)}
    document(folder / f"{split}.json", rows)
    if split == "test" and llava:
        lines(folder / "llava_test.jsonl", [
            {"question_id": k, "image": row["image"], "category": "default",
             "text": f"{row['question']}\n{UNANSWERABLE}"}
            for k, row in enumerate(rows)
        ])  # fmt: skip
    return folder


def made_vqav2(root: Path, llava: bool = True, split: str = "val") -> Path:
    folder, year = root / "vqav2", "val2014" if split == "val" else "test2015"
    asked = [(262148000, 262148, "Where is he looking?", "other", "down"),
             (262148001, 262148, "Is it day?", "yes/no", "yes"),
             (393225001, 393225, "How many?", "number", "2")]  # fmt: skip
    for k, image in enumerate((262148, 393225)):
        picture(folder / year / f"COCO_{year}_{image:012d}.jpg", k)
    questions = [{"question_id": q, "image_id": i, "question": t} for q, i, t, _, _ in asked]
    official = f"v2_OpenEnded_mscoco_{'val2014' if split == 'val' else 'test-dev2015'}_questions"
    document(folder / f"{official}.json", {"questions": questions, "data_subtype": year})
    if split == "val":
        document(folder / "v2_mscoco_val2014_annotations.json", {"annotations": [
            {"question_id": q, "image_id": i, "answer_type": kind, "answers": [
                {"answer": right if n < 7 else f"other {n}", "answer_id": n} for n in range(10)
            ]}
            for q, i, _, kind, right in reversed(asked)
        ]})  # fmt: skip
    elif llava:
        lines(folder / "llava_vqav2_mscoco_test-dev2015.jsonl", [
            {"question_id": q, "image": f"COCO_test2015_{i:012d}.jpg", "text": f"{t}\n{SHORT}",
             "category": "default"}
            for q, i, t, _, _ in asked
        ])  # fmt: skip
    return folder


MMBENCH = "mmbench_dev_20230712.tsv"


def encoded(k: int) -> str:
    """A picture in base64."""
    kept = BytesIO()
    Image.new("RGB", (24, 20), (40 * k % 256, 90, 200 - 30 * k)).save(kept, "JPEG")
    return b64encode(kept.getvalue()).decode()


def made_mmbench(root: Path) -> Path:
    """Two questions, of two and four options, in all turns of these."""
    folder = root / "mmbench"
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, hint, question, options, right in (
        (241, "A passage.\nFigure: a board.", "Which one?", ["wax", "snow"], "snow"),
        (1986, "", "What's the relation?", ["rival", "prey", "host", "nan-like"], "rival"),
    ):
        for turn in range(len(options)):
            turned = options[turn:] + options[:turn]
            texts = {k: turned[i] if i < len(turned) else "" for i, k in enumerate("ABCD")}
            rows.append({
                "index": number + 1_000_000 * turn, "question": question, "hint": hint, **texts,
                "answer": "ABCD"[turned.index(right)], "category": "identity",
                "image": encoded(number), "source": "x", "l2-category": "y", "comment": "",
                "split": "dev",
            })  # fmt: skip
    with (folder / MMBENCH).open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]), delimiter="\t")
        table.writeheader()
        table.writerows(rows)
    return folder
