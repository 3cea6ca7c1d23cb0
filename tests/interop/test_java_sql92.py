"""SQL92 filters: we and Apache take the same expressions, and match the same messages by them."""

import random

import pytest
from apogeemq.broker.errors import SubscriptionParseFailed
from apogeemq.broker.filter.sql92 import compile_sql92

from tests.interop.java_codec import JavaCodec

pytestmark = pytest.mark.verify

EXPRESSIONS = 3_000
MESSAGES = 6
"""Messages that each expression is held against."""
DIFFERENCES_SHOWN_MAX = 20

NAMES = ("a", "b", "C", "_d", "$e1", "TAGS", "missing")
PROPERTY_TEXTS = (
    *("", "x", "X", "it's", "TagA", "ag", "0", "-0", "+5", "5", "05", "-1", " 5", "5 ", "5L", "5f", "null"),
    *("2147483647", "2147483648", "-2147483648", "-2147483649", "9223372036854775807", "9223372036854775808"),
    *("-9223372036854775808", "1.5", "-.5", "5.", "1e3", "1e400", "NaN", "-Infinity", "true", "TRUE", "False"),
)
TEXTS = ("x", "X", "it''s", "TagA", "ag", "", "5", "true", "主")
INTEGERS = ("0", "1", "5", "5L", "5l", "2147483647", "2147483648", "9223372036854775807")
DECIMALS = ("1.5", "5.", ".5", "5.0", "5E0", "1e3", "2147483647.5")
"""Without 0.0, which Apache refuses and we take."""


class Expressions:
    """Makes expressions over the whole grammar: most have a meaning, some compare what cannot be compared."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance

    def condition(self, depth: int) -> str:
        kind = self._chance.randrange(12 if depth else 9)
        match kind:
            case 0 | 1:
                return f"{self.value(depth)} {self._one('=', '<>')} {self.value(depth)}"
            case 2 | 3:
                return f"{self.number()} {self._one('>', '>=', '<', '<=')} {self.number()}"
            case 4:
                low, high = self.number(), self.number()
                return f"{self._name()} {self._one('', 'NOT ')}BETWEEN {low} {self._word('and')} {high}"
            case 5:
                texts = ", ".join(self._text() for _ in range(self._chance.randint(1, 3)))
                return f"{self._name()} {self._one('', 'NOT ')}{self._word('in')} ({texts})"
            case 6:
                word = self._word(self._one("contains", "startswith", "endswith"))
                return f"{self._name()} {self._one('', 'NOT ')}{word} {self._text()}"
            case 7:
                return f"{self.value(depth)} {self._word('is')} {self._one('', 'NOT ')}NULL"
            case 8:
                return self._one("TRUE", "false", self._name(), "NULL")
            case 9:
                return f"{self._word('not')} ({self.condition(depth - 1)})"
            case _:
                word = self._word(self._one("and", "or"))
                left, right = self.condition(depth - 1), self.condition(depth - 1)
                return f"{left} {word} {right}" if kind == 10 else f"({left}) {word} ({right})"

    def value(self, depth: int) -> str:
        if depth and self._chance.random() < 0.1:
            return f"({self.condition(depth - 1)})"
        return self._one(self._name(), self._name(), self._text(), self.number(), self._one("TRUE", "FALSE", "NULL"))

    def number(self) -> str:
        sign = self._one("", "", "", "-", "+")
        return self._one(self._name(), sign + self._one(*INTEGERS), sign + self._one(*DECIMALS))

    def _name(self) -> str:
        return self._one(*NAMES)

    def _text(self) -> str:
        return f"'{self._one(*TEXTS)}'"

    def _word(self, word: str) -> str:
        return self._one(word, word.upper())

    def _one(self, *choices: str) -> str:
        return self._chance.choice(choices)


def matched_by_us(expression: str, messages: list[dict[str, str]]) -> list[bool] | None:
    """None: refused."""
    try:
        matches = compile_sql92(expression)
    except SubscriptionParseFailed:
        return None
    return [matches(properties) for properties in messages]


def test_we_and_apache_match_the_same_messages(apache_codec: JavaCodec) -> None:
    """Generated expressions and properties: both refuse an expression, or it matches the same messages for both."""
    chance = random.Random(1)
    expressions = Expressions(chance)
    questions: list[tuple[str, list[dict[str, str]]]] = [
        (
            expressions.condition(depth=chance.randrange(4)),
            [
                {name: chance.choice(PROPERTY_TEXTS) for name in NAMES[:-1] if chance.random() < 0.8}
                for _ in range(MESSAGES)
            ],
        )
        for _ in range(EXPRESSIONS)
    ]
    answers = apache_codec.answers(
        {"do": "match", "expression": expression, "properties": messages} for expression, messages in questions
    )
    differences, taken = [], 0
    for (expression, messages), answer in zip(questions, answers, strict=True):
        ours = matched_by_us(expression, messages)
        taken += ours is not None
        if ours != answer.get("matched"):
            differences.append((expression, messages, f"ours: {ours}", f"Apache's: {answer}"))
    assert taken * MESSAGES >= 5_000
    shown = "\n".join(map(str, differences[:DIFFERENCES_SHOWN_MAX]))
    assert not differences, f"{len(differences)} of {EXPRESSIONS} expressions differ:\n{shown}"
