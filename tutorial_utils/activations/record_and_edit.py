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

from tutorial_utils.activations.hooks import (
    Stop,
    check_stream,
    edits_by_layer,
    hooked_layers,
    run_edit,
)
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
        positions: which tokens to keep. None keeps all of them, without a copy. A list of column
            numbers keeps those columns. "last" keeps the last real token of each row, found by
            the attention mask, whether padding is on the left or on the right. Chosen positions
            are copied to (batch, positions, hidden), and the rest is not kept. In `generate`,
            "last" keeps one position per pass: the one that predicts the next token. Under
            `torch.inference_mode` every tensor is copied, so that a probe can be trained on it.
        to: a device to copy to, such as "cpu"; by default the tensors stay where they were made.
        dtype: the data type to keep them in; by default the model's.
        detach: False leaves the tensors in the autograd graph.
        stop: compute nothing after the last layer asked for. The call of the model then does
            not return: the block ends there, and lines of the block after the call are not run.

    A pass that continues the KV cache of the pass before is appended along seq, so a recorder
    around `generate` holds (batch, all tokens, hidden). The last new token is missing: no pass has
    read it. Any other pass replaces what was recorded.

    Some ways to generate cannot be recorded and are refused: beam search, because it reorders the
    rows, and guidance, because it runs a second prompt in between. Assisted decoding is refused
    with "last"; otherwise, the tokens that its last step tried and rejected may remain at the end.

    A model that runs a layer more than once per pass is refused. With `stop`, the last layer asked
    for may be such a layer: the output of its first run is kept.

    Recorders and editors can be nested. At one layer they act in the order in which their blocks
    were entered: a recorder inside `edit_activations` sees the edited stream. Inside the block
    a model from `torch.compile` runs uncompiled. The model may run in another thread, but only one
    thread at a time may have blocks open on it.

    Raises ValueError for a layer that is not there, before any hook is registered. With "last", it
    raises ValueError for a row without a real token, and for padding on the left if the model
    ignores the attention mask and reads padding as text, as RWKV does.
    """
    where = locate(model)
    numbers = layer_numbers(layers, len(where.layers))
    options = Options(check_positions(positions), to, dtype, detach, max(numbers) if stop else None)
    # The module that runs the layers gets input_ids, so their number can be read there. The mask
    # may not reach it: for "last" the inputs of the whole model are looked at.
    knows_enough = positions != "last" and "input_ids" in parameters(where.owners[-1])
    record = Record(numbers, len(where.layers))
    recorder = Recorder(record, options, where)
    see_inputs = None if knows_enough else recorder.see_inputs
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

    Use it when you do not need the logits: it computes no logits, no KV cache and no gradients.
    `inputs` are further inputs of the model, such as `attention_mask`. The other arguments are
    those of `record_activations`.

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

    `edits` maps a layer number to a function. The function takes the residual stream of one
    forward pass, (batch, seq, hidden), and returns the changed stream with the same shape, dtype
    and device. With a KV cache, a pass holds only the new tokens. How blocks nest is described in
    `record_activations`.

    Raises ValueError for a layer that is not there, for a result with another shape, dtype or
    device, and while another thread has a block open on this model.
    """
    where = locate(model)
    functions = edits_by_layer(edits, lambda given: layer_numbers(given, len(where.layers)))

    def edit(number: int, hidden: Tensor) -> Tensor:
        check_stream(number, hidden, where.width)
        return run_edit(functions[number], hidden, f"layer {number}")

    with hooked_layers(where, dict.fromkeys(functions, edit)):
        yield
