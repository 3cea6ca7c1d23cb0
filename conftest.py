"""Settings for all tests of the repository."""

import os

import hypothesis
import pytest

# No assertion on time: on a loaded machine an example may take any time. On a clean clone the examples are the same at
# every run, so that a red run can be repeated; elsewhere they are new each time, which finds more.
hypothesis.settings.register_profile("untimed", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("untimed")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Says which tests stay together in one process when several run (pytest -n N --dist loadgroup).

    The tests of a module share what it has started; the scenarios of tests/interop start it anew for each kind of
    deployment and each client version, so these can go apart.
    """
    for item in items:
        parameters = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        started_for = [str(parameters[name]) for name in ("deployment_kind", "java_version") if name in parameters]
        item.add_marker(pytest.mark.xdist_group("-".join([item.path.name, *started_for])))
