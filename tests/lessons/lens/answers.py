# fmt: off
# ruff: noqa: E731, F811, F821 - as a learner types them

# %% check_rank(rank)
rank = lambda z, answer: z.argsort(-1, descending=True).eq(answer).nonzero()[:, 1] + 1  #: Right
#: Right
rank = lambda z, answer: [sorted(row, reverse=True).index(row[answer]) + 1 for row in z.tolist()]
# No two logits of the check are equal: there >= is as right as sorting, the lesson's own way.
rank = lambda z, answer: (z >= z[:, [answer]]).sum(dim=-1, dtype=torch.int32)  #: Right
rank = lambda logits, answer: (logits > logits[:, [answer]]).sum(dim=-1)  #: you count from 1
rank = lambda z, answer: right(z.softmax(-1), answer)  #: expected
#: expected shape (1,), got (4,)
rank = lambda logits, answer: (logits > logits[:, [answer]]).sum(dim=0) + 1
rank = lambda z, answer: (z < z[:, [answer]]).sum(-1) + 1  #: from the worst
rank = lambda z, answer: (z > z[0, answer]).sum(-1) + 1  #: own logit of the answer
rank = lambda z, answer: right(z, answer).float()  #: whole numbers, got torch.float32
rank = lambda z, answer: z.argmax(-1) == answer  #: whole numbers, got torch.bool
rank = lambda z, answer: right(z, answer)[0]  #: for 1 layer, a vocabulary of 4
rank = lambda z, answer: right(z, answer)[:, None]  #: expected shape
rank = lambda z, answer: z.argsort(-1, descending=True)[:, answer] + 1  #: own logit of the answer
rank = lambda z, answer: right(z, answer)[-1].expand(len(z))  #: own logit of the answer
rank = lambda z, answer: z.argsort(-1).argsort(-1)[:, answer] + 2  #: own logit of the answer

# %% check_settled(settled)
def settled(choices):  #: Right
    layer = len(choices) - 1
    while layer and choices[layer - 1] == choices[-1]:
        layer -= 1
    return torch.tensor(layer)
settled = lambda choices: int((choices == choices[-1]).nonzero()[0])  #: It must also stay
def settled(choices):  #: one after it
    others = (choices != choices[-1]).nonzero()
    return int(others[-1]) if len(others) else 0
def settled(choices):  #: another choice at the first layer only
    others = (choices != choices[-1]).nonzero()
    return int(others[-1]) + 1 if others.any() else 0
settled = lambda choices: right(choices) - 1  #: one after it
settled = lambda choices: choices == choices[-1]  #: expected an int
settled = lambda choices: float(right(choices))  #: expected an int, one whole number, got 0.0
settled = lambda choices: int((choices != choices[-1]).sum())  #: one after it
settled = lambda choices: int((choices[:-1] != choices[1:]).sum())  #: one after it
settled = lambda choices: len(choices) - 1  #: layer, [7, 7, 7], expected 0, got 2
settled = lambda choices: int(choices[-1])  #: one after it

# %% check_layer_norm_lens(layer_norm_lens)
def lens(h, w, b, u, correction=0, eps=1e-5, outside=0.0):
    variance = h.var(dim=-1, keepdim=True, correction=correction)
    return ((h - h.mean(dim=-1, keepdim=True)) / ((variance + eps).sqrt() + outside) * w + b) @ u.T
layer_norm_lens = lens  #: Right
#: Right
layer_norm_lens = lambda h, w, b, u: torch.nn.functional.layer_norm(h, h.shape[-1:], w, b) @ u.T
layer_norm_lens = lambda *given: right(*(tensor.double() for tensor in given))  #: Right
#: before the unembedding
layer_norm_lens = lambda hidden, weight, bias, unembedding: hidden @ unembedding.T
#: subtract the mean of each vector first
def layer_norm_lens(hidden, weight, bias, unembedding):  # RMSNorm
    size = (hidden.pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return (hidden / size * weight + bias) @ unembedding.T
def layer_norm_lens(hidden, weight, bias, unembedding):  #: not that of the last one
    centred = hidden - hidden.mean(dim=-1, keepdim=True)
    scale = (centred[-1:].pow(2).mean(dim=-1, keepdim=True) + 1e-5).sqrt()
    return (centred / scale * weight + bias) @ unembedding.T
layer_norm_lens = lambda *given: lens(*given, correction=1)  #: correction=0
layer_norm_lens = lambda *given: lens(*given, eps=0, outside=1e-5)  #: before you take the root
layer_norm_lens = lambda h, w, b, u: lens(h, 1, 0, u)  #: multiply by the weight
layer_norm_lens = lambda h, w, b, u: lens(h, w, b, u)[0]  #: expected shape
layer_norm_lens = lambda h, w, b, u: lens(h * h, w, b, u)  #: over `dim=-1`
#: over `dim=-1`
layer_norm_lens = lambda h, w, b, u: (
    ((h - h.mean()) / (h.var(correction=0) + 1e-5).sqrt() * w + b) @ u.T
)
#: subtract the mean of each vector
layer_norm_lens = lambda h, w, b, u: (
    (h / (h.var(-1, correction=0, keepdim=True) + 1e-5).sqrt() * w + b) @ u.T
)
#: expected shape
layer_norm_lens = lambda h, w, b, u: torch.nn.functional.layer_norm(h, (6,), w, b)
