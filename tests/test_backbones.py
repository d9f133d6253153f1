"""The small networks: what they may see, what they refuse, and PixelPCA against scikit-learn."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from sklearn.decomposition import PCA
from torch import Tensor, nn

from jepalab.backbones.attention import Transformer
from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.decoder import PixelDecoder
from jepalab.backbones.denoiser import DenoisingDecoder
from jepalab.backbones.inverse import InverseHead
from jepalab.backbones.masked import MaskedPredictor
from jepalab.backbones.pca import PixelPCA
from jepalab.backbones.positions import Positions
from jepalab.backbones.predictor import SequencePredictor
from jepalab.backbones.vit import ViT
from jepalab.types import Encoder, Mask
from references64 import lively


@pytest.fixture(autouse=True)
def seeded_weights(generator: torch.Generator) -> None:
    torch.manual_seed(generator.initial_seed())


def fitted_pca(x: Tensor, dim: int) -> PixelPCA:
    pca = PixelPCA(x[0, 0].numel(), dim=dim)
    pca.fit(x)
    return pca


def frame_encoder(name: str) -> Encoder:
    return ConvEncoder(8, dim=5) if name == "conv" else fitted_pca(torch.rand(9, 4, 1, 8, 8), 5)


@pytest.mark.parametrize("name", ["conv", "pca"])
def test_frame_encoders_embed_each_frame_on_its_own(name: str) -> None:
    encoder, x = frame_encoder(name), torch.rand(3, 4, 1, 8, 8)
    z = encoder(x)
    assert z.shape == (3, 4, 5)
    changed = x.clone()
    changed[:, 2] += 1
    others = [0, 1, 3]
    assert torch.equal(encoder(changed)[:, others], z[:, others])
    assert not torch.equal(encoder(changed)[:, 2], z[:, 2])
    assert torch.equal(encoder(x, causal=True), z)
    torch.testing.assert_close(encoder(x[1:2, 3:]), z[1:2, 3:], rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["conv", "pca"])
def test_keep_picks_frames_in_its_order(name: str) -> None:
    encoder, x = frame_encoder(name), torch.rand(3, 4, 1, 8, 8)
    keep = torch.tensor([[3, 0], [1, 1], [2, 3]])
    wanted = torch.stack([z[rows] for z, rows in zip(encoder(x), keep, strict=True)])
    torch.testing.assert_close(encoder(x, keep), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["conv", "pca"])
def test_frame_encoders_answer_in_float32_under_autocast(name: str) -> None:
    encoder = frame_encoder(name)
    with torch.autocast("cpu", torch.bfloat16):
        assert encoder(torch.rand(3, 4, 1, 8, 8)).dtype == torch.float32


@pytest.mark.parametrize("shape", [(2, 3, 1, 8, 12), (2, 3, 2, 8, 8), (2, 3, 1, 12, 12)])
def test_conv_encoder_names_the_shape_it_wants(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"\[b t 1 8 8\]"):
        ConvEncoder(8, dim=4)(torch.zeros(shape))


@pytest.mark.parametrize(
    ("size", "channels", "widths"), [(4, 1, (2, 3, 4)), (12, 3, (2, 3, 4)), (65, 2, (2, 3, 4, 5)), (27, 1, (2, 2))]
)
def test_conv_encoder_takes_any_size_and_depth(size: int, channels: int, widths: tuple[int, ...]) -> None:
    encoder = ConvEncoder(size, channels=channels, dim=6, widths=widths)
    assert encoder(torch.rand(2, 3, channels, size, size)).shape == (2, 3, 6)


@pytest.mark.parametrize(("size", "cell"), [(65, 4), (64, 4), (13, 3)])
def test_cells_hold_their_pixels_and_the_first_layer_keeps_their_grid(size: int, cell: int) -> None:
    encoder = ConvEncoder(size, channels=2, dim=6, cell=cell, widths=(5, 4))
    grids: list[torch.Size] = []
    read: list[torch.Tensor] = []
    for layer in encoder.convolutions:
        layer.register_forward_hook(lambda _, inputs, output: grids.append(output.shape[1:]))
    encoder.convolutions[0].register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    x = torch.rand(2, 3, 2, size, size)
    before = encoder(x)
    side = -(-size // cell)
    missing = side * cell - size
    padded = torch.nn.functional.pad(x.flatten(0, 1), (0, missing, 0, missing))
    assert torch.equal(read[0], torch.nn.functional.pixel_unshuffle(padded, cell))  # weights are saved in this order
    assert grids == [(5, side, side), (4, -(-side // 2), -(-side // 2))]
    x[0, 1, 1, size - 1, size - 1] += 1
    assert (encoder(x) != before).any(-1).tolist() == [[False, True, False], [False] * 3]
    again = ConvEncoder(**encoder.arguments())
    again.load_state_dict(encoder.state_dict())
    assert torch.equal(again(x), encoder(x))


def test_conv_encoder_normalises_each_channel() -> None:
    arguments = {"channels": 2, "dim": 4, "mean": [0.25, 0.5], "std": [2.0, 4.0]}
    encoder, plain = ConvEncoder(8, **arguments), ConvEncoder(8, channels=2, dim=4)
    plain.load_state_dict(encoder.state_dict() | {"mean": torch.tensor(0.0), "std": torch.tensor(1.0)})
    x = torch.rand(2, 3, 2, 8, 8)
    wanted = (x - torch.tensor([0.25, 0.5]).reshape(2, 1, 1)) / torch.tensor([2.0, 4.0]).reshape(2, 1, 1)
    torch.testing.assert_close(encoder(x), plain(wanted))
    assert encoder.arguments().items() >= arguments.items()
    with pytest.raises(ValueError, match="one for each of 3 channels, got 2"):
        ConvEncoder(8, channels=3, mean=[0.0, 0.0])


def test_conv_encoder_normalises_inside() -> None:
    encoder, plain = ConvEncoder(8, dim=4, mean=0.25, std=2.0), ConvEncoder(8, dim=4)
    plain.load_state_dict(encoder.state_dict() | {"mean": torch.tensor(0.0), "std": torch.tensor(1.0)})
    x = torch.rand(2, 3, 1, 8, 8)
    assert torch.equal(encoder(x), plain((x - 0.25) / 2))
    assert not torch.equal(encoder(x), plain(x))


def test_conv_encoder_is_three_strided_convolutions_and_a_linear_map() -> None:
    """The same function with plain memory layout, one layer after the other."""
    encoder, x = ConvEncoder(12, dim=4, widths=(2, 3, 5)), torch.rand(2, 3, 1, 12, 12)
    h = x.flatten(0, 1)
    for name in ("convolutions.0", "convolutions.1", "convolutions.2"):
        layer = encoder.get_submodule(name)
        weight, bias = layer.get_parameter("weight").contiguous(), layer.get_parameter("bias")
        h = torch.nn.functional.conv2d(h, weight, bias, stride=2, padding=1).clamp_min(0)
    assert h.shape[1:] == (5, 2, 2)
    z = h.reshape(6, -1) @ encoder.project.weight.T + encoder.project.bias
    torch.testing.assert_close(encoder(x).flatten(0, 1), z, rtol=0, atol=1e-5)


@pytest.mark.parametrize("num_actions", [0, 2])
def test_predictor_never_looks_ahead(num_actions: int) -> None:
    predictor, z = SequencePredictor(4, num_actions=num_actions, width=8), torch.randn(3, 6, 4)
    action = torch.randn(3, 6, num_actions) if num_actions else None
    before = predictor(z, action)
    later_z = z.clone()
    later_z[:, 3] += 1
    after = predictor(later_z, action)
    assert torch.equal(after[:, :3], before[:, :3])
    assert (after[:, 3:] != before[:, 3:]).any(-1).all()
    if action is not None:
        later_action = action.clone()
        later_action[:, 4] += 1
        after = predictor(z, later_action)
        assert torch.equal(after[:, :4], before[:, :4])
        assert (after[:, 4:] != before[:, 4:]).any(-1).all()


@pytest.mark.parametrize("num_actions", [0, 2])
def test_rollout_feeds_each_prediction_back(num_actions: int) -> None:
    predictor = SequencePredictor(4, num_actions=num_actions, width=8)
    start, action = torch.randn(3, 4), torch.randn(3, 5, num_actions)
    path = start[:, None]
    for i in range(5):
        spoken = predictor(path, action[:, : i + 1] if num_actions else None)
        path = torch.cat([path, spoken[:, -1:]], 1)
    imagined = predictor.rollout(start[:, None], action[:, :0], action[:, None])[:, 0]
    torch.testing.assert_close(imagined, path[:, 1:], rtol=0, atol=1e-5)


def test_predictor_answers_the_present_plus_a_change() -> None:
    predictor, z = SequencePredictor(4, width=8), torch.randn(2, 3, 4)
    with torch.no_grad():
        for parameter in predictor.answer.parameters():
            parameter.zero_()
    assert torch.equal(predictor(z), z)
    imagined = predictor.rollout(z[:, :1], torch.zeros(2, 0, 0), torch.zeros(2, 1, 2, 0))
    assert torch.equal(imagined[:, 0], z[:, :1].expand(-1, 2, -1))


@pytest.mark.parametrize(("built", "given"), [(2, 0), (2, 3), (0, 2)])
def test_predictor_refuses_other_actions_than_it_was_built_for(built: int, given: int) -> None:
    predictor = SequencePredictor(4, num_actions=built, width=8)
    with pytest.raises(ValueError, match=f"{built} action values a step, got {given}"):
        predictor(torch.zeros(2, 3, 4), torch.zeros(2, 3, given) if given else None)


@pytest.mark.parametrize(("size", "channels"), [(8, 1), (12, 3)])
def test_decoder_draws_one_frame_for_each_embedding(size: int, channels: int) -> None:
    decoder, z = PixelDecoder(5, size=size, channels=channels, width=2), torch.randn(2, 3, 5)
    x = decoder(z)
    assert x.shape == (2, 3, channels, size, size)
    changed = z.clone()
    changed[1, 2] += 1
    same = (decoder(changed) == x).flatten(2).all(-1)
    assert same.tolist() == [[True] * 3, [True, True, False]]
    x[0, 0].sum().backward()
    assert all(p.grad is not None for p in decoder.parameters())


@pytest.mark.parametrize("size", [6, 27, 65])
def test_decoder_cuts_what_the_last_cells_draw_too_much(size: int) -> None:
    decoder, whole = PixelDecoder(5, size=size), PixelDecoder(5, size=-(-size // 4) * 4)
    whole.load_state_dict(decoder.state_dict())
    z = torch.randn(2, 3, 5)
    assert torch.equal(decoder(z), whole(z)[..., :size, :size])


@pytest.mark.parametrize("num_clips", [10, 3])
def test_pixel_pca_is_scikit_learn_s_up_to_sign(num_clips: int) -> None:
    """With more frames than pixels, and with fewer."""
    x = torch.randn(num_clips, 4, 1, 4, 4) @ torch.diag(torch.tensor([4.0, 2.0, 1.0, 0.5])) + 3
    pca, reference = fitted_pca(x, 5), PCA(5, svd_solver="full").fit(x.flatten(0, 1).flatten(1).double().numpy())
    new = torch.randn(6, 2, 1, 4, 4)
    wanted = torch.from_numpy(reference.transform(new.flatten(0, 1).flatten(1).double().numpy())).float()
    z = pca(new).flatten(0, 1)
    signs = (z * wanted).sum(0).sign()
    torch.testing.assert_close(z * signs, wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(pca.components.T @ pca.components, torch.eye(5), rtol=0, atol=1e-5)


def test_pixel_pca_says_what_it_cannot_do() -> None:
    with pytest.raises(ValueError, match="at most 16 components, got dim=17"):
        PixelPCA(16, dim=17)
    with pytest.raises(ValueError, match="more than 4 frames, got 4"):
        PixelPCA(16, dim=4).fit(torch.rand(2, 2, 1, 4, 4))


def test_inverse_head_reads_each_two_neighbours() -> None:
    head, z = InverseHead(4, num_actions=2, width=8), torch.randn(3, 5, 4)
    action = head(z)
    assert action.shape == (3, 4, 2)
    changed = z.clone()
    changed[:, 2] += 1
    touched = (head(changed) != action).flatten(2).any(-1)
    assert touched.tolist() == [[False, True, True, False]] * 3
    with torch.no_grad():
        assert not torch.equal(head(z.flip(1)).flip(1), action), "the order of the two must matter"


# ---------------------------------------------------------------- heads over a grid


GRID = (3, 4)
POSITIONS: tuple[Positions, ...] = get_args(Positions)


def small_predictor(positions: Positions = "sincos", *, num_mask_tokens: int = 1) -> MaskedPredictor:
    """Reads 6 numbers, answers in 5 and at the context's places in 4; every parameter far from its start."""
    shape = {"grid": GRID, "width": 24, "depth": 2, "num_heads": 2, "context_dim": 4}
    return lively(MaskedPredictor(6, 5, **shape, positions=positions, num_mask_tokens=num_mask_tokens))


