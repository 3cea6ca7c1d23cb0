"""SQL92 filter expressions as text → a tree. What the tree means, and which trees mean nothing, is sql92.py's matter.

```
or          = and { OR and }
and         = equality { AND equality }
equality    = comparison { ("=" | "<>") comparison | IS [NOT] NULL }
comparison  = unary { (">" | ">=" | "<" | "<=") unary
                    | [NOT] BETWEEN unary AND unary
                    | [NOT] IN "(" text { "," text } ")"
                    | [NOT] (CONTAINS | STARTSWITH | ENDSWITH) text }
unary       = ("+" | "-" | NOT) unary | primary                          so NOT binds tighter than "="
primary     = text | number | TRUE | FALSE | NULL | property | "(" or ")"
text        = "'" … "'", with '' for '          number = 5, 5L, 5.5, 5., .5, 5E10
property    = letter, "_" or "$", then also digits          comments: -- to the end of the line, /* … */
```
Words are case-insensitive, properties are not. There is no LIKE, no arithmetic, and no "!=".
Source: Apache filter/parser/SelectorParser.jj (5.x). Unlike Apache's, this parser takes nothing behind the expression.
"""

import re
from collections.abc import Callable
from typing import Final

import msgspec

EXPRESSION_SIZE_MAX = 64 * 1024
"""Characters."""
TOKENS_MAX = 10_000
DEPTH_MAX = 64
"""Parentheses, signs and NOTs in each other."""


class Sql92Invalid(Exception):  # noqa: N818 — says what happened, as the broker's other errors do
    """The expression is none. `line` and `column` (both from 1) say where, `reason` says why."""

    def __init__(self, line: int, column: int, reason: str) -> None:
        super().__init__(f"invalid SQL92 expression at line {line}, column {column}: {reason}")
        self.line = line
        self.column = column
        self.reason = reason


# --------------------------------------------------------------------------------------------------------------------
# The tree
# --------------------------------------------------------------------------------------------------------------------


class Node(msgspec.Struct, frozen=True):
    """Any part of an expression; `at` is where it begins, in characters from 0."""

    at: int


class Property(Node, frozen=True):
    """The value of a message property: a text, or null."""

    name: str


class Text(Node, frozen=True):
    """A literal text."""

    value: str


class Number(Node, frozen=True):
    """A literal number: an int, or a float when it has a point or an exponent."""

    value: int | float


class Truth(Node, frozen=True):
    """TRUE, FALSE or NULL."""

    value: bool | None


class Negation(Node, frozen=True):
    """A minus before something."""

    operand: Node


class Not(Node, frozen=True):
    """NOT something."""

    operand: Node


class Logic(Node, frozen=True):
    """Two or more parts joined by AND, or by OR."""

    is_and: bool
    parts: tuple[Node, ...]


class Comparison(Node, frozen=True):
    """One of = <> > >= < <= between two parts."""

    operator: str
    left: Node
    right: Node


class IsNull(Node, frozen=True):
    """IS NULL, or IS NOT NULL."""

    operand: Node
    is_negated: bool


class Between(Node, frozen=True):
    """BETWEEN low AND high, or NOT so."""

    operand: Node
    low: Node
    high: Node
    is_negated: bool


class In(Node, frozen=True):
    """IN a list of texts, or NOT so."""

    operand: Node
    texts: tuple[str, ...]
    is_negated: bool


class Search(Node, frozen=True):
    """CONTAINS, STARTSWITH or ENDSWITH a text, or NOT so."""

    kind: str
    operand: Node
    text: str
    is_negated: bool


# --------------------------------------------------------------------------------------------------------------------
# Tokens
# --------------------------------------------------------------------------------------------------------------------

_TOKEN: Final = re.compile(
    r"""
      (?P<space>[ \t\n\r\f]+ | --[^\n\r]* | /\*.*?\*/)
    | (?P<float>[0-9]+\.[0-9]*(?:[eE][+-]?[0-9]+)? | \.[0-9]+(?:[eE][+-]?[0-9]+)? | [0-9]+[eE][+-]?[0-9]+)
    | (?P<integer>(?:0 | [1-9][0-9]*[lL]?)(?![0-9A-Za-z_$]))
    | (?P<word>[A-Za-z_$][A-Za-z0-9_$]*)
    | '(?P<text>(?:[^']|'')*)'
    | (?P<sign><> | <= | >= | [=<>(),+-])
    """,
    re.VERBOSE | re.DOTALL,
)
_WORDS: Final = frozenset(
    ["NOT", "AND", "OR", "BETWEEN", "IN", "TRUE", "FALSE", "NULL", "IS", "CONTAINS", "STARTSWITH", "ENDSWITH"]
)
_SEARCHES: Final = frozenset({"CONTAINS", "STARTSWITH", "ENDSWITH"})
_TRUTHS: Final[dict[str, bool | None]] = {"TRUE": True, "FALSE": False, "NULL": None}
_INT64_MAX: Final = (1 << 63) - 1


class _Token(msgspec.Struct, frozen=True):
    kind: str
    """word: a reserved one, in capitals; name; sign; text; integer; float; end."""
    value: str
    at: int

    def __str__(self) -> str:
        if self.kind == "end":
            return "the end"
        return "a text" if self.kind == "text" else f'"{self.value[:40]}"'


