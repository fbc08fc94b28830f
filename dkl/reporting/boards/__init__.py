"""Records to boards: accuracy tables, leaderboards and the tables of the paper."""
