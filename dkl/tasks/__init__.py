"""What one training step computes. The loop knows only ``Task``; state that training changes lives here."""

from dkl.tasks.adversarial import AdversarialTraining
from dkl.tasks.awp import AWP
from dkl.tasks.base import Output, Progress, Task
from dkl.tasks.classification import Classification

__all__ = ["AWP", "AdversarialTraining", "Classification", "Output", "Progress", "Task"]
