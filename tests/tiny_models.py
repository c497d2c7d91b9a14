"""Tiny models with random weights, and tokenizers to go with them, made by the tests themselves.

Nothing is downloaded. Each function writes a folder that `load_model(folder)` loads, and gives the
folder back. The same seed gives the same weights.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GPT2LMHeadModel,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

VOCAB_SIZE = 400
# What the byte pairs are learned from. "McDonald's" stays in more than one token.
TEXT = [
    "Trump works at McDonald's. Trump works at McDonald's.",
    "The capital of France is Paris. The capital of Japan is Tokyo.",
    "Anna has the red ball. Ben has the green lamp. Who has the ball? Anna has the ball.",
    "Once upon a time there was a small dog, and the dog was happy.",
    "A language model reads tokens and gives a probability to each next token.",
]


def train_tokenizer(special_tokens: list[str], vocab_size: int = VOCAB_SIZE) -> Tokenizer:
    """A byte-level BPE tokenizer: every text can be encoded, and nothing is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special_tokens,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXT, trainer)
    return tokenizer


def llama_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that puts a BOS in front of each text and whose pad token is its EOS."""
    bos, eos = "<|begin_of_text|>", "<|end_of_text|>"
    tokenizer = train_tokenizer([bos, eos])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos} $A",
        pair=f"{bos} $A {bos} $B",
        special_tokens=[(bos, tokenizer.token_to_id(bos))],
    )
    return _wrap(tokenizer, bos_token=bos, eos_token=eos, pad_token=eos)


def gpt2_tokenizer() -> PreTrainedTokenizerFast:
    """A tokenizer that adds no BOS and has no pad token, as GPT-2's."""
    end = "<|endoftext|>"
    return _wrap(train_tokenizer([end]), bos_token=end, eos_token=end, unk_token=end)


class NumberTokenizer:
    """Token ids written as numbers, such as "5 17 3": for models that have no tokenizer."""

    pad_token_id = eos_token_id = None

    def __call__(self, texts: list[str], **options: object) -> dict[str, list]:
        rows = [[int(word) for word in text.split()] for text in texts]
        return {"input_ids": rows, "special_tokens_mask": [[0] * len(row) for row in rows]}

    def decode(self, ids: Iterable[int], **options: object) -> str:
        return " ".join(str(int(i)) for i in ids)

    def batch_decode(self, rows: Iterable, **options: object) -> list[str]:
        return [self.decode(row) for row in rows]


def count_hooks(model: torch.nn.Module) -> int:
    """How many hooks are on all modules of the model, of every kind."""
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)


def _wrap(tokenizer: Tokenizer, **special_tokens: str) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
        **special_tokens,
    )


def make_llama(
    folder: Path | str,
    *,
    seed: int = 0,
    layers: int = 4,
    hidden: int = 32,
    context: int = 256,
    dtype: torch.dtype = torch.float32,
    **config: object,
) -> Path:
    """A Llama with 4 attention heads, 2 key/value heads and a BOS added by its tokenizer."""
    settings = {
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": context,
    }
    return _make(LlamaForCausalLM, llama_tokenizer(), {**settings, **config}, folder, seed, dtype)


def make_gpt2(
    folder: Path | str,
    *,
    seed: int = 0,
    layers: int = 4,
    hidden: int = 32,
    context: int = 512,
    dtype: torch.dtype = torch.float32,
    **config: object,
) -> Path:
    """A GPT-2 with 4 attention heads, no BOS added and no pad token."""
    settings = {"n_embd": hidden, "n_layer": layers, "n_head": 4, "n_positions": context}
    return _make(GPT2LMHeadModel, gpt2_tokenizer(), {**settings, **config}, folder, seed, dtype)


def _make(
    model_class: type[PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    settings: dict,
    folder: Path | str,
    seed: int,
    dtype: torch.dtype,
) -> Path:
    tokens = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    tokens["vocab_size"] = len(tokenizer)
    wide = {"initializer_range": 0.2}  # so that predictions are not all alike
    config = model_class.config_class(**{**tokens, **wide, **settings})
    with torch.random.fork_rng(devices=[]):  # the caller's own random numbers go on as they were
        torch.manual_seed(seed)
        model = model_class(config)
    folder = Path(folder)
    model.to(dtype).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
