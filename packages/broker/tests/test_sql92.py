"""SQL92 expressions: what matches which properties, and what is refused where."""

import pytest
from apogeemq.broker.errors import SubscriptionParseFailed
from apogeemq.broker.filter.sql92 import compile_sql92
from apogeemq.broker.filter.sql92_syntax import DEPTH_MAX, EXPRESSION_SIZE_MAX, TOKENS_MAX

PROPERTIES = {
    "TAGS": "TagA",
    "a": "3",
    "b": "2.5",
    "big": "3000000000",
    "text": "it's",
    "yes": "TRUE",
    "no": "nope",
    "nan": "NaN",
    "empty": "",
    "$x_1": "y",
}


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        # the example that was recorded, and others of Apache's documentation
        ("a BETWEEN 2 AND 4 AND TAGS IS NOT NULL", True),
        ("(TAGS is not null and TAGS in ('TagA', 'TagB')) and (a is not null and a between 0 and 3)", True),
        ("a > 5", False),
        ("a >= 3 AND a <= 3 AND a = 3 AND NOT (a <> 3)", True),
        # texts
        ("text = 'it''s'", True),
        ("'it''s' = text", True),
        ("text <> 'its'", True),
        ("$x_1 = 'y'", True),
        ("empty = ''", True),
        ("TAGS = 'taga'", False),
        ("TAGS IN ('TagB')", False),
        ("TAGS NOT IN ('TagB')", True),
        # numbers take their type from the literal: Integer, Long, Double
        ("a = 3L", True),
        ("a = 3.0", True),
        ("a < 3.5", True),
        ("b > 2", False),
        ("b > 2.", True),
        ("b = .25e1", True),
        ("big > 5", False),
        ("big > 5.0", True),
        ("big > 2999999999", True),
        ("big > -2147483648", True),
        ("big > -2147483647", False),
        ("big > 2999999999l", True),
        ("5 > a", True),
        ("-5 < a", True),
        ("a > -(-2)", True),
        ("a > +2", True),
        ("3 = a", True),
        ("3 = 3.0", True),
        ("1 < 2", True),
        ("a > b", True),
        ("nan > 5.0", True),
        ("nan = nan", True),
        # booleans
        ("yes = TRUE", True),
        ("TRUE = yes", False),
        ("TRUE <> no", False),
        ("FALSE <> missing", True),
        ("(a > 2) = 'true' OR a = 3", False),
        ("no = FALSE", True),
        ("(a > 2) = TRUE", True),
        ("5 = TRUE", False),
        ("TRUE", True),
        ("FALSE OR TRUE", True),
        ("a", False),
        ("NOT a", True),
        # null
        ("missing IS NULL", True),
        ("missing IS NOT NULL", False),
        ("a IS NULL", False),
        ("missing = 'x'", False),
        ("missing <> 'x'", False),
        ("NOT (missing = 'x')", False),
        ("'x' <> missing", True),
        ("missing = other", True),
        ("missing > 1 OR a = 3", True),
        ("missing > 1 AND a = 3", False),
        ("missing BETWEEN 1 AND 2 OR TRUE", True),
        ("missing NOT IN ('x')", False),
        ("(missing = 1) IS NULL", True),
        ("NULL", False),
        ("NULL IS NULL", True),
        ("-a IS NULL", True),
        ("a > -b", False),
        # between
        ("a NOT BETWEEN 4 AND 5", True),
        ("a BETWEEN -1 AND 4", True),
        ("a BETWEEN 4 AND -1", False),
        ("a BETWEEN b AND 3", True),
        ("a NOT BETWEEN 4 AND 2", True),
        # searches
        ("TAGS CONTAINS 'ag'", True),
        ("TAGS NOT CONTAINS 'ag'", False),
        ("TAGS startswith 'Tag'", True),
        ("TAGS NOT STARTSWITH 'Tag'", False),
        ("TAGS ENDSWITH 'A'", True),
        ("TAGS NOT ENDSWITH 'B'", True),
        ("TAGS CONTAINS ''", False),
        ("TAGS NOT CONTAINS ''", False),
        ("missing NOT CONTAINS 'x'", False),
        # what does not convert ends it, from left to right
        ("TAGS = 5", False),
        ("TAGS <> 5", False),
        ("TAGS > 5 OR a = 3", False),
        ("a = 3 OR TAGS > 5", True),
        ("a = 4 AND TAGS > 5", False),
        ("TAGS > a", False),
        # how tightly what binds
        ("a = 4 AND a = 4 OR a = 3", True),
        ("a = 3 OR a = 4 AND a = 4", True),
        ("NOT a = 3", False),
        ("NOT (a = 4) AND a = 3", True),
        ("a -- the third\n = /* of\n them */ 3", True),
        ("a = 3 -- end", True),
    ],
)
def test_which_messages_match(expression: str, expected: bool) -> None:
    """Each line by the rules of Apache's expressions, whose source the module names."""
    assert compile_sql92(expression)(PROPERTIES) is expected


