"""Names in a namespace. Expected values: Apache's NamespaceUtilTest, reference remoting.md §6."""

import pytest
from apogeemq.client_remoting.core.namespaces import check_namespace, with_namespace, without_namespace

NAMES = [("T", "ns%T"), ("%RETRY%G", "%RETRY%ns%G"), ("%DLQ%G", "%DLQ%ns%G"), ("nsT", "ns%nsT")]


@pytest.mark.parametrize(("name", "wrapped"), NAMES)
def test_names_are_wrapped_once_and_unwrapped(name: str, wrapped: str) -> None:
    """The prefixes of retry topics and DLQs stay in front."""
    assert with_namespace(name, "ns") == wrapped
    assert with_namespace(wrapped, "ns") == wrapped
    assert without_namespace(wrapped, "ns") == name
    assert without_namespace(name, "ns") == name


@pytest.mark.parametrize("name", ["rmq_sys_topic", "RMQ_SYS_TRACE_TOPIC", "TBW102", "CID_RMQ_SYS_TRANS"])
def test_system_names_are_in_every_namespace(name: str) -> None:
    """They are never wrapped."""
    assert with_namespace(name, "ns") == name


@pytest.mark.parametrize("name", [wrapped for _, wrapped in NAMES])
def test_names_of_other_namespaces_stay(name: str) -> None:
    """Also of one whose name begins alike, and where there is none."""
    assert without_namespace(name, "n") == name
    assert without_namespace(name, "") == name
    assert with_namespace(name, "") == name


@pytest.mark.parametrize("namespace", ["a%b", " ", "a b", "a|b", "ä"])
def test_what_is_no_namespace(namespace: str) -> None:
    """The error shows it."""
    with pytest.raises(ValueError, match="namespace is"):
        check_namespace(namespace)


def test_the_empty_namespace_is_none() -> None:
    """And ordinary ones are taken."""
    check_namespace("")
    check_namespace("MQ_INST-1")
