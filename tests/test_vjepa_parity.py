"""V-JEPA 2 against transformers' `VJEPA2Model`, with random weights: encoder, kept tokens, predictor, folders."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import jepalab
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.vit import ViT, take_tokens
from jepalab.hub.encoders import save_encoder
from jepalab.hub.transformers import from_transformers, predictor_from_transformers, to_transformers
from jepalab.types import Mask
from references64 import lively

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every model is built here; nothing may be asked of the network
transformers = pytest.importorskip("transformers")
from transformers.models.vjepa2 import modeling_vjepa2  # noqa: E402

GRID, PATCH, DIM, NUM_TOKENS = (2, 4, 4), (2, 8, 8), 56, 32
MEAN, STD = (0.4, 0.5, 0.61), (0.2, 0.31, 0.25)


def config(**changes: object) -> transformers.VJEPA2Config:
    """Heads of 14 channels in the encoder, of which 12 turn, by two frequencies an axis; of 20 in the predictor, 18."""
    encoder = {"hidden_size": DIM, "num_attention_heads": 4, "num_hidden_layers": 2, "mlp_ratio": 2.5}
    clips = {"crop_size": 32, "patch_size": 8, "frames_per_clip": 4, "tubelet_size": 2}
    predictor = {"pred_hidden_size": 40, "pred_num_attention_heads": 2, "pred_num_hidden_layers": 2}
    return transformers.VJEPA2Config(**{**encoder, **clips, **predictor, "pred_num_mask_tokens": 3, **changes})


def theirs(**changes: object) -> transformers.VJEPA2Model:
    """Their model, no parameter near its start: mask tokens, for one, are zeros there."""
    return lively(transformers.VJEPA2Model(config(**changes)).eval(), scale=0.2)


def ours(**changes: object) -> ViT:
    arguments = {"channels": 3, "dim": DIM, "depth": 2, "num_heads": 4, "mean": MEAN, "std": STD}
    return lively(ViT(GRID, patch=PATCH, **{**arguments, "positions": "rope-tiled", **changes})).eval()  # pyrefly: ignore


def our_predictor(**changes: object) -> MaskedPredictor:
    arguments = {"grid": GRID, "width": 40, "depth": 2, "num_heads": 2, "positions": "rope-tiled"}
    return lively(MaskedPredictor(DIM, DIM, **{**arguments, **changes})).eval()  # pyrefly: ignore


def clips(generator: torch.Generator, num_clips: int = 3) -> Tensor:
    return torch.rand(num_clips, 4, 3, 32, 32, generator=generator)


def some_mask(generator: torch.Generator, num_clips: int = 3) -> Mask:
    """Two blocks of targets, in no order, and a context."""
    order = torch.stack([torch.randperm(NUM_TOKENS, generator=generator) for _ in range(num_clips)])
    return Mask(order[:, :11], torch.stack([order[:, 11:16], order[:, 16:21]], 1))


def predict(model: nn.Module, x: Tensor, mask: Mask) -> Tensor:
    """Block by block: for several at once, theirs repeats the context too often and fails."""
    answers = [
        model(pixel_values_videos=x, context_mask=[mask.context], target_mask=[target]).predictor_output
        for target in mask.target.unbind(1)
    ]
    return torch.stack([answer.last_hidden_state for answer in answers], 1)


@pytest.mark.parametrize("qkv_bias", [True, False])
@torch.no_grad()
def test_our_encoder_computes_what_theirs_does(qkv_bias: bool, tmp_path: Path, generator: torch.Generator) -> None:
    model, x = theirs(qkv_bias=qkv_bias), clips(generator)
    model.save_pretrained(tmp_path / "model")
    classifier = transformers.VJEPA2ForVideoClassification(config(qkv_bias=qkv_bias)).eval()
    classifier.vjepa2.load_state_dict(model.state_dict())
    classifier.save_pretrained(tmp_path / "classifier")
    wanted = model(pixel_values_videos=x, skip_predictor=True).last_hidden_state
    assert wanted.std() > 0.5
    for encoder in (
        from_transformers(model),
        from_transformers(classifier),
        from_transformers(tmp_path / "model"),
        jepalab.load(tmp_path / "model"),
        jepalab.load(tmp_path / "classifier"),
    ):
        assert isinstance(encoder, ViT)
        assert (encoder.grid, encoder.patch, encoder.position_kind) == (GRID, PATCH, "rope-tiled")
        assert not any(p.requires_grad for p in encoder.parameters())
        torch.testing.assert_close(encoder(x), wanted, rtol=0, atol=1e-5)
    save_encoder(encoder, tmp_path / "ours")
    assert torch.equal(jepalab.load(tmp_path / "ours")(x), encoder(x))


@torch.no_grad()
def test_every_kept_token_turns_by_its_own_place(generator: torch.Generator) -> None:
    """As in training: masked before the blocks. Their encoder cannot, but their layers take the places of tokens."""
    model, x, mask = theirs(), clips(generator), some_mask(generator)
    tokens = take_tokens(model.encoder.embeddings(x), mask.context)
    for layer in model.encoder.layer:
        tokens = layer(tokens, mask.context)[0]
    encoder, wanted = from_transformers(model), model.encoder.layernorm(tokens)
    torch.testing.assert_close(encoder(x, mask.context), wanted, rtol=0, atol=1e-5)
    assert (take_tokens(encoder(x), mask.context) - wanted).abs().max() > 0.1, "masked before is not masked after"


@torch.no_grad()
def test_rope_is_theirs_mended(monkeypatch: pytest.MonkeyPatch, generator: torch.Generator) -> None:
    """With each angle twice in a row, as V-JEPA 2.1 lays them out, their model is our "rope"."""

    def mended(x: Tensor, pos: Tensor) -> Tensor:
        f = x.shape[-1] // 2
        angles = (pos.unsqueeze(-1) / 10000 ** (torch.arange(f) / f)).repeat_interleave(2, -1)
        crossed = torch.stack([-x[..., 1::2], x[..., ::2]], -1).flatten(-2)
        return x * angles.cos() + crossed * angles.sin()

    model, x, mask = theirs(), clips(generator), some_mask(generator)
    tiled = from_transformers(model)
    encoder = ViT(**(tiled.arguments() | {"positions": "rope"})).eval()
    encoder.load_state_dict(tiled.state_dict() | {"positions": encoder.positions})
    assert (encoder(x) - tiled(x)).abs().max() > 0.1
    monkeypatch.setattr(modeling_vjepa2, "rotate_queries_or_keys", mended)
    wanted = model(pixel_values_videos=x, skip_predictor=True).last_hidden_state
    torch.testing.assert_close(encoder(x), wanted, rtol=0, atol=1e-5)

    tiled = predictor_from_transformers(model, mask_index=1)
    predictor = our_predictor(positions="rope")
    predictor.load_state_dict(tiled.state_dict() | {"positions": predictor.positions})
    answers = predictor(take_tokens(encoder(x), mask.context), mask)
    torch.testing.assert_close(answers, predict(model, x, mask), rtol=0, atol=1e-5)


@pytest.mark.parametrize("qkv_bias", [True, False])
@torch.no_grad()
def test_our_predictor_computes_what_theirs_does_with_mask_token_one(
    qkv_bias: bool, tmp_path: Path, generator: torch.Generator
) -> None:
    model, x, mask = theirs(qkv_bias=qkv_bias), clips(generator), some_mask(generator)
    model.save_pretrained(tmp_path)
    wanted, z = predict(model, x, mask), take_tokens(from_transformers(model)(x), mask.context)
    for source in (model, tmp_path):
        predictor = predictor_from_transformers(source, mask_index=1)
        assert not any(p.requires_grad for p in predictor.parameters())
        torch.testing.assert_close(predictor(z, mask), wanted, rtol=0, atol=1e-5)
    tokens = model.predictor.embeddings.mask_tokens.flatten(1)
    for index in range(3):
        predictor = predictor_from_transformers(model, mask_index=index)
        assert torch.equal(predictor.mask_token, tokens[index])
        assert index == 1 or (predictor(z, mask) - wanted).abs().max() > 0.1
    assert torch.equal(predictor_from_transformers(model).mask_token, tokens[0])


@pytest.mark.parametrize("num_mask_tokens", [1, 2])
@torch.no_grad()
def test_transformers_computes_what_ours_do(num_mask_tokens: int, tmp_path: Path, generator: torch.Generator) -> None:
    encoder, predictor = ours(mlp_ratio=1.7), our_predictor(num_mask_tokens=num_mask_tokens)
    to_transformers(encoder, tmp_path, predictor=predictor)
    model, told = transformers.VJEPA2Model.from_pretrained(tmp_path, output_loading_info=True)
    assert not told["missing_keys"] | told["unexpected_keys"] | told["mismatched_keys"]
    x, mask = clips(generator), some_mask(generator)
    normalised = (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(
        encoder(x), model.eval()(pixel_values_videos=normalised).last_hidden_state, rtol=0, atol=1e-5
    )
    answers = predictor(take_tokens(encoder(x), mask.context), mask, which=num_mask_tokens - 1)
    torch.testing.assert_close(answers, predict(model, normalised, mask), rtol=0, atol=1e-5)

    again = jepalab.load(tmp_path)
    assert again.arguments() == encoder.arguments()
    assert torch.equal(again(x), encoder(x))
    for index in range(num_mask_tokens):
        kept = predictor_from_transformers(tmp_path, mask_index=index)
        assert torch.equal(kept(encoder(x), mask_all(mask)), predictor(encoder(x), mask_all(mask), index))


def mask_all(mask: Mask) -> Mask:
    """The same targets from every token."""
    return Mask(torch.arange(NUM_TOKENS).expand(len(mask.target), -1), mask.target)


@torch.no_grad()
def test_an_encoder_goes_without_a_predictor(tmp_path: Path, generator: torch.Generator) -> None:
    encoder, x = ours(mean=0.0, std=1.0), clips(generator)
    to_transformers(encoder, tmp_path)
    model = transformers.VJEPA2Model.from_pretrained(tmp_path).eval()
    answer = model(pixel_values_videos=x, skip_predictor=True)
    torch.testing.assert_close(encoder(x), answer.last_hidden_state, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match=r"missing predictor\..*, unknown none"):
        predictor_from_transformers(tmp_path)


def test_processor_tells_the_size_and_the_numbers_to_normalise_by(tmp_path: Path) -> None:
    to_transformers(ours(), tmp_path)
    told = json.loads((tmp_path / "video_preprocessor_config.json").read_text())
    assert told["video_processor_type"] == "VJEPA2VideoProcessor"
    assert (told["size"], told["crop_size"]) == ({"shortest_edge": 36}, {"height": 32, "width": 32})
    assert (told["image_mean"], told["image_std"]) == (list(ours().mean), list(ours().std))
    encoder = from_transformers(tmp_path, std=2.0)
    assert torch.equal(encoder.mean, ours().mean)
    assert encoder.std.tolist() == [2.0] * 3
    (tmp_path / "video_preprocessor_config.json").write_text(json.dumps(told | {"do_normalize": False}))
    assert from_transformers(tmp_path).mean.tolist() == [0.0] * 3


def test_what_theirs_cannot_compute_is_refused(tmp_path: Path) -> None:
    for encoder, said in (
        (ours(positions="rope"), r"positions 'rope-tiled'; got an encoder on the grid .* and positions 'rope'\."),
        (ours(positions="sincos"), r"positions 'sincos'\."),
        (ViT((1, 2, 4), patch=PATCH, dim=12, num_heads=1, positions="rope-tiled"), r"grid \(1, 2, 4\)"),
        (ViT((1, 2, 2), patch=(2, 4, 8), dim=12, num_heads=1, positions="rope-tiled"), r"patch \(2, 4, 8\)"),
    ):
        with pytest.raises(ValueError, match=said):
            to_transformers(encoder, tmp_path)
    for predictor in (
        our_predictor(positions="rope"),
        our_predictor(context_dim=DIM),
        our_predictor(grid=(4, 4, 2)),
        MaskedPredictor(DIM, 5, grid=GRID, width=40, num_heads=2, positions="rope-tiled"),
        MaskedPredictor(5, DIM, grid=GRID, width=40, num_heads=2, positions="rope-tiled"),
    ):
        with pytest.raises(ValueError, match="V-JEPA 2's predictor has positions 'rope-tiled' on the encoder's grid"):
            to_transformers(ours(), tmp_path, predictor=predictor)
    still = ViT((2, 2), patch=(4, 4), channels=3, dim=24, depth=1, num_heads=2)
    with pytest.raises(ValueError, match="I-JEPA in transformers has no predictor"):
        to_transformers(still, tmp_path, predictor=our_predictor())
    assert not [*tmp_path.iterdir()]


def test_what_ours_cannot_compute_is_refused(tmp_path: Path) -> None:
    for changes in ({"hidden_act": "relu"}, {"layer_norm_eps": 1e-3}):
        with pytest.raises(ValueError, match="Wanted hidden_act gelu and layer_norm_eps"):
            from_transformers(theirs(**changes))
    with pytest.raises(ValueError, match=r"Wanted a predictor with pred_mlp_ratio 4, got 2\.0"):
        predictor_from_transformers(theirs(pred_mlp_ratio=2.0))
    for index in (-1, 3):
        with pytest.raises(ValueError, match=f"3 mask tokens, counted from 0; got mask_index={index}"):
            predictor_from_transformers(theirs(), mask_index=index)
    still = transformers.IJepaModel(transformers.IJepaConfig(hidden_size=12, num_hidden_layers=1))
    with pytest.raises(ValueError, match=r"Wanted a V-JEPA 2, got a model of type 'ijepa', which has no predictor"):
        predictor_from_transformers(still)
    theirs().save_pretrained(tmp_path)
    told = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(told | {"num_hidden_layers": 3, "pred_hidden_size": 60}))
    with pytest.raises(ValueError, match=r"missing encoder\.layer\.2.*, unknown none"):
        from_transformers(tmp_path)
    with pytest.raises(ValueError, match=r"not those of the model that config\.json describes: .*size mismatch"):
        predictor_from_transformers(tmp_path)
