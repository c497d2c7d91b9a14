"""Whole jobs by other tools, each as the tool's own documentation does it."""

from __future__ import annotations

import torch
from task import RATE, ROWS, STEPS, TOP_K, Job, Task, mixed


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

    eager = NNsight(task.eager)

    def heads():
        kept = []
        with torch.no_grad(), eager.trace(task.long):
            kept = [layer.self_attn.output[1].save() for layer in eager.model.layers]
            kept.save()
        return torch.cat(kept)

    return {"patching": patching, "harvest": harvest, "lens": lens, "heads": heads}


def transformer_lens(task: Task) -> dict[str, Job]:
    from transformer_lens.model_bridge import TransformerBridge

    name = str(task.model.config.name_or_path)
    given = {"tokenizer": task.tokenizer, "device": "cpu"}
    bridge = TransformerBridge.boot_transformers(name, hf_model=task.model, **given)
    # `logit_attrs` needs norms that are folded into the weights, so a model of its own.
    folded = TransformerBridge.boot_transformers(name, hf_model=task.eager, **given)
    folded.enable_compatibility_mode(disable_warnings=True)

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

    @torch.no_grad()
    def heads():
        names = [f"blocks.{number}.attn.hook_pattern" for number in range(len(task.layers))]
        _, cache = bridge.run_with_cache(task.long, names_filter=names)
        return torch.cat([cache[name] for name in names])

    @torch.no_grad()
    def attribution():
        _, cache = folded.run_with_cache(task.long)
        tokens = dict(zip(("tokens", "incorrect_tokens"), task.scored))

        def logits(stack):
            return cache.logit_attrs(stack, pos_slice=-1, **tokens)[:, 0]

        embedding, *parts = logits(cache.decompose_resid(layer=-1, pos_slice=-1))
        heads = logits(cache.stack_head_results(layer=-1, pos_slice=-1))
        return torch.cat([torch.stack([embedding, *parts[::2], *parts[1::2]]), heads])

    return {
        "patching": patching,
        "harvest": harvest,
        "lens": lens,
        "heads": heads,
        "attribution": attribution,
    }


def sae_lens(task: Task) -> dict[str, Job]:
    from sae_lens import SAETrainer, TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.config import SAETrainerConfig

    def features():
        hidden = task.rows.shape[1]
        sizes = {"d_in": hidden, "d_sae": 4 * hidden, "k": TOP_K}
        scaled = {"normalize_activations": "expected_average_only_in", "decoder_init_norm": 1.0}
        sae = TopKTrainingSAE(TopKTrainingSAEConfig(**sizes, **scaled))
        # It begins at 0 unless told otherwise; the others begin at the mean.
        sae.b_dec.data = hidden**0.5 / task.rows.norm(dim=1).mean() * task.rows.mean(dim=0)
        steps = {"total_training_samples": STEPS * ROWS, "train_batch_size_samples": ROWS}
        rates = {"lr": RATE, "lr_end": RATE / 10, "lr_decay_steps": STEPS // 5}
        batches = iter(mixed(task.rows, torch.Generator().manual_seed(0)))
        more = {"n_batches_for_norm_estimate": 10}
        SAETrainer(SAETrainerConfig(**steps, **rates, **more), sae, batches).fit()
        with torch.no_grad():
            return task.left_over(sae(task.rows))

    return {"features": features}
