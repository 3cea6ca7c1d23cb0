"""Settings for all tests of the repository."""

import os

import hypothesis

# No assertion on time: on a loaded machine an example may take any time. On a clean clone the examples are the same at
# every run, so that a red run can be repeated; elsewhere they are new each time, which finds more.
hypothesis.settings.register_profile("untimed", deadline=None, derandomize="CI" in os.environ)
hypothesis.settings.load_profile("untimed")
