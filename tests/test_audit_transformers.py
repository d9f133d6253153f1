"""The audit on steps through models of the transformers package, none of them written for it; tiny, random weights."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every model is built here; nothing may be asked of the network
transformers = pytest.importorskip("transformers")

from transformers.models.wav2vec2.modeling_wav2vec2 import (  # noqa: E402
    _compute_mask_indices,
    _sample_negative_indices,
)

from audit_cases import Case, audited, driving, move_towards, run  # noqa: E402
from jepalab.audit.report import Audit, Family, Process, Space, TargetLearning, Term  # noqa: E402

NUM_PATCHES = 16
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
PICTURE = {**SMALL, "image_size": 16, "patch_size": 4}
MASK_TOKEN, IGNORED = 1, -100


def pictures() -> Tensor:
    return torch.randn(4, 3, 16, 16)


def make_case(
    step: Callable[..., object], inputs: Mapping[str, Tensor], encoder: nn.Module, **modules: nn.Module
) -> Case:
    """A step whose trained networks are all the modules that are not frozen, with the optimizer such code uses."""
    trained = [p for module in modules.values() for p in module.parameters() if p.requires_grad]
    return Case(step, inputs, modules, torch.optim.AdamW(trained, lr=1e-3), encoder)


def gpt2() -> Case:
    config = transformers.GPT2Config(vocab_size=40, n_positions=16, n_embd=32, n_layer=2, n_head=2)
    model = transformers.GPT2LMHeadModel(config)

    def step(text: Tensor) -> Tensor:
        return model(input_ids=text, labels=text).loss

    return make_case(step, {"text": torch.randint(2, 40, (4, 12))}, model.transformer, model=model)


def bert() -> Case:
    model = transformers.BertForMaskedLM(transformers.BertConfig(vocab_size=40, max_position_embeddings=16, **SMALL))

    def step(text: Tensor) -> object:
        hidden = torch.rand(text.shape) < 0.3
        return model(
            input_ids=text.masked_fill(hidden, MASK_TOKEN),
            attention_mask=torch.ones_like(text),
            labels=text.masked_fill(~hidden, IGNORED),
        )

    return make_case(step, {"text": torch.randint(2, 40, (4, 12))}, model.bert, model=model)


def mae(*, norm_pix_loss: bool = False) -> Case:
    decoder = {f"decoder_{name}": value for name, value in SMALL.items()}
    model = transformers.ViTMAEForPreTraining(
        transformers.ViTMAEConfig(**PICTURE, **decoder, mask_ratio=0.75, norm_pix_loss=norm_pix_loss)
    )

    def step(x: Tensor) -> Tensor:
        return model(pixel_values=x).loss

    return make_case(step, {"x": pictures()}, model.vit, model=model)


class Tokenizer(nn.Module):
    """The index of the nearest of 24 codes for each patch, as a discrete VAE gives them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, kernel_size=4, stride=4)
        self.codebook = nn.Embedding(24, 8)

    @torch.no_grad()
    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(self.embed(x).flatten(2).mT, self.codebook.weight.expand(len(x), -1, -1)).argmin(-1)


def beit() -> Case:
    tokenizer = Tokenizer().requires_grad_(False).eval()
    model = transformers.BeitForMaskedImageModeling(
        transformers.BeitConfig(**PICTURE, vocab_size=24, use_mask_token=True, use_relative_position_bias=True)
    )

    def step(x: Tensor) -> Tensor:
        hidden = torch.rand(len(x), NUM_PATCHES) < 0.4
        return model(pixel_values=x, bool_masked_pos=hidden, labels=tokenizer(x)[hidden]).loss

    return make_case(step, {"x": pictures()}, model.beit, model=model, tokenizer=tokenizer)


