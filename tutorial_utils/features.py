"""Sparse features: directions of the residual stream, a few of which make up each activation.

A top-k sparse autoencoder (Gao et al. 2024, arXiv:2406.04093) writes an activation as a bias plus
at most `top_k` of `n_features` directions of norm 1, each times a number above zero. It is trained
to leave as little unexplained as possible. By hand: the lesson on sparse features.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm
from transformers import PreTrainedModel

from tutorial_utils.activations.inputs import input_device
from tutorial_utils.activations.layers import find_decoder_layers, layer_numbers
from tutorial_utils.harvest.files import Column, read_index
from tutorial_utils.models.revision import model_revision

BLOCK, POOL = 1024, 32  # rows read in one go, and how many of these are mixed in memory


@dataclass(frozen=True)
class Features:
    """Sparse features of one layer of one model: the weights, and what they belong to.

    All weights are float32 on the CPU. They expect activations multiplied by `scale`. An activation
    is near
    `(encode_features(features, activation) @ decoder + bias) / scale`.
    """

    encoder: Tensor  # (hidden, features)
    encoder_bias: Tensor  # (features,)
    decoder: Tensor  # (features, hidden), each row of norm 1
    bias: Tensor  # (hidden,)
    scale: float
    top_k: int
    layer: int
    seed: int
    model: str
    revision: str  # tells these weights of the model from others
    unexplained: float  # share of the variance that is left over, in the last quarter of training
    dead: int  # features that were zero for every row of that quarter


def train_features(
    model: PreTrainedModel,
    activations: Tensor | Column,
    layer: int,
    *,
    n_features: int,
    top_k: int,
    steps: int = 1000,
    batch: int = 512,
    learning_rate: float = 0.005,
    keep: Tensor | None = None,
    seed: int = 0,
    progress: bool = False,
) -> Features:
    """Train sparse features on activations of one layer of `model`.

    Args:
        activations: (rows, hidden): a tensor, or a layer of `read_harvest`, which is read from disk
            as needed, at most about 33,000 rows at a time.
        layer: the layer that the activations are of.
        n_features, top_k: how many directions there are, and how many an activation may use.
        steps, batch: passes of the optimiser (Adam), and rows in each.
        learning_rate: falls to 0 over the last fifth of the steps. 0.005 suits a few
            hundred features on activations a few hundred numbers wide; larger ones need less, such
            as 0.0005.
        keep: (rows,), True for the rows to train on. Leave out the first token of each text:
            in most models its activation is much longer than the others, and would count too much
            in the loss.
        progress: show a bar.

    The same seed on the same machine gives the same features, up to rounding. By hand: the lesson
    on sparse features. Source: Gao et al. 2024, arXiv:2406.04093, with no auxiliary loss: dead
    features are counted, not revived.

    Raises ValueError for activations of another model, layer or width, for a row that is not
    finite (the message gives its number), and for impossible sizes.
    """
    [layer] = layer_numbers(layer, len(find_decoder_layers(model)))
    if min(steps, batch) < 1 or not 1 <= top_k <= n_features:
        raise ValueError(
            f"steps and batch are at least 1, and top_k is 1 to n_features: got steps={steps}, "
            f"batch={batch}, top_k={top_k}, n_features={n_features}"
        )
    keep = _checked_rows(model, activations, layer, keep)
    device, generator = input_device(model), torch.Generator().manual_seed(seed)
    some = next(_batches(activations, keep, BLOCK * POOL, torch.Generator().manual_seed(seed)))
    scale = (some.shape[1] ** 0.5 / some.norm(dim=1).mean()).item()
    mean = scale * some.mean(dim=0).to(device)
    decoder = torch.randn(n_features, len(mean), generator=generator).to(device)
    decoder /= decoder.norm(dim=1, keepdim=True)
    encoder = decoder.T.clone(memory_format=torch.contiguous_format)
    encoder_bias, bias = torch.zeros(n_features, device=device), mean.clone()
    weights = [weight.requires_grad_() for weight in (encoder, encoder_bias, decoder, bias)]
    optimizer = torch.optim.Adam(weights, lr=learning_rate)
    left, total, fired = 0.0, 0.0, torch.zeros(n_features, dtype=torch.bool, device=device)
    stream = islice(_batches(activations, keep, batch, generator), steps)
    bar = tqdm(stream, total=steps, unit="step", disable=not progress, leave=False)
    for step, rows in enumerate(bar):
        rows = scale * rows.to(device)
        optimizer.param_groups[0]["lr"] = learning_rate * min(1, 5 * (steps - step) / steps)
        with torch.enable_grad():
            codes = _top(encoder, encoder_bias, rows - bias, top_k)
            loss = (codes @ decoder + bias - rows).pow(2).sum(dim=1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            decoder /= decoder.norm(dim=1, keepdim=True)
        if step >= 3 * steps // 4:  # what training leaves over, and what it no longer uses
            fired |= (codes > 0).any(dim=0)
            left += loss.item() * len(rows)
            total += (rows - mean).pow(2).sum().item()
    if not all(weight.isfinite().all() for weight in weights) or not total > 0:
        raise ValueError(
            f"training with learning_rate={learning_rate} led to numbers that are not finite, or "
            "all rows are the same: try a tenth of this learning rate, and look at the activations"
        )
    return Features(
        encoder.detach().cpu(),
        encoder_bias.detach().cpu(),
        decoder.detach().cpu(),
        bias.detach().cpu(),
        scale,
        top_k=top_k,
        layer=layer,
        seed=seed,
        model=str(model.config.name_or_path),
        revision=model_revision(model),
        unexplained=left / total,
        dead=int((~fired).sum()),
    )


def encode_features(features: Features, hidden: Tensor) -> Tensor:
    """How much of each feature is in activations: (..., hidden) to (..., features), float32.

    Not below zero, and above zero for at most `top_k` features of each activation.
    Raises ValueError for activations of another width and for numbers that are not finite.
    """
    width = len(features.bias)
    if hidden.shape[-1] != width:
        raise ValueError(
            f"these features are of width {width} ({features.model}, layer {features.layer}), but "
            f"the activations have shape {tuple(hidden.shape)}"
        )
    if not hidden.isfinite().all():
        raise ValueError("the activations are not finite: load the model in bfloat16 or float32")
    encoder, encoder_bias, bias = (
        weight.to(hidden.device)
        for weight in (features.encoder, features.encoder_bias, features.bias)
    )
    return _top(encoder, encoder_bias, features.scale * hidden.float() - bias, features.top_k)


def save_features(features: Features, path: str | Path) -> None:
    """Write features to a safetensors file, with what they belong to."""
    parts = vars(features)
    tensors = {name: value for name, value in parts.items() if isinstance(value, Tensor)}
    about = {name: value for name, value in parts.items() if name not in tensors}
    try:
        save_file(tensors, path, {"features": json.dumps(about)})
    except SafetensorError as error:
        raise OSError(f"'{path}' could not be written: {error}") from error


def load_features(path: str | Path, model: PreTrainedModel) -> Features:
    """Read features that `save_features` wrote, for the model that they belong to.

    Raises OSError if there is no file, and ValueError if the file is something else or was cut
    short, or if the features were trained on a model with other weights, whatever its name.
    """
    try:
        with safe_open(path, "pt") as file:
            about = json.loads((file.metadata() or {})["features"])
            features = Features(**{name: file.get_tensor(name) for name in file.keys()}, **about)  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"'{path}' is not a file that `save_features` wrote ({error!r}): it was cut short, or "
            "holds something else. Train the features again and save them"
        ) from None
    if features.revision != model_revision(model):
        raise ValueError(
            f"the features in '{path}' were trained on layer {features.layer} of "
            f"'{features.model}' ({features.revision}), and this model is "
            f"'{model.config.name_or_path}' ({model_revision(model)}): load the model that "
            "they were trained on, or train features on this one"
        )
    return features


def _top(encoder: Tensor, encoder_bias: Tensor, centred: Tensor, top_k: int) -> Tensor:
    """The `top_k` largest of each row, without what is below zero: (..., features)."""
    scores = centred @ encoder + encoder_bias
    values, places = scores.topk(top_k, dim=-1)
    return torch.zeros_like(scores).scatter(-1, places, values.relu())


def _batches(
    activations: Tensor | Column, keep: Tensor, batch: int, generator: torch.Generator
) -> Iterator[Tensor]:
    """Batches (batch, hidden) in random order without end, float32; a pool of blocks in memory."""
    blocks = torch.arange(-(-len(keep) // BLOCK))
    while True:
        for pool in blocks[torch.randperm(len(blocks), generator=generator)].split(POOL):
            parts = []
            for start in (BLOCK * pool).tolist():
                rows, kept = activations[start : start + BLOCK], keep[start : start + BLOCK]
                parts.append(rows.cpu()[kept].float())
                wrong = ~parts[-1].isfinite().all(dim=1)
                if wrong.any():
                    row = start + int(kept.nonzero()[wrong][0])
                    raise ValueError(f"row {row} of the activations is not finite: leave it out")
            rows = torch.cat(parts)
            yield from rows[torch.randperm(len(rows), generator=generator)].split(batch)


def _checked_rows(
    model: PreTrainedModel, activations: Tensor | Column, layer: int, keep: Tensor | None
) -> Tensor:
    """Which rows to train on, (rows,); ValueError where they are not of this model's layer."""
    if isinstance(activations, Column) and isinstance(activations.name, str):
        raise ValueError(f"this is the column {activations.name!r}, not activations: give a layer")
    width = model.config.get_text_config(decoder=True).hidden_size
    shape = tuple(activations.shape)
    if len(shape) != 2 or shape[1] != width:
        raise ValueError(f"activations are (rows, hidden), here (rows, {width}), not {shape}")
    if isinstance(activations, Column):
        about = read_index(activations.folder)
        if activations.name != layer or about["revision"] != model_revision(model):
            raise ValueError(
                f"these are activations of layer {activations.name} of '{about['model']}' "
                f"({about['revision']}), not of layer {layer} of '{model.config.name_or_path}' "
                f"({model_revision(model)})"
            )
    keep = torch.ones(shape[0], dtype=torch.bool) if keep is None else keep.cpu()
    if keep.shape != shape[:1] or keep.dtype != torch.bool or keep.sum() < 2:
        raise ValueError(
            f"keep is a mask of type bool and shape {shape[:1]} that keeps at least two rows, "
            f"not {keep.dtype} of shape {tuple(keep.shape)} that keeps {int(keep.count_nonzero())}"
        )
    return keep
