"""``dkl verify``: ``recorded`` builds again what a record evaluated, and ``run`` attacks a random part of it again."""
