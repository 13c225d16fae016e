"""The rule by which a kind of question is scored."""

from collections.abc import Callable, Sequence

from asap.tasks.scoring import exact, letter, mme, option, scienceqa, vqa, yes_no

# From a model's text and the right answers to a score in [0, 1].
RULES: dict[str, Callable[[str, Sequence[str]], float]] = {
    "yes_no": yes_no.score,
    "exact": exact.score,
    "letter": letter.score,
    "scienceqa": scienceqa.score,
    "vqa": vqa.score,
    "vqav2": vqa.score_vqav2,
    "mme": mme.score,
    "option": option.score,
    "unscored": lambda text, answers: 0.0,
}
# What an answer to a question of these kinds says: yes, no, or other.
SAID: dict[str, Callable[[str], str]] = {"yes_no": yes_no.said, "mme": mme.said}
