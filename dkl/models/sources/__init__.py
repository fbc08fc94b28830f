"""Networks of other people, named in one line: ``package.module:function``, ``timm:NAME``, ``hf-hub:USER/MODEL``,
``local-dir:FOLDER``, ``robustbench:NAME``, ``official:NAME``, or a file that holds a network with its weights.

``resolve`` turns such a text into a ``Source``: the configuration of the network, and where its weights are.
"""

from dkl.models.sources.graphs import graph_source, is_graph
from dkl.models.sources.named import CREATE, foreign_network, known_images, resolve
from dkl.models.sources.source import Request, Source

__all__ = ["CREATE", "Request", "Source", "foreign_network", "graph_source", "is_graph", "known_images", "resolve"]
