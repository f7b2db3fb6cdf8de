"""What makes steps fast changes nothing else: precision, compilation, no waiting for the device."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.small import (
    CPU,
    classified,
    classified_stream,
    recipe,
    same,
    small_network,
    weights,
)
from tinygrow.architecture import Architecture
from tinygrow.networks.build import build_network
from tinygrow.observer import Observer
from tinygrow.settings.training import AugmentationSettings, FinetuneSettings
from tinygrow.training import compiled as compiling
from tinygrow.training import precision
from tinygrow.training.batches import TrainingStream
from tinygrow.training.finetune import finetune
from tinygrow.training.loop import Trainer
from tinygrow.training.optimizer import Replacement

FULL = {
    "learning_rate": 0.05,
    "momentum": 0.9,
    "nesterov": True,
    "weight_decay": 1e-3,
    "label_smoothing": 0.1,
    "ema": 0.9,
    "schedule": "cosine",
    "augmentation": AugmentationSettings(crop_padding=1, flip="alternating", cutout=1),
}


class Lines(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, line: str) -> None:
        self.lines.append(line)


class Unread(TorchDispatchMode):
    """Refuses to take numbers from tensors to Python, for which a GPU would be waited."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "item", "nonzero", "masked_select", "unique_dim"):
            raise AssertionError(f"a step waits for the device: {name}")
        return func(*args, **(kwargs or {}))


class TestNoWaiting:
    @pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
    def test_no_number_is_read_within_a_step(self, optimizer: str) -> None:
        own = {} if optimizer == "sgd" else {"momentum": 0.0, "nesterov": False}
        settings = recipe(**FULL | {"optimizer": optimizer} | own)
        stream = TrainingStream(classified(40), settings.augmentation, seed=1)
        trainer = Trainer(small_network(), stream, settings, total_epochs=2.0)
        trainer.train(0.4)
        trainer.network.train()
        with Unread():
            for _ in range(6):  # past the end of an epoch
                trainer._step(trainer.network, 8, 0.01, False)

    def test_the_guard_itself_sees_a_number_that_is_read(self) -> None:
        with Unread(), pytest.raises(AssertionError, match="waits for the device"):
            float(torch.ones(()) * 2)


class TestPrecision:
    def network(self, width: int) -> nn.Module:
        network = build_network(
            Architecture(
                kind="resnet",
                input_shape=(1, 4, 4),
                classes=3,
                stage_widths=(width,),
                blocks=(1,),
                middle_widths=(width,),
            )
        )
        return network.to(memory_format=torch.channels_last)

    def test_auto_takes_bfloat16_on_a_cpu_where_it_was_measured_to_pay(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def choice(network: nn.Module) -> bool:
            return precision.is_coarse("auto", network, CPU)

        wide, narrow = self.network(16), self.network(2)
        grouped = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.ReLU())
        dense = nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.Linear(16, 3))
        monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: True)
        assert choice(wide) and choice(narrow)
        assert not choice(dense)
        assert not choice(grouped.to(memory_format=torch.channels_last))
        assert not choice(self.network(16).to(memory_format=torch.contiguous_format))
        monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: False)
        assert not choice(wide)

    def test_what_is_asked_for_is_not_questioned(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(precision, "multiplies_bfloat16", lambda: False)
        for network in (self.network(16), self.network(4)):
            assert precision.is_coarse("bfloat16", network, CPU)
            assert not precision.is_coarse("float32", network, CPU)
        assert precision.is_coarse("auto", self.network(4), torch.device("cuda"))

    def test_the_trainer_follows_the_choice(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seen: list[torch.dtype] = []
        for pays in (False, True):
            monkeypatch.setattr(precision, "multiplies_bfloat16", lambda pays=pays: pays)
            network = self.network(16)
            network.head.register_forward_hook(lambda m, i, out: seen.append(out.dtype))
            settings = recipe(precision="auto", batch_size=20)
            Trainer(network, classified_stream(20), settings, total_epochs=1.0).train(1.0)
        assert seen == [torch.float32, torch.bfloat16]


class TestFused:
    def test_channels_last_weights_move_as_contiguous_ones_do(self) -> None:
        """The fused step walks through memory: parameter, gradient and momentum must agree."""
        settings = recipe(learning_rate=0.1, momentum=0.9, nesterov=True, batch_size=20)
        moved = []
        for layout in (torch.contiguous_format, torch.channels_last):
            network = small_network().to(memory_format=layout)
            trainer = Trainer(network, classified_stream(20), settings, total_epochs=3.0)
            trainer.train(3.0)
            moved.append(weights(network))
        for a, b in zip(*moved, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)

    def test_widened_kernels_keep_their_momentum_in_their_layout(self) -> None:
        network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False))
        network.to(memory_format=torch.channels_last)
        settings = recipe(learning_rate=0.1, momentum=0.9)
        trainer = Trainer(network, classified_stream(20), settings, total_epochs=1.0)
        old = network[0].weight
        old.grad = torch.randn_like(old)
        trainer.optimizer.step()
        gradient, before = old.grad.clone(), old.detach().clone()
        wider = torch.cat([before, torch.zeros(2, 3, 3, 3)])
        new = nn.Parameter(wider.contiguous(memory_format=torch.channels_last))
        network[0].weight = new
        trainer.adopt([Replacement(old, new, 0)], "pad")
        new.grad = torch.zeros_like(new)
        trainer.optimizer.step()
        torch.testing.assert_close(new[:4].detach(), before - 0.1 * 0.9 * gradient)
        assert not new[4:].any()

    def test_parameters_that_first_lie_idle_train_later(self) -> None:
        network = nn.ModuleList([nn.Linear(2, 2, bias=False) for _ in range(2)])
        trainer = Trainer(network, classified_stream(20), recipe(momentum=0.9), total_epochs=1.0)
        for used in (network[:1], network):
            trainer.optimizer.zero_grad()
            sum(layer(torch.ones(1, 2)).sum() for layer in used).backward()
            before = network[1].weight.detach().clone()
            trainer.optimizer.step()
        torch.testing.assert_close(network[1].weight.detach(), before - 0.01)


