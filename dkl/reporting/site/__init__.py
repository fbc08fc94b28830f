"""Writes the results page: one self-contained ``index.html`` of boards, paper tables, figures and runs."""

from dkl.reporting.site.page import write_site

__all__ = ["write_site"]
