"""Train pocket-llama from one seed, on the corpus of `corpus.py`, and ship it in the package.

`make pocket-llama` runs this. Stop it with Ctrl-C and run it again: it goes on from its
checkpoint. The batches depend on the seed and the step alone, so a stopped run sees the same
text as one that was not. Needs torch 2.9 or newer, for the Muon optimizer.
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

import corpus

HERE = Path(__file__).parent
SHIPPED = HERE.parent / "tutorial_utils" / "pocket_llama"
BOS, EOS = "<|begin_of_text|>", "<|end_of_text|>"
CONTEXT = 256
VOCAB = 1536
TOKENIZER_DOCUMENTS = 30_000
TOKENS_PER_BATCH = 6144
BATCHES_PER_POOL = 50
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
        clean_up_tokenization_spaces=False,
    )


def build_model(seed: int, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    """A Llama of 8 decoder layers of width 128, with random weights."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=128,
            intermediate_size=384,
            num_hidden_layers=8,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=CONTEXT,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def batches(seed: int, pool: int, tokenizer: PreTrainedTokenizerFast) -> list[list[list[int]]]:
    """The batches of one pool: documents of like length together, about as many tokens in each.

    Each row is one document from BOS to end of text, as the lessons give prompts to the model.
    """
    rng = random.Random(f"{seed} pool {pool}")
    rows = []
    while sum(map(len, rows)) < TOKENS_PER_BATCH * BATCHES_PER_POOL:
        texts = [corpus.document(rng) + EOS for _ in range(1000)]
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


def optimizers(model: LlamaForCausalLM, lr: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the decoder layers, AdamW for embeddings and norms."""
    inside = [p for n, p in model.named_parameters() if p.ndim == 2 and ".layers." in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or ".layers." not in n]
    return [
        torch.optim.Muon(inside, lr=lr, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=lr, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def schedule(done: float) -> float:
    """The share of the learning rate after this share of training: warm up, hold, cool down."""
    return min(1.0, done / 0.02, max(0.0, (1 - done) / 0.4))


def save_checkpoint(path: Path, **state) -> None:
    """Write beside and rename, so that a stop while writing leaves the older checkpoint whole."""
    torch.save(state, path.with_suffix(".new"))
    os.replace(path.with_suffix(".new"), path)


def train(seed: int, steps: int, lr: float, checkpoint: Path) -> tuple:
    """Train from the checkpoint where there is one; gives (model, tokenizer, seconds taken)."""
    tokenizer = build_tokenizer(seed)
    model = build_model(seed, tokenizer)
    opts = optimizers(model, lr)
    step, pool, seconds = 0, 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        if (state["seed"], state["steps"], state["lr"]) != (seed, steps, lr):
            raise SystemExit(f"{checkpoint} is of another run: delete it, or use its settings.")
        model.load_state_dict(state["model"])
        for opt, saved in zip(opts, state["optimizers"], strict=True):
            opt.load_state_dict(saved)
        step, pool, seconds = state["step"], state["pool"], state["seconds"]
    begun = time.perf_counter()
    bar = tqdm(total=steps, initial=step, unit="step", mininterval=1)
    while step < steps:
        for batch in batches(seed, pool, tokenizer)[: steps - step]:
            for group in (group for opt in opts for group in opt.param_groups):
                group["lr"] = lr * schedule(step / steps)
            loss = loss_of(model, batch)
            loss.backward()
            for opt in opts:
                opt.step()
                opt.zero_grad()
            step += 1
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            bar.update()
        pool += 1
        save_checkpoint(
            checkpoint,
            **{"seed": seed, "steps": steps, "lr": lr, "step": step, "pool": pool},
            seconds=seconds + time.perf_counter() - begun,
            model=model.state_dict(),
            optimizers=[opt.state_dict() for opt in opts],
        )
    bar.close()
    return model, tokenizer, seconds + time.perf_counter() - begun


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
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--lr", type=float, default=4e-3)
    parser.add_argument("--out", type=Path, default=SHIPPED, help="where to save the model")
    parser.add_argument("--checkpoint", type=Path, default=HERE / "checkpoint.pt")
    args = parser.parse_args()
    try:
        model, tokenizer, seconds = train(args.seed, args.steps, args.lr, args.checkpoint)
    except KeyboardInterrupt:
        raise SystemExit("\nstopped: run the same command again to go on") from None
    ship(model, tokenizer, args.out)
    args.checkpoint.unlink()  # so that the next run trains again from the seed
    print(f"trained in {seconds / 60:.0f} minutes")


if __name__ == "__main__":
    main()
