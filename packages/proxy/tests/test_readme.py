"""The README's configuration is one that the proxy reads."""

import re
from pathlib import Path

from apogeemq.proxy.app import PROGRAM

README = Path(__file__).parent.parent / "README.md"


def test_the_configuration_loads(tmp_path: Path) -> None:
    """And says what the text around it says."""
    (block,) = re.findall(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "proxy.toml"
    file.write_text(block, encoding="utf-8")
    config = PROGRAM.load_config(file).value
    assert config.identity.namesrvs == ["10.0.0.1:9877"]
    assert config.listeners.grpc.port == 8081
