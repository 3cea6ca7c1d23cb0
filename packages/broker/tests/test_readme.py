"""The README's configuration is one that the broker reads."""

import re
from pathlib import Path

from apogeemq.broker.app import PROGRAM
from apogeemq.broker.config import FlushDiskType

README = Path(__file__).parent.parent / "README.md"


def test_the_configuration_loads(tmp_path: Path) -> None:
    """And says what the text around it says."""
    (block,) = re.findall(r"```toml\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    file = tmp_path / "broker.toml"
    file.write_text(block, encoding="utf-8")
    config = PROGRAM.load_config(file).value
    assert config.identity.broker_name == "broker-a"
    assert config.identity.namesrv_addr.endswith(":9877")
    assert config.store.flush_disk_type is FlushDiskType.SYNC_FLUSH
