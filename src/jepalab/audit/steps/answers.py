"""What terms are expected of more than one family of steps."""

from __future__ import annotations

from jepalab.audit.steps.case import Expect

SUPERVISED = Expect(
    space="label", process="classify-token", target_learning="none", family="supervised", label="SUPERVISED"
)
STATISTIC = Expect(space="statistic", process="match-statistic", family="regulariser", label="STATISTIC")
REWARD = Expect(space="reward", family="supervised", label="REWARD")
ACTION = Expect(space="action", target_learning="none", family="supervised", label="ACTION")
CLEAN_PIXELS = Expect(
    space="input",
    process="denoise",
    target_learning="none",
    novelty="zero",
    family="generative",
    label="GENERATIVE-INPUT",
)
SELF = Expect(
    space="own-embedding",
    process="regress",
    target_learning="joint",
    stop_gradient=True,
    novelty="positive",
    family="JEPA-style",
    label="EMBEDDING-PREDICTION (self)",
)
