"""The paper's tables with our results beside the paper's values."""

from dkl.reporting.boards.paper.board import PaperBoard, PaperRow
from dkl.reporting.boards.paper.build import paper_boards, published_board

__all__ = ["PaperBoard", "PaperRow", "paper_boards", "published_board"]
