"""Facts that others published: RobustBench's list of evaluations, and the networks of its models.

They are stored beside this module with their source and date. Nothing here was measured by this project, and nothing
needs torch.
"""

from dkl.published.robustbench import (
    PublishedEntry,
    PublishedNetwork,
    drive_url,
    find_network,
    published_entries,
    published_networks,
    published_source,
)

__all__ = [
    "PublishedEntry",
    "PublishedNetwork",
    "drive_url",
    "find_network",
    "published_entries",
    "published_networks",
    "published_source",
]
