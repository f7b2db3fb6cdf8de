"""Networks of others, from discovery through growth to an ONNX file that computes the same."""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet
from torchvision.models.squeezenet import SqueezeNet

from networks.vgg import vgg
from tests.growth.own_networks import PreActivation
from tests.growth.scenes import CARD, patterns, perceptron, random_units, resnet, stream
from tinygrow import find_sites
from tinygrow.connectivity.from_fx import from_module
from tinygrow.connectivity.from_onnx import from_onnx, load_onnx
from tinygrow.connectivity.segments import wirings
from tinygrow.deploy.sessions import open_session
from tinygrow.growth.extend import extend
from tinygrow.growth.surgery import widen
from tinygrow.products.export import export_onnx
from tinygrow.products.fold import fold_batch_norm
from tinygrow.products.gate.contract import OPERATORS
from tinygrow.products.gate.subject import relative_difference, run_session
from tinygrow.products.reference import torch_logits
from tinygrow.settings.growth import AmplitudeSettings, GrowthSettings, StatisticsSettings
from tinygrow.settings.products import ExportSettings
from tinygrow.settings.training import TrainingSettings
from tinygrow.training.loop import Trainer

SETTINGS = GrowthSettings(
    statistics=StatisticsSettings(min_images=48, max_images=48, batch_size=24),
    amplitude=AmplitudeSettings(images=48, smallest_exponent=-6),
    training=TrainingSettings(batch_size=16, learning_rate=0.02),
)


def timm_network() -> nn.Module:
    timm = pytest.importorskip("timm")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what timm warns of is not ours
        # Its own initialisation silences blocks by a weight of zero: no gradient, nothing to grow.
        return timm.create_model("test_byobnet", num_classes=3, zero_init_last=False)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int, str]] = {
    # the network; how many sites it has; what one of its refusals says
    "mlp": (lambda: perceptron((4, 5))[0], 2, "the network's own"),
    "vgg": (lambda: vgg((3, 8, 8), 3, widths=(4, 5), hidden=6), 3, "the network's own"),
    "resnet": (lambda: resnet(middle=(2, 3))[0], 2, "residual stream"),
    "pre-activation": (PreActivation, 1, "residual stream"),
    # Strides, activations in place, downsampling branches.
    "torchvision resnet": (lambda: ResNet(BasicBlock, [1, 1, 1, 1], 3), 4, "residual stream"),
    "torchvision squeezenet": (lambda: SqueezeNet("1_1", num_classes=3), 1, "concatenated"),
    # BatchNorm with the activation inside, grouped convolutions, squeeze and excitation.
    "timm": (timm_network, 7, "multiplied by another value (a gate or a scale)"),
}
SIZES = {"torchvision resnet": 32, "torchvision squeezenet": 32, "timm": 32}


def enlarged(images_NHWC: torch.Tensor, size: int) -> torch.Tensor:
    return images_NHWC.repeat_interleave(size // 8, 1).repeat_interleave(size // 8, 2)


@pytest.mark.parametrize("name", NETWORKS)
def test_it_is_discovered_grown_and_exported(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, count, says = NETWORKS[name]
    network, size = make(), SIZES.get(name, 8)
    images = stream(48)
    images.images.images_NHWC = enlarged(images.images.images_NHWC, size)
    seed, *_ = wirings(from_module(network, torch.zeros(2, 3, size, size)))
    found = find_sites(network, torch.randn(2, 3, size, size))
    assert len(found) == count
    assert any(says in refusal.why for refusal in found.refused)

    trainer = Trainer(network, images, SETTINGS.training, total_epochs=2.0)
    for site in found[:2]:
        width = len(site.layers(network)[0].weight)
        done = extend(
            network, site, 2, trainer, SETTINGS, generator=torch.Generator().manual_seed(0)
        )
        assert done.added == len(site.layers(network)[0].weight) - width == 2
        assert done.bottleneck_after is not None and done.proposal.bottleneck is not None
        trainer.train(0.5)
        assert find_sites(network, torch.randn(2, 3, size, size)).sites == found.sites

    network.eval()
    folded, path = fold_batch_norm(network), tmp_path / "model.onnx"
    card = replace(CARD, shape=(3, size, size))
    export_onnx(folded, card, ExportSettings(), {"model": name}, path)
    pixels = enlarged(patterns(5, seed=3).images_NHWC, size).permute(0, 3, 1, 2).numpy()
    pixels = np.ascontiguousarray(pixels)
    right = torch_logits(network, card, pixels)
    session = open_session(path, "cpu")
    assert relative_difference(run_session(session, pixels), right) < 1e-4
    assert {node.op_type for node in onnx.load(path).graph.node} <= OPERATORS

    # Neither growth by neurons nor the export changes a path.
    grown, *_ = wirings(from_module(network, torch.zeros(2, 3, size, size)))
    file, *_ = wirings(from_onnx(load_onnx(path)))
    assert seed.paths == grown.paths == file.paths
    assert seed.depths == grown.depths == file.depths
    assert seed.segments[-1].layers == file.segments[-1].layers


@pytest.mark.parametrize("name", ["vgg", "pre-activation", "torchvision resnet"])
@pytest.mark.parametrize("training", [True, False])
def test_units_without_fan_out_leave_the_outputs_as_they_are(name: str, training: bool) -> None:
    torch.manual_seed(0)
    network = NETWORKS[name][0]().train(training)
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x = torch.randn(6, 3, SIZES.get(name, 8), SIZES.get(name, 8))
    sites = find_sites(network, x)
    with torch.no_grad():
        before = network(x)
        for site in sites:
            widen(network, site, random_units(network, site, 3).scaled(1.0, 0.0))
        difference = (network(x) - before).abs().max()
    assert float(difference) <= 1e-6 * float(before.abs().max())
