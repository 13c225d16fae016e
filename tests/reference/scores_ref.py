"""The official rules of benchmarks, written apart from lists of questions in plain Python.

A question is a dict with text, right (list of answers), picture, and what its rule needs.
"""

from collections import defaultdict
from fractions import Fraction
from typing import Any

Asked = list[dict[str, Any]]


def pope_f1(asked: Asked) -> float | None:
    """F1 of one subset, in percent: as POPE's script counts, letter by letter instead of split."""
    hits = both = 0
    for one in asked:
        words, word = set(), ""
        for sign in one["text"].split(".")[0] + " ":
            if sign == " ":
                words.add(word)
                word = ""
            elif sign != ",":
                word += sign
        says = not {"No", "not", "no"} & words
        truth = one["right"][0] == "yes"
        hits += says and truth
        both += says + truth
    return None if both == 0 else float(100 * Fraction(2 * hits, both))


def mme_said(text: str) -> str:
    """As MME's own tool: the first four letters of the last field of a line, with its end."""
    four = f"{text.strip()}\n".lower()[:4]
    for word in ("yes", "no"):
        if any(four[i : i + len(word)] == word for i in range(len(four))):
            return word
    return "other"


def mme_points(asked: Asked) -> dict[str, float]:
    """Category -> accuracy plus the share of pictures with both right, in percent each."""
    pictures: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for one in asked:
        right = mme_said(one["text"]) == one["right"][0]
        pictures[one["category"]][one["picture"]].append(right)
    found = {}
    for category, pairs in pictures.items():
        single = [right for pair in pairs.values() for right in pair]
        acc = Fraction(sum(single), len(single))
        plus = Fraction(sum(all(pair) and len(pair) == 2 for pair in pairs.values()), len(pairs))
        found[category] = float(100 * acc + 100 * plus)
    return found


def llava_letter(text: str) -> str:
    """ScienceQA as LLaVA's script reads it, which scans for the sentence."""
    if (len(text) == 1 or text[1:3] == ". ") and text[0] in "ABCDE":
        return text[0]
    sentence, found, at = "The answer is ", [], 0
    while (at := text.find(sentence, at)) >= 0:
        at += len(sentence)
        letter, behind = text[at : at + 1], text[at + 1 : at + 2]
        if "A" <= letter <= "Z" and behind not in ("", "\n"):
            found.append(letter)
            at += 2  # what is read is not read again
    return found[0] if len(found) == 1 else ""


def lmms_letter(text: str) -> str:
    """ScienceQA as lmms-eval reads it: the bare letter in any case, or a capital with a period."""
    if len(text) == 1:
        return text.upper()
    return text[0] if text[1:2] == "." and text[0].isupper() else ""


def option(text: str, options: list[str]) -> str:
    """MMBench's extraction without a judge: over the table of letters and marks, then the texts."""
    split = [part for part in text.split()]
    forms = [("", "")] + [("", x) for x in (".", ",", ":", ")", ").")]
    forms += [("(", ")"), ("(", ").")] + [(":", x) for x in ("", ",", ".", ")", ").")]
    for n, (before, behind) in enumerate(forms):
        hits = {part for part in split for x in "ABCDE" if part == before + x + behind}
        if len(hits) == 1:
            letter = hits.pop().strip("().,:")
            if n == 0 and letter == "A" and len(split) > 3:
                continue  # it may be an article
            return letter
    inside = [i for i, one in enumerate(options) if text.lower().find(one.lower()) >= 0]
    return "ABCD"[inside[0]] if len(inside) == 1 else ""


def circular(asked: Asked) -> float:
    """Percent of questions whose every turn is right."""
    turns: dict[int, list[bool]] = {}
    for one in asked:
        right = option(one["text"], one["right"][1:]) == one["right"][0]
        turns.setdefault(int(str(one["id"])[-6:]), []).append(right)
    return float(100 * Fraction(sum(map(all, turns.values())), len(turns)))
