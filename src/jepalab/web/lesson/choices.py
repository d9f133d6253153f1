"""What can be answered in the two exercises, and what each word means."""

from __future__ import annotations

LABELS = {  # verdicts of the audit; "mixed (...)" counts as mixed
    "generative": "the input, its tokens, a fixed transform of it, or noise is predicted; or a code is denoised",
    "JEPA-style": "an embedding of what was hidden is predicted",
    "invariance": "two views are asked to have one embedding",
    "contrastive": "the right partner among wrong ones",
    "distillation": "a frozen network is imitated",
    "supervised": "the target came with the data",
    "mixed": "several of these drive the encoder",
    "collapse-prone": "nothing speaks against the constant answer",
    "unsupported": "no prediction is compared with a target",
}
SPACES = {
    "input": "the input itself, perhaps scaled",
    "fixed-feature": "a hand-made transform of the input",
    "token": "an index: a word, or a frozen tokenizer's code",
    "noise": "noise that was drawn in the step",
    "velocity": "noise and input together",
    "frozen-embedding": "made by a network that does not learn",
    "ema-embedding": "made by a slow copy of the network",
    "own-embedding": "made by the network that is trained",
    "label": "a class or value that came with the data",
    "action": "what was done",
    "reward": "what it paid",
    "none": "no target that could be named",
}
INSTRUMENTS = {
    "loss curves": "how the loss and its meters run over the steps",
    "downstream benchmarks": "a score on a task that was not trained for",
    "planning success": "how often a plan arrives",
    "sample efficiency": "a score over the number of samples or labels",
    "interpretability": "what can be read from the embedding",
}
CATEGORIES = {
    "policy": "what should be allowed, paid for or required",
    "accountability": "who answers for it, and to whom",
    "philosophy": "what a word such as understanding means",
}
