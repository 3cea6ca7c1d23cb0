"""What SQL92 filter expressions mean: a tree → a function that says whether a message's properties match.

Values are Java's, since that is what users have tested their expressions against:
- A property is a text or null. Beside a number it is converted to that number's type (Integer up to 2^31 - 1, else
  Long; Double with a point or exponent), before TRUE or FALSE to a Boolean, beside a property by < and > to a Double.
  Behind TRUE, FALSE or a condition no text converts: `TRUE = a` never matches a message that has `a`.
- A text that does not convert ends the evaluation: the message does not match, whatever else the expression says. Parts
  are evaluated from left to right and no further than needed, so `a = 'x' OR b > 5` matches if only a does.
- Null makes comparisons null, and null does not match; but `x = null` is false where the left side is not null.
- A property in the place of a condition is never true; a minus before anything but a number is null.
- CONTAINS and the like are false for null, negated or not, and for an empty text.
Trees that compare what cannot be compared are refused before any message is looked at.
Source: Apache filter/expression/{ComparisonExpression,UnaryExpression,LogicExpression,ConstantExpression} (5.x). We
accept 0.0, which Apache refuses by mistake.
"""

import operator
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Final, TypeAlias

from apogeemq.broker.errors import SubscriptionParseFailed
from apogeemq.broker.filter.sql92_syntax import (
    Between,
    Comparison,
    In,
    IsNull,
    Logic,
    Negation,
    Node,
    Not,
    Number,
    Property,
    Search,
    Sql92Invalid,
    Text,
    Truth,
    invalid,
    parse,
)

Properties: TypeAlias = Mapping[str, str]
Predicate: TypeAlias = Callable[[Properties], bool]
Value: TypeAlias = str | int | float | bool | None

_CACHED_SIZE_MAX = 1024


def compile_sql92(expression: str) -> Predicate:
    """A function of a message's properties. The same expression gives the same function, as long as it is in use.

    Raises SubscriptionParseFailed, whose text has line, column and reason.
    """
    # Long ones are rare, and would make the cache large in bytes.
    return _cached(expression) if len(expression) <= _CACHED_SIZE_MAX else _compile(expression)


def _compile(expression: str) -> Predicate:
    try:
        condition = _Compiler(expression).condition(parse(expression))
    except Sql92Invalid as error:
        raise SubscriptionParseFailed(str(error)) from error

    def matches(properties: Properties) -> bool:
        try:
            return condition(properties) is True
        except _Inconvertible:
            return False

    return matches


_cached = lru_cache(maxsize=1024)(_compile)

# --------------------------------------------------------------------------------------------------------------------
# Java's conversions
# --------------------------------------------------------------------------------------------------------------------


class _Inconvertible(Exception):  # noqa: N818 — never leaves this module
    """A property's text is not the number that it is compared with."""


_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,19}", re.ASCII)
_DOUBLE: Final = re.compile(
    r"[\x00-\x20]*([+-]?(?:NaN|Infinity|(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?))[fFdD]?[\x00-\x20]*", re.ASCII
)
_INT32_MAX: Final = (1 << 31) - 1
_INT64_MAX: Final = (1 << 63) - 1


def _to_int32(text: str) -> int:
    return _to_integer(text, _INT32_MAX)


def _to_int64(text: str) -> int:
    return _to_integer(text, _INT64_MAX)


def _to_integer(text: str, value_max: int) -> int:
    if _INTEGER.fullmatch(text) is None:
        raise _Inconvertible
    value = int(text)
    if not -value_max - 1 <= value <= value_max:
        raise _Inconvertible
    return value


def _to_double(text: str) -> float:
    match = _DOUBLE.fullmatch(text)
    if match is None:
        raise _Inconvertible
    return float(match[1])


def _converter_to(number: float) -> Callable[[str], int | float]:
    """What Java makes of a text beside this literal."""
    if isinstance(number, float):
        return _to_double
    # Not down to -2^31: that is a minus before 2^31, which is a Long.
    return _to_int32 if -_INT32_MAX <= number <= _INT32_MAX else _to_int64


def _order(left: float, right: float) -> int:
    """Java's Double.compare where it differs from <: NaN is equal to itself and above all others."""
    if left != left or right != right:  # noqa: PLR0124 — only NaN differs from itself
        return (left != left) - (right != right)  # noqa: PLR0124
    return (left > right) - (left < right)


