"""Command-line options of a frozen dataclass: every field is an option, and the docstring of the field is its help.

Invariants
----------
* `--a.b VALUE` sets field `b` of field `a`, and nothing else changes. The checks of the dataclass see all options at once,
  so `--tree.roots 6 --tree.budget 12` works in any order.
* Components are chosen first (`--branching chains`, or `package.module:Class`), then their fields are set.
* An option that cannot be read raises one `UsageError`, which names the option, its value and the expected type.

Names, values and help come from tyro. tyro reads types from annotations and cannot look behind a Protocol. `_narrow`
therefore gives tyro subclasses whose annotations are the classes of the actual values.
"""

from __future__ import annotations

import difflib
import io
import types
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    TypeGuard,
    TypeVar,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from spark_rl.config.components import COMPONENTS, component
from spark_rl.config.recipe import Recipe
from spark_rl.errors import UsageError

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["INLINE", "parse", "parse_recipe", "take"]

T = TypeVar("T")
Record = TypeVar("Record", bound="DataclassInstance")
Words = list[tuple[str, list[str]]]
"""Options of a command line: the name without dashes, and its values."""

INLINE = {"inline": True}
"""Metadata of a field whose own fields are options without its name as a prefix."""


@dataclass(frozen=True)
class _Setting:
    """One field of the value, or of a dataclass inside the value."""

    path: tuple[str, ...]
    """Attributes that lead to the field."""
    hint: object
    """Annotation of the field."""
    value: object

    @property
    def nested(self) -> bool:
        """Whether the field holds a dataclass, whose fields are the options."""
        return _is_record(self.value)

    @property
    def nameable(self) -> bool:
        """Whether the field takes a string in place of a dataclass (a model directory)."""
        return str in get_args(self.hint)


def parse_recipe(recipe: Recipe, argv: Sequence[str], prog: str) -> Recipe:
    """The recipe with the options of the command line set; see `parse`."""
    return parse(recipe, argv, prog)


def parse(default: T, argv: Sequence[str], prog: str) -> T:
    """A dataclass value with the options of the command line set.

    Args:
        default: the value whose fields hold where the command line has no option.
        argv: options with their values; `--help` prints all options, those of the chosen components included, and exits.
        prog: the command before the options, for messages.

    Raises:
        UsageError: an option is unknown, a value has the wrong type, or the result is not a valid combination.
        SystemExit: the command line has `--help`.
    """
    wants_help = any(word in ("-h", "--help") for word in argv)
    words = _split([word for word in argv if word not in ("-h", "--help")], prog)
    value, words = _choose(cast("DataclassInstance", default), words)
    settings = _settings(value)
    _refuse_unknown(words, settings, prog)
    words = [(name, _spelled(values, settings[name])) for name, values in words]
    if wants_help:
        _tyro(value, ["--help"], prog)
    if not words:
        return cast(T, value)
    try:
        # tyro prints its errors in boxes; the `UsageError` below says the same in one sentence.
        with redirect_stderr(io.StringIO()):
            return cast(T, _tyro(value, _flat(words), prog))
    except SystemExit:
        raise _diagnosis(value, words, settings, prog) from None


def take(argv: Sequence[str], option: str) -> tuple[str | None, list[str]]:
    """Take one option (`--from RUN`) out of a command line: returns its value, or None, and the remaining words.

    Raises:
        UsageError: the option has no value.
    """
    rest = list(argv)
    for index, word in enumerate(rest):
        if word.startswith(f"{option}="):
            return rest.pop(index).partition("=")[2], rest
        if word == option:
            if index + 1 == len(rest) or rest[index + 1].startswith("--"):
                raise UsageError(f"{option} needs a value")
            value = rest[index + 1]
            return value, rest[:index] + rest[index + 2 :]
    return None, rest


def _split(argv: Sequence[str], prog: str) -> Words:
    words: Words = []
    for word in argv:
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            words.append((name.replace("_", "-"), [value] if equals else []))
        elif words:
            words[-1][1].append(word)
        else:
            raise UsageError(f'unexpected argument "{word}"; `{prog} --help` shows what is expected')
    return [(name, values) for i, (name, values) in enumerate(words) if name not in {later for later, _ in words[i + 1 :]}]


def _flat(words: Words) -> list[str]:
    return [word for name, values in words for word in (f"--{name}", *values)]


def _is_union(hint: object) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _is_record(value: object) -> TypeGuard[DataclassInstance]:
    return is_dataclass(value) and not isinstance(value, type)


def _settings(value: DataclassInstance) -> dict[str, _Setting]:
    return dict(_walk(value, "", ()))


def _walk(value: DataclassInstance, prefix: str, path: tuple[str, ...]) -> Iterator[tuple[str, _Setting]]:
    hints = get_type_hints(type(value))
    for field in fields(value):
        if not field.init:
            continue
        inner, name, here = getattr(value, field.name), prefix + field.name.replace("_", "-"), (*path, field.name)
        inline = "inline" in field.metadata
        if not inline:
            yield name, _Setting(here, hints[field.name], inner)
        if _is_record(inner):
            yield from _walk(inner, prefix if inline else f"{name}.", here)
        elif isinstance(inner, tuple):  # parts go by number: --advantage.parts.1.gamma
            for number, part in enumerate(cast("tuple[object, ...]", inner)):
                if _is_record(part):
                    yield from _walk(part, f"{name}.{number}.", (*here, str(number)))


# -- components -----------------------------------------------------------------------------------------------------


