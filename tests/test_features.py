"""Sparse features are found where they were planted, and never taken for another model's."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from safetensors.torch import save_file

from tiny_models import make_llama
from tutorial_utils import (
    encode_features,
    harvest_activations,
    load_features,
    load_model,
    read_harvest,
    save_features,
    train_features,
)
from tutorial_utils import features as module
from tutorial_utils.harvest.files import Column

pytestmark = pytest.mark.usefixtures("one_thread")

WIDTH, LAYER = 32, 2  # of the tiny model
SIZES = {"n_features": 48, "top_k": 3}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return load_model(make_llama(tmp_path_factory.mktemp("llama")))


@pytest.fixture(scope="module")
def planted() -> tuple[torch.Tensor, torch.Tensor]:
    """Directions (24, hidden), and activations (rows, hidden) of three of them each, and a bias."""
    torch.manual_seed(0)
    directions = torch.nn.functional.normalize(torch.randn(24, WIDTH), dim=1)
    places = torch.rand(6000, 24).topk(3).indices
    amounts = torch.zeros(6000, 24).scatter(1, places, 1 + torch.rand(6000, 3))
    return directions, 5 * (amounts @ directions) + torch.randn(WIDTH)


@pytest.fixture(scope="module")
def trained(llama, planted):
    return train_features(llama[0], planted[1], LAYER, **SIZES, steps=800)


@pytest.fixture(scope="module")
def folder(llama, tmp_path_factory):
    """A harvest of all tokens in shards of ten texts."""
    home = tmp_path_factory.mktemp("harvest")
    texts = [f"Anna has {i} red balls, and Ben has a green lamp." for i in range(60)]
    (home / "texts.txt").write_text("\n".join(texts))
    out = home / "out"
    options = {"layers": [1, LAYER], "positions": "all", "shard": 10}
    harvest_activations(*llama, home / "texts.txt", out, **options)
    return out


def same(one, other) -> bool:
    return all(
        torch.equal(value, getattr(other, name)) if isinstance(value, torch.Tensor) else True
        for name, value in vars(one).items()
    )


# What is trained
def test_planted_directions_are_found(trained, planted):
    cosines = (trained.decoder @ planted[0].T).max(dim=0).values
    assert (cosines > 0.9).float().mean() > 0.9, "most directions, not one by luck"
    assert trained.unexplained < 0.05


def test_a_row_is_the_bias_and_at_most_top_k_directions(trained, planted):
    rows = planted[1][:200].reshape(2, 100, WIDTH)
    codes = encode_features(trained, rows)
    assert codes.shape == (2, 100, 48) and codes.dtype == torch.float32
    assert (codes >= 0).all() and (codes > 0).sum(dim=-1).max() == 3
    centred = trained.scale * rows - trained.bias
    scores = centred @ trained.encoder + trained.encoder_bias
    third = scores.topk(3).values[..., -1:]
    assert torch.equal(codes, torch.where(scores >= third, scores, 0).relu())
    again = (codes @ trained.decoder + trained.bias) / trained.scale
    left = (again - rows).pow(2).sum() / (rows - rows.mean(dim=(0, 1))).pow(2).sum()
    assert left < 0.06 and abs(left - trained.unexplained) < 0.02


def test_directions_have_norm_1_and_rows_a_mean_length_of_the_root_of_the_width(trained, planted):
    assert torch.allclose(trained.decoder.norm(dim=1), torch.ones(48))
    assert trained.scale * planted[1].norm(dim=1).mean() == pytest.approx(WIDTH**0.5, rel=0.02)
    tensors = [value for value in vars(trained).values() if torch.is_tensor(value)]
    assert len(tensors) == 4 and not any(tensor.requires_grad for tensor in tensors)


def test_the_encoder_starts_as_the_decoder_turned_over(llama, planted):
    start = train_features(llama[0], planted[1], LAYER, **SIZES, steps=1, learning_rate=1e-12)
    assert torch.allclose(start.encoder, start.decoder.T, atol=1e-6)
    assert torch.allclose(start.bias, start.scale * planted[1].mean(dim=0), atol=0.05)


def test_dead_features_are_counted(llama, planted):
    dead = train_features(llama[0], planted[1][:500], LAYER, n_features=400, top_k=1, steps=200)
    fired = (encode_features(dead, planted[1][:500]) > 0).any(dim=0)
    assert 0 < dead.dead <= 400 and abs(dead.dead - int((~fired).sum())) < 40


def test_a_seed_repeats_and_another_one_differs(llama, planted):
    one, again, other = (
        train_features(llama[0], planted[1], LAYER, **SIZES, steps=5, seed=seed)
        for seed in (1, 1, 2)
    )
    assert same(one, again) and not same(one, other) and (one.seed, other.seed) == (1, 2)


def test_rows_left_out_change_nothing(llama, planted):
    rows = planted[1].clone()
    keep = torch.arange(len(rows)) % 7 > 0
    one = train_features(llama[0], rows, LAYER, **SIZES, steps=20, keep=keep)
    rows[~keep] = torch.nan
    with torch.no_grad():  # trains there too
        other = train_features(llama[0], rows, LAYER, **SIZES, steps=20, keep=keep)
    assert same(one, other)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_trained_in_float32(llama, planted, dtype):
    half = train_features(llama[0], planted[1].to(dtype), -3, **SIZES, steps=300)
    assert half.decoder.dtype == torch.float32 and half.unexplained < 0.3 and half.layer == LAYER


# From a harvest
def test_shards_give_what_a_tensor_gives(llama, folder, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 64)
    monkeypatch.setattr(module, "POOL", 3)
    column = read_harvest(folder)[LAYER]
    one = train_features(llama[0], column, LAYER, **SIZES, steps=30)
    assert same(one, train_features(llama[0], column[:], LAYER, **SIZES, steps=30))


def test_never_more_than_a_block_is_read(llama, folder, monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 64)
    monkeypatch.setattr(module, "POOL", 3)
    column, read = read_harvest(folder)[LAYER], []
    kept = Column.__getitem__

    def noted(self, rows):
        found = kept(self, rows)
        read.append(len(found))
        return found

    monkeypatch.setattr(Column, "__getitem__", noted)
    batches = module._batches(column, torch.ones(len(column), dtype=bool), 50, torch.Generator())
    rows = [next(batches) for _ in range(2 * len(column) // 50)]
    assert max(read) == 64 and max(map(len, rows)) == 50
    epoch = torch.cat(rows)[: len(column)]
    assert torch.allclose(epoch.sum(dim=0), column[:].sum(dim=0), atol=0.01), "each row once"


def test_activations_of_another_layer_or_model_are_refused(llama, folder, tmp_path):
    column = read_harvest(folder)[LAYER]
    with pytest.raises(ValueError, match=r"activations of layer 2 of .* not of layer 1"):
        train_features(llama[0], column, 1, **SIZES)
    with pytest.raises(ValueError, match="the column 'prompt', not activations: give a layer"):
        train_features(llama[0], read_harvest(folder)["prompt"], LAYER, **SIZES)
    other, _ = load_model(make_llama(tmp_path / "other", seed=1))
    with pytest.raises(ValueError, match="not of layer 2"):
        train_features(other, column, LAYER, **SIZES)


# What cannot be trained on
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top_k": 0}, "top_k is 1 to n_features"),
        ({"top_k": 49}, "top_k is 1 to n_features"),
        ({"steps": 0}, "steps=0"),
        ({"batch": 0}, "batch=0"),
        ({"keep": torch.ones(5, dtype=torch.bool)}, "mask of type bool"),
        ({"keep": torch.ones(6000)}, "mask of type bool"),
        ({"keep": torch.zeros(6000, dtype=torch.bool)}, "that keeps 0$"),
        ({"learning_rate": 1e30}, "not finite"),
    ],
)
def test_sizes_that_cannot_be(llama, planted, change, message):
    with pytest.raises(ValueError, match=message):
        train_features(llama[0], planted[1], LAYER, **{**SIZES, "steps": 3, **change})


def test_activations_that_cannot_be(llama, planted, trained):
    model, rows = llama[0], planted[1].clone()
    with pytest.raises(ValueError, match=r"\(rows, 32\), not \(6000, 31\)"):
        train_features(model, rows[:, 1:], LAYER, **SIZES)
    with pytest.raises(ValueError, match="all rows are the same"):
        train_features(model, torch.ones(9, WIDTH), LAYER, **SIZES, steps=3)
    with pytest.raises(ValueError, match="layers 0 to 4"):
        train_features(model, rows, 5, **SIZES)
    rows[4321, 7] = torch.inf
    with pytest.raises(ValueError, match="row 4321 of the activations is not finite"):
        train_features(model, rows, LAYER, **SIZES, steps=20)
    with pytest.raises(ValueError, match="not finite"):
        encode_features(trained, rows)
    with pytest.raises(ValueError, match="of width 32"):
        encode_features(trained, rows[:, :8])


# On disk
def test_a_file_holds_all_of_it(llama, trained, tmp_path):
    save_features(trained, tmp_path / "features.safetensors")
    again = load_features(tmp_path / "features.safetensors", llama[0])
    assert same(trained, again)
    kept = [f.name for f in dataclasses.fields(trained) if not f.type.startswith("Tensor")]
    assert all(getattr(again, name) == getattr(trained, name) for name in kept)
    assert {"model", "layer", "scale", "seed", "revision"} <= set(kept)


def test_another_models_features_are_refused(trained, tmp_path):
    """Also where it lies at the same path: the weights tell."""
    save_features(trained, tmp_path / "features.safetensors")
    other, _ = load_model(make_llama(tmp_path / "llama", seed=1))
    with pytest.raises(ValueError, match="were trained on layer 2 of"):
        load_features(tmp_path / "features.safetensors", other)


def test_files_that_hold_no_features(llama, trained, tmp_path):
    path = tmp_path / "features.safetensors"
    with pytest.raises(OSError, match="features"):
        load_features(path, llama[0])
    save_features(trained, path)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="cut short"):
        load_features(path, llama[0])
    save_file({"a": torch.ones(2)}, path)
    with pytest.raises(ValueError, match="not a file that `save_features` wrote"):
        load_features(path, llama[0])
    with pytest.raises(OSError, match="could not be written"):
        save_features(trained, tmp_path / "missing" / "features.safetensors")
