# fmt: off
# ruff: noqa: E731, F811, F821 - as a learner types them

# %% check_previous_score(previous_score)
previous_score = lambda p: p[:, 1:, :-1].diagonal(dim1=1, dim2=2).mean(-1)  #: Right
#: Right
previous_score = lambda p: sum(p[:, i, i - 1] for i in range(1, p.shape[1])) / (p.shape[1] - 1)
previous_score = lambda p: [head.diagonal(-1).mean() for head in p]  #: Right
previous_score = lambda p: p.diagonal(dim1=1, dim2=2).mean(-1)  #: weight on itself
previous_score = lambda p: p.diagonal(1, dim1=1, dim2=2).mean(-1)  #: the token after
previous_score = lambda p: p.diagonal(-1, dim1=1, dim2=2).sum(-1) / p.shape[1]  #: none before it
previous_score = lambda p: p.diagonal(-1, dim1=1, dim2=2).sum(-1)  #: Not yet
previous_score = lambda p: p.diagonal(-1, dim1=1, dim2=2).max(-1).values  #: Not yet
previous_score = lambda p: p.diagonal(-1, dim1=1, dim2=2).mean()  #: one number for each head
previous_score = lambda p: p.diagonal(-1, dim1=1, dim2=2)  #: mean over the tokens that look
previous_score = lambda p: p.diagonal(-1).mean(-1)  #: Not yet
previous_score = lambda p: p.mean(dim=(1, 2))  #: on the token before
previous_score = lambda p: p[:, -1, -2]  #: on the token before
previous_score = lambda p: right(p)[:1]  #: expected shape
previous_score = lambda p: right(p.transpose(1, 2))  #: the token after
previous_score = lambda p: p[0, 1:, :-1].diagonal().mean()  #: expected shape
previous_score = lambda p: p.mul_(2) and right(p)  #: Not yet
previous_score = lambda p: right(p) > 0.5  #: expected numbers, got torch.bool
def previous_score(pattern):  #: expected
    before = pattern.diagonal(offset=-1, dim1=1, dim2=2)
    return before.sum(dim=-1) / (before > 0).sum(dim=-1)

