"""What a consumer wants of a topic, in the same words for both clients.

A text is tags: `*`, or `a || b`. A `Sql` is an expression over the messages' properties, which the broker evaluates;
messages without a property that it names are not delivered, as SQL's NULL has it.
Source: Apache MessageSelector and ExpressionType.
"""

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Sql:
    """A SQL92 expression over properties, such as `a > 5 AND b = 'x'`. The tag is the property TAGS.

    Whether it is one is the broker's to say, when the consumer starts. Raises ValueError for a blank one.
    """

    expression: str

    def __post_init__(self) -> None:
        """Refuse what no broker can read."""
        if not self.expression.strip():
            raise ValueError("the SQL expression is blank: write a condition, such as a > 5")

    def __str__(self) -> str:
        """The expression."""
        return self.expression


Filter: TypeAlias = str | Sql
"""Tags as a text, or SQL."""
