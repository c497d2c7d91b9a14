"""Read and edit the activations inside a causal language model. By hand: the lesson on hooks.

Layer numbers are the same everywhere in this project: layer i is the residual stream after
i decoder layers. Layer 0 is the embedding output, layer n is the output of the last of n
decoder layers, before the final norm. Negative numbers count from the end, as in a list.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from tutorial_utils.activations.hooks import Stop, check_stream, hooked_layers, run_edit
from tutorial_utils.activations.inputs import check_options, parameters
from tutorial_utils.activations.layers import layer_numbers, locate
from tutorial_utils.activations.positions import Positions, check_positions
from tutorial_utils.activations.reader import Activations, Record
from tutorial_utils.activations.recorder import Options, Recorder


@contextmanager
def record_activations(
    model: nn.Module,
    layers: int | slice | Iterable[int] | None = None,
    *,
    positions: Positions = None,
    to: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    detach: bool = True,
    stop: bool = False,
) -> Iterator[Activations]:
    """Record the residual stream while the model runs inside the `with` block.

    Example::

        with record_activations(model, layers=[0, -1]) as activations:
            model(**inputs)
        activations[0].shape  # (batch, seq, hidden)

    Args:
        layers: a number, a list, a range or a slice; None means all, 0 to n.
        positions: None keeps every token, by reference; a list of column numbers keeps those;
            "last" keeps the last real token of each row by the attention mask, with padding on
            either side. Chosen positions are copied, to (batch, positions, hidden), and nothing
            else is kept. In `generate` "last" keeps one position for each pass, the one that
            predicts the next token. Under `torch.inference_mode` all is copied, so that what is
            kept can train a probe.
        to: a device to copy to, such as "cpu"; by default the tensors stay where they were made.
        dtype: the data type to keep them in; by default the model's.
        detach: False leaves the tensors in the autograd graph.
        stop: compute nothing after the last layer asked for. The model's call then has no result:
            the block ends there, and what follows the call inside the block is not run. A model
            that runs a layer more than once is refused, but not by a block that stops at that
            layer: it keeps what the first time gave.

    A pass that is given the KV cache which the pass before left is appended along seq, so that
    `generate` gives (batch, all tokens, hidden); its last token is chosen but never read. Any
    other pass replaces what was recorded. Beam search is refused, as it moves rows around, and so
    is guidance, whose second pass comes between. After assisted decoding, tokens that it tried last
    and dropped may stand at the end; with "last" it is refused.

    Recorders and editors can be nested. At one layer they act in the order in which their blocks
    were entered: a recorder inside `edit_activations` sees the edited stream. Inside the block
    a model from `torch.compile` runs uncompiled. The model may run in another thread, but only one
    thread at a time may have blocks open on it.

    Raises ValueError for a layer that is not there, before any hook is registered; for "last" with
    a row without a real token, or with padding in front of a prompt for a model that reads it as
    text whatever the mask says, such as RWKV. By hand: the lesson on hooks.
    """
    where = locate(model)
    numbers = layer_numbers(layers, len(where.layers))
    options = Options(check_positions(positions), to, dtype, detach, max(numbers) if stop else None)
    # The inner part is told how many tokens there are; only the mask may be kept from it.
    is_told = positions != "last" and "input_ids" in parameters(where.owners[-1])
    record = Record(numbers, len(where.layers))
    recorder = Recorder(record, options, where)
    see_inputs = None if is_told else recorder.see_inputs
    passes = see_inputs, recorder.start_pass, recorder.end_pass
    try:
        with hooked_layers(where, dict.fromkeys(numbers, recorder.store), *passes):
            yield Activations(record)
    except Stop as reached:
        if reached.args[0] is not recorder:
            raise


def read_activations(
    model: nn.Module,
    input_ids: Tensor,
    *,
    layers: int | slice | Iterable[int] | None = None,
    positions: Positions = None,
    to: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **inputs: object,
) -> Activations:
    """Run the model on `input_ids` (batch, seq) up to the last layer asked for, and record.

    For when the logits are not needed: no head, no KV cache, no gradients. `inputs` is what else
    the model takes, such as `attention_mask`; the rest is as in `record_activations`.

    Raises TypeError for an option that neither this function nor the model knows by name.
    """
    if not isinstance(input_ids, Tensor):
        raise ValueError(
            f"input_ids is a tensor of shape (batch, seq), not {type(input_ids).__name__}: what a "
            "tokenizer returns is passed as read_activations(model, **inputs)"
        )
    check_options(model, inputs, "read_activations", ("layers", "positions", "to", "dtype"))
    inputs = {"use_cache": False, **inputs, "input_ids": input_ids}
    recording = record_activations(
        model, layers, positions=positions, to=to, dtype=dtype, stop=True
    )
    with torch.no_grad(), recording as activations:
        model(**inputs)
    return activations


@contextmanager
def edit_activations(
    model: nn.Module, edits: Mapping[int, Callable[[Tensor], Tensor]]
) -> Iterator[None]:
    """Change the residual stream while the model runs inside the `with` block.

    Example::

        with edit_activations(model, {3: lambda hidden: hidden + direction}):
            model(**inputs)

    `edits` gives a function for each layer to change: it takes the stream of one forward pass,
    (batch, seq, hidden), and returns it changed, of the same shape, dtype and device. With a
    KV cache a pass holds the new tokens only. Nesting is told in `record_activations`.

    Raises ValueError for a layer that is not there, for a result of another kind, and while another
    thread has a block open on this model.
    """
    where = locate(model)
    numbers = layer_numbers(edits, len(where.layers))
    if not isinstance(edits, Mapping) or not all(callable(edit) for edit in edits.values()):
        raise ValueError(f"edits are given as {{layer number: function}}, not as {edits!r}")
    if len(numbers) < len(edits):
        raise ValueError(f"two of these layers are the same one: {list(edits)}")
    functions = dict(zip(numbers, edits.values()))

    def edit(number: int, hidden: Tensor) -> Tensor:
        check_stream(number, hidden, where.width)
        return run_edit(functions[number], hidden, f"layer {number}")

    with hooked_layers(where, dict.fromkeys(numbers, edit)):
        yield