needs_compiler = pytest.mark.skipif(
    not compiling.has_compiler(), reason="SKIPPED: no C++ compiler is installed"
)


def dense() -> nn.Module:
    """A network whose compilation takes seconds."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3)
    )


def finetuned(choice: str, epochs: int = 2, **changes: Any) -> nn.Module:
    settings = FinetuneSettings(
        epochs=epochs, compile=choice, training=recipe(**FULL | {"ema": 0.0} | changes)
    )
    stream = TrainingStream(classified(40), settings.training.augmentation, seed=6)
    return finetune(dense(), stream, classified(12, seed=5), settings).network


@pytest.fixture(scope="module")
def compiled_network() -> Iterator[nn.Module]:
    yield finetuned("on")
    torch._dynamo.reset()


@needs_compiler
class TestCompiled:
    def test_training_is_that_of_eager_steps(self, compiled_network: nn.Module) -> None:
        eager = finetuned("off")
        assert not same(weights(eager), weights(dense()))
        for a, b in zip(weights(compiled_network), weights(eager), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)

    def test_names_and_kind_of_the_network_stay(self, compiled_network: nn.Module) -> None:
        assert type(compiled_network) is nn.Sequential
        assert list(compiled_network.state_dict()) == list(dense().state_dict())

    def test_goes_on_from_a_state_with_the_same_bits(self) -> None:
        def trainer() -> Trainer:
            stream = TrainingStream(classified(40), FULL["augmentation"], seed=6)
            return Trainer(dense(), stream, recipe(**FULL), total_epochs=2.0, compile="on")

        one, two = trainer(), trainer()
        one.train(0.6)
        state = one.state()
        assert not any("_orig_mod" in name for name in state["network"])
        one.train(1.0)
        two.restore(state, dense())
        two.train(1.0)
        assert same(weights(one.network), weights(two.network))
        assert one.average is not None and two.average is not None
        assert same(weights(one.average), weights(two.average))


class TestCompilation:
    def choose(self, choice: Any, device: str = "cpu") -> tuple[nn.Module, nn.Module, list[str]]:
        lines: list[str] = []
        network = small_network()
        return (
            network,
            compiling.compiled(network, torch.device(device), choice, lines.append),
            lines,
        )

    def test_auto_compiles_on_a_gpu_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(compiling, "has_compiler", lambda: True)
        for choice, device, wanted in (
            ("off", "cuda", False),
            ("auto", "cuda", True),
            ("auto", "cpu", False),
            ("on", "cpu", True),
        ):
            network, called, lines = self.choose(choice, device)
            assert (called is not network) == wanted and not lines

    def test_without_a_compiler_a_line_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("CXX", "no-such-compiler")
        network, called, lines = self.choose("on")
        assert called is network
        (line,) = lines
        assert "no C++ compiler" in line and "set compile to off" in line and "\n" not in line

    def test_what_cannot_be_compiled_is_trained_as_it_is(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from torch._dynamo.exc import TorchDynamoException

        def refuse(network: nn.Module, **_: Any) -> Callable[[torch.Tensor], torch.Tensor]:
            def call(images: torch.Tensor) -> torch.Tensor:
                raise TorchDynamoException("no way\nand much more")

            return call

        monkeypatch.setattr(torch, "compile", refuse)
        lines, networks = Lines(), []
        for choice in ("off", "on"):
            trainer = Trainer(
                small_network(),
                classified_stream(40),
                recipe(),
                total_epochs=1.0,
                observer=lines,
                compile=choice,
            )
            trainer.train(1.0)
            networks.append(weights(trainer.network))
        assert same(*networks)
        assert len(lines.lines) == 1 and "is not compiled: no way;" in lines.lines[0]

    def test_faults_of_the_network_are_told_as_they_are(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch, "compile", lambda network, **_: network)
        wrapped = compiling.CompiledNetwork(small_network(), lambda _: None)
        with pytest.raises(RuntimeError, match="channels"):
            wrapped(torch.zeros(2, 5, 4, 4))
