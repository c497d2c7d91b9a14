"""From text to token ids that the model can read."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.inputs import input_device

# Model types that read the padding before a prompt as if it were text: they have no attention mask,
# do not use it in every layer, or count positions from the first column on, whatever it holds.
READ_PADDING = frozenset(
    "bart bigbird_pegasus blenderbot blenderbot-small deepseek_v4 marian mbart mvp pegasus plbart "
    "prophetnet recurrent_gemma roformer rwkv trocr whisper xlstm".split()
)
# RoBERTa and its kin number positions from the id of their padding on, 2 or more.
ROBERTA = frozenset(
    "camembert data2vec-text roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod".split()
)


def context_length(model: PreTrainedModel) -> int | None:
    """How many tokens the model reads at most; None where its configuration does not tell."""
    config = model.config.get_text_config(decoder=True)
    length = getattr(config, "max_position_embeddings", None) or -1  # -1 is what XLNet says
    if numbers_from_padding(model):
        length -= config.pad_token_id + 1
    return length if length > 0 else None


def reads_padding(model: PreTrainedModel) -> bool:
    """Whether padding before a prompt changes what this model says after it."""
    kind = model.config.get_text_config(decoder=True).model_type
    has_mask = "attention_mask" in inspect.signature(model.forward).parameters
    return kind in READ_PADDING or numbers_from_padding(model) or not has_mask


def numbers_from_padding(model: PreTrainedModel) -> bool:
    """Whether the first token's position is not 0 here, so that the model is to number them."""
    return model.config.get_text_config(decoder=True).model_type in ROBERTA


def text_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text: with what the tokenizer puts before it, without what it puts after.

    Many put a BOS before a text. Some put an end token after it, such as an EOS or BERT's [SEP]:
    a model that reads one begins another text, and does not go on with this one.
    """
    if not texts:
        return []
    told = tokenizer(list(texts), return_special_tokens_mask=True, verbose=False)
    rows = []
    for row, added in zip(told["input_ids"], told["special_tokens_mask"], strict=True):
        after = added[::-1].index(0) if 0 in added else len(added)  # a text that gave no token
        rows.append(row[: len(row) - after])
    return rows


def checked_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    names: Sequence[str],
) -> list[list[int]]:
    """`text_ids`, or a `ValueError` with the name of the first text that the model cannot read."""
    for name, text in zip(names, texts, strict=True):
        if not text:
            raise ValueError(f"{name} is empty: there is nothing to read, give some text")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{name} holds half of a character, {text[error.start]!r} at place {error.start} "
                "(a lone surrogate), as text has that was cut in the middle: leave it out"
            ) from None
    context, rows = context_length(model), text_ids(tokenizer, texts)
    words = getattr(model.get_input_embeddings(), "num_embeddings", None)
    for name, row in zip(names, rows, strict=True):
        if not row:
            raise ValueError(
                f"{name} gives no tokens, as the tokenizer drops all of its characters: there is "
                "nothing to read, give other text"
            )
        if context is not None and len(row) > context:
            raise ValueError(
                f"{name} is too long: it has {len(row)} tokens, and this model reads at most "
                f"{context}; shorten it"
            )
        if words is not None and max(row) >= words:
            token = tokenizer.convert_ids_to_tokens([max(row)])[0]
            raise ValueError(
                f"{name} has a token that this model does not know: {token!r} has the id "
                f"{max(row)}, and its embedding has {words} rows. Use the model's own tokenizer, "
                "or model.resize_token_embeddings(len(tokenizer)) and train it"
            )
    return rows


def pad_rows(
    rows: Sequence[list[int]], *, left: bool, pad: int = 0, device: torch.device | None = None
) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, both (batch, seq), of rows of different lengths.

    Padding on the right is seen by no real token, whatever the model does with its mask. On the
    left it leaves the last column to the last token of each row.
    """
    seq = max(map(len, rows))
    more = [seq - len(row) for row in rows]
    ids, mask = (
        [[fill] * n + row if left else row + [fill] * n for n, row in zip(more, some, strict=True)]
        for fill, some in ((pad, rows), (0, [[1] * len(row) for row in rows]))
    )
    tensors = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    return {name: tensor.to(device) for name, tensor in tensors.items()}


def encode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: str | list[str]
) -> BatchEncoding:
    """Token ids of one prompt or of a list of prompts, where the model's embedding is.

    Gives `input_ids` and `attention_mask`, both `(batch, seq)`; a `str` is a batch of one. Shorter
    prompts of a list are padded on the left, so that the last position is the last token of each.
    What the tokenizer puts after a text, such as an EOS, is left out, so that the model goes on
    with the text. The tokenizer is left as it was. A model with absolute positions, such as GPT-2,
    also needs `position_ids` for a padded batch in a plain `model(...)`; `generate` works them out
    by itself.

    Raises `ValueError` for no prompts, for a prompt that is empty, longer than the model's context
    or has a token that the model does not know, and for prompts of different lengths where the
    model would read the padding.
    """
    rows = prompt_ids(model, tokenizer, prompts)
    if len({len(row) for row in rows}) > 1 and reads_padding(model):
        raise ValueError(
            f"{type(model).__name__} reads padding as if it were text, and these prompts have "
            f"{', '.join(str(len(row)) for row in rows)} tokens: give one prompt at a time, or "
            "prompts of as many tokens"
        )
    # Masked padding may be any id that the embedding has a row for.
    words = getattr(model.get_input_embeddings(), "num_embeddings", None)
    wanted = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    pad = next((i for i in wanted if i is not None and (words is None or i < words)), 0)
    return BatchEncoding(pad_rows(rows, left=True, pad=pad, device=input_device(model)))


def prompt_ids(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: str | list[str]
) -> list[list[int]]:
    """The token ids of each prompt, of its own length; a `str` is one. Errors as in `encode`."""
    texts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"prompts must be a string or a list of strings, not {prompts!r:.80}")
    if not texts:
        raise ValueError("there are no prompts: the list is empty, give at least one string")
    names = [f"prompt {i}" for i in range(len(texts))] if len(texts) > 1 else ["the prompt"]
    return checked_ids(model, tokenizer, texts, names)
