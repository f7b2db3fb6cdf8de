"""What may stand between two layers: operations that keep channels apart from each other."""

import operator
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import fx, nn

from tinygrow.growth.pooling import AdaptivePooling, Pair, Pooling, WindowPooling

ELEMENTWISE: tuple[type[nn.Module], ...] = (
    nn.Identity,
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
    *(nn.AlphaDropout, nn.FeatureAlphaDropout),
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.RReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU),
    *(nn.Mish, nn.Tanh, nn.Sigmoid, nn.LogSigmoid, nn.Softplus, nn.Softsign, nn.Tanhshrink),
    *(nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Hardshrink, nn.Softshrink, nn.Threshold),
)

_FUNCTIONS = frozenset(
    (
        *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"),
        *(
            "feature_alpha_dropout",
            "feature_dropout",
            "relu",
            "relu6",
            "leaky_relu",
            "rrelu",
            "elu",
        ),
        *("selu", "celu", "gelu", "silu", "mish", "tanh", "sigmoid"),
        *("logsigmoid", "softplus", "softsign", "tanhshrink", "hardtanh", "hardswish"),
        *("hardsigmoid", "hardshrink", "softshrink", "threshold", "clamp", "clamp_min"),
        *("clamp_max", "abs", "neg", "exp", "sin", "cos", "sqrt"),
        *("square", "pow", "add", "sub", "mul"),
        *("div", "truediv", "iadd", "isub", "imul", "itruediv", "contiguous"),
        *("clone", "float"),
    )
)

JOINING = {
    "add": "is added to another value (a residual stream)",
    "iadd": "is added to another value (a residual stream)",
    "cat": "is concatenated with other values",
    "concat": "is concatenated with other values",
    "stack": "is stacked with other values",
    "mul": "is multiplied by another value (a gate or a scale)",
    "imul": "is multiplied by another value (a gate or a scale)",
}

COUPLING: tuple[type[nn.Module], ...] = (
    *(nn.GroupNorm, nn.LayerNorm, nn.RMSNorm, nn.LocalResponseNorm, nn.CrossMapLRN2d),
    *(nn.Softmax, nn.Softmax2d, nn.LogSoftmax, nn.GLU),
)
COUPLING_FUNCTIONS = frozenset(
    (
        *("group_norm", "layer_norm", "rms_norm", "local_response_norm", "normalize"),
        *("softmax", "log_softmax", "glu"),
    )
)

RESHAPING = frozenset(("flatten", "view", "reshape", "squeeze"))


def name_of(node: fx.Node) -> str:
    """Return the plain name of a function or method, without the mark of working in place."""
    if node.op == "call_method":
        return str(node.target).rstrip("_")
    return _NAMES.get(node.target) or getattr(node.target, "__name__", str(node.target)).rstrip("_")


def is_elementwise(module: nn.Module) -> bool:
    """Say whether a module treats every number by itself, and all channels alike."""
    if isinstance(module, nn.PReLU):
        return module.num_parameters == 1
    return _plain(module, ELEMENTWISE)


def is_elementwise_call(node: fx.Node) -> bool:
    """Say the same of a call of a function or method; it must read a single value."""
    return name_of(node) in _FUNCTIONS and _of_torch(node)


def module_pooling(module: nn.Module) -> Pooling | None:
    """Return the pooling that a module does, or None."""
    if _plain(module, (nn.AvgPool2d, nn.MaxPool2d, nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d)):
        names = (*_WINDOW, "dilation", "return_indices", "output_size")
        return _pooling(
            isinstance(module, nn.MaxPool2d | nn.AdaptiveMaxPool2d),
            {name: getattr(module, name) for name in names if hasattr(module, name)},
        )
    return None


def call_pooling(node: fx.Node) -> Pooling | None:
    """Return the pooling that a call of a function or method does, or None."""
    name = name_of(node)
    if name == "mean" and _of_torch(node):
        dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        both = isinstance(dims, list | tuple) and {d % 4 for d in dims} == {2, 3}
        return AdaptivePooling((1, 1)) if both else None
    if name not in _SIGNATURES or node.op != "call_function":
        return None
    values = dict(zip(_SIGNATURES[name], node.args[1:], strict=False)) | dict(node.kwargs)
    if any(isinstance(value, fx.Node) for value in values.values()):
        return None
    return _pooling("max" in name, values)


def _pooling(maximum: bool, values: Mapping[str, Any]) -> Pooling | None:
    if values.get("return_indices"):
        return None
    if "output_size" in values:
        return AdaptivePooling(_sides(values["output_size"]), maximum)
    if values.get("dilation", 1) not in (1, (1, 1)):
        return None
    kernel = values["kernel_size"]
    return WindowPooling(
        _pair(kernel),
        _pair(values.get("stride") or kernel),
        _pair(values.get("padding", 0)),
        bool(values.get("ceil_mode", False)),
        bool(values.get("count_include_pad", True)),
        values.get("divisor_override"),
        maximum,
    )


def _pair(value: Any) -> Pair:
    values = (value, value) if isinstance(value, int) else tuple(value)
    return (values[0], values[-1])


def _sides(value: Any) -> tuple[int | None, int | None]:
    values = (value, value) if value is None or isinstance(value, int) else tuple(value)
    return values[0], values[-1]


def _plain(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> bool:
    """Say whether a module is of one of the kinds, and runs its code rather than its own."""
    return any(isinstance(module, kind) and type(module).forward is kind.forward for kind in kinds)


def _of_torch(node: fx.Node) -> bool:
    """Say whether a function is PyTorch's or an operator, not one of the same name."""
    if node.op == "call_method":
        return True
    home = getattr(node.target, "__module__", None) or ""
    return home.split(".")[0] in ("", "torch", "_operator", "builtins", "math")


_WINDOW = (
    *("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad"),
    "divisor_override",
)
_MAX = ("kernel_size", "stride", "padding", "dilation", "ceil_mode", "return_indices")
_SIGNATURES: dict[str, tuple[str, ...]] = {
    "avg_pool2d": _WINDOW,
    "max_pool2d": _MAX,
    "adaptive_avg_pool2d": ("output_size",),
    "adaptive_max_pool2d": ("output_size", "return_indices"),
}
# Functions that dispatch on a flag have no name of their own.
_NAMES: dict[Any, str] = {
    F.max_pool2d: "max_pool2d",
    F.adaptive_max_pool2d: "adaptive_max_pool2d",
    torch.max_pool2d: "max_pool2d",
    operator.add: "add",
}
