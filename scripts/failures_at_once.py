"""A plugin for pytest: says why a test failed when it does, not at the end of a run that may be cut
off before.
"""

from typing import Any

import pytest


class _FailuresAtOnce:
    def __init__(self, reporter: Any) -> None:
        self.reporter = reporter

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.reporter.write_line(f"\n{report.nodeid}\n{report.longreprtext[-4000:]}")
            self.reporter.flush()


@pytest.hookimpl(trylast=True)  # behind the reporter's own
def pytest_configure(config: pytest.Config) -> None:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and not hasattr(config, "workerinput"):  # in the process that reports
        config.pluginmanager.register(_FailuresAtOnce(reporter))
