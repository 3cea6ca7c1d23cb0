"""This package's version, as its wheel has it."""

from importlib.metadata import version
from typing import Final

VERSION: Final = version("apogeemq-client-remoting")
