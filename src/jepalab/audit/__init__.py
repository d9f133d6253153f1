"""What does this loss compare? A microscope for anybody's PyTorch training step; it needs nothing but torch."""

from jepalab.audit.examine import audit
from jepalab.audit.report import Audit, Confirmation, Family, Finding, Process, Space, TargetLearning, Term

__all__ = ["Audit", "Confirmation", "Family", "Finding", "Process", "Space", "TargetLearning", "Term", "audit"]
