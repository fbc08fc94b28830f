"""Boards: leaderboards, accuracy tables and the paper's tables, built from records."""
