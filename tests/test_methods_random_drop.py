"""Random drop: what it draws, and against its reference with that."""

import functools
import random

import pytest
import torch
from peers import IMAGE_ID, KEYS, compare, model, picture
from places import Place
from places import place as place
from reference.random_drop_ref import Result, reference_random_drop
from torch import Tensor

from asap.backbones.accepted import adapter_of
from asap.methods import RandomDrop

DRAWS = 6  # per model


@functools.cache
def answers(key: str) -> list[tuple[RandomDrop, Tensor, Result]]:
    """Draws of options and image, with the reference's answers."""
    rng, net, found = random.Random(key), model(key, torch.float64), []
    for turn in range(DRAWS):
        keep, block = rng.choice([0.01, 0.3, 0.5, 0.77, 1.0]), rng.randrange(8)
        method, image = RandomDrop(keep, block, seed=turn), picture(key, turn)
        anatomy = adapter_of(net).anatomy
        stays = method.draw(anatomy, [IMAGE_ID])[0, anatomy.prefix :]
        assert int(stays.sum()) == max(1, round(keep * anatomy.patches + 1e-9))
        kept = stays.nonzero()[:, 0].tolist()
        found.append((method, image, reference_random_drop(net, image.double(), kept, block)))
    return found


@pytest.mark.parametrize("key", KEYS)
def test_equals_the_reference(key: str, place: Place) -> None:
    some = place.some(answers(key))
    assert sum(compare(place, key, *given) for given in some) == 2 * len(some)
