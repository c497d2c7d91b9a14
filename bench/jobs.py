"""Whole jobs: for each tool functions that do one from beginning to end, and give what came out.

A job is done as the tool's own documentation does it. Each group runs in the environment of its
tool, on a model of its own; what came out is compared with plain code before it is timed.
"""

from __future__ import annotations

import tempfile

import torch
from peers import nnsight, sae_lens, transformer_lens
from task import RATE, ROWS, STEPS, TOP_K, Job, Task, mixed


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

    @torch.no_grad()
    def heads():
        return torch.cat(task.eager(task.long, output_attentions=True).attentions)

    @torch.no_grad()
    def attribution():
        """With the scale of the final norm kept, a logit is a sum over the parts."""
        found, handles = {}, []

        def keep(name, module, *, takes=False):
            def hook(module, args, output):
                found[name] = (args[0] if takes else output)[0, -1]

            handles.append(module.register_forward_hook(hook))

        norm, count = task.model.model.norm, len(task.layers)
        keep("embedding", task.model.model.embed_tokens)
        keep("stream", norm, takes=True)
        for number, layer in enumerate(task.layers):
            keep(("heads", number), layer.self_attn.o_proj, takes=True)
            keep(("mlp", number), layer.mlp)
        task.model(task.long)
        for handle in handles:
            handle.remove()
        one, other = task.model.lm_head.weight[task.scored]
        scale = (found["stream"].square().mean() + norm.variance_epsilon).rsqrt()
        direction = scale * norm.weight * (one - other)
        size, heads = task.layers[0].self_attn.head_dim, []
        for number, layer in enumerate(task.layers):
            back = direction @ layer.self_attn.o_proj.weight  # what each of its inputs adds
            heads.append((found["heads", number] * back).view(-1, size).sum(dim=1))
        mlp = torch.stack([found["mlp", number] for number in range(count)]) @ direction
        heads = torch.stack(heads)
        parts = (found["embedding"] @ direction)[None], heads.sum(dim=1), mlp, heads.flatten()
        return torch.cat(parts)

    def features():
        """As in the lesson on sparse features."""
        generator = torch.Generator().manual_seed(0)
        count, hidden = 4 * task.rows.shape[1], task.rows.shape[1]
        scale = hidden**0.5 / task.rows.norm(dim=1).mean()
        decoder = torch.randn(count, hidden, generator=generator)
        decoder /= decoder.norm(dim=1, keepdim=True)
        weights = [decoder.T.clone(), torch.zeros(count), decoder, scale * task.rows.mean(dim=0)]
        encoder, encoder_bias, decoder, bias = [weight.requires_grad_() for weight in weights]
        adam, batches = torch.optim.Adam(weights, lr=RATE), mixed(task.rows, generator)
        for step in range(STEPS):
            adam.param_groups[0]["lr"] = RATE * min(1, 5 * (STEPS - step) / STEPS)
            x = scale * next(batches)
            values, places = ((x - bias) @ encoder + encoder_bias).topk(TOP_K)
            z = torch.zeros(len(x), count).scatter(1, places, values.relu())
            loss = (z @ decoder + bias - x).pow(2).sum(dim=1).mean()
            adam.zero_grad()
            loss.backward()
            adam.step()
            with torch.no_grad():
                decoder /= decoder.norm(dim=1, keepdim=True)
        with torch.no_grad():
            values, places = ((scale * task.rows - bias) @ encoder + encoder_bias).topk(TOP_K)
            z = torch.zeros(len(task.rows), count).scatter(1, places, values.relu())
            return task.left_over((z @ decoder + bias) / scale)

    return {
        "patching": patching,
        "harvest": harvest,
        "lens": lens,
        "heads": heads,
        "attribution": attribution,
        "features": features,
    }


def ours(task: Task) -> dict[str, Job]:
    from tutorial_utils import (
        attribute_logits,
        encode_features,
        harvest_activations,
        lens_choices,
        patch_each,
        read_activations,
        read_attention,
        read_harvest,
        train_features,
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

    def heads():
        return torch.cat([*read_attention(task.model, task.long).values()])

    def attribution():
        found = attribute_logits(task.model, task.long, *task.scored)
        parts = found.embedding, found.attention[0], found.mlp[0], found.heads[0].flatten()
        return torch.cat(parts)

    def features():
        sizes = {"n_features": 4 * task.rows.shape[1], "top_k": TOP_K}
        training = {"steps": STEPS, "batch": ROWS, "learning_rate": RATE}
        layer = len(task.layers) // 2
        found = train_features(task.model, task.rows, layer, **sizes, **training)
        again = encode_features(found, task.rows) @ found.decoder + found.bias
        return task.left_over(again / found.scale)

    return {
        "patching": patching,
        "harvest": harvest,
        "lens": lens,
        "estimate": estimate,
        "heads": heads,
        "attribution": attribution,
        "features": features,
    }


GROUPS = {
    "ours": ours,
    "nnsight": nnsight,
    "transformer-lens": transformer_lens,
    "sae-lens": sae_lens,
}


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
