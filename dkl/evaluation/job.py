"""One evaluation, ready to run: whom, how, and where its record and what is done so far are kept."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from torch import Tensor, nn

from dkl.assembly import build_model, load_data
from dkl.config import model_name
from dkl.data import ImageSet
from dkl.errors import UserError
from dkl.evaluation.robustness.suites import check_classes
from dkl.evaluation.subject import Protocol, Subject, foreign, own_run, protocol_of
from dkl.evaluation.weights import weights_sha256
from dkl.files import digest
from dkl.models import load_checkpoint


@dataclass(frozen=True)
class EvaluationJob:
    """A model and test images on the CPU, who it is and how it is evaluated; ``layout`` says what its file was like.

    ``train_counts[C]`` are the data set's training images of every class.
    """

    subject: Subject
    protocol: Protocol
    model: nn.Module
    layout: str
    test: ImageSet
    train_counts: Tensor
    weights_sha256: str
    results: Path

    @property
    def key(self) -> str:
        """Hash of weights, the run they are of (settings without effect make the same ones), images and protocol."""
        protocol = dataclasses.asdict(self.protocol)
        return digest([self.weights_sha256, self.subject.config_hash, self.test.sha256, protocol])

    @property
    def id(self) -> str:
        """The record's name."""
        cfg = self.subject.cfg
        return f"{cfg.data.name}-{model_name(cfg.model)}-{self.subject.title}-{self.key}"

    @property
    def record(self) -> Path:
        """Where the record is written."""
        return self.results / "records" / f"{self.id}.json"

    @property
    def state(self) -> Path:
        """The folder of what is done so far."""
        return self.results / "runs" / "evaluations" / self.key


def prepare(cfg: DictConfig) -> EvaluationJob:
    """Load what ``cfg`` names. Raises UserError on any mistake that is found without attacking."""
    if bool(cfg.run) == bool(cfg.checkpoint):
        raise UserError("name what to evaluate: run=FOLDER, or checkpoint=FILE with model=… and data=…")
    subject = own_run(cfg) if cfg.run else foreign(cfg)
    protocol = protocol_of(cfg, subject)
    check_classes(protocol.attacks, subject.cfg.data.num_classes)
    model = build_model(subject.cfg.model)
    layout = load_checkpoint(model, subject.weights.path, subject.weights.key)
    model = model.float().eval()
    training, test = load_data(subject.cfg.data)
    counts = training.per_class(subject.cfg.data.num_classes)
    if protocol.n is not None:
        test = test.balanced(protocol.n)
    sha256 = weights_sha256(model.state_dict())
    return EvaluationJob(subject, protocol, model, layout, test, counts, sha256, Path(cfg.paths.results))
