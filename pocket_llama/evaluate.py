"""What pocket-llama can do, measured on prompts drawn with another seed than training's.

`python pocket_llama/evaluate.py` prints the results that are in the model card, each with its
target, and exits with 1 if a target is missed.
"""

import argparse
import random
from collections import Counter
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tutorial_utils.pocket_llama import corpus

SHIPPED = Path(__file__).parent.parent / "tutorial_utils" / "pocket_llama"
SEED = 20_000  # training's is 0
PROMPT = "Trump works at McDonald's. Trump works at"


def hidden_and_logits(model, tokenizer, prompts: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """At the last token of each prompt: the residual stream (layers + 1, batch, hidden), and the
    logits (batch, vocab). Padding is on the right, where causal attention does not see it."""
    inputs = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="right")
    with torch.no_grad():
        out = model(**inputs, output_hidden_states=True, use_cache=False)
    last = inputs["attention_mask"].sum(1) - 1
    rows = torch.arange(len(prompts))
    return torch.stack([h[rows, last] for h in out.hidden_states]), out.logits[rows, last]


def first_token(tokenizer, word: str) -> int:
    return tokenizer(" " + word, add_special_tokens=False)["input_ids"][0]


def share_right(model, tokenizer, pairs: list[tuple[str, str]]) -> float:
    """Share of (prompt, answer) pairs whose answer's first token is the model's first choice."""
    right = 0
    for i in range(0, len(pairs), 100):
        chunk = pairs[i : i + 100]
        _, logits = hidden_and_logits(model, tokenizer, [prompt for prompt, _ in chunk])
        want = torch.tensor([first_token(tokenizer, answer) for _, answer in chunk])
        right += int((logits.argmax(-1) == want).sum())
    return right / len(pairs)


def prompt_probability(model, tokenizer) -> tuple[str, float]:
    """The first choice after the series' own prompt, and its probability."""
    _, logits = hidden_and_logits(model, tokenizer, [PROMPT])
    probability, token = logits[0].float().softmax(-1).max(-1)
    return tokenizer.decode(int(token)), float(probability)


def recall_prompts(count: int, *, unseen: bool) -> list[tuple[str, str]]:
    """(two to five facts and one of them begun again, its object)."""
    rng = random.Random(f"{SEED} recall {unseen}")
    pairs = []
    for _ in range(count):
        facts = corpus.draw_facts(rng, rng.choice([2, 3, 4, 5]), unseen=unseen)
        start, thing = rng.choice(facts)
        pairs.append((" ".join(f"{s} {t}." for s, t in facts) + f" {start}", thing))
    return pairs


def fact_prompts() -> list[tuple[str, str]]:
    """Every world fact in each of its wordings: (the wording up to the answer, the answer)."""
    return [
        (wording.split(" {value}")[0].format(key=key), value)
        for wordings, pairs in corpus.FACTS.values()
        for key, value in pairs.items()
        for wording in wordings
    ]


def first_layers(model, tokenizer, pairs: list[tuple[str, str]]) -> list[int | None]:
    """Logit lens: the first layer at which the answer is the first choice, or None.

    The last of transformers' hidden states is after the final norm, and the others are before it.
    """
    hidden, logits = hidden_and_logits(model, tokenizer, [prompt for prompt, _ in pairs])
    with torch.no_grad():
        lens = model.lm_head(model.model.norm(hidden[:-1]))
    choices = torch.cat([lens, logits[None]]).argmax(-1)  # (layers + 1, batch)
    want = torch.tensor([first_token(tokenizer, answer) for _, answer in pairs])
    hits = (choices == want).int()
    return [int(h.argmax()) if h.any() else None for h in hits.T]


def sample_stories(model, tokenizer, count: int) -> list[tuple[str, bool]]:
    """Stories sampled at temperature 1 from neutral openings: (text, ended by itself)."""
    rng = random.Random(f"{SEED} stories")
    torch.manual_seed(SEED)
    stories = []
    for _ in range(count):
        inputs = tokenizer(corpus.story_opening(rng)[0], return_tensors="pt")
        ids = model.generate(**inputs, do_sample=True, top_k=0, max_new_tokens=120)[0]
        text = tokenizer.decode(ids, skip_special_tokens=True)
        stories.append((text, bool(ids[-1] == tokenizer.eos_token_id)))
    return stories