# --------------------------------------------------------------------------------------------------------------------
# Compiling
# --------------------------------------------------------------------------------------------------------------------

Evaluator: TypeAlias = Callable[[Properties], Value]
Condition: TypeAlias = Callable[[Properties], bool | None]

_RELATIONS: Final[dict[str, Callable[[int, int], bool]]] = {
    "=": operator.eq,
    ">": operator.gt,
    ">=": operator.ge,
    "<": operator.lt,
    "<=": operator.le,
}
_SEARCHES: Final[dict[str, Callable[[str, str], bool]]] = {
    "CONTAINS": operator.contains,
    "STARTSWITH": str.startswith,
    "ENDSWITH": str.endswith,
}


class _Compiler:
    """Turns nodes into functions; each node type has one place here, every other one is refused."""

    def __init__(self, expression: str) -> None:
        self._expression = expression

    def condition(self, node: Node) -> Condition:
        """A node in the place of a condition. Errors: Sql92Invalid."""
        match node:
            case Logic():
                return _logic(node.is_and, [self.condition(part) for part in node.parts])
            case Not():
                return _not(self.condition(node.operand))
            case Comparison(operator="<>"):
                return _not(self._equal(node))
            case Comparison(operator="="):
                return self._equal(node)
            case Comparison():
                return self._relation(node, node.operator, node.left, node.right)
            case Between():
                return self._between(node)
            case IsNull():
                return _is_null(self._evaluator(node.operand), is_negated=node.is_negated)
            case In():
                return self._in(node)
            case Search():
                return self._search(node)
            case Truth():
                truth = node.value
                return lambda _: truth
            case Property():
                name = node.name
                return lambda properties: None if properties.get(name) is None else False
        raise self._invalid(node, f"{_describe(node)} is no condition")

    def _evaluator(self, node: Node) -> Evaluator:
        """A node in the place of a value."""
        match node:
            case Property():
                name = node.name
                return lambda properties: properties.get(name)
            case Text() | Number():
                value = node.value
                return lambda _: value
            case Negation():
                number = self._number(node)
                return lambda _: number
        return self.condition(node)

    def _number(self, node: Node) -> int | float | None:
        """The number that a literal with its signs stands for; None for everything else."""
        if isinstance(node, Number):
            return node.value
        if isinstance(node, Negation):
            number = self._number(node.operand)
            return None if number is None else -number
        return None

    def _equal(self, node: Comparison) -> Condition:
        left, right = node.left, node.right
        for side in (left, right):
            if isinstance(side, Truth) and side.value is None:
                raise self._invalid(side, "NULL cannot be compared; say IS NULL")
        if isinstance(left, Truth) and isinstance(right, Text | Number):
            raise self._invalid(node, f"{_describe(left)} cannot be compared with {_describe(right)}")
        left_of, right_of = self._evaluator(left), self._evaluator(right)
        left_number, right_number = self._number(left), self._number(right)
        if right_number is not None and isinstance(left, Property):
            return _equals_number(left.name, right_number)

        def equal(properties: Properties) -> bool | None:
            left_value, right_value = left_of(properties), right_of(properties)
            if left_value is None:
                return True if right_value is None else None
            if right_value is None:
                return False
            return _same(left_value, right_value, left_number, right_number)

        return equal

    def _relation(self, node: Node, sign: str, left: Node, right: Node) -> Condition:
        for side in (left, right):
            if not isinstance(side, Property | Number | Negation):
                raise self._invalid(side, f"{_describe(side)} cannot be compared by {sign}")
        relation = _RELATIONS[sign]
        left_number, right_number = self._number(left), self._number(right)
        if isinstance(left, Property) and right_number is not None:
            return _relation_to_number(left.name, relation, right_number)
        left_of, right_of = self._evaluator(left), self._evaluator(right)

        def holds(properties: Properties) -> bool | None:
            left_value, right_value = left_of(properties), right_of(properties)
            if left_value is None or right_value is None:
                return None
            return relation(_order(*_as_numbers(left_value, right_value, left_number, right_number)), 0)

        return holds

    def _between(self, node: Between) -> Condition:
        for bound in (node.low, node.high):
            if isinstance(bound, Truth) and bound.value is None:
                raise self._invalid(bound, "a bound of BETWEEN cannot be NULL")
        match node:
            case Between(low=Number(value=low), high=Number(value=high), is_negated=False) if low > high:
                reason = f"the bounds of BETWEEN are the wrong way round: {low} is above {high}"
                raise self._invalid(node.low, reason)
        signs = ("<", ">") if node.is_negated else (">=", "<=")
        bounds = (node.low, node.high)
        return _logic(
            not node.is_negated,
            [self._relation(node, sign, node.operand, bound) for sign, bound in zip(signs, bounds, strict=True)],
        )

    def _in(self, node: In) -> Condition:
        if not isinstance(node.operand, Property):
            raise self._invalid(node, f"IN needs a property, not {_describe(node.operand)}")
        name, texts, is_negated = node.operand.name, frozenset(node.texts), node.is_negated

        def is_in(properties: Properties) -> bool | None:
            value = properties.get(name)
            return None if value is None else (value in texts) is not is_negated

        return is_in

    def _search(self, node: Search) -> Condition:
        value_of, text, is_negated = self._evaluator(node.operand), node.text, node.is_negated
        found = _SEARCHES[node.kind]

        def is_found(properties: Properties) -> bool:
            value = value_of(properties)
            return bool(text) and isinstance(value, str) and found(value, text) is not is_negated

        return is_found

    def _invalid(self, node: Node, reason: str) -> Sql92Invalid:
        return invalid(self._expression, node.at, reason)


