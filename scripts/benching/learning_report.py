"""The learning table; its runs are not there yet."""

from __future__ import annotations

import argparse

from benching.tables import Report

__all__ = ["run"]


def run(report: Report, options: argparse.Namespace) -> None:
    report.unavailable("learning", "not written yet")
