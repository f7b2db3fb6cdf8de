"""tinygrow: grow a tiny network to the size it needs and ship it as a validated ONNX model.

Names are handed on when they are first used, so that `import tinygrow` and `tinygrow.deploy` never
import torch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "Architecture": "tinygrow.architecture",
    "final_architecture": "tinygrow.architecture",
    "seed_architecture": "tinygrow.architecture",
    "build_network": "tinygrow.networks.build",
    "load_checkpoint": "tinygrow.checkpoint",
    "save_checkpoint": "tinygrow.checkpoint",
    "TinygrowError": "tinygrow.errors",
    "SettingError": "tinygrow.errors",
    "Site": "tinygrow.growth.sites",
    "sites_of": "tinygrow.growth.sites",
    "Discovery": "tinygrow.growth.found",
    "find_sites": "tinygrow.growth.discovery",
    "update_moments": "tinygrow.growth.statistics",
    "neuron_moments": "tinygrow.growth.statistics",
    "best_update": "tinygrow.growth.bottleneck",
    "bottleneck": "tinygrow.growth.bottleneck",
    "optimal_neurons": "tinygrow.growth.bottleneck",
    "gradmax_neurons": "tinygrow.growth.bottleneck",
    "choose_amplitude": "tinygrow.growth.amplitude",
    "widen": "tinygrow.growth.surgery",
    "Request": "tinygrow.growth.neurons.proposal",
    "add_neurons": "tinygrow.growth.extend",
    "pad_optimizer": "tinygrow.training.optimizer",
    "joined": "tinygrow.distributed",
    "grow": "tinygrow.growth.grow",
    "finetune": "tinygrow.training.finetune",
    "GrowthSettings": "tinygrow.settings.growth",
    "FinetuneSettings": "tinygrow.settings.training",
    "TrainingSettings": "tinygrow.settings.training",
    "ResNetSettings": "tinygrow.settings.network",
    "MLPSettings": "tinygrow.settings.network",
    "CustomSettings": "tinygrow.settings.network",
    "Predictor": "tinygrow.deploy.predictor",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'tinygrow' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