def _tokens(expression: str) -> list[_Token]:
    found: list[_Token] = []
    at = 0
    while at < len(expression):
        match = _TOKEN.match(expression, at)
        if match is None or match.lastgroup is None:
            reason = (
                "a text without its closing '" if expression[at] == "'" else f"{expression[at]!r} has no meaning here"
            )
            raise invalid(expression, at, reason)
        if match.lastgroup != "space":
            kind, value = match.lastgroup, match[match.lastgroup]
            if kind == "word":
                kind, value = ("word", value.upper()) if value.upper() in _WORDS else ("name", value)
            found.append(_Token(kind, value, at))
            if len(found) > TOKENS_MAX:
                raise invalid(expression, at, f"more than {TOKENS_MAX} words, signs and literals")
        at = match.end()
    found.append(_Token("end", "", at))
    return found


def invalid(expression: str, at: int, reason: str) -> Sql92Invalid:
    """The error for a place in an expression, in characters from 0."""
    before = expression[:at]
    return Sql92Invalid(before.count("\n") + 1, at - (before.rfind("\n") + 1) + 1, reason)


# --------------------------------------------------------------------------------------------------------------------
# The parser
# --------------------------------------------------------------------------------------------------------------------


def parse(expression: str) -> Node:
    """The tree of an expression. Errors: Sql92Invalid."""
    if len(expression) > EXPRESSION_SIZE_MAX:
        reason = f"{len(expression)} characters, more than {EXPRESSION_SIZE_MAX}"
        raise invalid(expression, EXPRESSION_SIZE_MAX, reason)
    parser = _Parser(expression)
    tree = parser.alternative()
    parser.expect_end()
    return tree


class _Parser:
    """One method for each rule above; each leaves `_next` at the first token that is not its own."""

    def __init__(self, expression: str) -> None:
        self._expression = expression
        self._tokens = _tokens(expression)
        self._next = 0
        self._depth = 0

    def alternative(self) -> Node:
        return self._joined("OR", self._conjunction)

    def expect_end(self) -> None:
        if self._peek().kind != "end":
            raise self._unexpected("the end, AND or OR")

    def _conjunction(self) -> Node:
        return self._joined("AND", self._equality)

    def _joined(self, word: str, part: Callable[[], Node]) -> Node:
        at = self._peek().at
        parts = [part()]
        while self._take(word):
            parts.append(part())
        return parts[0] if len(parts) == 1 else Logic(at, word == "AND", tuple(parts))

    def _equality(self) -> Node:
        at = self._peek().at
        left = self._comparison()
        while True:
            if operator := self._take("=", "<>"):
                left = Comparison(at, operator, left, self._comparison())
            elif self._take("IS"):
                is_negated = bool(self._take("NOT"))
                self._expect("NULL")
                left = IsNull(at, left, is_negated)
            else:
                return left

    def _comparison(self) -> Node:
        at = self._peek().at
        left = self._unary()
        while True:
            if operator := self._take(">=", ">", "<=", "<"):
                left = Comparison(at, operator, left, self._unary())
                continue
            is_negated = bool(self._take("NOT"))
            if self._take("BETWEEN"):
                low = self._unary()
                self._expect("AND")
                left = Between(at, left, low, self._unary(), is_negated)
            elif self._take("IN"):
                left = In(at, left, self._texts(), is_negated)
            elif kind := self._take(*_SEARCHES):
                left = Search(at, kind, left, self._text(), is_negated)
            elif is_negated:
                raise self._unexpected("BETWEEN, IN, CONTAINS, STARTSWITH or ENDSWITH")
            else:
                return left

    def _texts(self) -> tuple[str, ...]:
        self._expect("(")
        texts = [self._text()]
        while self._take(","):
            texts.append(self._text())
        self._expect(")")
        return tuple(texts)

    def _unary(self) -> Node:
        token = self._peek()
        sign = self._take("+", "-", "NOT")
        if sign is None:
            return self._primary()
        self._enter(token.at)
        operand = self._unary()
        self._depth -= 1
        if sign == "+":
            return operand
        return Negation(token.at, operand) if sign == "-" else Not(token.at, operand)

    def _primary(self) -> Node:
        token = self._peek()
        if self._take("("):
            self._enter(token.at)
            inner = self.alternative()
            self._expect(")")
            self._depth -= 1
            return inner
        match token.kind:
            case "text":
                return Text(token.at, self._text())
            case "integer":
                self._next += 1
                value = int(token.value.rstrip("lL"))
                if value > _INT64_MAX:
                    raise invalid(self._expression, token.at, f"{value} is above {_INT64_MAX}")
                return Number(token.at, value)
            case "float":
                self._next += 1
                number = float(token.value)
                if number == float("inf"):
                    raise invalid(self._expression, token.at, f"{token.value} is above what a double can hold")
                return Number(token.at, number)
            case "name":
                self._next += 1
                return Property(token.at, token.value)
            case "word" if token.value in _TRUTHS:
                self._next += 1
                return Truth(token.at, _TRUTHS[token.value])
        raise self._unexpected('a property, a literal, NOT or "("')

    def _text(self) -> str:
        token = self._peek()
        if token.kind != "text":
            raise self._unexpected("a text in single quotes")
        self._next += 1
        return token.value.replace("''", "'")

    # -- tokens --------------------------------------------------------------------------------------------------------

    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self, *values: str) -> str | None:
        """The next token's value if it is one of these words or signs; it is passed then."""
        token = self._tokens[self._next]
        if token.kind not in ("word", "sign") or token.value not in values:
            return None
        self._next += 1
        return token.value

    def _expect(self, value: str) -> None:
        if self._take(value) is None:
            raise self._unexpected(f'"{value}"')

    def _unexpected(self, expected: str) -> Sql92Invalid:
        token = self._peek()
        return invalid(self._expression, token.at, f"found {token}, expected {expected}")

    def _enter(self, at: int) -> None:
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise invalid(self._expression, at, f"nested deeper than {DEPTH_MAX}")
