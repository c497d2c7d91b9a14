"""Wrong answers to the exercises, as a learner would type them into the stub.

`WRONG[lesson][exercise - 1]` holds at least two. The tests put each into the stub and run the
check, which must give a hint. For functions `constant` adds one more: right once, and the same
ever after.
"""

from __future__ import annotations

import ast

WRONG: dict[str, list[list[str]]] = {
    "00": [
        ['my_prompt = "The capital of France is"', 'my_prompt = "Anna lives in Rome. "'],
        [
            "def weights_gib(parameters, dtype):\n    return parameters * dtype.itemsize / 10**9",
            "def weights_gib(parameters, dtype):\n    return parameters * 4 / 2**30",
        ],
    ],
    "01": [
        [
            "next_pair = count_pairs(words).most_common(1)",
            "next_pair = count_pairs(words).most_common(1)[0]",
        ],
        [
            'def answer_id(prompt, answer):\n    return tokenizer(answer)["input_ids"][0]',
            "def answer_id(prompt, answer):\n"
            '    return tokenizer(prompt + " " + answer)["input_ids"]',
        ],
        [
            'def decode_symbols(tokens):\n    return "".join(tokens).replace("Ġ", " ")',
            "byte_of = {symbol: byte for byte, symbol in symbol_of.items()}\n"
            "def decode_symbols(tokens):\n"
            "    parts = [bytes(byte_of[s] for s in token) for token in tokens]\n"
            '    return "".join(part.decode(errors="replace") for part in parts)',
        ],
    ],
    "02": [
        [
            "entropies = [entropy(softmax(die_logits / T)).item() for T in (0.5, 1, 2)]",
            "bit = math.log(2)\n"
            "entropies = [entropy(softmax(die_logits * T)).item() / bit for T in (0.5, 1, 2)]",
        ],
        [
            "def log_softmax(z):\n    return z - z.exp().sum(dim=-1, keepdim=True).log()",
            "def log_softmax(z):\n    return z.log_softmax(dim=0)",
        ],
        [
            "def ending_bits(logits, ids, k):\n"
            "    log_probs = logits[-k:].log_softmax(dim=-1)  # no shift by one\n"
            "    return -log_probs.gather(-1, ids[-k:, None]).sum() / math.log(2)",
            "def ending_bits(logits, ids, k):\n"
            "    log_probs = logits[-k - 1 : -1].log_softmax(dim=-1)\n"
            "    return -log_probs.gather(-1, ids[-k:, None]).sum()",
        ],
    ],
    "03": [
        [
            "def tokens_kept(probs, top_p):\n"
            "    return int((probs.cumsum(dim=-1) < top_p).sum()) + 1",
            "def tokens_kept(probs, top_p):\n"
            "    sums = probs.sort(descending=True).values.cumsum(dim=-1)\n"
            "    return int((sums < top_p).sum())",
        ],
        [
            "def penalise(logits, ids, penalty):\n"
            "    new_logits = logits.clone()\n"
            "    new_logits[ids] = logits[ids] / penalty\n"
            "    return new_logits",
            "def penalise(logits, ids, penalty):  # in place\n"
            "    said = logits[ids]\n"
            "    logits[ids] = torch.where(said > 0, said / penalty, said * penalty)\n"
            "    return logits",
        ],
        [
            "def continue_until(prompt, stop, max_new_tokens):\n"
            "    steps = decoding_steps(model, tokenizer, prompt, max_new_tokens=max_new_tokens)\n"
            "    for step in steps:\n"
            "        if stop in step.text:\n"
            "            break\n"
            "    return step.text",
            "def continue_until(prompt, stop, max_new_tokens):\n"
            "    steps = decoding_steps(model, tokenizer, prompt, max_new_tokens=max_new_tokens)\n"
            "    text = list(steps)[-1].text\n"
            "    return text[: text.find(stop) + len(stop)]",
        ],
    ],
    "04": [
        ["strongest = change.argmax(dim=0) + 1", "strongest = change[1:].argmax(dim=1) + 2"],
        [
            "def output_of(model, module, x):  # the hook stays\n"
            "    kept = []\n"
            "    module.register_forward_hook(lambda m, args, output: kept.append(output))\n"
            "    with torch.no_grad():\n"
            "        model(x)\n"
            "    return kept[0][0] if isinstance(kept[0], tuple) else kept[0]",
            "def output_of(model, module, x):  # the first prompt alone\n"
            "    kept = []\n"
            "    hook = lambda m, args, output: kept.append(output[0])\n"
            "    handle = module.register_forward_hook(hook)\n"
            "    try:\n"
            "        with torch.no_grad():\n"
            "            model(x)\n"
            "    finally:\n"
            "        handle.remove()\n"
            "    return kept[0]",
        ],
        [
            "def last_real(hidden, attention_mask):\n    return hidden[:, -1]",
            "def last_real(hidden, attention_mask):\n"
            "    rows = torch.arange(len(hidden))\n"
            "    return hidden[rows, attention_mask.sum(dim=1) - 1]",
        ],
    ],
    "05": [
        [
            "def rank(logits, answer):\n    return (logits > logits[:, [answer]]).sum(dim=-1)",
            "def rank(logits, answer):  # another axis\n"
            "    return (logits > logits[:, [answer]]).sum(dim=0) + 1",
        ],
        [
            "def settled(choices):  # the first, not for good\n"
            "    return int((choices == choices[-1]).nonzero()[0])",
            "def settled(choices):\n"
            "    others = (choices != choices[-1]).nonzero()\n"
            "    return int(others[-1]) if len(others) else 0",
        ],
        [
            "def layer_norm_lens(hidden, weight, bias, unembedding):  # no norm\n"
            "    return hidden @ unembedding.T",
            "def layer_norm_lens(hidden, weight, bias, unembedding):  # RMSNorm\n"
            "    size = (hidden.pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt()\n"
            "    return (hidden / size * weight + bias) @ unembedding.T",
        ],
    ],
    "06": [
        ["my_picks = jsd[high].argmax(dim=0)", "my_picks = jsd[high].argmax(dim=1)"],
        [
            "def contrast_batch(final, early, alpha):  # one layer for all rows\n"
            "    mature, premature = final.log_softmax(dim=-1), early.log_softmax(dim=-1)\n"
            "    picked = divergence(mature.exp(), premature.exp()).mean(dim=1).argmax()\n"
            "    probs = mature.exp()\n"
            "    implausible = probs < alpha * probs.max(dim=-1, keepdim=True).values\n"
            "    return (mature - premature[picked]).masked_fill(implausible, -torch.inf)",
            "def contrast_batch(final, early, alpha):  # all tokens\n"
            "    mature, premature = final.log_softmax(dim=-1), early.log_softmax(dim=-1)\n"
            "    picked = divergence(mature.exp(), premature.exp()).argmax(dim=0)\n"
            "    return mature - premature[picked, torch.arange(len(final))]",
        ],
        [
            "def contrast_by(final, early, beta, alpha):  # all tokens\n"
            "    return final.log_softmax(dim=-1) - beta * early.log_softmax(dim=-1)",
            "def contrast_by(final, early, beta, alpha):  # beta left out\n"
            "    log_q = final.log_softmax(dim=-1)\n"
            "    implausible = log_q.exp() < alpha * log_q.exp().max()\n"
            "    scores = log_q - early.log_softmax(dim=-1)\n"
            "    return scores.masked_fill(implausible, -torch.inf)",
        ],
    ],
    "07": [
        ["carriers = share.argmax(dim=0)", "carriers = share.max(dim=1).values"],
        [
            "def put_at(source, positions):  # in place\n"
            "    def edit(hidden):\n"
            "        rows = torch.arange(len(positions))\n"
            "        hidden[rows, positions] = source[0, positions].to(hidden)\n"
            "        return hidden\n"
            "    return edit",
            "def put_at(source, positions):  # every row gets every position\n"
            "    def edit(hidden):\n"
            "        new = hidden.clone()\n"
            "        new[:, positions] = source[:, positions].to(hidden)\n"
            "        return new\n"
            "    return edit",
        ],
        [
            "def without(hidden, direction):  # not of norm 1\n"
            "    return hidden - (hidden @ direction)[..., None] * direction",
            "def without(hidden, direction):  # subtracted once\n"
            "    return hidden - direction / direction.norm()",
        ],
    ],
    "08": [
        [
            "def bytes_on_disk(tokens, layers, hidden, itemsize):\n"
            "    return tokens * layers * hidden",
            "def bytes_on_disk(tokens, layers, hidden, itemsize):\n"
            "    return tokens * (layers + 1) * hidden * itemsize",
        ],
        [
            "def positions_of(mask):  # the columns\n"
            "    return torch.arange(mask.shape[1]).expand(mask.shape)",
            "def positions_of(mask):  # from 1\n    return mask.cumsum(dim=1)",
        ],
        [
            "def batches_of(lengths, tokens):\n    return [list(range(len(lengths)))]",
            "def batches_of(lengths, tokens):  # the last batch is lost\n"
            "    batches, batch = [], []\n"
            "    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):\n"
            "        if batch and (len(batch) + 1) * lengths[i] > tokens:\n"
            "            batches.append(batch)\n"
            "            batch = []\n"
            "        batch.append(i)\n"
            "    return batches",
        ],
    ],
}


def wrong_answers(lesson: str, number: int, solution: str) -> list[str]:
    """What is put into the stub of an exercise (numbered from 1), one after the other."""
    listed = WRONG.get(lesson, [])
    return [*(listed[number - 1] if number <= len(listed) else []), *constant(solution)]


def constant(solution: str) -> list[str]:
    """The solution's function, spoilt: it gives its first answer again and again."""
    functions = [n.name for n in ast.parse(solution).body if isinstance(n, ast.FunctionDef)]
    spoil = "\n_first = []\ndef {0}(*args, _right={0}):\n    if not _first:\n"
    spoil += "        _first.append(_right(*args))\n    return _first[0]"
    return [solution + "\n" + spoil.format(functions[0])] if functions else []
