"""Records in; leaderboards (Markdown, CSV, LaTeX, HTML) and RobustBench's model_info files out. Never needs torch."""

from dkl.reporting.leaderboard import Leaderboard, leaderboards
from dkl.reporting.robustbench import model_info, write_model_info
from dkl.reporting.tables import TablesReport, write_tables

__all__ = ["Leaderboard", "TablesReport", "leaderboards", "model_info", "write_model_info", "write_tables"]
