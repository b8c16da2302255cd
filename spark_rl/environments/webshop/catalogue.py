"""Products, and the reader of the official files: a shop's scraped pages, their attributes, and people's requests.

Invariant: products equal those of the original in number, order, prices and options.

The large file is a JSON array of some gigabytes on one line: it is read piece by piece, never as a whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, cast

from spark_rl.errors import EnvironmentFailure, UsageError

__all__ = ["FILES", "SEPARATOR", "Asked", "Product", "named_files", "official", "read_array"]

SEPARATOR = "›"
"""Text between the nodes of `Product.categories`."""
FILES = {
    "small": ("items_shuffle_1000.json", "items_ins_v2_1000.json", "items_human_ins.json"),
    "full": ("items_shuffle.json", "items_ins_v2.json", "items_human_ins.json"),
}
"""Files of each size: products, attributes, human instructions."""

_CHUNK = 1 << 22
_USUAL_PRICE = 100.0
"""Price of products that have none."""

Record = dict[str, Any]
"""An object of an official file. Its form is not checked: a record of another form raises KeyError, TypeError, ..."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The request of a person who was shown a product."""

    instruction: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    """Values of options, without the names of the groups."""


@dataclass(frozen=True, slots=True)
class Product:
    """One page of the shop."""

    asin: str
    title: str
    description: str
    bullets: tuple[str, ...]
    """The features, a line each."""
    prices: tuple[float, ...]
    """One price, or the lowest and the highest of its variants."""
    options: tuple[tuple[str, tuple[str, ...]], ...]
    """Name and values of each group of options (colour, size), in the order of the page."""
    query: str
    """The search for which the page was scraped: the kind of product in a few words."""
    kind: str
    """The department (beauty, fashion ...)."""
    categories: str
    """Path in the shop's tree."""
    attributes: tuple[str, ...]
    """Hidden properties, by which rewards are computed; the page does not show them."""
    instruction: str | None
    """A synthetic request for the product, without options and price."""
    wanted: tuple[str, ...]
    """The attributes that `instruction` names."""
    asked: tuple[Asked, ...] = ()
    """Requests of people."""

    @property
    def tag(self) -> str:
        """The price as the shop writes it."""
        return " to ".join(f"${price}" for price in self.prices)

    @property
    def text(self) -> str:
        """The text that a search reads: title, description, first feature and options."""
        options = ", and ".join(f"{name}: {', '.join(values)}" for name, values in self.options)
        return f"{self.title} {self.description} {self.bullets[0] if self.bullets else ''} {options}".lower()

    def row(self) -> list[object]:
        """The fields as JSON values."""
        return [getattr(self, field.name) for field in fields(self)[:-1]] + [
            [[asked.instruction, asked.attributes, asked.options] for asked in self.asked]
        ]

    @classmethod
    def of(cls, row: Sequence[Any]) -> Product:
        """The inverse of `row`."""
        *frozen, asked = row
        return cls(*map(_frozen, frozen), asked=tuple(Asked(*_frozen(one)) for one in asked))


def _frozen(value: Any) -> Any:
    """A JSON value with tuples in place of lists."""
    return tuple(map(_frozen, cast("list[object]", value))) if isinstance(value, list) else value


def named_files(folder: Path, size: str) -> tuple[Path, Path, Path]:
    """The three files of a size.

    Raises:
        UsageError: one is missing; the message says which, and what to do.
    """
    products, attributes, human = (folder / name for name in FILES[size])
    for file in (products, attributes, human):
        if not file.is_file():
            raise UsageError(
                f"{file} is missing: --env.data (or $WEBSHOP_DATA) must name the folder of the {size} WebShop catalogue, "
                f"which `spark-rl env fetch webshop --size {size}` gets"
            )
    return products, attributes, human


