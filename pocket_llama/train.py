"""Train pocket-llama from one seed, on the corpus in the package, and ship it there.

`make pocket-llama` runs this. Stop it with Ctrl-C and run it again: it continues from its
checkpoint. The batches depend only on the seed and the step, so a run that was stopped sees the
same text as one that was not.
"""

import argparse
import json
import os
import random
import time
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from tqdm import tqdm
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tutorial_utils.pocket_llama import corpus

HERE = Path(__file__).parent
SHIPPED = HERE.parent / "tutorial_utils" / "pocket_llama"
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
CONTEXT = 256
VOCAB = 1536
TOKENIZER_DOCUMENTS = 30_000
TOKENS_PER_BATCH = 1024
BATCHES_PER_POOL = 200
COPYING_FIRST = 0.3  # the first share of training has only documents of copying
LAST_STEPS, LAST_LR = 900, 6e-4
# The way Llama 3's tokenizer cuts a text into words before any merging.
WORD = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def build_tokenizer(seed: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer like Llama 3's, trained on the corpus; it adds a BOS."""
    rng = random.Random(f"{seed} tokenizer")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[BOS, EOS],
        show_progress=False,
    )
    texts = (corpus.document(rng) for _ in range(TOKENIZER_DOCUMENTS))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A",
        pair=f"{BOS} $A {BOS} $B",
        special_tokens=[(BOS, tokenizer.token_to_id(BOS))],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=EOS,
        model_max_length=CONTEXT,
        model_input_names=["input_ids", "attention_mask"],  # no token types, on any version
        clean_up_tokenization_spaces=False,
    )


