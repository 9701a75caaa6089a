"""The report: one page in Markdown and its pictures, from stored results."""

from benchmarks.cifar10.report.page import PAGE, write_committed, write_report

__all__ = ["PAGE", "write_committed", "write_report"]
