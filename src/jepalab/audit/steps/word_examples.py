"""Rows 1, 2 and 25: a prediction against labels and words."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from jepalab.audit.steps.answers import SUPERVISED
from jepalab.audit.steps.batches import NUM_CLASSES, NUM_SAMPLES, pictures, sentences
from jepalab.audit.steps.case import Expect, Row, row
from jepalab.audit.steps.network_examples import DIM, GPT, NUM_WORDS, ConvNet, ViT, adamw

WORD = Expect(
    space="token",
    process="classify-token",
    target_learning="none",
    novelty="one",
    family="generative",
    label="GENERATIVE-TOKEN",
)


@row(number=1, name="classifier", verdict="supervised", terms=[SUPERVISED])
def classifier(generator: torch.Generator) -> Row:
    """Which class a picture shows, held against its label: supervised classification."""
    backbone, head = ConvNet(), nn.Linear(DIM, NUM_CLASSES)
    modules = {"backbone": backbone, "head": head}
    optimizer = torch.optim.SGD([*backbone.parameters(), *head.parameters()], lr=0.05, momentum=0.9)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.1)

    def train_step(batch: dict[str, Tensor]) -> Tensor:
        images, target = batch["x"], batch["label"]
        output = head(backbone(images))
        loss = criterion(output, target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    label = torch.randint(0, NUM_CLASSES, (NUM_SAMPLES,), generator=generator)
    return Row(train_step, {"x": pictures(generator), "label": label}, modules, backbone, optimizer)


@row(number=1, name="multi-label classifier", verdict="supervised", terms=[SUPERVISED])
def multi_label(generator: torch.Generator) -> Row:
    """Which of several labels fit a picture, each held against a yes or no: multi-label classification."""
    backbone, head = ViT(), nn.Linear(DIM, NUM_CLASSES)
    modules = {"backbone": backbone, "head": head}

    def step(x: Tensor, label: Tensor) -> Tensor:
        logits = head(backbone(x).mean(1))
        return F.binary_cross_entropy_with_logits(logits, label)

    label = torch.randint(0, 2, (NUM_SAMPLES, NUM_CLASSES), generator=generator).float()
    return Row(step, {"x": pictures(generator), "label": label}, modules, backbone, adamw(modules))


@row(
    number=1,
    name="regression of a label",
    verdict="supervised",
    terms=[Expect(space="label", process="regress", target_learning="none", family="supervised", label="SUPERVISED")],
)
def label_regression(generator: torch.Generator) -> Row:
    """A number for each sample, held against its label by squared error: supervised regression."""
    net = nn.Sequential(nn.Linear(7, 20), nn.ReLU(), nn.Dropout(0.1), nn.Linear(20, 1))
    optimizer = torch.optim.Adam(net.parameters())
    x, y = torch.randn(NUM_SAMPLES, 7, generator=generator), torch.randn(NUM_SAMPLES, generator=generator)

    def step(x: Tensor, label: Tensor) -> Tensor:
        y_hat = net(x).squeeze(-1)
        return ((y_hat - (label - label.mean()) / label.std()) ** 2).mean()

    return Row(step, {"x": x, "label": y}, {"net": net}, net, optimizer)


@row(number=2, name="gpt", verdict="generative", terms=[WORD])
def gpt(generator: torch.Generator) -> Row:
    """The next word from the words before it, held against the word that came: GPT."""
    model = GPT()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95))

    def step(x: Tensor) -> float:
        inputs, targets = x[:, :-1], x[:, 1:]
        logits = model(inputs)
        loss = F.cross_entropy(logits.reshape(-1, logits.size(-1)), targets.reshape(-1), ignore_index=-1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    return Row(step, {"x": sentences(generator)}, {"model": model}, model, optimizer)


@row(number=2, name="gpt, labels shifted inside the model", verdict="generative", terms=[WORD])
def gpt_shifted_inside(generator: torch.Generator) -> Row:
    """The next word from those before it, held against the word that came: GPT that shifts the labels itself."""
    model = GPT()

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        logits = model(batch["text"]).float()
        shift_logits = logits[..., :-1, :].contiguous()
        shift_labels = batch["text"][..., 1:].contiguous()
        loss = nn.CrossEntropyLoss()(shift_logits.view(-1, NUM_WORDS), shift_labels.view(-1))
        return {"loss": loss, "logits": logits}

    return Row(step, {"text": sentences(generator)}, {"model": model}, model, adamw({"model": model}))


@row(number=2, name="masked language model", verdict="generative", terms=[WORD])
def masked_lm(generator: torch.Generator) -> Row:
    """Hidden words from the words around them, held against the words themselves: masked language model."""
    model = GPT(causal=False)

    def step(text: Tensor) -> Tensor:
        masked = torch.rand(text.shape) < 0.4
        masked[:, 2] = True
        labels = text.clone()
        labels[~masked] = -100
        ids = text.masked_fill(masked, 0)
        return F.cross_entropy(model(ids).transpose(1, 2), labels)

    return Row(step, {"text": sentences(generator)}, {"model": model}, model, adamw({"model": model}))


@row(
    number=2,
    name="bert 80/10/10",
    verdict="generative",
    # One in ten chosen words is left in place, so novelty is about 0.9.
    terms=[Expect(space="token", process="classify-token", novelty="positive", label="GENERATIVE-TOKEN")],
)
def bert(generator: torch.Generator) -> Row:
    """Words hidden, replaced or left in place, held against the words that stood there: BERT."""
    model = GPT(causal=False)

    def mask_tokens(inputs: Tensor) -> tuple[Tensor, Tensor]:
        labels = inputs.clone()
        masked_indices = torch.bernoulli(torch.full(labels.shape, 0.4)).bool()
        labels[~masked_indices] = -100
        inputs = inputs.clone()
        indices_replaced = torch.bernoulli(torch.full(labels.shape, 0.8)).bool() & masked_indices
        inputs[indices_replaced] = 0
        indices_random = torch.bernoulli(torch.full(labels.shape, 0.5)).bool() & masked_indices & ~indices_replaced
        random_words = torch.randint(NUM_WORDS, labels.shape, dtype=torch.long)
        inputs[indices_random] = random_words[indices_random]
        return inputs, labels

    def step(x: Tensor) -> Tensor:
        inputs, labels = mask_tokens(x)
        return F.cross_entropy(model(inputs).view(-1, NUM_WORDS), labels.view(-1), ignore_index=-100)

    return Row(step, {"x": sentences(generator)}, {"model": model}, model, adamw({"model": model}))


@row(
    number=25,
    name="llm-jepa",
    verdict="mixed",
    mixture=("generative", "JEPA-style"),
    terms=[
        WORD,
        Expect(
            space="own-embedding",
            process="regress",
            target_learning="joint",
            stop_gradient=False,
            novelty="positive",
            family="JEPA-style",
            label="EMBEDDING-PREDICTION (self)",
        ),
    ],
)
def llm_jepa(generator: torch.Generator) -> Row:
    """The next word, held against the word that came, and a text's embedding against its code's: LLM-JEPA.

    Words of text followed by code; and the embedding of the text predicts that of the code, both with gradient.
    """
    model, length = GPT(max_length=17), 9
    optimizer = adamw({"model": model})

    def step(batch: dict[str, Tensor]) -> dict[str, Tensor]:
        text, code = batch["text"], batch["x"]
        input_ids = torch.cat([text, code], dim=1)
        labels = input_ids.clone()
        labels[:, :length] = -100
        logits = model(input_ids)
        first_loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
        predictor_token = torch.zeros(len(text), 1, dtype=torch.long)
        user_embedding = model.hidden(torch.cat([text, predictor_token], dim=1))[:, -1, :]
        assistant_embedding = model.hidden(code)[:, -1, :]
        cosine_similarity = F.cosine_similarity(user_embedding, assistant_embedding, dim=-1)
        second_loss = 1.0 - torch.mean(cosine_similarity)
        total_loss = 1.0 * first_loss + 1.0 * second_loss
        optimizer.zero_grad()
        total_loss.backward()
        optimizer.step()
        return {"loss": total_loss, "first_loss": first_loss, "second_loss": second_loss}

    inputs = {"text": sentences(generator), "x": sentences(generator, 8)}
    return Row(step, inputs, {"model": model}, model, optimizer)
