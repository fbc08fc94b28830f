"""The composition root: the only place where a configuration becomes objects.

At the border ``dkl.config.typed(cfg, TrainConfig)`` converts the composed ``DictConfig`` to dataclasses, so that mypy
checks every field. Nodes with a ``_target_`` (model, task, loss, attack, averaging, schedule, logger,
data.source) stay plain mappings and are instantiated here, never elsewhere.

``train`` runs ``preflight``, starts processes, assembles and fits. The functions named ``build_``, ``load_`` and
``make_`` give single pieces, for evaluation, estimates and tests.
"""

import dkl.full
from dkl.assembly.checks import preflight
from dkl.assembly.data import draw_labeled, load_data, load_synthetic, make_batches, overlap_warnings
from dkl.assembly.parts import build_averaging, build_logger, build_model, build_schedule, build_task
from dkl.assembly.training import assemble, on_launched, train
