"""VQA accuracy (Antol et al., "VQA: Visual Question Answering", ICCV 2015), of VizWiz and of VQAv2.

Model and annotators are normalised alike: case, punctuation, number words, articles, contractions.
An answer is right to the degree to which annotators agree:

    mean over the annotators of min(1, matches among the others / 3)

VizWiz is normalised by the rules of EvalAI's server, which begin with commas, question marks and
"'s". VQAv2's own script has all rules but these. It leaves answers as they are where all annotators
wrote the same; here they are normalised too, as in lmms-eval.
"""

import re
from collections.abc import Callable, Sequence

_NUMBERS = {
    "none": "0",
    **{
        word: str(value)
        for value, word in enumerate(
            ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
        )
    },
}
_ARTICLES = frozenset(("a", "an", "the"))
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_THOUSANDS = re.compile(r"(?<=\d),+(?=\d)")
_PERIOD = re.compile(r"\.(?!\d)")
_MOST_PERIODS = 32  # the official script passes the flag re.UNICODE where the count belongs
# Each is put in the place of what it is without one of its apostrophes: "don't" of "dont".
_WITH_APOSTROPHES = """
    ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't
    haven't he'd he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't
    mightn't've might've mustn't must've needn't not've o'clock oughtn't 'ow's'at shan't she'd've
    should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd someone'd've
    someone'll someone's something'd something'd've something'll that's there'd there'd've there're
    there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll
    what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
    why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd
    you'd've you'll you're you've
"""
_CONTRACTIONS = {
    form[:i] + form[i + 1 :]: form
    for form in _WITH_APOSTROPHES.split()
    for i, letter in enumerate(form)
    if letter == "'"
} | {"somebody'd": "somebodyd"}  # as in the official list


def score(text: str, answers: Sequence[str]) -> float:
    """The agreement with the annotators' answers, in [0, 1]; 0 if there are fewer than two."""
    return _agreement(text, answers, normalised)


def score_vqav2(text: str, answers: Sequence[str]) -> float:
    """The same, with texts normalised as VQAv2's script does."""
    return _agreement(text, answers, normalised_vqav2)


def normalised(text: str) -> str:
    """The text without what does not count in VizWiz."""
    text = text.lower().replace(",", "").replace("?", "").replace("'s", " 's").strip()
    return normalised_vqav2(text)


def normalised_vqav2(text: str) -> str:
    """The text without what does not count in VQAv2."""
    return _words(_unpunctuated(text.replace("\n", " ").replace("\t", " ").strip()).lower())


def _agreement(text: str, answers: Sequence[str], normalise: Callable[[str], str]) -> float:
    said, given = normalise(text), [normalise(answer) for answer in answers]
    matches, n = given.count(said), len(given)
    thirds = matches * min(3, max(matches - 1, 0)) + (n - matches) * min(3, matches)
    return thirds / (3 * n)  # divided once, so that the tenths of ten annotators are exact


def _unpunctuated(text: str) -> str:
    """A mark beside a blank vanishes, as do all in a text with thousands; others become blanks."""
    found, thousands = text, _THOUSANDS.search(text) is not None
    for mark in _PUNCTUATION:
        vanishes = thousands or f"{mark} " in text or f" {mark}" in text
        found = found.replace(mark, "" if vanishes else " ")
    return _PERIOD.sub("", found, count=_MOST_PERIODS)


def _words(text: str) -> str:
    words = [_NUMBERS.get(word, word) for word in text.split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)
