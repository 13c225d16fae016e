"""Answers of a user's own method or pruner that cannot be applied are refused, never applied.

Only the tests check types at every call: wrong ones are put into an answer behind its construction.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from language_models import language_of, prompt_of, small_model
from peers import model, picture

import asap
from asap.engine.checks import WrongDecision
from asap.engine.decoder.decoder import Decoder
from asap.methods.base import Decision, Method, Observation, Site, keep_only
from asap.methods.language.base import LanguageDecision, LanguageSite, Pruner

KEY = "plain-p25"
Answer = Callable[[Site, Decision], Any]


@dataclass(frozen=True)
class Own(Method):
    """Keeps the prefix and every second patch, then gives the `answer` that a test wants."""

    answer: Any = None
    look: Any = None

    def acts_in(self, block: int, depth: int) -> bool:
        return block == 1

    def observe(self, site: Site) -> Any:
        return None if self.look is None else self.look(site)

    def reduce(self, site: Site, chosen: Any) -> Any:
        kept = torch.arange(site.length).repeat(len(site.images), 1) % 2 == 0
        kept[:, : site.prefix] = True
        right = Decision(keep_only(kept), int(kept[0].sum()))
        return right if self.answer is None else self.answer(site, right)


def altered(answer: Any, **values: Any) -> Any:
    """A copy with other values of any type."""
    found = copy.copy(answer)
    for name, value in values.items():
        object.__setattr__(found, name, value)
    return found


def kept_of(decision: Decision) -> torch.Tensor:
    return decision.target >= 0


def spaced(site: Site, right: Decision) -> Decision:
    """Positions of the old sequence, which leave gaps in the new one."""
    places = torch.arange(site.length).expand_as(right.target)
    return replace(right, target=places.masked_fill(~kept_of(right), -1))


def without_class(site: Site, right: Decision) -> Decision:
    kept = kept_of(right)
    kept[:, 0] = False
    return Decision(keep_only(kept), int(kept[0].sum()))


def one_image_short(site: Site, right: Decision) -> Decision:
    """Of the last image alone a token more is dropped."""
    kept = kept_of(right)
    kept[-1, -1 - int(kept[-1].flip(0).long().argmax())] = False
    return replace(right, target=keep_only(kept))


WRONG: dict[str, tuple[Answer, str]] = {
    "a tuple": (lambda site, right: (right.target, right.left), "reduce returned a tuple"),
    "a mask": (lambda site, right: altered(right, target=kept_of(right)), r"target is bool \(2, "),
    "floats": (lambda site, right: altered(right, target=right.target.float()), "is float32"),
    "indices": (lambda site, right: altered(right, target=right.target[:, :4]), r"int64 \(2, 4\)"),
    "one image": (lambda site, right: altered(right, target=right.target[:1]), r"int64 \(1, "),
    "gaps": (spaced, "target has gaps"),
    "no class token": (without_class, "drops one of the 1 prefix tokens"),
    "too far": (lambda site, right: altered(right, target=right.target + 1), "prefix tokens"),
    "beyond": (
        lambda site, right: altered(right, target=right.target.where(right.target != 3, 999)),
        "the position 999",
    ),
    "left more": (lambda site, right: altered(right, left=right.left + 1), "Decision.left="),
    "left less": (lambda site, right: altered(right, left=right.left - 1), "Decision.left="),
    "left of one image": (one_image_short, "Decision.left="),
    "left a float": (lambda site, right: altered(right, left=float(right.left)), "left is 1"),
    "weight": (lambda site, right: altered(right, weight=torch.ones(3)), "weight is float32"),
    "macs": (lambda site, right: altered(right, macs=1.5), r"macs is 1\.5"),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_that_would_mix_up_rows_is_refused(name: str) -> None:
    answer, said = WRONG[name]
    images = torch.stack([picture(KEY, 0), picture(KEY, 1)])
    with pytest.raises(WrongDecision, match=said):
        asap.ReducedViT(model(KEY, torch.float32), Own(answer))(images)


def test_right_answers_of_any_form_are_applied_alike() -> None:
    images = torch.stack([picture(KEY, 0), picture(KEY, 1)])

    def each(site: Site, right: Decision) -> Decision:
        assert isinstance(right.left, int)
        left = torch.full((len(site.images),), right.left)
        return Decision(right.target.int(), left, torch.ones(right.target.shape).half())

    everyone = Own(look=lambda site: Observation(torch.ones(len(site.images), dtype=torch.bool)))
    forms = (Own(), Own(each), everyone, Own(look=lambda site: Observation(True)))
    first, *others = [asap.ReducedViT(model(KEY, torch.float32), one)(images) for one in forms]
    assert all(torch.equal(first, other) for other in others)


@pytest.mark.parametrize(
    "look, said",
    [
        (lambda site: torch.ones(2, dtype=torch.bool), "observe returned bool"),
        (
            lambda site: altered(Observation(None), chosen=torch.tensor([0, 1])),
            "Observation.chosen is int64",
        ),
        (lambda site: Observation(torch.ones(1, dtype=torch.bool)), "Observation.chosen is bool"),
    ],
)
def test_a_look_that_is_no_mask_of_the_images_is_refused(look: Any, said: str) -> None:
    images = torch.stack([picture(KEY, 0), picture(KEY, 1)])
    with pytest.raises(WrongDecision, match=said):
        asap.ReducedViT(model(KEY, torch.float32), Own(look=look))(images)


@dataclass(frozen=True)
class OwnPruner(Pruner):
    """Gives the answer that a test wants after the first layer."""

    answer: Any = None

    def acts_after(self, layer: int, depth: int) -> bool:
        return layer == 0

    def decide(self, site: LanguageSite) -> Any:
        return self.answer(site)


def keeping(*rows: int, **other: Any) -> Any:
    return lambda site: altered(LanguageDecision(torch.tensor(rows)), **other)


PRUNERS = {
    "not sorted": (keeping(5, 2, 9), "not ascending"),
    "twice": (keeping(2, 2, 9), "not ascending"),
    "text before": (keeping(-1, 2, 9), "keep has -1: it must be 0 to 19"),
    "text behind": (keeping(2, 9, 20), "keep has 20"),
    "a mask": (keeping(0, keep=torch.ones(20, dtype=torch.bool)), "keep is bool"),
    "a list": (keeping(0, keep=[1, 2]), "keep is a list"),
    "indices alone": (lambda site: torch.tensor([1]), "decide returned int64"),
    "positions": (keeping(1, 2, positions="kept"), "positions='kept'"),
    "one merged": (keeping(1, merged=torch.ones(32), positions="reindex"), r"float32 \(32,\)"),
    "macs": (keeping(1, macs=0.5), r"macs is 0\.5"),
    "no positions": (
        lambda site: LanguageDecision(torch.tensor([1]), torch.ones(1, 32)),
        "decide raised a ValueError",
    ),
}


@pytest.mark.parametrize("name", PRUNERS)
def test_an_answer_of_a_pruner_that_cannot_be_is_refused(name: str) -> None:
    answer, said = PRUNERS[name]
    decoder = Decoder(language_of(small_model()), OwnPruner(answer))
    with pytest.raises(WrongDecision, match=said):
        decoder.prefill(*prompt_of(), room=1)


@dataclass(frozen=True)
class Forgetful(Own):
    """Reads keys and attention without asking for them."""

    def reduce(self, site: Site, chosen: Any) -> Any:
        return site.keys.mean(1) if self.answer is None else site.attention + 1


@pytest.mark.parametrize("answer", [None, 1])
def test_what_was_not_asked_for_is_named(answer: Any) -> None:
    with pytest.raises(WrongDecision, match=r"site attention, keys, .* are None; `needs` asks for"):
        asap.ReducedViT(model(KEY, torch.float32), Forgetful(answer))(picture(KEY, 0)[None])
