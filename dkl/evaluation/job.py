"""One evaluation, ready to run: whom, how, and where its record and what is done so far are kept."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from torch import nn

from dkl.build import build_model, load_data
from dkl.data import Images
from dkl.errors import UserError
from dkl.evaluation.provenance import weights_sha256
from dkl.evaluation.subject import Protocol, Subject, foreign, own_run, protocol_of
from dkl.evaluation.suites import check_classes
from dkl.files import digest
from dkl.models import load_checkpoint


@dataclass(frozen=True)
class Job:
    """A model and test images on the CPU, who it is and how it is evaluated; ``layout`` says what its file was like."""

    subject: Subject
    protocol: Protocol
    model: nn.Module
    layout: str
    test: Images
    weights_sha256: str
    results: Path

    @property
    def key(self) -> str:
        """Hash of weights, images and protocol."""
        return digest([self.weights_sha256, self.test.sha256, dataclasses.asdict(self.protocol)])

    @property
    def id(self) -> str:
        """The record's name."""
        cfg = self.subject.cfg
        return f"{cfg.data.name}-{cfg.model.name}-{self.subject.title}-{self.key}"

    @property
    def record(self) -> Path:
        """Where the record is written."""
        return self.results / "records" / f"{self.id}.json"

    @property
    def state(self) -> Path:
        """The folder of what is done so far."""
        return self.results / "runs" / "evaluations" / self.key


def prepare(cfg: DictConfig) -> Job:
    """Load what ``cfg`` names. Raises UserError on any mistake that is found without attacking."""
    if bool(cfg.run) == bool(cfg.checkpoint):
        raise UserError("name what to evaluate: run=FOLDER, or checkpoint=FILE with model=… and data=…")
    subject = own_run(cfg) if cfg.run else foreign(cfg)
    protocol = protocol_of(cfg, subject)
    check_classes(protocol.attacks, subject.cfg.data.num_classes)
    model = build_model(subject.cfg)
    layout = load_checkpoint(model, subject.weights.path, subject.weights.key)
    model = model.float().eval()
    _, test = load_data(subject.cfg.data)
    if protocol.n is not None:
        test = test.balanced(protocol.n)
    return Job(subject, protocol, model, layout, test, weights_sha256(model.state_dict()), Path(cfg.paths.results))
