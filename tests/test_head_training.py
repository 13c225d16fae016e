"""The training of a head: against plain steps in float64, killed, in parts, and its files."""

import math
from itertools import islice

import pytest
import torch
from heads import clips, config_of, extracted
from torch.nn import functional as F

from asap.backbones.video_head import head_bytes
from asap.errors import RequestError
from asap.measure.heads.checkpoints import Checkpoints
from asap.measure.heads.gradients import Alone, Gradient, gradient_of
from asap.measure.heads.recipe import Recipe
from asap.measure.heads.training import Curve, new_head, train
from asap.spec.run_spec import HeadSpec

SPEC = HeadSpec(epochs=3, batch_size=16, warmup_epochs=0.5, heads=4, lr=3e-3)
CPU = torch.device("cpu")


class Killed(Exception):
    """Stands for a kill: nothing after it runs."""


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Features of 40 views: two whole batches and a smaller one in an epoch."""
    return extracted(tmp_path_factory.mktemp("features"), clips())


def trained(found, folder, spec=SPEC, kill_at=None, save_seconds=0.0, gradients=None):
    """The head after training; killed before a step if `kill_at` is given."""
    config = config_of(found, spec)
    head, recipe = new_head(config, spec.seed), Recipe(spec, len(found))
    own, steps = gradients or Alone(found, spec.smoothing, CPU), 0

    def counted(head, batch):
        nonlocal steps
        if kill_at is not None and steps == kill_at:
            raise Killed
        steps += 1
        return own(head, batch)

    checkpoints = Checkpoints(folder, config, found.digest)
    try:
        curve = train(head, recipe, counted, checkpoints, save_seconds)
    except Killed:
        return None, steps
    return (head_bytes(head, config), curve), steps


def plain_training(found, spec):
    """The same in float64, with loss, AdamW and schedule written out from their formulas."""
    head = new_head(config_of(found, spec), spec.seed).double()
    recipe, labels = Recipe(spec, len(found)), found.labels
    names = [name for name, _ in head.named_parameters()]
    decays = {f"{n}.weight" for n, m in head.named_modules() if isinstance(m, torch.nn.Linear)}
    first = {name: torch.zeros_like(p) for name, p in head.named_parameters()}
    second = {name: torch.zeros_like(p) for name, p in head.named_parameters()}
    per_epoch = math.ceil(len(found) / spec.batch_size)
    total, warm = per_epoch * spec.epochs, math.ceil(spec.warmup_epochs * per_epoch)
    losses = []
    for step in range(total):
        batch = recipe.batch(step)
        logits = head(found.views(batch.tolist()).double())
        target = torch.full_like(logits, spec.smoothing / logits.shape[1])
        for row, label in enumerate(labels[batch].tolist()):
            target[row, label] += 1 - spec.smoothing
        loss = -(target * (logits - logits.exp().sum(1, keepdim=True).log())).sum(1).mean()
        grads = dict(zip(names, torch.autograd.grad(loss, list(head.parameters())), strict=True))
        if step < warm:
            rate = spec.lr * (step + 1) / warm
        else:
            rate = spec.lr / 2 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
        with torch.no_grad():
            for name, p in head.named_parameters():
                if name in decays:
                    p -= rate * spec.weight_decay * p
                first[name] = 0.9 * first[name] + 0.1 * grads[name]
                second[name] = 0.999 * second[name] + 0.001 * grads[name] ** 2
                mean = first[name] / (1 - 0.9 ** (step + 1))
                scale = (second[name] / (1 - 0.999 ** (step + 1))).sqrt() + 1e-8
                p -= rate * mean / scale
        losses.append(float(loss.detach()))
    return head, losses


@pytest.mark.parametrize("kind", ["linear", "attention"])
def test_training_is_what_it_says(kind: str, found, tmp_path) -> None:
    spec = HeadSpec(**{**vars(SPEC), "kind": kind, "weight_decay": 0.5})
    config = config_of(found, spec)
    head = new_head(config, spec.seed)
    curve = train(
        head, Recipe(spec, 40), Alone(found, 0.1, CPU), Checkpoints(tmp_path, config), 9.0
    )
    expected, losses = plain_training(found, spec)
    own = [loss / n for loss, _, n in curve.steps]
    assert own == pytest.approx(losses, rel=1e-4)
    for name, value in expected.state_dict().items():
        torch.testing.assert_close(head.state_dict()[name].double(), value, rtol=2e-3, atol=2e-4)


def test_every_epoch_has_every_example_once_in_an_order_of_its_own() -> None:
    recipe = Recipe(SPEC, 40)
    assert (recipe.steps_of_epoch, recipe.steps) == (3, 9)
    epochs = [torch.cat([recipe.batch(3 * e + i) for i in range(3)]) for e in range(3)]
    assert all(sorted(order.tolist()) == list(range(40)) for order in epochs)
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(Recipe(SPEC, 40).batch(4), recipe.batch(4))
    other = Recipe(HeadSpec(**{**vars(SPEC), "seed": 1}), 40)
    assert not torch.equal(other.batch(4), recipe.batch(4))


def test_the_rate_rises_to_its_value_and_falls_to_nothing() -> None:
    recipe = Recipe(HeadSpec(epochs=10, batch_size=512), 246_535)
    rates = [recipe.rate(step) for step in range(recipe.steps)]
    assert recipe.steps == 4820 and max(rates) == rates[240] == 1e-3
    assert rates[0] == pytest.approx(1e-3 / 241)
    assert rates[:241] == sorted(rates[:241]) and rates[240:] == sorted(rates[240:], reverse=True)
    assert 0 < rates[-1] < 1e-9
    assert Recipe(HeadSpec(warmup_epochs=0.0), 99).rate(0) == 1e-3


@pytest.mark.parametrize("kills", [(0,), (1, 1), (4, 3), (8, 0)])
def test_a_training_that_is_killed_twice_ends_with_the_same_bits(kills, found, tmp_path) -> None:
    (whole, curve), steps = trained(found, tmp_path / "whole")
    assert steps == 9
    done = 0
    for kill in kills:
        nothing, steps = trained(found, tmp_path / "cut", kill_at=kill)
        assert nothing is None and steps == kill
        done += steps
    (again, curve_again), steps = trained(found, tmp_path / "cut")
    assert steps == 9 - done, "steps were done twice"
    assert again == whole and curve_again.steps == curve.steps
    assert len(list((tmp_path / "cut").iterdir())) == 2


def test_what_is_lost_to_a_kill_is_the_time_since_the_last_checkpoint(found, tmp_path) -> None:
    (whole, _), _ = trained(found, tmp_path / "whole")
    trained(found, tmp_path / "cut", kill_at=5, save_seconds=1e9)
    (again, _), steps = trained(found, tmp_path / "cut")
    assert steps == 9 and again == whole


@pytest.mark.parametrize("damaged", ["head-5", "optimiser-5"])
def test_a_damaged_checkpoint_is_not_continued(damaged, found, tmp_path, caplog) -> None:
    (whole, _), _ = trained(found, tmp_path / "whole")
    trained(found, tmp_path / "cut", kill_at=5)
    path = tmp_path / "cut" / f"{damaged}.safetensors"
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(bytes(content))
    (again, _), steps = trained(found, tmp_path / "cut")
    assert steps == 9 and again == whole and "cannot be continued" in caplog.text


def test_a_training_on_other_features_is_not_continued(found, tmp_path) -> None:
    """A clip could not be read before the kill, and can be after it."""
    fewer = extracted(tmp_path / "features", clips(broken=((4, "timeout"),)))
    assert fewer.digest != found.digest
    trained(fewer, tmp_path / "cut", kill_at=5)
    (whole, _), _ = trained(found, tmp_path / "whole")
    (again, _), steps = trained(found, tmp_path / "cut")
    assert steps == 9 and again == whole


def test_a_kill_between_the_two_files_of_a_checkpoint_costs_one_step(
    found, tmp_path, monkeypatch
) -> None:
    (whole, _), _ = trained(found, tmp_path / "whole")
    trained(found, tmp_path / "cut", kill_at=4)
    with monkeypatch.context() as patched:

        def killed(*_):
            raise Killed

        patched.setattr("asap.measure.heads.checkpoints.head_bytes", killed)
        assert trained(found, tmp_path / "cut")[0] is None
    (again, _), steps = trained(found, tmp_path / "cut")
    assert steps == 5 and again == whole


def test_a_disk_that_fills_up_keeps_the_checkpoint_before(found, tmp_path, monkeypatch) -> None:
    (whole, _), _ = trained(found, tmp_path / "whole")
    trained(found, tmp_path / "cut", kill_at=4)
    with monkeypatch.context() as patched:

        def full(path, content):
            raise OSError(28, "No space left on device")

        patched.setattr("asap.records.disk.write_through", full)
        with pytest.raises(RequestError, match="No space left on device"):
            trained(found, tmp_path / "cut")
    (again, _), steps = trained(found, tmp_path / "cut")
    assert steps == 5 and again == whole


def test_checkpoints_are_cleared_with_their_folder(found, tmp_path) -> None:
    trained(found, tmp_path / "cut", kill_at=4)
    Checkpoints(tmp_path / "cut", config_of(found, SPEC)).clear()
    assert not (tmp_path / "cut").exists()


def test_a_loss_that_is_not_finite_is_one_line(found, tmp_path) -> None:
    spec = HeadSpec(**{**vars(SPEC), "lr": 1e30})
    with pytest.raises(RequestError, match=r"not finite after \d of 9 steps: lower head.lr=1e\+30"):
        trained(found, tmp_path, spec)


@pytest.mark.parametrize("processes", [2, 3, 16])
def test_parts_of_a_batch_give_its_gradient(processes, found) -> None:
    """In float64 to the last bits; a process may have no example."""
    head = new_head(config_of(found, SPEC), 0).double()
    views, labels = found.views(range(13)).double(), found.labels[:13]
    whole = gradient_of(head, views, labels, 0.1, 13)
    edges = [-(-13 * r // processes) for r in range(processes + 1)]
    parts = [
        gradient_of(head, views[a:b], labels[a:b], 0.1, 13)
        for a, b in zip(edges, islice(edges, 1, None), strict=False)
    ]
    summed = Gradient.sum(parts)
    for one, other in zip(summed.values, whole.values, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)
    assert (summed.right, summed.examples) == (whole.right, 13)
    assert summed.loss == pytest.approx(whole.loss, rel=1e-12)
    logits = head(views)
    mean = F.cross_entropy(logits, labels, label_smoothing=0.1)
    assert whole.loss / 13 == pytest.approx(float(mean.detach()), rel=1e-12)


def test_the_curve_as_csv_and_by_epoch() -> None:
    recipe = Recipe(HeadSpec(epochs=2, batch_size=4, warmup_epochs=0.0), 6)
    curve = Curve(recipe, [[8.0, 1.0, 4.0], [3.0, 0.0, 2.0], [4.0, 3.0, 4.0], [1.0, 2.0, 2.0]])
    assert curve.losses == [11 / 6, 5 / 6] and curve.top1 == [100 / 6, 500 / 6]
    lines = curve.to_csv().splitlines()
    assert lines[0] == "step,epoch,rate,loss,top1" and len(lines) == 5
    assert (
        lines[1] == "1,1,0.001,2,25"
        and lines[4].startswith("4,2,")
        and lines[4].endswith(",0.5,100")
    )


@pytest.mark.parametrize("kind", ["linear", "attention"])
def test_a_head_learns(kind: str, tmp_path) -> None:
    """The patches' tokens of these clips differ, as their class tokens hardly do."""
    features = extracted(tmp_path, clips(), reads="tokens")
    spec = HeadSpec(**{**vars(SPEC), "kind": kind, "epochs": 20})
    (_, curve), _ = trained(features, tmp_path / "training", spec, save_seconds=1e9)
    assert curve.top1[-1] == 100 > 70 > curve.top1[0]
