"""Java's whole numbers: ints with a range, for the fields of headers and bodies.

A number that a Java peer could not hold is refused by the name of its field.
"""

from typing import Annotated

import msgspec

Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
"""Java's int and Integer."""

Int64 = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
"""Java's long and Long."""
