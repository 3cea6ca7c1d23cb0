"""The README shows what the command prints."""

import re
from pathlib import Path

from apogeemq.server.all_in_one import AllInOneConfig
from apogeemq.server.up import SERVICES
from apogeemq.server.welcome import welcome

README = Path(__file__).parent.parent / "README.md"


def test_the_shown_start_is_the_real_one() -> None:
    """First line and table, for the embedded defaults."""
    config = AllInOneConfig.load(
        data=Path("/srv/mq/data"),
        free_ports=False,
        files=dict.fromkeys(SERVICES),
        environ={},
        settings={service: {} for service in SERVICES},
    )
    listeners = {
        f"{service}.{name}": f"{listener.host}:{listener.port}"
        for service, section in (
            ("namesrv", config.namesrv.value.listeners),
            ("broker", config.broker.value.listeners),
            ("proxy", config.proxy.value.listeners),
        )
        for name in section.__struct_fields__
        if (listener := getattr(section, name)).enabled
    }
    text = welcome(listeners, Path(config.broker.value.store.path), "0.1.0")
    (shown,) = re.findall(r"^```\n(ApogeeMQ .*?)\n```$", README.read_text(), re.MULTILINE | re.DOTALL)
    assert text.startswith(shown + "\n\n")