def data2vec() -> Case:
    config = transformers.Data2VecVisionConfig(**PICTURE, use_mask_token=True, use_absolute_position_embeddings=True)
    student = transformers.Data2VecVisionModel(config)
    teacher = copy.deepcopy(student).requires_grad_(False).eval()
    head = nn.Linear(32, 32)

    def step(x: Tensor) -> Tensor:
        hidden = torch.rand(len(x), NUM_PATCHES) < 0.6
        with torch.no_grad():
            layers = teacher(pixel_values=x, output_hidden_states=True).hidden_states[-2:]
            target = torch.stack([F.layer_norm(layer.float(), layer.shape[-1:]) for layer in layers]).mean(0)[:, 1:]
        found = head(student(pixel_values=x, bool_masked_pos=hidden).last_hidden_state[:, 1:])
        return F.smooth_l1_loss(found[hidden], target[hidden], beta=2.0)

    case = make_case(step, {"x": pictures()}, student, student=student, teacher=teacher, head=head)
    case.after_step = lambda: move_towards(teacher, student, 0.05)
    return case


def ijepa() -> Case:
    student = transformers.IJepaModel(transformers.IJepaConfig(**PICTURE), use_mask_token=True)
    teacher = copy.deepcopy(student).requires_grad_(False).eval()
    layer = nn.TransformerEncoderLayer(32, 2, 64, dropout=0.0, batch_first=True, norm_first=True)
    predictor = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)

    def step(x: Tensor) -> dict[str, Tensor]:
        hidden = torch.rand(NUM_PATCHES).argsort() < 6
        with torch.no_grad():
            target = F.layer_norm(teacher(x).last_hidden_state, (32,))
        context = student(x, bool_masked_pos=hidden.expand(len(x), -1)).last_hidden_state
        return {"loss": F.mse_loss(predictor(context)[:, hidden], target[:, hidden])}

    case = make_case(step, {"x": pictures()}, student, student=student, teacher=teacher, predictor=predictor)
    case.after_step = lambda: move_towards(teacher, student, 0.01)
    return case


def wav2vec2() -> Case:
    convolutions = {"conv_dim": (16, 16), "conv_kernel": (8, 4), "conv_stride": (5, 4), "num_feat_extract_layers": 2}
    positions = {"num_conv_pos_embeddings": 4, "num_conv_pos_embedding_groups": 2}
    codes = {"num_codevectors_per_group": 8, "codevector_dim": 16, "proj_codevector_dim": 16, "num_negatives": 5}
    model = transformers.Wav2Vec2ForPreTraining(
        transformers.Wav2Vec2Config(**SMALL, **convolutions, **positions, **codes, layerdrop=0.0)
    )

    def step(x: Tensor) -> object:
        shape = (len(x), int(model._get_feat_extract_output_lengths(x.shape[1])))
        hidden = _compute_mask_indices(shape, mask_prob=0.4, mask_length=2)
        others = _sample_negative_indices(shape, model.config.num_negatives, mask_time_indices=hidden)
        return model(x, mask_time_indices=torch.tensor(hidden), sampled_negative_indices=torch.tensor(others))

    return make_case(step, {"x": torch.randn(4, 400)}, model.wav2vec2, model=model)


def dinov2() -> Case:
    backbone = transformers.Dinov2Model(transformers.Dinov2Config(**PICTURE)).requires_grad_(False).eval()
    head = nn.Linear(32, 10)

    def step(x: Tensor, label: Tensor) -> Tensor:
        with torch.no_grad():
            features = backbone(pixel_values=x).last_hidden_state[:, 0]
        return F.cross_entropy(head(features), label)

    inputs = {"x": pictures(), "label": torch.tensor([0, 3, 9, 3])}
    return make_case(step, inputs, head, backbone=backbone, head=head)


@cache
def audit_of(make: Callable[[], Case]) -> tuple[Audit, Term]:
    """The audit of a step, and its strongest term."""
    torch.manual_seed(0)
    result = audited(make())
    assert result.unexplained < 0.05
    return result, driving(result)[0]


@pytest.mark.parametrize("make", [gpt2, bert, mae, beit, data2vec, ijepa, wav2vec2, dinov2], ids=lambda f: f.__name__)
def test_step_trains_without_an_audit(make: Callable[[], Case]) -> None:
    torch.manual_seed(0)
    case = make()
    before = {name: copy.deepcopy(module.state_dict()) for name, module in case.modules.items()}
    run(case)
    moved = {
        name
        for name, module in case.modules.items()
        if any(not torch.equal(value, before[name][key]) for key, value in module.state_dict().items())
    }
    assert moved == case.modules.keys() - {"tokenizer", "backbone"}


