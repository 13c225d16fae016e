"""Clips: their images, ids and places, and how outputs of frames become an answer of a clip."""

import torch
from fake_video import FakeVideo

from asap.data.base import Sample, loader
from asap.measure.joint_evaluation import Evaluation, halving
from asap.tasks.classification import Classification


def test_an_image_of_an_example_has_a_view_a_frame_and_an_id_of_its_own() -> None:
    data = FakeVideo(clips=3, views=2, frames=3)
    one, other = data[0], data[1]
    assert one.n_images == 6 and one.image_ids[0] == one.id
    ids = [*one.image_ids, *other.image_ids]
    assert len(set(ids)) == 12 and all(0 <= i < 2**63 for i in ids)
    assert one.places == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    image = Sample(0, 7, "a.jpg", 0, torch.zeros(1, 3, 4, 4))
    assert (image.image_ids, image.places) == ([7], [(0, 0)])
    unread = FakeVideo(broken=((0, "short"),))[0]
    assert (unread.n_images, unread.image_ids, unread.places) == (0, [], [])


def test_the_draws_of_a_batch_are_seeded_by_the_ids_of_its_images() -> None:
    data = FakeVideo(clips=2, frames=2)
    (samples,) = loader(data, [0, 1], 2, 0)
    assert [s.frames for s in samples] == [2, 2]
    seen: list[int] = []
    how = Evaluation(2, 0, torch.device("cpu"), torch.float32, Classification())
    list(halving(lambda images, ids: seen.extend(ids), samples, how))
    assert seen == data[0].image_ids + data[1].image_ids