@pytest.mark.parametrize(
    ("expression", "line", "column", "reason"),
    [
        ("a ==== 3", 1, 4, 'found "=", expected a property, a literal, NOT or "("'),
        ("", 1, 1, "found the end"),
        ("a >", 1, 4, "found the end"),
        ("a > 5 b", 1, 7, 'found "b", expected the end, AND or OR'),
        ("(a = 5", 1, 7, 'expected ")"'),
        ("a = 5)", 1, 6, 'found ")"'),
        ("a != 5", 1, 3, "'!' has no meaning here"),
        ("a\n  = 'x", 2, 5, "a text without its closing '"),
        ("a LIKE 'x%'", 1, 3, 'found "LIKE", expected the end'),
        ("a + 1 > 2", 1, 3, 'found "+"'),
        ("a IN (1)", 1, 7, "expected a text in single quotes"),
        ("a IN ()", 1, 7, "expected a text in single quotes"),
        ("'x' IN ('x')", 1, 1, "IN needs a property, not a text"),
        ("a NOT 5", 1, 7, "expected BETWEEN, IN, CONTAINS"),
        ("a IS 5", 1, 6, 'expected "NULL"'),
        ("a BETWEEN 1 OR 2", 1, 13, 'expected "AND"'),
        ("a BETWEEN 4 AND 2", 1, 11, "4 is above 2"),
        ("a BETWEEN NULL AND 2", 1, 11, "cannot be NULL"),
        ("a = NULL", 1, 5, "NULL cannot be compared; say IS NULL"),
        ("a > 'x'", 1, 5, "a text cannot be compared by >"),
        ("a > TRUE", 1, 5, "TRUE cannot be compared by >"),
        ("a > (b = 1)", 1, 6, "a condition cannot be compared by >"),
        ("TRUE = 5", 1, 1, "TRUE cannot be compared with the number 5"),
        ("5", 1, 1, "the number 5 is no condition"),
        ("a = 1 AND 'x'", 1, 11, "a text is no condition"),
        ("NOT 5", 1, 5, "the number 5 is no condition"),
        ("-a AND b = 1", 1, 1, "a negative value is no condition"),
        ("a = 9223372036854775808", 1, 5, "is above 9223372036854775807"),
        ("a = 1e999", 1, 5, "is above what a double can hold"),
        ("a = 05", 1, 5, "'0' has no meaning here"),
        ("a = 5x", 1, 5, "'5' has no meaning here"),
        ("a = 1 /* open", 1, 7, "'/' has no meaning here"),
    ],
)
def test_what_is_refused_where(expression: str, line: int, column: int, reason: str) -> None:
    """The error names line and column, from 1, and what was expected there."""
    with pytest.raises(SubscriptionParseFailed) as caught:
        compile_sql92(expression)
    assert f"at line {line}, column {column}: " in str(caught.value)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("a = '" + "x" * EXPRESSION_SIZE_MAX + "'", f"more than {EXPRESSION_SIZE_MAX}"),
        ("(" * (DEPTH_MAX + 1) + "TRUE" + ")" * (DEPTH_MAX + 1), f"nested deeper than {DEPTH_MAX}"),
        ("NOT " * (DEPTH_MAX + 1) + "TRUE", f"nested deeper than {DEPTH_MAX}"),
        ("- " * (DEPTH_MAX + 1) + "1 = 1", f"nested deeper than {DEPTH_MAX}"),
        ("+ " * (TOKENS_MAX + 1), f"more than {TOKENS_MAX}"),
    ],
)
def test_bounds(expression: str, reason: str) -> None:
    """Long, deep and crowded expressions are refused, and say which bound they passed."""
    with pytest.raises(SubscriptionParseFailed, match=reason):
        compile_sql92(expression)


def test_long_chains_are_no_depth() -> None:
    """Thousands of alternatives stand beside each other, not in each other."""
    matches = compile_sql92(" OR ".join(f"a = '{number}'" for number in range(2_000)))
    assert matches({"a": "1999"})
    assert not matches({"a": "2000"})


def test_hostile_text_takes_linear_time() -> None:
    """Quotes and comments that never close are read once: with a backtracking reader this would not end."""
    for hostile in ("'" * 60_001, "'a" * 30_000 + "'", "/*" * 30_000, "--" * 30_000, "(" * 60_000):
        with pytest.raises(SubscriptionParseFailed):
            compile_sql92("a = " + hostile)


def test_same_expression_is_compiled_once() -> None:
    """Pull after pull carries the same text."""
    assert compile_sql92("a = 'once'") is compile_sql92("a = 'once'")