def official(folder: Path, size: str) -> Iterator[Product]:
    """The products of a folder of official files, in their order.

    Raises:
        UsageError: a file is missing.
        EnvironmentFailure: a file is damaged; the message names it.
    """
    items, attributes_file, human_file = named_files(folder, size)
    attributes, human = _read_object(attributes_file), _read_object(human_file)
    seen = set[str]()
    try:
        for record in read_array(items):
            asin = record["asin"]
            if asin == "nan" or len(asin) > 10 or asin in seen:
                continue
            seen.add(asin)
            try:
                yield _product(record, attributes.get(asin, {}), human.get(asin, []))
            except (KeyError, TypeError, AttributeError, InvalidOperation) as error:
                raise EnvironmentFailure(
                    f"{items.name}, {attributes_file.name} or {human_file.name} in {folder} is damaged at product {asin} "
                    f"({type(error).__name__}: {error}); fetch the files again (`spark-rl env fetch webshop`)"
                ) from error
    except (KeyError, TypeError) as error:
        raise _damaged(items, f"a record has no asin ({error})") from error


def _product(record: Record, about: Record, human: list[Record]) -> Product:
    features = record["small_description"]
    bullets = cast("list[str]", features) if isinstance(features, list) else [features]
    return Product(
        asin=record["asin"],
        title=record["name"],
        description=record["full_description"],
        bullets=tuple(bullets),
        prices=_prices(record["pricing"]),
        options=_options(record["customization_options"]),
        query=record["query"].lower().strip(),
        kind=record["category"],
        categories=record["product_category"],
        attributes=tuple(about.get("attributes", ("DUMMY_ATTR",))),
        instruction=about.get("instruction"),
        wanted=tuple(about.get("instruction_attributes") or ()),
        asked=tuple(
            Asked(
                one["instruction"],
                tuple(one["instruction_attributes"]),
                tuple(one["instruction_options"]),
            )
            for one in human
        ),
    )


def _prices(text: str | None) -> tuple[float, ...]:
    """`$10.99` or `$10.99 - $15.50`, other characters aside."""
    prices = [float(Decimal(re.sub(r"[^\d.]", "", part))) for part in (text or "").split("$")[1:]]
    return tuple(prices[:2]) or (_USUAL_PRICE,)


def _options(groups: Mapping[str, list[Record] | None] | str) -> tuple[tuple[str, tuple[str, ...]], ...]:
    options: dict[str, tuple[str, ...]] = {}
    for name, values in cast("Mapping[str, list[Record] | None]", groups or {}).items():  # an empty text stands for none
        if values is not None:
            options[name.lower()] = tuple(value["value"].strip().replace("/", " | ").lower() for value in values)
    return tuple(options.items())


# -- JSON -----------------------------------------------------------------------------------------------------------


def read_array(file: Path) -> Iterator[Record]:
    """The objects of a file that is one JSON array, one after another.

    Raises:
        UsageError: the file cannot be read.
        EnvironmentFailure: the file is no JSON array of objects, or ends too soon.
    """
    decoder = json.JSONDecoder()
    try:
        with file.open(encoding="utf-8") as stream:
            text, at = stream.read(_CHUNK).lstrip("\ufeff \n\r\t"), 1
            if not text.startswith("["):
                raise _damaged(file, "it is no JSON array")
            while True:
                while text[at : at + 1] in (" ", "\n", "\r", "\t", ","):
                    at += 1
                if text[at : at + 1] == "]":
                    return
                try:
                    value, at = decoder.raw_decode(text, at)
                except ValueError as error:
                    more = stream.read(_CHUNK)
                    if not more:
                        raise _damaged(file, f"it ends in the middle of a record: {error.args[0]}") from error
                    text, at = text[at:] + more, 0
                    continue
                if not isinstance(value, dict):
                    raise _damaged(file, f"it holds {str(value)[:40]!r} where a product should be")
                yield cast(Record, value)
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}); make it readable") from error
    except UnicodeDecodeError as error:
        raise _damaged(file, str(error)) from error


def _read_object(file: Path) -> Record:
    try:
        value = json.loads(file.read_bytes())
    except OSError as error:
        raise UsageError(f"{file} cannot be read ({error.strerror}); make it readable") from error
    except ValueError as error:
        raise _damaged(file, str(error)) from error
    if not isinstance(value, dict):
        raise _damaged(file, "it is no JSON object")
    return cast(Record, value)


def _damaged(file: Path, reason: str) -> EnvironmentFailure:
    return EnvironmentFailure(
        f"{file} is damaged ({' '.join(reason.split())}); fetch it again (`spark-rl env fetch webshop`)"
    )
