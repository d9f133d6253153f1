"""Fine-tuning with few labels; of an untrained encoder, that is supervised learning from scratch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from statistics import mean

from jepalab.instruments.finetuning import LAYER_DECAY, RATES, TRIAL_STEPS, accuracy, finetune
from jepalab.instruments.label_efficiency import draw_labels
from jepalab.instruments.labelled import FrozenSamples, LabelledSubject

SHOTS, NUM_DRAWS = (5, 20, 100), 3


def finetuning_shots(
    subject: LabelledSubject,
    *,
    shots: Sequence[int] = SHOTS,
    num_steps: int = 200,
    num_trial_steps: int = TRIAL_STEPS,
    batch_size: int = 64,
    rates: Sequence[float] = RATES,
    layer_decay: float = LAYER_DECAY,
    num_validation: int = 1000,
    num_test: int = 2000,
    num_draws: int = NUM_DRAWS,
    seed: int = 0,
) -> dict[str, float]:
    """Accuracy on test after fine-tuning with k labels a class, `finetuned_shot_k`, and on validation (`_validation`).

    The mean over `num_draws` draws of labels, others for each seed of a run and the same for every arm: with few
    labels, which ones they are counts as much as the encoder. Seed 0 has the first draws of `label_efficiency`. As many
    steps for each k, so few labels are seen often. The rate is chosen for each draw on validation, which has more
    labels than training here: that favours every arm alike. A k that some class has not enough labels for is left out.
    """
    train = subject.train
    smallest = int(train.labels.unique(return_counts=True)[1].min())
    scores = {}
    for k in sorted({k for k in shots if k <= smallest}):
        found = []
        for draw in range(subject.seed * num_draws, (subject.seed + 1) * num_draws):
            rows = draw_labels(train.labels, k, draw)
            few = replace(subject, train=FrozenSamples(train.levels[rows], train.labels[rows], train.index[rows]))
            best = finetune(
                few,
                num_steps=num_steps,
                num_trial_steps=num_trial_steps,
                batch_size=batch_size,
                rates=rates,
                layer_decay=layer_decay,
                num_validation=num_validation,
                seed=seed + draw,
            )
            found.append((accuracy(best.classifier, few, "test", num_test), best.validation))
        scores[f"finetuned_shot_{k}"], scores[f"finetuned_shot_{k}_validation"] = map(mean, zip(*found, strict=True))
    return scores