def _choose(value: Record, words: Words) -> tuple[Record, Words]:
    """Put in the components that the command line names; returns the value and the remaining options."""
    left: Words = []
    for name, values in sorted(words, key=lambda word: word[0].count(".")):
        setting = _settings(value).get(name)
        if setting is None or not (name in COMPONENTS or setting.nested):
            left.append((name, values))
            continue
        if name not in COMPONENTS and not setting.nameable:
            first = fields(cast("DataclassInstance", setting.value))[0].name
            raise UsageError(f"--{name} is a group of options: set its fields, as in --{name}.{first}")
        if len(values) != 1:
            names = " or ".join(COMPONENTS[name]) if name in COMPONENTS else "a name or a directory"
            raise UsageError(f"--{name} takes one value: {names}")
        chosen = component(name, values[0]) if name in COMPONENTS else values[0]
        value = _put(value, setting.path, chosen)
    return value, left


def _put(value: Record, path: tuple[str, ...], new: object) -> Record:
    head, *rest = path
    inner = _put(getattr(value, head), tuple(rest), new) if rest else new
    return replace(value, **{head: inner})


def _choices(settings: dict[str, _Setting]) -> str:
    """The options that choose components, for the head of the help."""
    lines = [f"--{name} {'|'.join(names)}|package.module:Class" for name, names in COMPONENTS.items() if name in settings]
    lines += [
        f"--{name} DIRECTORY|NAME"
        for name, setting in settings.items()
        if setting.nested and setting.nameable and name not in COMPONENTS
    ]
    return "\n".join(["Components, chosen before their fields are set:", *lines]) if lines else ""


# -- tyro -----------------------------------------------------------------------------------------------------------


def _tyro(value: Record, args: list[str], prog: str) -> Record:
    import tyro

    narrowed = _narrow(value)
    about = f"{(type(value).__doc__ or '').strip()}\n\n{_choices(_settings(value))}"
    config = (tyro.conf.AvoidSubcommands, tyro.conf.FlagConversionOff, tyro.conf.HelptextFromCommentsOff)
    parsed = tyro.cli(type(narrowed), default=narrowed, args=args, prog=prog, description=about, config=config)
    return cast(Record, _restore(parsed, value))


def _narrow(value: Record) -> Record:
    """The same value in a subclass whose annotations are the classes of the nested values."""
    import tyro

    kind = type(value)
    hints = get_type_hints(kind)
    annotations: dict[str, object] = {}
    values: dict[str, object] = {}
    for field in fields(value):
        if not field.init:
            continue
        inner = values[field.name] = getattr(value, field.name)
        if _is_record(inner):
            values[field.name] = _narrow(inner)
            narrow = cast(Any, type(values[field.name]))
            annotations[field.name] = Annotated[narrow, tyro.conf.arg(name="")] if "inline" in field.metadata else narrow
        elif isinstance(inner, str) and _is_union(hints[field.name]):
            annotations[field.name] = str  # a model directory in place of a `ScratchModel`
    if not annotations:
        return value
    body = {"__annotations__": annotations, "__doc__": kind.__doc__, "__module__": kind.__module__}
    subclass: Any = type(kind.__name__, (kind,), body)
    return dataclass(frozen=cast(Any, kind).__dataclass_params__.frozen, kw_only=True)(subclass)(**values)


def _restore(value: object, like: object) -> object:
    """The values of a narrowed value, in the classes of the original value `like`."""
    if not _is_record(like):
        return value
    inner = {f.name: _restore(getattr(value, f.name), getattr(like, f.name)) for f in fields(like) if f.init}
    return type(like)(**inner)


# -- errors ---------------------------------------------------------------------------------------------------------


def _refuse_unknown(words: Words, settings: dict[str, _Setting], prog: str) -> None:
    for name, _ in words:
        if name in settings:
            continue
        near = difflib.get_close_matches(name, settings, n=1) or [
            option for option in settings if option.endswith(f".{name}")
        ]
        hint = f'; did you mean "--{near[0]}"?' if near else ""
        raise UsageError(f'unknown option "--{name}"{hint} (`{prog} --help` lists all)')


def _spelled(values: list[str], setting: _Setting) -> list[str]:
    """Values in the spelling of tyro: a switch alone means True, and True and False may be in any case."""
    if setting.hint is bool:
        return [value.capitalize() for value in values] or ["True"]
    return values


def _diagnosis(value: DataclassInstance, words: Words, settings: dict[str, _Setting], prog: str) -> UsageError:
    """The error for the first option that cannot be read.

    Each option is read alone. One that is valid only together with another raises `UsageError`, and is not at fault.
    """
    for name, values in words:
        try:
            with redirect_stderr(io.StringIO()):
                _tyro(value, _flat([(name, values)]), prog)
        except SystemExit:
            text = f'"{" ".join(values)}"' if values else "without a value"
            return UsageError(f"--{name} is {text}: it must be {_expected(settings[name].hint)}")
        except UsageError:
            continue
    return UsageError(f"{' '.join(_flat(words))} cannot be read; `{prog} --help` shows what is expected")


_NAMES: dict[object, str] = {
    int: "a whole number",
    float: "a number",
    bool: "True or False",
    str: "a text",
    type(None): "None",
}


def _expected(hint: object) -> str:
    """A type in words."""
    if hint in _NAMES:
        return _NAMES[hint]
    parts = get_args(hint)
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if _is_union(hint):
        return " or ".join(_expected(part) for part in parts)
    if get_origin(hint) is tuple and len(parts) == 2 and parts[1] is Ellipsis:
        return f"any number of values, each {_expected(parts[0])}"
    if get_origin(hint) is tuple:
        return f"{len(parts)} values: {', '.join(_expected(part) for part in parts)}"
    return f"a {getattr(hint, '__name__', str(hint)).lower()}"
