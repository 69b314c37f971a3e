"""What the values of a range and of a constraint mean as numbers."""

from __future__ import annotations

import math
import re

from controller.model.experiment import Choice, IntegerRange, NumberRange, ParameterValue, Range

_UNITS = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_SIZE = re.compile(r"([0-9]+)([kKmMgG]?)")


def value_of(each: Range, drawn: float) -> ParameterValue:
    """The parameter's value for a drawn number: a whole number, a fraction, or the index of a choice."""
    match each:
        case IntegerRange():
            return f"{int(drawn)}{each.unit}" if each.unit else int(drawn)
        case NumberRange():
            number = round(drawn, each.decimals)
            return f"{_digits(number, each.decimals)}{each.unit}" if each.unit else number
        case Choice():
            return each.values[int(drawn)]


def _digits(number: float, decimals: int) -> str:
    """The number as nginx reads it, without exponent or trailing zeros."""
    text = f"{number:.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def drawn_from(each: Range, value: ParameterValue) -> float:
    """The inverse of `value_of`: a ledger holds values. Raises ValueError for a value that is not of the range."""
    match each:
        case IntegerRange() | NumberRange():
            text = str(value).removesuffix(each.unit) if each.unit else str(value)
            return float(text)
        case Choice():
            for index, known in enumerate(each.values):
                if type(known) is type(value) and known == value:
                    return float(index)
    raise ValueError(f"{value!r} is not one of the choices")


def edges(each: Range) -> list[ParameterValue]:
    """The values that must be within the parameter's own bounds so that all are: both ends, or every choice."""
    match each:
        case IntegerRange() | NumberRange():
            return [value_of(each, each.low), value_of(each, each.high)]
        case Choice():
            return list(each.values)


def size_bytes(text: str) -> int:
    """`32k` is 32768. Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not a size")
    return int(match[1]) * _UNITS[match[2].lower()]


def amount(value: ParameterValue, *, cpus: int) -> float:
    """A parameter's value as a number. Raises ValueError when it is none.

    True is 1; `8 32k` is 262144; `auto` is the number of CPUs.
    """
    if isinstance(value, bool | int | float):
        return float(value)
    if isinstance(value, list):
        raise ValueError(f"a list is not an amount: {value}")
    if value == "auto":
        return float(cpus)
    return float(math.prod(size_bytes(word) for word in value.split() or ["?"]))
