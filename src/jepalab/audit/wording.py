"""What a term compares, in plain words; text, page and docs say it in the same ones."""

from __future__ import annotations

from jepalab.audit.report import Family, Process, Space, TargetLearning, Term

VERSUS = " <-> "
UNKNOWN = "could not tell what it compares"
EMBEDDINGS = (Space.FROZEN_EMBEDDING, Space.EMA_EMBEDDING, Space.OWN_EMBEDDING)

# How the predicted side is called. A network's output is an embedding whoever makes the target.
NOUNS = {
    Space.INPUT: "input",
    Space.FIXED_FEATURE: "hand-made feature",
    Space.TOKEN: "token",
    Space.NOISE: "noise",
    Space.VELOCITY: "velocity",
    Space.FROZEN_EMBEDDING: "embedding",
    Space.EMA_EMBEDDING: "embedding",
    Space.OWN_EMBEDDING: "embedding",
    Space.LABEL: "label",
    Space.ACTION: "action",
    Space.REWARD: "reward",
}
CHOICES = (Space.TOKEN, Space.LABEL, Space.ACTION)  # predicting one of these by classification goes without saying
MAKERS = {
    Space.FROZEN_EMBEDDING: "made by a frozen network",
    Space.EMA_EMBEDDING: "made by a slow copy of the network (EMA)",
    Space.OWN_EMBEDDING: "made by the same network",
}
# What the target is where no embedding is compared; a network may still have made it (codes, pseudo-labels, returns).
TARGETS: dict[Space, dict[TargetLearning, str]] = {
    Space.INPUT: {
        TargetLearning.NONE: "the input itself",
        TargetLearning.FROZEN: "the input itself, both as a frozen network sees them",
    },
    Space.FIXED_FEATURE: {TargetLearning.NONE: "a hand-made feature of the input"},
    Space.TOKEN: {
        TargetLearning.NONE: "the input's own token",
        TargetLearning.FROZEN: "the code that a frozen tokenizer gives the input",
        TargetLearning.EMA: "the code that a slow copy of the network (EMA) gives the input",
        TargetLearning.JOINT: "a code that is learned along with it",
    },
    Space.LABEL: {
        TargetLearning.NONE: "the given label",
        TargetLearning.FROZEN: "the label that a frozen network gives",
        TargetLearning.EMA: "the label that a slow copy of the network (EMA) gives",
        TargetLearning.JOINT: "the label that it gives itself",
    },
    Space.ACTION: {TargetLearning.NONE: "the action that was taken"},
    Space.REWARD: {
        TargetLearning.NONE: "the reward that came",
        TargetLearning.FROZEN: "the reward and a frozen network's estimate of the rest",
        TargetLearning.EMA: "the reward and its slow copy's estimate of the rest",
        TargetLearning.JOINT: "the reward and its own estimate of the rest",
    },
}
NOISED = {
    Space.NOISE: ("the noise that was added to the input", "the noise that was added to a frozen network's embedding"),
    Space.VELOCITY: ("the way from noise to the input", "the way from noise to a frozen network's embedding"),
}


def compared_in_words(term: Term) -> str:
    """Both sides of a term as one plain phrase: "predicted input <-> the input itself"."""
    if term.space is None or term.family is Family.UNSUPPORTED:
        return UNKNOWN
    if term.space is Space.STATISTIC:
        # What holds no input is made of parameters alone.
        return f"{'statistic of the embedding' if term.prediction.roots else 'size of the weights'}{VERSUS}a fixed goal"
    predicted, target = _sides(term, term.space)
    if term.target is None:
        target = "a fixed goal"
    if term.process is Process.MATCH_STATISTIC:
        predicted, target = f"statistics of the {predicted}", f"those of {target}"
    if term.process is Process.CONTRAST:
        target += ", among wrong ones"
    return predicted + VERSUS + target


def _sides(term: Term, space: Space) -> tuple[str, str]:
    predicted = _predicted(term, space)
    if space in NOISED:
        of_input, of_latent = NOISED[space]
        return predicted, of_latent if term.prediction.entry == "frozen" else of_input
    if space not in EMBEDDINGS:
        targets = TARGETS[space]
        return predicted, targets.get(term.target_learning, targets[TargetLearning.NONE])
    maker = MAKERS[space]
    if space is Space.OWN_EMBEDDING:
        maker += ", held still by a stop-gradient" if term.stop_gradient else ", both sides learned"
    if term.family is Family.INVARIANCE:
        return f"{predicted} of one view", f"that of another view, {maker}"
    if term.process is Process.CONTRAST:
        return predicted, f"its partner's, {maker}"
    target = "that" if term.process is Process.CLASSIFY_TOKEN else "the embedding"
    return predicted, f"{target} {maker}"


def _predicted(term: Term, space: Space) -> str:
    noun = NOUNS[space]
    if term.process is Process.CLASSIFY_TOKEN and space not in CHOICES:
        # Only embeddings are without values of their own: a softmax over them says which code they are.
        noun = "distribution over codes" if space in EMBEDDINGS else f"distribution of the {noun}"
    if term.process is Process.DENOISE and space not in NOISED:
        return f"denoised {noun}"
    if space in EMBEDDINGS and (term.process is Process.CONTRAST or term.family is Family.INVARIANCE):
        return noun
    if space in EMBEDDINGS and term.family is Family.DISTILLATION:
        return f"student's {noun}"
    sees_it_all = term.novelty is not None and term.novelty < 0.005
    return (
        f"reconstructed {noun}" if sees_it_all and space in (Space.INPUT, Space.FIXED_FEATURE) else f"predicted {noun}"
    )
