"""An encoder that was saved computes what it did, here and in transformers; what is damaged is refused in words."""

from __future__ import annotations

import importlib
import inspect
import json
import os
import pkgutil
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

import jepalab
from jepalab import backbones
from jepalab.backbones.conv import ConvEncoder
from jepalab.backbones.pca import PixelPCA
from jepalab.backbones.positions import Positions
from jepalab.backbones.resnet import ResNet
from jepalab.backbones.vit import ViT
from jepalab.hub.encoders import KINDS, fresh_encoder, load_encoder, read_config, save_encoder
from jepalab.hub.runs import save_encoders
from jepalab.hub.transformers import from_transformers, to_transformers
from jepalab.objectives.masked_jepa import MaskedJEPA
from jepalab.types import Encoder

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # every model is built here; nothing may be asked of the network
transformers = pytest.importorskip("transformers")

MEAN, STD = (0.4, 0.5, 0.61), (0.2, 0.31, 0.25)


def picture_vit() -> ViT:
    return ViT((3, 4), patch=(4, 2), channels=3, dim=24, depth=2, num_heads=3, mlp_ratio=2.5, mean=MEAN, std=STD)


def fitted_pca() -> PixelPCA:
    pca = PixelPCA(48, dim=5)
    pca.fit(torch.rand(30, 1, 3, 4, 4, generator=torch.Generator().manual_seed(2)))
    return pca


MADE: dict[str, tuple[Callable[[], Encoder], tuple[int, ...]]] = {
    "pictures": (picture_vit, (1, 3, 12, 8)),
    "series": (lambda: ViT((6,), patch=(2,), dim=8, depth=1, num_heads=2), (12, 1)),
    "clips": (lambda: ViT((2, 3, 2), patch=(2, 1, 2), dim=12, depth=1, num_heads=2, mean=0.3), (4, 1, 3, 4)),
    "rope": (
        lambda: ViT((2, 3, 2), patch=(2, 1, 2), dim=24, depth=1, num_heads=2, positions="rope"),
        (4, 1, 3, 4),
    ),
    "rope-tiled": (
        lambda: ViT((3, 2), patch=(4, 2), channels=3, dim=24, depth=1, num_heads=2, positions="rope-tiled"),
        (1, 3, 12, 4),
    ),
    "resnet": (
        lambda: ResNet(16, channels=3, widths=(8, 16), num_blocks=(1, 2), mean=MEAN, std=STD),
        (1, 3, 16, 16),
    ),
    "conv": (lambda: ConvEncoder(8, channels=3, dim=6, widths=(4, 5, 6), mean=0.1, std=0.7), (2, 3, 8, 8)),
    "pca": (fitted_pca, (1, 3, 4, 4)),
}


def lively(encoder: Encoder) -> Encoder:
    """Every number far from its start, so that nothing can hide behind zeros, ones or small weights."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=0.3)
    return encoder.eval()


@contextmanager
def files_of_at_most(num_bytes: int) -> Iterator[None]:
    """As on a full disk, a write beyond is an OSError."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


# ---------------------------------------------------------------- one encoder in a folder


@pytest.mark.parametrize("kind", MADE)
def test_loaded_encoder_computes_bit_for_bit_what_the_saved_one_did(
    kind: str, tmp_path: Path, generator: torch.Generator
) -> None:
    make, shape = MADE[kind]
    encoder = lively(make()).train()
    save_encoder(encoder, tmp_path / "encoder", recipe="mine", classes=["cat", "dog"])
    drawn = torch.get_rng_state()
    loaded = load_encoder(tmp_path / "encoder")
    assert torch.equal(torch.get_rng_state(), drawn)
    assert type(loaded) is type(encoder)
    assert loaded.state_dict().keys() == encoder.state_dict().keys()
    x = torch.rand(3, *shape, generator=generator)
    assert torch.equal(loaded(x), encoder.eval()(x))
    assert not any(module.training for module in loaded.modules())
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert loaded.arguments() == encoder.arguments()
    assert sorted(path.name for path in (tmp_path / "encoder").iterdir()) == ["config.json", "model.safetensors"]
    assert read_config(tmp_path / "encoder")["facts"] == {"recipe": "mine", "classes": ["cat", "dog"]}