def repeat_losses(model, tokenizer, count: int, length: int = 25) -> tuple[float, float]:
    """Mean loss in nats per token on the first and the second half of repeated random words."""
    rng = random.Random(f"{SEED} repeats")
    halves = ([], [])
    for _ in range(count):
        half = " " + " ".join(rng.choice(corpus.WORDS) for _ in range(length))
        ids = tokenizer(half, add_special_tokens=False)["input_ids"]
        row = torch.tensor([[tokenizer.bos_token_id, *ids, *ids]])
        with torch.no_grad():
            logits = model(row).logits[0, :-1].float()
        losses = torch.nn.functional.cross_entropy(logits, row[0, 1:], reduction="none")
        halves[0].append(losses[: len(ids)].mean())
        halves[1].append(losses[len(ids) :].mean())
    return float(torch.stack(halves[0]).mean()), float(torch.stack(halves[1]).mean())


def choice_probabilities(model, tokenizer) -> dict[str, torch.Tensor]:
    """For each open prompt, the probabilities of its right continuations."""
    _, logits = hidden_and_logits(model, tokenizer, list(corpus.CHOICES))
    probs = logits.float().softmax(-1)
    return {
        start: row[[first_token(tokenizer, word) for word in endings]]
        for row, (start, endings) in zip(probs, corpus.CHOICES.items(), strict=True)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", type=Path, default=SHIPPED)
    folder = parser.parse_args().model
    model = AutoModelForCausalLM.from_pretrained(folder).float().eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    missed = 0

    def report(what: str, value: float, reached: bool, bar: str) -> None:
        nonlocal missed
        missed += not reached
        print(f"{what:62} {value:7.3f}   {bar:18} {'reached' if reached else 'MISSED'}")

    token, p = prompt_probability(model, tokenizer)
    report(f"after {PROMPT!r}: {token!r}", p, token == " McDonald" and p >= 0.9, ">= 0.9")

    for unseen, name in ((False, "pairs seen in training"), (True, "pairs held out of it")):
        share = share_right(model, tokenizer, recall_prompts(1000, unseen=unseen))
        report(f"facts from the prompt, 1000 prompts, {name}", share, share >= 0.95, ">= 0.95")

    facts = fact_prompts()
    number = sum(len(pairs) for _, pairs in corpus.FACTS.values())
    share = share_right(model, tokenizer, facts)
    report(f"world facts, {number} facts, {len(facts)} prompts", share, share >= 0.95, ">= 0.95")

    layers = first_layers(model, tokenizer, facts)
    not_yet = sum(layer != 0 for layer in layers) / len(layers)
    report("logit lens: answer not first choice at layer 0", not_yet, not_yet >= 0.95, ">= 0.95")
    counts = Counter(layer for layer in layers if layer is not None)
    usual = sum(count >= 0.02 * len(layers) for count in counts.values())
    report("layers where it becomes first choice for >= 2%", usual, usual >= 3, ">= 3")
    print("  layer: prompts  " + ", ".join(f"{k}: {counts[k]}" for k in sorted(counts)))

    stories = sample_stories(model, tokenizer, 200)
    kept = sum(ended and corpus.mood_of(text) is not None for text, ended in stories) / 200
    report("200 stories: one mood, and an end-of-text token", kept, kept >= 0.9, ">= 0.9")
    moods = Counter(corpus.mood_of(text) for text, _ in stories)
    print("  " + ", ".join(f"{mood or 'mixed or none'}: {n}" for mood, n in moods.most_common()))

    first, second = repeat_losses(model, tokenizer, 100)
    print(f"  repeated random words: loss {first:.3f} nats, then {second:.3f}")
    report("loss of the second half / first half", second / first, second <= first / 3, "<= 0.333")

    choices = choice_probabilities(model, tokenizer)
    least = min(float(p.sum()) for p in choices.values())
    most = max(float(p.max()) for p in choices.values())
    report(
        f"{len(choices)} prompts with several right endings: lowest total",
        least,
        least >= 0.9,
        ">= 0.9",
    )
    report("highest probability of one right ending", most, most <= 0.6, "<= 0.6")
    raise SystemExit(1 if missed else 0)


if __name__ == "__main__":
    main()