# %% check_rotate(rotate)
def turned(x, angles):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * angles.cos() - b * angles.sin(), b * angles.cos() + a * angles.sin()], -1)
def at(x, positions, base, power=2.0):
    return positions[:, None] * base ** (-power * torch.arange(x.shape[-1] // 2) / x.shape[-1])
rotate = lambda x, m, base: turned(x, at(x, m, base))  #: Right
def rotate(x, m, base):  #: Right
    angles = torch.cat([at(x, m, base)] * 2, dim=-1)
    half = x.shape[-1] // 2
    other = torch.cat([-x[..., half:], x[..., :half]], dim=-1)
    return x * angles.cos() + other * angles.sin()
def rotate(x, m, base):  #: Right
    a, b = x.chunk(2, dim=-1)
    point = torch.complex(a, b) * torch.polar(torch.ones(()), at(x, m, base))
    return torch.cat([point.real, point.imag], dim=-1)
def rotate(x, positions, base):  #: turn the other way
    angles = positions[:, None] * base ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    a, b = x.chunk(2, dim=-1)
    cos, sin = angles.cos(), angles.sin()
    return torch.cat([a * cos + b * sin, b * cos - a * sin], dim=-1)
def rotate(x, positions, base):  #: not two neighbours
    angles = positions[:, None] * base ** (-torch.arange(0, x.shape[-1], 2) / x.shape[-1])
    a, b = x[..., ::2], x[..., 1::2]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([a * cos - b * sin, b * cos + a * sin], dim=-1).flatten(-2)
rotate = lambda x, m, base: turned(x, at(x, m, base, 1.0))  #: mind the 2
rotate = lambda x, m, base: turned(x, at(x, m, base, -2.0))  #: the power of the base is negative
rotate = lambda x, m, base: turned(x, at(x, torch.arange(len(m)), base))  #: that are given
rotate = lambda x, m, base: turned(x, at(x, m, 1e4))  #: not 10,000
rotate = lambda x, m, base: x.clone()  #: Not yet
rotate = lambda x, m, base: turned(x, at(x, m, base, 0.0))  #: an angle of its own
rotate = lambda x, m, base: right(x, m, base)[0]  #: expected shape
rotate = lambda x, m, base: right(x, m, base).transpose(0, 1)  #: Not yet
rotate = lambda x, m, base: right(x, m, base).abs()  #: a cos - b sin
rotate = lambda x, m, base: right(right(x, m, base), m, base)  #: Not yet
rotate = lambda x, m, base: right(x, m + 1, base)  #: a cos - b sin
rotate = lambda x, m, base: x * at(x, m, base).cos().repeat(1, 2)  #: Not yet
rotate = lambda x, m, base: turned(x, at(x, m, base)[:, :1])  #: Not yet
rotate = lambda x, m, base: x.add_(1)  #: Not yet

# %% check_attend(attend)
def spread(t, q):
    return t.repeat_interleave(len(q) // len(t), dim=0)
def hidden(scores, fill=float("-inf"), diagonal=1):
    return scores.masked_fill(torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal), fill)
def scores(q, k):
    return q @ spread(k, q).mT / q.shape[-1] ** 0.5
sdpa = torch.nn.functional.scaled_dot_product_attention
attend = lambda q, k, v: sdpa(q, spread(k, q), spread(v, q), is_causal=True)  #: Right
attend = lambda q, k, v: hidden(scores(q, k), -1e9).softmax(-1) @ spread(v, q)  #: Right
def attend(q, k, v):  #: Right
    group = len(q) // len(k)
    return torch.stack([hidden(q[h] @ k[h // group].T / q.shape[-1] ** 0.5).softmax(-1)
                        @ v[h // group] for h in range(len(q))])
def attend(q, k, v):  #: share keys and values
    k, v = (t.repeat(len(q) // len(t), 1, 1) for t in (k, v))
    return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
def attend(q, k, v):  #: must not look at later ones
    k, v = (t.repeat_interleave(len(q) // len(t), dim=0) for t in (k, v))
    return (q @ k.mT / q.shape[-1] ** 0.5).softmax(dim=-1) @ v
attend = lambda q, k, v: hidden(scores(q, k).softmax(-1), 0) @ spread(v, q)  #: add up to 1
attend = lambda q, k, v: hidden(scores(q, k), 0).softmax(-1) @ spread(v, q)  #: a score of 0
attend = lambda q, k, v: hidden(scores(q, k), -1e9, 0).softmax(-1) @ spread(v, q)  #: Not yet
#: the square root of size
attend = lambda q, k, v: hidden(q @ spread(k, q).mT).softmax(-1) @ spread(v, q)
#: not by size
attend = lambda q, k, v: hidden(q @ spread(k, q).mT / q.shape[-1]).softmax(-1) @ spread(v, q)
attend = lambda q, k, v: hidden(scores(q, k)).softmax(-2) @ spread(v, q)  #: Not yet
attend = lambda q, k, v: hidden(scores(q, k)).softmax(-1)  #: Not yet
attend = lambda q, k, v: hidden(scores(q, k)).softmax(-1).mT @ spread(v, q)  #: Not yet
attend = lambda q, k, v: right(q, k, v)[:, -1]  #: expected shape
attend = lambda q, k, v: right(q, k, v).transpose(0, 1)  #: Not yet
attend = lambda q, k, v: right(q, k, v).sum(0)  #: for 1 head, 1 key-value head, 1 token of
attend = lambda q, k, v: right(q, k, k)  #: scores, mask, softmax over the keys
attend = lambda q, k, v: spread(v, q)  #: Not yet
attend = lambda q, k, v: sdpa(q, k, v, is_causal=True)  #: `heads // kv heads`
#: put minus infinity there
attend = lambda q, k, v: hidden(scores(q, k), -100.0).softmax(-1) @ spread(v, q)
def attend(q, k, v):  #: raised RuntimeError
    more = len(k) if len(k) < len(q) and len(k) > 1 else len(q) // len(k)
    return right(q, k.repeat_interleave(more, dim=0), v.repeat_interleave(more, dim=0))
