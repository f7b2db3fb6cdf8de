"""`params.yaml` as frozen dataclasses; errors name the line, the key and the nearest right one."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode

from tinygrow.errors import SettingError, TinygrowError

DEFAULT_PATH = Path("params.yaml")
MODEL_VALUES: dict[str, type] = {"data": str, "seed": int, "device": str, "processes": int}

Place = tuple[str, ...]
T = TypeVar("T")


class Params:
    """A read `params.yaml`: plain values, and the line each of them stands on.

    Args:
        tree: the mapping that the file holds.
        path: of the file, for messages.
        text: of the file, for line numbers.
    """

    def __init__(self, tree: Mapping[str, Any], path: Path, text: str) -> None:
        self.tree = tree
        self.path = path
        self._text = text

    def names(self, group: Literal["data", "models"]) -> list[str]:
        """Return the names of the data sets or of the models, in the file's order."""
        return [str(name) for name in self._mapping((group,))]

    def section(self, model: str, name: str, settings: type[T]) -> T:
        """Return the section `name` of `model`, such as `growth`, as a value of `settings`.

        Raises:
            SettingError: a key is missing, unknown, of the wrong type or out of range.
        """
        self.require("models", model)
        return self.build(("models", model, name), settings)

    def value(self, model: str, key: Literal["data", "seed", "device", "processes"]) -> Any:
        """Return a single value of `model`, of the type that `MODEL_VALUES` says."""
        self.require("models", model)
        place = ("models", model, key)
        return self._convert(place, MODEL_VALUES[key], self._get(place))

    def text(self, place: Place) -> str | None:
        """Return the text at `place`, or None where there is something else."""
        self.require(place[0], place[1])
        value = self._get(place)
        return value if isinstance(value, str) else None

    def choose(
        self, place: Place, key: str, classes: Mapping[str, type[T]], ignore: Iterable[str] = ()
    ) -> T:
        """Return the mapping at `place` as a value of the class that its entry `key` names.

        Args:
            place: keys from the top of the file.
            key: the entry that decides, such as `kind`.
            classes: from that entry's value to the class.
            ignore: further entries that are not settings.
        """
        self.require(place[0], place[1])
        kind = self._convert((*place, key), Literal[*classes], self._get((*place, key)))
        return self.build(place, classes[kind], ignore=(key, *ignore))

    def build(self, place: Place, settings: type[T], ignore: Iterable[str] = ()) -> T:
        """Return the mapping at `place` as a value of the dataclass `settings`."""
        mapping = self._mapping(place)
        wanted: dict[str, Field[Any]] = {f.name: f for f in fields(settings)}  # type: ignore[arg-type]
        self.check_keys(place, (*wanted, *ignore))
        hints = get_type_hints(settings)
        values: dict[str, Any] = {}
        for name, field in wanted.items():
            if name not in mapping:
                raise self.error(place, f"{_dotted(place, name)} is missing; {_write(field)}")
            value = mapping[name]
            if isinstance(value, bool) and value in field.metadata.get("formerly", {}):
                word, line = field.metadata["formerly"][value], f"{_dotted(place, name)} is {value}"
                raise self.error(
                    (*place, name), f"{line}, as older versions had it; write `{name}: {word}`"
                )
            values[name] = self._convert((*place, name), hints[name], value)
        try:
            return settings(**values)
        except SettingError as error:
            message = str(error)
            name = message.split(" ", 1)[0]
            inner = name.split(".")
            if inner[0] in wanted:
                raise self.error((*place, *inner), f"{_dotted(place)}.{message}") from error
            raise self.error(place, f"{_dotted(place)}: {message}") from error

    def check_keys(self, place: Place, known: Iterable[str]) -> None:
        """Refuse keys at `place` other than `known`, naming the nearest of them."""
        names = list(known)
        for key in self._mapping(place):
            if key not in names:
                raise self.error(
                    (*place, str(key)),
                    f"{_dotted(place, str(key))} is unknown; {_nearest(str(key), names)}",
                )

    def require(self, group: str, name: str) -> None:
        """Refuse the name of a data set or model that the file does not have."""
        names = [str(key) for key in self._mapping((group,))]
        if name not in names:
            what = {"data": "data set", "models": "model"}.get(group, group)
            raise self.error(
                (group,), f"there is no {what} {name!r} under {group}; {_nearest(name, names)}"
            )

    def refuse(self, place: Place, value: Any, choices: Iterable[Any]) -> SettingError:
        """Return an error that says that `value` is none of `choices`, naming all of them."""
        return self.error(place, f"{_dotted(place)} is {value!r}; {_one_of(value, [*choices])}")

    def error(self, place: Place, message: str) -> SettingError:
        """Return an error that begins with the file and the line of `place`."""
        return SettingError(f"{self.path}:{self._line(place)}: {message}")

    def _mapping(self, place: Place) -> Mapping[str, Any]:
        value = self._get(place)
        if not isinstance(value, Mapping):
            raise self.error(
                place,
                f"{_dotted(place)} is {value!r}; it must be a block of `key: value` lines",
            )
        return value

    def _get(self, place: Place) -> Any:
        value: Any = self.tree
        for depth, key in enumerate(place):
            if not isinstance(value, Mapping) or key not in value:
                raise self.error(
                    place[:depth],
                    f"{_dotted(place[: depth + 1])} is missing; add `{key}:` with its value",
                )
            value = value[key]
        return value

    def _convert(self, place: Place, hint: Any, value: Any) -> Any:
        if is_dataclass(hint):
            return self.build(place, hint)  # type: ignore[arg-type]
        if get_origin(hint) is dict:
            return self._plain(place, self._mapping(place))
        if get_origin(hint) is tuple:
            return self._convert_tuple(place, get_args(hint), value)
        if get_origin(hint) is Literal:
            choices = get_args(hint)
            if value in choices and not isinstance(value, bool):
                return value
            raise self.refuse(place, value, choices)
        if hint is float and type(value) in (int, float) and math.isfinite(value):
            return float(value)
        if hint in (int, bool, str) and type(value) is hint:
            return value
        if isinstance(hint, UnionType) or hint not in _KINDS:
            raise TypeError(f"{_dotted(place)}: no rule reads {hint} from YAML")
        raise self.error(place, f"{_dotted(place)} is {value!r}; {_KINDS[hint]}")

    def _plain(self, place: Place, value: Any) -> Any:
        """Return plain data, as JSON has it."""
        if isinstance(value, Mapping):
            return {str(key): self._plain((*place, str(key)), v) for key, v in value.items()}
        if isinstance(value, list):
            return [self._plain((*place, str(i)), item) for i, item in enumerate(value)]
        if value is None or isinstance(value, str | bool | int | float):
            return value
        raise self.error(
            place, f"{_dotted(place)} is {value!r}; it must be text, a number, true, false or null"
        )

    def _convert_tuple(self, place: Place, kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise self.error(
                place, f"{_dotted(place)} is {value!r}; it must be a list such as [1, 2]"
            )
        if kinds[-1] is Ellipsis:
            kinds = (kinds[0],) * len(value)
        if len(kinds) != len(value):
            raise self.error(
                place, f"{_dotted(place)} is {value!r}; it must be a list of {len(kinds)} values"
            )
        return tuple(
            self._convert((*place, str(i)), kind, item)
            for i, (kind, item) in enumerate(zip(kinds, value, strict=True))
        )

    def _line(self, place: Place) -> int:
        node = YAML(typ="safe", pure=True).compose(self._text)
        line = 1
        for key in place:
            if not isinstance(node, MappingNode):
                break
            found = [(k, v) for k, v in node.value if k.value == key]
            if not found:
                break
            line = found[-1][0].start_mark.line + 1
            node = found[-1][1]
        return line


def read(path: Path = DEFAULT_PATH) -> Params:
    """Read a parameter file as YAML 1.2, the dialect in which DVC writes it.

    Raises:
        TinygrowError: there is no such file, or it is not YAML.
        SettingError: it is YAML, but no mapping.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise TinygrowError(
            f"{path} does not exist in {Path.cwd()}; run in the folder of the pipeline or name it"
            " with -C"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TinygrowError(f"{path} cannot be read ({error}); make it a text file") from error
    try:
        # PyYAML reads YAML 1.1, where DVC's 1e-05 is a string and `off` a boolean.
        tree = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise SettingError(_yaml_message(path, error)) from error
    if not isinstance(tree, Mapping):
        raise SettingError(
            f"{path}:1: the file holds {type(tree).__name__}; it must hold `data:` and `models:`"
        )
    return Params(tree, path, text)


_REALLY_NEAR = 0.8  # difflib's ratio

_KINDS: dict[Any, str] = {
    int: "it must be a whole number, such as 3",
    float: "it must be a number, such as 0.1 or 1e-5, without quotes",
    bool: "it must be true or false",
    str: "it must be text; put it in quotes",
}


def _dotted(place: Place, *more: str) -> str:
    return ".".join((*place, *more)) or "the file"


def _write(field: "Field[Any]") -> str:
    if field.default is not MISSING:
        value = field.default
        if isinstance(value, bool):
            return f"write `{field.name}: {str(value).lower()}`"
        if isinstance(value, tuple):
            return f"write `{field.name}: {list(value)}`"
        if value == "":
            return f'write `{field.name}: ""`'
        return f"write `{field.name}: {value}`"
    if field.default_factory is not MISSING:
        block = field.default_factory()
        keys = ", ".join(f.name for f in fields(block))
        return f"write a block `{field.name}:` with {keys}"
    return f"write `{field.name}:` and a value; it has no default"


def _nearest(wrong: Any, right: list[Any]) -> str:
    near = get_close_matches(str(wrong), [str(r) for r in right], n=1)
    if near:
        return f"did you mean {near[0]}?"
    return _one_of(wrong, right)


def _one_of(wrong: Any, right: list[Any]) -> str:
    if not right:
        return "there is none yet; add one"
    words = [str(r) for r in right]
    near = get_close_matches(str(wrong), words, n=1, cutoff=_REALLY_NEAR)
    question = f"; did you mean {near[0]}?" if near else ""
    return f"it must be one of {', '.join(words)}{question}"


def _yaml_message(path: Path, error: YAMLError) -> str:
    mark = error.problem_mark if isinstance(error, MarkedYAMLError) else None
    problem = getattr(error, "problem", None) or str(error).splitlines()[0]
    line = f":{mark.line + 1}" if mark else ""
    return f"{path}{line}: not YAML ({problem}); mend that line or restore the file"