def small_mask() -> Mask:
    """Of 12 places, in no order; in each sample a block of one target is filled up to two."""
    context = torch.tensor([[6, 0, 5], [1, 8, 2]])
    target = torch.tensor([[[4, 1], [9, 2]], [[0, 6], [10, 5]]])
    return Mask(context, target, torch.tensor([[[True, True], [True, False]]] * 2))


def test_one_mask_token_draws_the_weights_it_always_did() -> None:
    """In this order, so that a seed of an earlier run makes the same predictor."""
    torch.manual_seed(5)
    predictor = MaskedPredictor(6, 5, grid=GRID, width=24, depth=2, num_heads=2, context_dim=4)
    torch.manual_seed(5)
    embed, token = nn.Linear(6, 24), nn.init.trunc_normal_(torch.zeros(24), std=0.02)
    answers = [nn.Linear(24, 5), nn.Linear(24, 4)]
    for layer in (embed, *answers):
        nn.init.trunc_normal_(layer.weight, std=0.02)
    transformer = Transformer(24, depth=2, num_heads=2)
    assert torch.equal(predictor.embed.weight, embed.weight)
    assert torch.equal(predictor.mask_token, token)
    assert torch.equal(predictor.answer.weight, answers[0].weight)
    for name, weight in transformer.state_dict().items():
        assert torch.equal(predictor.transformer.state_dict()[name], weight), name


