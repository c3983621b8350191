"""In CI every program that the tests use is there: a test that is skipped for want of one fails."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

ABSENT = ("not installed", "could not import", "no S3 server", "needs a C compiler")


def is_absent(reason: str) -> bool:
    """Return whether a test was skipped because a program or a package is not there."""
    return any(words in reason for words in ABSENT)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report: pytest.TestReport = yield
    if report.skipped and os.environ.get("CI") == "true" and is_absent(str(report.longrepr)):
        report.outcome = "failed"
        report.longrepr = f"CI must install what this test needs: {report.longrepr[-1]}"
    return report