def test_encoders_from_before_positions_had_a_name_are_loaded(tmp_path: Path, generator: torch.Generator) -> None:
    encoder = lively(picture_vit())
    save_encoder(encoder, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["arguments"].pop("positions") == "sincos"
    (tmp_path / "config.json").write_text(json.dumps(config))
    x = torch.rand(2, 1, 3, 12, 8, generator=generator)
    assert torch.equal(jepalab.load(tmp_path)(x), encoder(x))


@settings(max_examples=15, deadline=None)
@given(
    positions=st.sampled_from(["sincos", "rope", "rope-tiled"]),
    grid=st.lists(st.integers(1, 3), min_size=1, max_size=3),
    side=st.integers(1, 2),
    channels=st.integers(1, 3),
    heads=st.integers(1, 3),
    ratio=st.floats(0.5, 4.0),
    mean=st.floats(-10, 10),
    std=st.floats(0.01, 10),
)
def test_any_vit_is_made_again_by_its_own_arguments(
    positions: Positions, grid: list[int], side: int, channels: int, heads: int, ratio: float, mean: float, std: float
) -> None:
    patch = (side,) * len(grid)
    vit = ViT(
        tuple(grid),
        patch=patch,
        channels=channels,
        dim=36,
        depth=1,
        num_heads=heads,
        positions=positions,
        mlp_ratio=ratio,
        mean=mean,
        std=std,
    )
    told = json.loads(json.dumps(vit.arguments()))
    again = ViT(**{name: tuple(value) if isinstance(value, list) else value for name, value in told.items()})
    again.load_state_dict(vit.state_dict())
    assert again.arguments() == vit.arguments()
    assert torch.equal(again.mean, vit.mean)
    assert torch.equal(again.std, vit.std)


def test_every_encoder_of_pictures_in_backbones_can_be_saved() -> None:
    modules = [
        importlib.import_module(f"{backbones.__name__}.{m.name}") for m in pkgutil.iter_modules(backbones.__path__)
    ]
    found = {
        name
        for module in modules
        for name, value in vars(module).items()
        if inspect.isclass(value) and issubclass(value, Encoder) and value.__module__ == module.__name__
    }
    # The theory's linear network has no pictures, and frozen frames are another's encoder, saved by whoever trained it.
    assert found - {"DeepLinear", "FrozenFrames"} == KINDS.keys()


class Adapter(Encoder):
    """Somebody's network."""

    dim = 2

    def forward(
        self, x: Float[Tensor, "b t *obs"], keep: Int[Tensor, "b k"] | None = None, causal: bool = False
    ) -> Float[Tensor, "b n d"]:
        return x.flatten(2)[..., :2]


def test_encoder_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"Wanted one of ViT, .*, got Adapter; save its state_dict"):
        save_encoder(Adapter(), tmp_path / "encoder")
    with pytest.raises(ValueError, match="Adapter does not say what its constructor was given"):
        Adapter().arguments()
    assert not (tmp_path / "encoder").exists()


def test_fresh_encoder_is_the_same_network_untrained() -> None:
    encoder = lively(picture_vit())
    fresh = fresh_encoder(encoder)
    assert fresh.arguments() == encoder.arguments()
    assert torch.equal(fresh_encoder(encoder).embed.weight, fresh.embed.weight)  # pyrefly: ignore[missing-attribute]
    assert not torch.equal(encoder.embed.weight, fresh.embed.weight)  # pyrefly: ignore[missing-attribute]


def test_encoder_is_exchanged_and_other_files_stay(tmp_path: Path, generator: torch.Generator) -> None:
    first, second = lively(picture_vit()), lively(fitted_pca())
    save_encoder(first, tmp_path)
    (tmp_path / "notes.txt").write_text("mine")
    save_encoder(second, tmp_path)
    x = torch.rand(2, 1, 3, 4, 4, generator=generator)
    assert torch.equal(load_encoder(tmp_path)(x), second(x))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors", "notes.txt"]


def test_full_disk_leaves_the_encoder_that_was_there(tmp_path: Path) -> None:
    save_encoder(lively(fitted_pca()), tmp_path)
    with files_of_at_most(2000), pytest.raises(OSError, match=f"Could not write an encoder.*{tmp_path.name}"):
        save_encoder(picture_vit(), tmp_path)
    assert isinstance(load_encoder(tmp_path), PixelPCA)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]


def edit(**changes: object) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))

    return apply


