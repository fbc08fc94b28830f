"""The results page: one self-contained ``index.html`` of boards, the paper's tables, figures and every run."""

from dkl.reporting.site.write import write_site

__all__ = ["write_site"]
