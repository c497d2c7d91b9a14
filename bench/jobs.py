"""Whole jobs: for each tool functions that do one from beginning to end, and give what came out.

A job is done as the tool's own documentation does it. Each group runs in the environment of its
tool, on a model of its own; what came out is compared with plain code before it is timed.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor, nn

Job = Callable[[], Tensor]
SEQ, PROMPTS, BATCH = 9, 96, 16
WORDS = "the dog was happy and went to a park with Anna who saw one red ball near her house".split()


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
        lengths = [4 + i * 86 // (PROMPTS - 1) for i in range(PROMPTS)]
        random.Random(0).shuffle(lengths)
        rows = [self.tokens(seed, length) for seed, length in enumerate(lengths, start=3)]
        self.texts = [tokenizer.decode(row, skip_special_tokens=True) for row in rows]
        self.source = self.stream(self.other)

    def tokens(self, seed: int, count: int) -> list[int]:
        text = " ".join(random.Random(seed).choices(WORDS, k=2 * count))
        return self.tokenizer(text)["input_ids"][:count]

    def score(self, logits: Tensor) -> Tensor:
        return logits[:, 7] - logits[:, 9]

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

    def each_place(self) -> list[tuple[int, int]]:
        return [(i, t) for i in range(1, len(self.layers) + 1) for t in range(self.ids.shape[1])]

    def table(self, scores: list[Tensor]) -> Tensor:
        return torch.cat(scores).view(len(self.layers), -1)


def plain(task: Task) -> dict[str, Job]:
    @torch.no_grad()
    def patching():
        scores = []
        for number, token in task.each_place():

            def put(module, args, output, number=number, token=token):
                hidden = (output[0] if isinstance(output, tuple) else output).clone()
                hidden[:, token] = task.source[number][:, token]
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

            handle = task.layers[number - 1].register_forward_hook(put)
            scores.append(task.score(task.model(task.ids).logits[:, -1]))
            handle.remove()
        return task.table(scores)

    def harvest():
        return task.last_tokens(lambda ids, numbers: [*task.stream(ids, numbers).values()])

    def lens():
        return task.five_best([*task.stream(task.ids).values()])

    return {"patching": patching, "harvest": harvest, "lens": lens}


def ours(task: Task) -> dict[str, Job]:
    from tutorial_utils import (
        harvest_activations,
        lens_choices,
        patch_each,
        read_activations,
        read_harvest,
    )

    def patching(**options):
        given = task.model, task.tokenizer, task.prompt, task.source, task.score
        return patch_each(*given, **options)

    def harvest():
        with tempfile.TemporaryDirectory() as folder:
            texts, layers = task.texts, task.kept
            harvest_activations(task.model, task.tokenizer, texts, folder, layers=layers)
            found = read_harvest(folder)
            return torch.stack([found[number][:] for number in layers])

    def lens():
        layers = range(1, len(task.layers) + 1)
        return lens_choices(task.model, read_activations(task.model, task.ids, layers=layers))[0]

    def estimate():
        return patching(approximate=True)

    return {"patching": patching, "harvest": harvest, "lens": lens, "estimate": estimate}


def nnsight(task: Task) -> dict[str, Job]:
    from nnsight import NNsight

    wrapped = NNsight(task.model)

    def patching():
        scores = []
        for number, token in task.each_place():
            vector = task.source[number][:, token]
            with torch.no_grad(), wrapped.trace(task.ids):
                wrapped.model.layers[number - 1].output[:, token] = vector
                logits = wrapped.lm_head.output[:, -1].save()
            scores.append(task.score(logits))
        return task.table(scores)

    def stream(ids, numbers):
        kept = []
        with torch.no_grad(), wrapped.trace(ids):
            kept = [wrapped.model.layers[number - 1].output.save() for number in numbers]
            kept.save()
        return kept

    def harvest():
        return task.last_tokens(stream)

    def lens():
        return task.five_best(stream(task.ids, range(1, len(task.layers) + 1)))

    return {"patching": patching, "harvest": harvest, "lens": lens}


def transformer_lens(task: Task) -> dict[str, Job]:
    from transformer_lens.model_bridge import TransformerBridge

    name = str(task.model.config.name_or_path)
    given = {"hf_model": task.model, "tokenizer": task.tokenizer, "device": "cpu"}
    bridge = TransformerBridge.boot_transformers(name, **given)

    @torch.no_grad()
    def patching():
        scores = []
        for number, token in task.each_place():

            def put(hidden, hook, number=number, token=token):
                hidden[:, token] = task.source[number][:, token]
                return hidden

            hooks = [(f"blocks.{number - 1}.hook_out", put)]
            scores.append(task.score(bridge.run_with_hooks(task.ids, fwd_hooks=hooks)[:, -1]))
        return task.table(scores)

    @torch.no_grad()
    def stream(ids, numbers):
        names = [f"blocks.{number - 1}.hook_out" for number in numbers]
        _, cache = bridge.run_with_cache(ids, names_filter=names)
        return [cache[name] for name in names]

    def harvest():
        return task.last_tokens(stream)

    @torch.no_grad()
    def lens():
        best = []
        for hidden in stream(task.ids, range(1, len(task.layers) + 1)):
            logits = bridge.unembed(bridge.ln_final(hidden))
            best.append(logits.float().softmax(-1).topk(5).values)
        return torch.stack(best)

    return {"patching": patching, "harvest": harvest, "lens": lens}


GROUPS = {"ours": ours, "nnsight": nnsight, "transformer-lens": transformer_lens}


def prepare(group: str, folder: str) -> dict[str, Job]:
    """The jobs of one environment, of ours with plain code and a bare pass, on this model."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)

    def task() -> Task:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        return Task(model.eval(), tokenizer)

    jobs = {f"{job}: {group}": run for job, run in GROUPS[group](task()).items()}
    if group == "ours":
        by_hand = task()
        jobs |= {f"{job}: plain": run for job, run in plain(by_hand).items()}
        jobs["estimate: bare pass"] = lambda: by_hand.stream(by_hand.ids, [1])
    return jobs