@pytest.mark.parametrize("make", [gpt2, bert], ids=lambda f: f.__name__)
def test_language_models_compare_tokens(make: Callable[[], Case]) -> None:
    result, term = audit_of(make)
    assert result.verdict == "generative"
    assert len(driving(result)) == 1
    assert (term.family, term.space, term.process) == (Family.GENERATIVE, Space.TOKEN, Process.CLASSIFY_TOKEN)
    assert term.target_learning == TargetLearning.NONE
    assert term.target is not None
    assert (term.target.roots, term.target.discrete) == (("text",), True)
    assert term.novelty is not None
    assert term.novelty > 0.95
    assert "leak" not in {finding.kind for finding in result.findings}


def test_the_line_that_led_into_the_package_is_named() -> None:
    """The loss of GPT-2 is computed deep inside transformers; a reader needs the line of their own step."""
    _, term = audit_of(gpt2)
    assert "transformers" in Path(term.place.file).parts
    assert term.called_from is not None
    assert Path(term.called_from.file).name == Path(__file__).name
    assert "labels=text" in term.called_from.text


@pytest.mark.parametrize("norm_pix_loss", [False, True])
def test_masked_autoencoder_compares_pixels(norm_pix_loss: bool) -> None:
    result, term = audit_of(lambda: mae(norm_pix_loss=norm_pix_loss))
    assert result.verdict == "generative"
    assert (term.family, term.space, term.process) == (Family.GENERATIVE, Space.INPUT, Process.REGRESS)
    assert term.target is not None
    assert (term.target.roots, term.target.stage) == (("x",), "raw")
    assert term.novelty == pytest.approx(1, abs=0.02)


def test_beit_compares_codes_of_a_frozen_tokenizer() -> None:
    result, term = audit_of(beit)
    assert result.verdict == "generative"
    assert (term.family, term.space, term.process) == (Family.GENERATIVE, Space.TOKEN, Process.CLASSIFY_TOKEN)
    assert term.target_learning == TargetLearning.FROZEN
    assert term.target is not None
    assert (term.target.stage, term.target.discrete) == ("frozen", True)
    assert term.novelty is not None
    assert term.novelty > 0.9


@pytest.mark.parametrize(("make", "rate"), [(data2vec, 0.05), (ijepa, 0.01)], ids=["data2vec", "ijepa"])
def test_masked_student_of_a_slow_teacher_compares_embeddings(make: Callable[[], Case], rate: float) -> None:
    result, term = audit_of(make)
    assert result.verdict == "JEPA-style"
    assert (term.family, term.space, term.process) == (Family.JEPA, Space.EMA_EMBEDDING, Process.REGRESS)
    assert (term.target_learning, term.stop_gradient) == (TargetLearning.EMA, True)
    assert term.novelty is not None
    assert term.novelty > 0.2
    assert [average.order for average in result.averages] == ["after"]
    assert result.averages[0].momentum == pytest.approx(1 - rate, abs=1e-3)


def test_wav2vec2_contrasts_quantised_steps_in_time() -> None:
    result, term = audit_of(wav2vec2)
    assert result.verdict == "contrastive"
    assert (term.family, term.process) == (Family.CONTRASTIVE, Process.CONTRAST)
    assert term.space == Space.OWN_EMBEDDING
    assert term.target_learning == TargetLearning.JOINT


@pytest.mark.parametrize("encoder", ["head", "backbone"])
def test_head_on_frozen_features_is_supervised(encoder: str) -> None:
    torch.manual_seed(0)
    case = dinov2()
    case.encoder = case.modules[encoder]
    result = audited(case)
    assert result.verdict == "supervised"
    assert [(term.family, term.space) for term in result.terms] == [(Family.SUPERVISED, Space.LABEL)]
    assert result.parameters["online"] == 330
    assert ("no parameter of the encoder is trained" in result.encoder) == (encoder == "backbone")
