"""Turns records into tables (Markdown, CSV, LaTeX, HTML), RobustBench's model_info files, figures and a results page.

Nothing here needs torch.
"""

import dkl.full
from dkl.reporting.boards.leaderboards import Leaderboard, leaderboards
from dkl.reporting.robustbench import model_info, write_model_info
from dkl.reporting.tables import TablesReport, write_tables
