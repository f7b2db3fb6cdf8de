"""The trainer: image passes, losses, moving average, precision, surgery in between."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.training.small import classified_stream, recipe, same, small_network, weights
from tinygrow.errors import TinygrowError
from tinygrow.observer import Observer
from tinygrow.settings.training import TrainingSettings
from tinygrow.training.evaluate import evaluate
from tinygrow.training.loop import Trainer
from tinygrow.training.optimizer import Replacement


def make_trainer(
    settings: TrainingSettings, *, images: int = 40, total_epochs: float = 10.0, seed: int = 0
) -> Trainer:
    return Trainer(
        small_network(seed), classified_stream(images), settings, total_epochs=total_epochs
    )


class Counter(Observer):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def advance(self, count: int = 1, **facts: float) -> None:
        self.steps.append(count)


class TestImagePasses:
    @pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 1.0, 1.3])
    def test_fractions_add_up_to_within_half_a_step(self, share: float) -> None:
        trainer = make_trainer(recipe(batch_size=12))
        wanted = 0.0
        for _ in range(20):
            summary = trainer.train(share)
            wanted += share * 40
            assert summary.images % 12 == 0
            assert abs(trainer.images_seen - wanted) <= 6 + 1e-9
        assert trainer.epochs_seen == trainer.images_seen / 40

    def test_whole_epochs_are_exact_where_batches_divide_the_images(self) -> None:
        trainer = make_trainer(recipe(batch_size=8))
        assert [trainer.train(0.25).images for _ in range(4)] == [8, 8, 16, 8]
        assert trainer.images_seen == 40

    @pytest.mark.parametrize("batch_size", [39, 41, 100, 1000])
    def test_batches_larger_than_the_data_set(self, batch_size: int) -> None:
        trainer = make_trainer(recipe(batch_size=batch_size))
        for epoch in range(1, 4):
            summary = trainer.train(1.0)
            assert summary.images > 0 and math.isfinite(summary.loss)
            assert abs(trainer.images_seen - 40 * epoch) <= 20

    def test_a_batch_size_that_growth_made_fractional_is_rounded(self) -> None:
        trainer = make_trainer(recipe(batch_size=8))
        trainer.observer = counter = Counter()
        trainer.train(0.2)
        trainer.batch_size *= math.sqrt(2)
        summary = trainer.train(1.0)
        assert counter.steps[0] == 8 and set(counter.steps[1:]) == {11}
        assert summary.images == sum(counter.steps[1:])

    def test_nothing_due_is_nothing_done(self) -> None:
        trainer = make_trainer(recipe())
        before = weights(trainer.network)
        summary = trainer.train(0.0)
        assert summary.images == 0 and math.isnan(summary.loss) and math.isnan(summary.accuracy)
        assert same(weights(trainer.network), before)


class TestSteps:
    def test_equal_a_loop_written_out(self) -> None:
        settings = recipe(
            learning_rate=0.05, momentum=0.9, weight_decay=1e-3, schedule="cosine", batch_size=10
        )
        trainer = make_trainer(settings, total_epochs=2.0)
        network, stream = copy.deepcopy(trainer.network).train(), classified_stream(40)
        decay = [p for p in network.parameters() if p.ndim > 1]
        rest = [p for p in network.parameters() if p.ndim <= 1]
        optimizer = torch.optim.SGD(
            [{"params": decay, "weight_decay": 1e-3}, {"params": rest, "weight_decay": 0.0}],
            lr=1.0,
            momentum=0.9,
        )
        losses, correct, rate = [], 0, 0.0
        for step in range(8):
            rate = 0.05 * 0.5 * (1 + math.cos(math.pi * step / 8))
            for group in optimizer.param_groups:
                group["lr"] = rate
            x, y = stream.next(10)
            logits = network(x)
            loss = -logits.log_softmax(1)[torch.arange(10), y].mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
            correct += int((logits.argmax(1) == y).sum())
        trainer.network.eval()
        summary = trainer.train(2.0)
        for ours, theirs in zip(weights(trainer.network), weights(network), strict=True):
            torch.testing.assert_close(ours, theirs)
        assert summary.loss == pytest.approx(sum(losses) / 8, rel=1e-5)
        assert summary.accuracy == pytest.approx(100 * correct / 80)
        assert summary.learning_rate == pytest.approx(rate)

    def test_learns(self) -> None:
        trainer = make_trainer(recipe(learning_rate=0.1, momentum=0.9))
        first, last = trainer.train(1.0), trainer.train(19.0)
        assert last.loss < 0.5 * first.loss
        assert evaluate(trainer.network, trainer.stream.images)[1] > 90

    def test_two_calls_are_as_one(self) -> None:
        once, twice = (make_trainer(recipe(schedule="triangular")) for _ in range(2))
        once.train(2.0)
        twice.train(0.5)
        twice.train(1.5)
        assert same(weights(once.network), weights(twice.network))

    @pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.6])
    def test_label_smoothing_moves_mass_to_all_classes(self, smoothing: float) -> None:
        trainer = make_trainer(recipe(label_smoothing=smoothing, batch_size=40))
        x, y = classified_stream(40).next(40)
        logs = trainer.network.train()(x).detach().log_softmax(1)
        target = F.one_hot(y, 3) * (1 - smoothing) + smoothing / 3
        expected = float(-(target * logs).sum(1).mean())
        assert trainer.train(1.0).loss == pytest.approx(expected, rel=1e-5)

    def test_divergence_is_told_in_one_line(self) -> None:
        trainer = make_trainer(recipe(learning_rate=1e20))
        with pytest.raises(TinygrowError, match=r"diverged.*learning_rate \(it is 1e\+20\)") as e:
            trainer.train(5.0)
        assert "\n" not in str(e.value)


class TestPrecision:
    def test_bfloat16_computes_coarsely_but_keeps_float32_weights(self) -> None:
        exact, coarse = (make_trainer(recipe(precision=p)) for p in ("float32", "bfloat16"))
        seen: list[torch.dtype] = []
        coarse.network.head.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
        a, b = exact.train(1.0), coarse.train(1.0)
        assert set(seen) == {torch.bfloat16}
        assert all(p.dtype == torch.float32 for p in coarse.network.parameters())
        assert all(
            s.dtype == torch.float32
            for state in coarse.optimizer.state.values()
            for s in state.values()
            if s is not None
        )
        assert a.loss != b.loss and a.loss == pytest.approx(b.loss, rel=0.05)

    def test_auto_is_float32_on_a_cpu_for_contiguous_weights(self) -> None:
        exact, chosen = (make_trainer(recipe(precision=p)) for p in ("float32", "auto"))
        exact.train(1.0)
        chosen.train(1.0)
        assert same(weights(chosen.network), weights(exact.network))

    def test_the_loss_of_bfloat16_logits_is_taken_in_float32(self) -> None:
        trainer = make_trainer(recipe(precision="bfloat16", batch_size=40))
        seen: list[torch.Tensor] = []
        trainer.network.head.register_forward_hook(lambda m, i, out: seen.append(out.detach()))
        labels = classified_stream(40).next(40)[1]
        loss = trainer.train(1.0).loss
        assert loss == pytest.approx(float(F.cross_entropy(seen[0].double(), labels)), rel=1e-6)


class TestMovingAverage:
    def test_is_the_closed_form_of_the_weights_path(self) -> None:
        decay = 0.8
        trainer = make_trainer(recipe(ema=decay, learning_rate=0.1, batch_size=40))
        path = [weights_only(trainer.network)]
        for _ in range(4):
            trainer.train(1.0)
            path.append(weights_only(trainer.network))
        for i, average in enumerate(weights_only(trainer.result)):
            expected = decay**4 * path[0][i]
            for step in range(1, 5):
                expected = expected + (1 - decay) * decay ** (4 - step) * path[step][i]
            torch.testing.assert_close(average, expected)

    def test_is_the_result_with_the_buffers_of_the_network(self) -> None:
        trainer = make_trainer(recipe(ema=0.9, learning_rate=0.1))
        trainer.train(1.0)
        assert trainer.result is not trainer.network
        assert not same(weights_only(trainer.result), weights_only(trainer.network))
        assert same(list(trainer.result.buffers()), list(trainer.network.buffers()))

    def test_does_not_touch_training(self) -> None:
        plain, averaged = make_trainer(recipe()), make_trainer(recipe(ema=0.9))
        plain.train(1.0)
        averaged.train(1.0)
        assert same(weights(plain.network), weights(averaged.network))

    def test_without_one_the_network_is_the_result(self) -> None:
        trainer = make_trainer(recipe())
        assert trainer.result is trainer.network


class TestAdopt:
    @pytest.mark.parametrize("state", ["recreate", "pad"])
    def test_new_parameters_train_and_state_is_kept_or_not(self, state: str) -> None:
        trainer = make_trainer(recipe(momentum=0.9, learning_rate=0.05))
        trainer.train(1.0)
        head = trainer.network.head
        old = head.weight
        velocity = trainer.optimizer.state[old]["momentum_buffer"].clone()
        bias_velocity = trainer.optimizer.state[head.bias]["momentum_buffer"].clone()
        # Two more features than the head has: widened in step with what it reads.
        head.weight = nn.Parameter(torch.cat([old.detach(), torch.zeros(3, 2)], 1))
        trainer.network.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), Repeat())
        trainer.adopt([Replacement(old, head.weight, 1)], state)
        known = trainer.optimizer.state
        if state == "pad":
            kept = known[head.weight]["momentum_buffer"]
            assert torch.equal(kept[:, :-2], velocity) and not kept[:, -2:].any()
            assert torch.equal(known[head.bias]["momentum_buffer"], bias_velocity)
        else:
            assert set(known) == set(trainer.network.parameters())
            assert not any(state["momentum_buffer"].any() for state in known.values())
        before = head.weight.detach().clone()
        trainer.train(0.2)
        assert bool((head.weight != before).all())
        assert known is trainer.optimizer.state and old not in known

    @pytest.mark.parametrize("state", ["recreate", "pad"])
    def test_groups_hold_exactly_the_networks_parameters(self, state: str) -> None:
        trainer = make_trainer(recipe(weight_decay=0.1))
        head = trainer.network.head
        old = head.weight
        head.weight = nn.Parameter(torch.cat([old.detach(), old.detach()], 1))
        trainer.adopt([Replacement(old, head.weight, 1)], state)
        held = [p for group in trainer.optimizer.param_groups for p in group["params"]]
        assert {id(p) for p in held} == {id(p) for p in trainer.network.parameters()}
        decayed = trainer.optimizer.param_groups[0]
        assert decayed["weight_decay"] == 0.1
        assert any(p is head.weight for p in decayed["params"])


class Repeat(nn.Module):
    """Give the first two channels once more, behind the others."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([x, x[:, :2] + 1], 1)


def weights_only(network: nn.Module) -> list[torch.Tensor]:
    return [p.detach().clone() for p in network.parameters()]
