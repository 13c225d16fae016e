"""Folders of benchmarks with a few questions, in the layout of LLaVA's evaluation."""

import json
from collections.abc import Iterable, Sequence
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
            both = [(f"Is it {category} {k}?", "Yes"), (f"Is it other than {category} {k}?", "No")]
            blanks = "  " if k else " "  # as in the official files
            texts.write_text(
                "".join(f"{q}{blanks}Please answer yes or no.\t{a}\n" for q, a in both)
            )
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
