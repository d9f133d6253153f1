"""Fine-tuning with few labels; of an untrained encoder, that is supervised learning from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from jepalab.instruments.finetuning import LAYER_DECAY, RATES, accuracy, finetune
from jepalab.instruments.label_efficiency import draw_labels
from jepalab.instruments.labelled import FrozenSamples, LabelledSubject

SHOTS = (5, 20, 100)


def finetuning_shots(
    subject: LabelledSubject,
    *,
    shots: Sequence[int] = SHOTS,
    num_steps: int = 200,
    batch_size: int = 64,
    rates: Sequence[float] = RATES,
    layer_decay: float = LAYER_DECAY,
    num_validation: int = 1000,
    num_test: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy on test after fine-tuning with k labels a class, `finetuned_shot_k`, and on validation (`_validation`).

    The labels are the first draw of `label_efficiency`. As many steps for each k, so few labels are seen often. The
    rate is chosen on validation, which has more labels than training here: that favours every arm alike. A k that some
    class has not enough labels for is left out.
    """
    train = subject.train
    smallest = int(train.labels.unique(return_counts=True)[1].min())
    scores = {}
    for k in sorted({k for k in shots if k <= smallest}):
        rows = draw_labels(train.labels, k, 0)
        few = replace(subject, train=FrozenSamples(train.levels[rows], train.labels[rows], train.index[rows]))
        best = finetune(
            few,
            num_steps=num_steps,
            batch_size=batch_size,
            rates=rates,
            layer_decay=layer_decay,
            num_validation=num_validation,
            seed=seed,
        )
        scores[f"finetuned_shot_{k}"] = accuracy(best.classifier, few, "test", num_test)
        scores[f"finetuned_shot_{k}_validation"] = best.validation
    return scores
