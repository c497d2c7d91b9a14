"""What all tools are given for whole jobs, and the steps that are the same for all."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator
from functools import cached_property

import torch
from torch import Tensor, nn

Job = Callable[[], Tensor]
SEQ, LONG, PROMPTS, BATCH = 9, 128, 96, 16
WORDS = "the dog was happy and went to a park with Anna who saw one red ball near her house".split()
TOP_K, STEPS, RATE, ROWS, BLOCK = 8, 50, 0.003, 512, 1024  # of sparse features


class Task:
    """What all tools are given: a prompt, another, and texts of 4 to 90 tokens in no order."""

    def __init__(self, model: nn.Module, tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.layers = model.model.layers
        self.kept = [len(self.layers) * part // 3 for part in (1, 2, 3)]  # of the harvest
        self.ids, self.other = (torch.tensor([self.tokens(seed, SEQ)]) for seed in (1, 2))
        self.prompt = tokenizer.decode(self.ids[0], skip_special_tokens=True)
        self.ids = tokenizer(self.prompt, return_tensors="pt")["input_ids"]
        self.other = self.other[:, : self.ids.shape[1]]
        counts = lengths(PROMPTS, random.Random(0))
        rows = [self.tokens(seed, count) for seed, count in enumerate(counts, start=3)]
        self.texts = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
        self.source = self.stream(self.other)
        self.scored = [tokenizer(word)["input_ids"][-1] for word in ("dog", "house")]
        self.long = torch.tensor([self.tokens(0, LONG)])  # for heads and attribution

    def tokens(self, seed: int, count: int) -> list[int]:
        text = " ".join(random.Random(seed).choices(WORDS, k=2 * count))
        return self.tokenizer(text)["input_ids"][:count]

    def score(self, logits: Tensor) -> Tensor:
        """The lead of one of the two scored tokens, (batch,), of logits (batch, vocab)."""
        one, other = self.scored
        return logits[:, one] - logits[:, other]

    @cached_property
    def eager(self) -> nn.Module:
        """The model again, loaded so that it computes attention patterns."""
        from transformers import AutoModelForCausalLM

        given = {"dtype": torch.float32, "attn_implementation": "eager"}
        folder = self.model.config.name_or_path
        return AutoModelForCausalLM.from_pretrained(folder, **given).eval()

    @cached_property
    def rows(self) -> Tensor:
        """The middle layer (rows, hidden) of all texts, without their first tokens.

        Without the few others, too, that are many times as long: the loss would be about them.
        """
        middle, found = len(self.layers) // 2, []
        for ids, last in self.batches():
            hidden = self.stream(ids, [middle])[middle]
            found += [row[1 : end + 1] for row, end in zip(hidden, last)]
        rows = torch.cat(found)
        lengths = rows.norm(dim=1)
        return rows[lengths < 10 * lengths.median()]

    @torch.no_grad()
    def stream(self, ids: Tensor, layers: list[int] | None = None) -> dict[int, Tensor]:
        """Layers 1 to n by one hook each."""
        kept, handles = {}, []
        for number in layers or range(1, len(self.layers) + 1):

            def keep(module, args, output, number=number):
                kept[number] = output[0] if isinstance(output, tuple) else output

            handles.append(self.layers[number - 1].register_forward_hook(keep))
        self.model(ids)
        for handle in handles:
            handle.remove()
        return kept

    def batches(self) -> list[tuple[Tensor, Tensor]]:
        """Ids, padded on the right, and the place of each last token; as the texts come."""
        found = []
        for first in range(0, PROMPTS, BATCH):
            rows = self.tokenizer(self.texts[first : first + BATCH])["input_ids"]
            ids = torch.zeros(BATCH, max(map(len, rows)), dtype=torch.long)
            for row, tokens in zip(ids, rows):
                row[: len(tokens)] = torch.tensor(tokens)
            found.append((ids, torch.tensor([len(tokens) - 1 for tokens in rows])))
        return found

    def last_tokens(self, stream: Callable[[Tensor, list[int]], list[Tensor]]) -> Tensor:
        """The last token of each text, (layers, texts, hidden), also written to disk."""
        rows = []
        for ids, last in self.batches():
            kept = stream(ids, self.kept)
            rows.append(torch.stack([hidden[range(BATCH), last] for hidden in kept]))
        whole = torch.cat(rows, dim=1)
        with tempfile.NamedTemporaryFile(suffix=".pt") as file:
            torch.save(whole, file.name)
        return whole

    def five_best(self, stream: list[Tensor]) -> Tensor:
        """Probabilities of the five best of each layer and token."""
        with torch.no_grad():
            logits = [self.model.lm_head(self.model.model.norm(hidden)) for hidden in stream]
            return torch.stack([z.float().softmax(-1).topk(5).values for z in logits])

    def left_over(self, again: Tensor) -> Tensor:
        """The share of the variance that features leave over, (1,)."""
        variance = (self.rows - self.rows.mean(dim=0)).pow(2).sum()
        return ((again - self.rows).pow(2).sum() / variance)[None]

    def each_place(self) -> list[tuple[int, int]]:
        return [(i, t) for i in range(1, len(self.layers) + 1) for t in range(self.ids.shape[1])]

    def table(self, scores: list[Tensor]) -> Tensor:
        return torch.cat(scores).view(len(self.layers), -1)


def lengths(count: int, rng: random.Random) -> list[int]:
    """So many lengths, evenly from 4 to 90, in no order."""
    found = [4 + i * 86 // (count - 1) for i in range(count)]
    rng.shuffle(found)
    return found


def mixed(rows: Tensor, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches without end, mixed as the lesson on sparse features mixes them."""
    blocks = torch.arange(0, len(rows), BLOCK)
    while True:
        order = torch.randperm(len(blocks), generator=generator)
        some = torch.cat([rows[i : i + BLOCK] for i in blocks[order].tolist()])
        yield from some[torch.randperm(len(some), generator=generator)].split(ROWS)