@pytest.mark.parametrize("positions", POSITIONS)
def test_which_chooses_among_mask_tokens(positions: Positions) -> None:
    several, mask, z = small_predictor(positions, num_mask_tokens=3), small_mask(), torch.randn(2, 3, 6)
    assert several.mask_token.shape == (3, 24)
    answers = []
    for which in range(3):
        one = small_predictor(positions)
        one.load_state_dict(several.state_dict() | {"mask_token": several.mask_token[which]})
        answers.append(several(z, mask, which))
        assert torch.equal(answers[-1], one(z, mask))
        for got, wanted in zip(several.with_context(z, mask, which), one.with_context(z, mask), strict=True):
            assert torch.equal(got, wanted)
    assert torch.equal(several(z, mask), answers[0])
    assert (answers[0] - answers[1]).abs().min() > 1e-6
    (gradient,) = torch.autograd.grad(answers[1].sum(), several.mask_token)
    assert gradient.abs().amax(1).gt(0).tolist() == [False, True, False]
    for which in (-1, 3):
        with pytest.raises(ValueError, match=f"one of 3 mask tokens, counted from 0, got {which}; build"):
            several(z, mask, which)
    with pytest.raises(ValueError, match="a mask token or more, got num_mask_tokens=0"):
        small_predictor(num_mask_tokens=0)


