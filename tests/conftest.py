"""What holds for all tests: what outside judges found is shown at the end of a run."""

from __future__ import annotations

import os
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # for tests that load ONNX Runtime themselves


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print what tests have recorded (``record_property``), from all workers."""
    found = [
        (name, value)
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, value in report.user_properties
    ]
    if found:
        terminalreporter.section("what outside judges found")
        for name, value in sorted(found, key=lambda f: f[0]):
            terminalreporter.line(f"{name}: {value}")