def build_model(seed: int, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of 8 decoder layers of width 128, with random weights and a start for copying."""
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=8,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    initialise(model)
    return model


@torch.no_grad()
def initialise(model: LlamaForCausalLM) -> None:
    """Weights of a size that suits a narrow model, and look-back heads in the first layer.

    transformers draws all weights with a standard deviation of 0.02, which suits a width of
    thousands. Here it is 1 / sqrt(inputs), and less for what is added to the residual stream.
    """
    for name, weight in model.model.layers.named_parameters():
        if weight.ndim == 2:
            weight.normal_(std=weight.shape[1] ** -0.5)
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                weight.mul_(0.3)
    shared = torch.randn(model.config.hidden_size)
    model.model.embed_tokens.weight.normal_(std=0.3).add_(0.3 * shared)
    start_look_back_heads(model, shared / shared.norm())


def start_look_back_heads(model: LlamaForCausalLM, shared: torch.Tensor) -> None:
    """Let head `h` of the first layer begin by attending to the token `h + 1` places back.

    Copying needs heads that know which tokens came before, and a small model learns them late:
    without this start, 18 million tokens were not enough to learn whose fact is whose. The
    direction that all embeddings share, `shared`, gives all keys one common part. Rotary
    embedding turns it with the position, so a query that holds the same part turned back by `d`
    places matches the key that stands `d` places back best. Training may change all of it.
    """
    config, attention = model.config, model.model.layers[0].self_attn
    half = config.head_dim // 2
    angles = 10_000.0 ** (-torch.arange(half) / half)  # per place, as rotary embedding turns
    queries = attention.q_proj.weight.unflatten(0, (config.num_attention_heads, -1))
    strength = 6 * config.hidden_size**-0.5
    attention.k_proj.weight += strength * shared
    for head, query in enumerate(queries):
        turn = angles * (head + 1)
        back = torch.cat([turn.cos() + turn.sin(), turn.cos() - turn.sin()])
        query += strength * torch.outer(back, shared)


def batches(
    seed: int, pool: int, tokenizer: PreTrainedTokenizerFast, shares: dict[str, float]
) -> list[list[list[int]]]:
    """The batches of one pool: documents of like length together, about as many tokens in each.

    Each row is one document from BOS to end of text, as the lessons give prompts to the model.
    """
    rng = random.Random(f"{seed} pool {pool}")
    rows = []
    while sum(map(len, rows)) < TOKENS_PER_BATCH * BATCHES_PER_POOL:
        texts = [corpus.document(rng, shares) + EOS for _ in range(1000)]
        rows += [ids[:CONTEXT] for ids in tokenizer(texts, verbose=False)["input_ids"]]
    rows.sort(key=len)
    made, batch = [], []
    for row in rows:
        if batch and (len(batch) + 1) * len(row) > TOKENS_PER_BATCH:
            made.append(batch)
            batch = []
        batch.append(row)
    made.append(batch)
    rng.shuffle(made)
    return made


def loss_of(model: LlamaForCausalLM, batch: list[list[int]]) -> torch.Tensor:
    """Mean cross-entropy in nats of every next token of the batch, padding left out.

    Rows are padded on the right, where causal attention makes a mask unnecessary.
    """
    width = max(map(len, batch))
    ids = torch.tensor([row + [-100] * (width - len(row)) for row in batch])
    logits = model(input_ids=ids.clamp(min=0), use_cache=False).logits
    return torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def optimizer_of(model: LlamaForCausalLM, lr: float) -> torch.optim.Optimizer:
    """AdamW with weight decay on the matrices, and none on embeddings and norms."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)


def schedule(done: float) -> float:
    """The share of the learning rate after this share of training: warm up, hold, cool down."""
    return min(1.0, done / 0.005, max(0.0, (1 - done) / 0.4))


def take_step(
    model: LlamaForCausalLM, optimizer: torch.optim.Optimizer, batch: list[list[int]], lr: float
) -> float:
    """One step on one batch; returns its loss."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = loss_of(model, batch)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def save_checkpoint(path: Path, **state) -> None:
    """Write a new file and rename it, so that a stop while writing keeps the old checkpoint."""
    torch.save(state, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def train(seed: int, steps: int, lr: float, checkpoint: Path) -> tuple:
    """Train, from the checkpoint if there is one; returns (model, tokenizer, seconds taken)."""
    tokenizer = build_tokenizer(seed)
    model = build_model(seed, tokenizer)
    optimizer = optimizer_of(model, lr)
    step, pool, seconds = 0, 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if (state["seed"], state["steps"], state["lr"]) != (seed, steps, lr):
            raise SystemExit(f"{checkpoint} is of another run: delete it, or use its settings.")
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        step, pool, seconds = state["step"], state["pool"], state["seconds"]
    begun = time.perf_counter()
    bar = tqdm(total=steps, initial=step, unit="step", mininterval=1)
    while step < steps:
        shares = corpus.COPYING if step < COPYING_FIRST * steps else corpus.SHARES
        for batch in batches(seed, pool, tokenizer, shares)[: steps - step]:
            loss = take_step(model, optimizer, batch, lr * schedule(step / steps))
            step += 1
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)
            bar.update()
        pool += 1
        save_checkpoint(
            checkpoint,
            **{"seed": seed, "steps": steps, "lr": lr, "step": step, "pool": pool},
            seconds=seconds + time.perf_counter() - begun,
            model=model.state_dict(),
            optimizer=optimizer.state_dict(),
        )
    bar.close()
    return finish(model, tokenizer, seed), tokenizer, seconds + time.perf_counter() - begun


def finish(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, seed: int
) -> LlamaForCausalLM:
    """Train a little longer, on `corpus.LAST`, from the weights rounded to half precision.

    Without this, the model was unsure of a single fact, as in the prompt of the lessons. The pools
    have numbers that the training before never reaches.
    """
    model = model.half().float()
    optimizer = optimizer_of(model, LAST_LR)
    step, pool = 0, 10**6
    with tqdm(total=LAST_STEPS, unit="step", mininterval=1, desc="last part") as bar:
        while step < LAST_STEPS:
            for batch in batches(seed, pool, tokenizer, corpus.LAST)[: LAST_STEPS - step]:
                take_step(model, optimizer, batch, LAST_LR * (1 - step / LAST_STEPS))
                step += 1
                bar.update()
            pool += 1
    return model


def ship(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Save weights in half precision, configuration and tokenizer; replaces what was there."""
    folder.mkdir(parents=True, exist_ok=True)
    model.half().eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # transformers 5 writes its own new name for the class, which transformers 4 does not know.
    settings = folder / "tokenizer_config.json"
    read = json.loads(settings.read_text())
    read["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings.write_text(json.dumps(read, indent=2) + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"saved {model.num_parameters():,} parameters, {size / 1e6:.1f} MB with the tokenizer")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train pocket-llama and save it in the package.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where to save the model")
    parser.add_argument("--checkpoint", type=Path, default=HERE / "checkpoint.pt")
    args = parser.parse_args()
    try:
        model, tokenizer, seconds = train(args.seed, args.steps, args.lr, args.checkpoint)
    except KeyboardInterrupt:
        raise SystemExit("\nstopped: run the same command again to continue") from None
    ship(model, tokenizer, args.out)
    args.checkpoint.unlink()  # so that the next run trains again from the seed
    print(f"trained in {seconds / 60:.0f} minutes")


if __name__ == "__main__":
    main()