@pytest.mark.parametrize("positions", POSITIONS)
def test_predictor_s_blocks_are_as_if_each_were_alone_and_in_any_order(positions: Positions) -> None:
    predictor, mask, z = small_predictor(positions), small_mask(), torch.randn(2, 3, 6)
    there, here = predictor.with_context(z, mask)
    torch.testing.assert_close(predictor(z, mask), there, rtol=0, atol=1e-5)
    first = Mask(mask.context[:, [2, 0, 1]], mask.target[:, :1, [1, 0]])
    turned, around = predictor.with_context(z[:, [2, 0, 1]], first)
    torch.testing.assert_close(turned[:, 0, [1, 0]], there[:, 0], rtol=0, atol=1e-5)
    torch.testing.assert_close(around[:, 0, [1, 2, 0]], here[:, 0], rtol=0, atol=1e-5)
    second = Mask(mask.context, mask.target[:, 1:, :1])
    torch.testing.assert_close(predictor(z, second)[:, 0], there[:, 1, :1], rtol=0, atol=1e-5)


def test_predictor_with_rope_knows_where_tokens_lie_to_each_other_and_nothing_else() -> None:
    mask, z = Mask(torch.tensor([[0, 6, 1]]), torch.tensor([[[4, 2]]])), torch.randn(1, 3, 6)
    right_below = mask.map(lambda places: places + 5)
    elsewhere = Mask(mask.context, torch.tensor([[[5, 2]]]))
    moved = {}
    for positions in POSITIONS:
        predictor = small_predictor(positions)
        answer = predictor(z, mask)
        moved[positions] = (predictor(z, right_below) - answer).abs().max()
        assert (predictor(z, elsewhere) - answer)[0, 0, 0].abs().max() > 1e-2
        assert (answer[0, 0, 0] - answer[0, 0, 1]).abs().max() > 1e-2
    assert moved["rope"] < 1e-5
    assert min(moved["sincos"], moved["rope-tiled"]) > 1e-2