def _describe(node: Node) -> str:
    match node:
        case Property():
            return f"the property {node.name[:40]}"
        case Text():
            return "a text"
        case Number():
            return f"the number {node.value}"
        case Truth():
            return "NULL" if node.value is None else str(node.value).upper()
        case Negation():
            return "a negative value"
    return "a condition"


def _logic(is_and: bool, parts: list[Condition]) -> Condition:
    decisive = not is_and

    def joined(properties: Properties) -> bool | None:
        result: bool | None = is_and
        for part in parts:
            value = part(properties)
            if value is decisive:
                return decisive
            if value is None:
                result = None
        return result

    return joined


def _not(operand: Condition) -> Condition:
    def negated(properties: Properties) -> bool | None:
        value = operand(properties)
        return None if value is None else not value

    return negated


def _is_null(value_of: Evaluator, *, is_negated: bool) -> Condition:
    return lambda properties: (value_of(properties) is None) is not is_negated


def _equals_number(name: str, number: float) -> Condition:
    """The usual case of =: a property and a literal."""
    convert = _converter_to(number)

    def equal(properties: Properties) -> bool | None:
        text = properties.get(name)
        return None if text is None else _order(convert(text), number) == 0

    return equal


def _relation_to_number(name: str, relation: Callable[[int, int], bool], number: float) -> Condition:
    """The usual case of < and >: a property and a literal."""
    convert = _converter_to(number)

    def holds(properties: Properties) -> bool | None:
        text = properties.get(name)
        return None if text is None else relation(_order(convert(text), number), 0)

    return holds


def _same(left: Value, right: Value, left_number: float | None, right_number: float | None) -> bool:
    """Java's equality of two values that are not null; the numbers are set where a side is a literal one."""
    if left_number is None and right_number is None:
        if isinstance(left, bool) and isinstance(right, str):
            raise _Inconvertible
        if isinstance(right, bool) and isinstance(left, str):
            return right is _to_boolean(left)
        return left == right
    if isinstance(left, bool) or isinstance(right, bool):
        return False
    return _order(*_as_numbers(left, right, left_number, right_number)) == 0


def _to_boolean(text: str) -> bool:
    return text.lower() == "true"


def _as_numbers(
    left: Value, right: Value, left_number: float | None, right_number: float | None
) -> tuple[int | float, int | float]:
    """Both sides as numbers: a text in the type of the literal beside it, two texts as Doubles."""
    if left_number is None:
        convert = _to_double if right_number is None else _converter_to(right_number)
        left_number = convert(str(left))
        return left_number, _to_double(str(right)) if right_number is None else right_number
    return left_number, _converter_to(left_number)(str(right)) if right_number is None else right_number