def cut(name: str, share: float) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: int(share * len(content))])

    return apply


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (remove("config.json"), r"is neither the folder of a run nor of an encoder"),
        (cut("config.json", 0.5), r"config.json is damaged"),
        (lambda folder: (folder / "config.json").write_text("[]"), "wanted an object, got list"),
        (lambda folder: (folder / "config.json").write_text("{}"), "does not describe an encoder of jepalab"),
        (edit(format=2, jepalab="9.1.0"), "saved by jepalab 9.1.0 in format 2.*reads format 1; install"),
        (edit(encoder="os.system"), "holds an encoder 'os.system', and jepalab .* knows ViT, "),
        (edit(arguments={"grid": [2, 2], "parch": 1}), "does not make a ViT: missing .* 'patch'"),
        (edit(arguments={"grid": [2, 2], "patch": [2]}), "does not make a ViT: wanted as many patch sizes"),
        (edit(arguments={"grid": [2, 2], "patch": [2, 2]}), "The weights in .* are not those of its config.json"),
        (edit(arguments=[]), "does not describe an encoder of jepalab"),
        (remove("model.safetensors"), "There is no .*model.safetensors; copy the folder anew"),
        (cut("model.safetensors", 0.0), "model.safetensors is damaged"),
        (cut("model.safetensors", 0.1), "model.safetensors is damaged"),
        (cut("model.safetensors", 0.99), "model.safetensors is damaged"),
    ],
)
def test_damaged_encoder_is_refused_in_words(damage: Callable[[Path], None], said: str, tmp_path: Path) -> None:
    save_encoder(picture_vit(), tmp_path)
    assert isinstance(jepalab.load(tmp_path), ViT)
    damage(tmp_path)
    with pytest.raises(ValueError, match=said) as error:
        jepalab.load(tmp_path)
    assert str(tmp_path) in str(error.value) or "does not make" in str(error.value)


# ---------------------------------------------------------------- the encoders of a run


@pytest.fixture
def trained(tmp_path: Path) -> tuple[Path, MaskedJEPA]:
    objective, _ = MaskedJEPA.tiny()
    assert isinstance(objective, MaskedJEPA)
    for encoder in objective.probed_encoders().values():
        lively(encoder)
    lively(objective.encoder)  # once more, so that it differs from its teacher
    save_encoders(objective, tmp_path / "runs" / "mine", recipe="ijepa")
    return tmp_path / "runs" / "mine", objective


def test_run_is_loaded_in_two_lines(trained: tuple[Path, MaskedJEPA], generator: torch.Generator) -> None:
    folder, objective = trained
    x = torch.rand(2, 1, 1, 8, 8, generator=generator)
    expected = {name: encoder(x) for name, encoder in objective.probed_encoders().items()}
    assert not torch.equal(expected["student"], expected["teacher"])
    assert torch.equal(jepalab.load(str(folder))(x), expected[next(iter(expected))])
    for name, z in expected.items():
        assert torch.equal(jepalab.load(folder, encoder=name)(x), z)
        assert torch.equal(jepalab.load(folder / "encoders" / name)(x), z)


def test_what_is_no_encoder_is_told_apart(trained: tuple[Path, MaskedJEPA], tmp_path: Path) -> None:
    folder, _ = trained
    (tmp_path / "unfinished").mkdir()
    (tmp_path / "unfinished" / "run.json").write_text("{}")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    for path, encoder, said in (
        (folder, "tutor", "has no encoder 'tutor'; it has: teacher, student"),
        (folder / "encoders" / "student", "teacher", "is one encoder, not a run"),
        (tmp_path / "nowhere", None, "There is no .*nowhere; wanted the folder of a run"),
        (tmp_path / "file", None, "is a file; wanted the folder"),
        (tmp_path / "empty", None, "neither the folder of a run nor of an encoder"),
        (tmp_path / "unfinished", None, "a run without encoders: they are saved when training ends"),
        (tmp_path / "runs", None, f"holds 1 runs, not one; name one of them, for example {folder}"),
    ):
        with pytest.raises(ValueError, match=said):
            jepalab.load(path, encoder=encoder)


# ---------------------------------------------------------------- transformers


def small_ijepa(**changes: object) -> transformers.IJepaConfig:
    plain = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 72}
    return transformers.IJepaConfig(
        **{**plain, "image_size": 16, "patch_size": 4, "layer_norm_eps": 1e-6, "initializer_range": 0.2, **changes}
    )


