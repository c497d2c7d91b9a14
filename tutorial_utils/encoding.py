"""From text to token ids that the model can read."""

from __future__ import annotations

import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import BatchEncoding, PreTrainedModel, PreTrainedTokenizerBase

from tutorial_utils.activations.inputs import input_device

# Model types that read the padding before a prompt as if it were text. They have no attention mask,
# or do not use it in every layer, or count positions from the first column even if it is padding.
READ_PADDING = frozenset(
    "bart bigbird_pegasus blenderbot blenderbot-small deepseek_v4 marian mbart mvp pegasus plbart "
    "prophetnet recurrent_gemma roformer rwkv trocr whisper xlstm".split()
)
# RoBERTa and its relatives give the first token the position pad_token_id + 1, not 0.
ROBERTA = frozenset(
    "camembert data2vec-text roberta roberta-prelayernorm xlm-roberta xlm-roberta-xl xmod".split()
)


def context_length(model: PreTrainedModel) -> int | None:
    """The most tokens that the model can read; None if its configuration does not say."""
    config = model.config.get_text_config(decoder=True)
    length = getattr(config, "max_position_embeddings", None) or -1  # XLNet has -1
    if numbers_from_padding(model):
        length -= config.pad_token_id + 1
    return length if length > 0 else None


def reads_padding(model: PreTrainedModel) -> bool:
    """Whether padding before a prompt changes what this model predicts after it."""
    kind = model.config.get_text_config(decoder=True).model_type
    has_mask = "attention_mask" in inspect.signature(model.forward).parameters
    return kind in READ_PADDING or numbers_from_padding(model) or not has_mask


def numbers_from_padding(model: PreTrainedModel) -> bool:
    """Whether positions do not start at 0, so that the model has to compute them itself."""
    return model.config.get_text_config(decoder=True).model_type in ROBERTA


def text_ids(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[list[int]]:
    """Token ids of each text, with special tokens at its start but without those at its end.

    Many tokenizers put a BOS before a text. Some put an end token after it, such as an EOS or
    BERT's [SEP]. After an end token the model would begin another text, and not continue this one.
    """
    if not texts:
        return []
    encoded = tokenizer(list(texts), return_special_tokens_mask=True, verbose=False)
    rows = []
    for row, is_special in zip(encoded["input_ids"], encoded["special_tokens_mask"], strict=True):
        # If all tokens are special, the text itself gave none.
        at_end = is_special[::-1].index(0) if 0 in is_special else len(is_special)
        rows.append(row[: len(row) - at_end])
    return rows


def checked_ids(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    names: Sequence[str],
) -> list[list[int]]:
    """Return `text_ids`, or raise ValueError with the name of a text that the model cannot read."""
    for name, text in zip(names, texts, strict=True):
        if not text:
            raise ValueError(f"{name} is empty: there is nothing to read. Give some text")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"{name} holds half of a character, {text[error.start]!r} at index {error.start} "
                "(a lone surrogate). The text was probably cut in the middle: remove this "
                "half of a character"
            ) from None
    context, rows = context_length(model), text_ids(tokenizer, texts)
    words = getattr(model.get_input_embeddings(), "num_embeddings", None)
    for name, row in zip(names, rows, strict=True):
        if not row:
            raise ValueError(
                f"{name} gives no tokens, because the tokenizer drops all of its characters: there "
                "is nothing to read. Give a different text"
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
                f"{max(row)}, and the model's embedding has {words} rows. Use the model's own "
                "tokenizer, or model.resize_token_embeddings(len(tokenizer)) and train it"
            )
    return rows


def pad_rows(
    rows: Sequence[list[int]], *, left: bool, pad: int = 0, device: torch.device | None = None
) -> dict[str, Tensor]:
    """`input_ids` and `attention_mask`, both (batch, seq), of rows of different lengths.

    With padding on the right, no real token can see it, even if the model ignores the mask. With
    padding on the left, the last column holds the last token of each row.
    """
    seq = max(map(len, rows))

    def padded(row: list[int], fill: int) -> list[int]:
        padding = [fill] * (seq - len(row))
        return padding + row if left else row + padding

    ids = torch.tensor([padded(row, pad) for row in rows])
    mask = torch.tensor([padded([1] * len(row), 0) for row in rows])
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def encode(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: str | list[str]
) -> BatchEncoding:
    """Token ids of one prompt or a list of prompts, on the device of the model's embedding.

    Returns `input_ids` and `attention_mask`, both `(batch, seq)`; a `str` is a batch of one.
    Shorter prompts are padded on the left, so that the last column holds the last token of each
    prompt. A special token at the end of a text, such as an EOS, is left out, so that the model
    continues the text. The tokenizer's settings are not changed.

    A model with absolute positions, such as GPT-2, also needs `position_ids` if you pass a padded
    batch to `model(...)` yourself; `generate` computes them.

    Raises `ValueError` if there are no prompts; for a prompt that is empty, is longer than the
    model's context, or has a token that the model does not know; and for prompts of different
    lengths if the model would read the padding.
    """
    rows = prompt_ids(model, tokenizer, prompts)
    if len({len(row) for row in rows}) > 1 and reads_padding(model):
        raise ValueError(
            f"{type(model).__name__} reads padding as if it were text, and these prompts have "
            f"{', '.join(str(len(row)) for row in rows)} tokens: give one prompt at a time, or "
            "prompts with the same number of tokens"
        )
    # The padding is masked, so any id will do if the embedding has a row for it.
    words = getattr(model.get_input_embeddings(), "num_embeddings", None)
    wanted = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    pad = next((i for i in wanted if i is not None and (words is None or i < words)), 0)
    return BatchEncoding(pad_rows(rows, left=True, pad=pad, device=input_device(model)))


def prompt_ids(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: str | list[str]
) -> list[list[int]]:
    """The token ids of each prompt, without padding; a `str` is one. Errors as in `encode`."""
    texts = [prompts] if isinstance(prompts, str) else prompts
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"prompts must be a string or a list of strings, not {prompts!r:.80}")
    if not texts:
        raise ValueError("there are no prompts: the list is empty. Give at least one string")
    names = [f"prompt {i}" for i in range(len(texts))] if len(texts) > 1 else ["the prompt"]
    return checked_ids(model, tokenizer, texts, names)