@pytest.mark.parametrize("positions", POSITIONS)
def test_bfloat16_leaves_the_sum_over_blocks_in_float32(positions: Positions) -> None:
    predictor, mask, z = small_predictor(positions), small_mask(), torch.randn(2, 3, 6)
    decoder = lively(DenoisingDecoder(6, 5, grid=GRID, width=24, num_heads=2, positions=positions))
    sums: list[Tensor] = []
    for head in (predictor, decoder):
        head.transformer.norm.register_forward_pre_hook(lambda module, given: sums.append(given[0]))
    exact = predictor(z, mask)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = predictor(z, mask)
        decoder(torch.randn(2, 12, 6), torch.rand(2))
    assert [tokens.dtype for tokens in sums] == [torch.float32] * 3
    assert (rounded - exact).norm() < 0.03 * exact.norm()


@pytest.mark.parametrize("positions", POSITIONS)
def test_denoiser_that_is_told_nothing_is_a_vit_over_embeddings(positions: Positions) -> None:
    decoder = lively(DenoisingDecoder(6, 5, grid=(7,), width=24, depth=2, num_heads=2, positions=positions))
    vit = ViT((7,), patch=(1,), channels=6, dim=24, depth=2, num_heads=2, positions=positions)
    vit.embed, vit.transformer = decoder.embed, decoder.transformer
    z, level = torch.randn(2, 7, 6), torch.rand(2)
    told = decoder(z, level)
    with torch.no_grad():
        for parameter in decoder.level.fc2.parameters():
            parameter.zero_()
    torch.testing.assert_close(decoder(z, level), decoder.answer(vit(z)), rtol=0, atol=1e-5)
    assert (told - decoder(z, level)).abs().max() > 1e-2