@pytest.mark.parametrize("shape", ["square", "oblong"])
def test_transformers_computes_what_our_encoder_does(shape: str, tmp_path: Path, generator: torch.Generator) -> None:
    square = ViT((3, 3), patch=(4, 4), channels=3, dim=24, depth=2, num_heads=3, mean=MEAN, std=STD)
    vit = lively(square if shape == "square" else picture_vit())
    assert isinstance(vit, ViT)
    to_transformers(vit, tmp_path)
    model = transformers.IJepaModel.from_pretrained(tmp_path).eval()
    x = torch.rand(4, *vit.sample_shape, generator=generator)
    normalised = (x[:, 0] - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    theirs = model(pixel_values=normalised).last_hidden_state
    torch.testing.assert_close(vit(x), theirs, rtol=0, atol=1e-5)
    assert not torch.allclose(vit(x + 0.1), theirs, rtol=0, atol=1e-2)

    again = from_transformers(tmp_path)
    assert torch.equal(again(x), vit(x))
    assert torch.equal(jepalab.load(tmp_path)(x), vit(x))
    assert torch.equal(from_transformers(model, mean=MEAN, std=STD)(x), vit(x))
    model.save_pretrained(tmp_path / "theirs")
    assert torch.equal(from_transformers(tmp_path / "theirs", mean=MEAN, std=STD)(x), vit(x))


def test_image_processor_prepares_what_our_encoder_normalises(tmp_path: Path, generator: torch.Generator) -> None:
    vit = picture_vit()
    to_transformers(vit, tmp_path)
    pixels = torch.randint(256, (2, *vit.sample_shape), generator=generator, dtype=torch.uint8)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path)
    files = [Image.fromarray(picture[0].permute(1, 2, 0).numpy()) for picture in pixels]
    prepared = torch.as_tensor(np.asarray(processor(files, return_tensors="pt")["pixel_values"]))
    expected = (pixels[:, 0] / 255 - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
    torch.testing.assert_close(prepared, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("qkv_bias", [True, False])
def test_our_encoder_computes_what_theirs_does(qkv_bias: bool, tmp_path: Path, generator: torch.Generator) -> None:
    torch.manual_seed(0)
    classifier = transformers.IJepaForImageClassification(small_ijepa(qkv_bias=qkv_bias)).eval()
    for parameter in classifier.parameters():
        parameter.data.add_(torch.randn(parameter.shape, generator=generator), alpha=0.1)
    classifier.save_pretrained(tmp_path)
    x = torch.randn(3, 3, 16, 16, generator=generator)
    theirs = classifier.ijepa(pixel_values=x).last_hidden_state
    for encoder in (from_transformers(tmp_path), from_transformers(classifier.ijepa)):
        torch.testing.assert_close(encoder(x[:, None]), theirs, rtol=0, atol=1e-5)
    save_encoder(encoder, tmp_path / "ours")  # its positions are learned, and are kept
    torch.testing.assert_close(load_encoder(tmp_path / "ours")(x[:, None]), theirs, rtol=0, atol=1e-5)


def test_hidden_widths_that_a_ratio_would_round_down_are_met() -> None:
    model = transformers.IJepaModel(small_ijepa(hidden_size=88, intermediate_size=120, num_hidden_layers=1))
    encoder = from_transformers(model)
    assert int(88 * (120 / 88)) == 119
    assert encoder.transformer.blocks[0].fc1.out_features == 120  # pyrefly: ignore[missing-attribute]


def test_what_ours_cannot_compute_is_refused(tmp_path: Path) -> None:
    for encoder, said in (
        (ViT((6,), patch=(2,), dim=8, depth=1, num_heads=2), r"grid \(6,\) with positions 'sincos'"),
        (ViT((2, 2), patch=(2, 2), dim=8, depth=1, num_heads=2, positions="rope"), "with positions 'rope'"),
    ):
        with pytest.raises(ValueError, match=f"reads still pictures, with positions 'sincos'; got .* {said}"):
            to_transformers(encoder, tmp_path)
    with pytest.raises(ValueError, match=r"is no folder of an I-JEPA or a V-JEPA 2 .*hf download"):
        from_transformers(tmp_path)
    with pytest.raises(ValueError, match=r"Wanted a transformers.IJepaModel or VJEPA2Model, got ViT"):
        from_transformers(picture_vit())
    with pytest.raises(ValueError, match="Wanted an I-JEPA or a V-JEPA 2, got a model of type 'vit'"):
        from_transformers(transformers.ViTModel(transformers.ViTConfig(hidden_size=12, num_hidden_layers=1)))
    for changes in ({"hidden_act": "relu"}, {"layer_norm_eps": 1e-3}):
        with pytest.raises(ValueError, match="Wanted hidden_act gelu and layer_norm_eps"):
            from_transformers(transformers.IJepaModel(small_ijepa(**changes)))
    transformers.IJepaModel(small_ijepa()).save_pretrained(tmp_path)
    weights = safetensors.torch.load_file(tmp_path / "model.safetensors")
    weights["encoder.layer.7.extra.weight"] = weights.pop("layernorm.weight")
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"missing layernorm.weight, unknown encoder.layer.7.extra.weight"):
        from_transformers(tmp_path)
