# fmt: off
# ruff: noqa: E731, F811, F821 - as a learner types them

# %% check_keep_top(keep_top)
def keep_top(scores, k):  #: Right
    least = scores.topk(k).values[:, -1:]
    return torch.where(scores >= least, scores, 0.0).clamp(min=0)
keep_top = lambda scores, k: right(scores.double(), k)  #: Right
keep_top = lambda scores, k: scores * (right(scores, k) > 0)  #: Right
def keep_top(scores, k):  #: a score below 0 becomes 0
    values, places = scores.topk(k, dim=-1)
    return torch.zeros_like(scores).scatter(-1, places, values)
keep_top = lambda z, k: z.where(torch.isin(z, z.topk(k).values), 0).relu()  #: for rows that share
keep_top = lambda scores, k: scores.topk(k, dim=-1).values.relu()  #: expected shape (1, 4)
def keep_top(scores, k):  #: k smallest
    values, places = scores.topk(k, largest=False)
    return torch.zeros_like(scores).scatter(-1, places, values.relu())
def keep_top(scores, k):  #: regardless of their sign
    places = scores.abs().topk(k).indices
    return torch.zeros_like(scores).scatter(-1, places, scores.gather(-1, places).relu())
def keep_top(scores, k):  #: k of the whole tensor
    return torch.where(scores >= scores.flatten().topk(k).values[-1], scores, 0.0).relu()
keep_top = lambda scores, k: scores.topk(k, dim=0).values  #: take `dim=-1`
keep_top = lambda scores, k: scores.relu()  #: must be 0
keep_top = lambda scores, k: (right(scores, k) > 0).float()  #: has 1 in their place
keep_top = lambda scores, k: right(scores, k) > 0  #: numbers
def keep_top(scores, k):  #: changed its input in place
    scores[scores < scores.topk(k).values[:, -1:]] = 0
    return scores.relu()
keep_top = lambda scores, k: right(scores, max(1, k - 1))  #: with `scatter`
keep_top = lambda scores, k: right(scores, 2)  #: with `scatter`
keep_top = lambda scores, k: right(scores, k)[0]  #: expected shape
keep_top = lambda scores, k: None  #: returned None

# %% check_precision_and_recall(precision_and_recall)
def precision_and_recall(says, truth):  #: Right
    both = (says & truth).sum()
    return torch.stack([both / says.sum().clamp(min=1), both / truth.sum().clamp(min=1)])
precision_and_recall = lambda says, truth: [*map(float, right(says, truth))]  #: Right
def precision_and_recall(says, truth):  #: the answer is 0
    both = int((says & truth).sum())
    return both / int(says.sum()), both / int(truth.sum())
def precision_and_recall(says, truth):  #: not a number
    both = (says & truth).sum()
    return both / says.sum(), both / truth.sum()
precision_and_recall = lambda says, truth: right(truth, says)  #: did you swap them
#: also counts each no
precision_and_recall = lambda says, truth: ((says == truth).float().mean(),) * 2
def precision_and_recall(says, truth):  #: that is F1
    p, r = right(says, truth)
    return (2 * p * r / max(1e-9, p + r),) * 2
precision_and_recall = lambda says, truth: right(says, truth)[0]  #: expected two numbers
precision_and_recall = lambda says, truth: (*right(says, truth), 1)  #: expected two numbers
#: expected precision 0.667
precision_and_recall = lambda says, truth: ((says | truth).float().mean(), right(says, truth)[1])
#: expected recall 0.4
precision_and_recall = lambda says, truth: (right(says, truth)[0], right(~says, truth)[1])
precision_and_recall = lambda says, truth: right(~says, ~truth)  #: all yes answers
precision_and_recall = lambda says, truth: (int((says & truth).sum()),) * 2  #: all yes answers
precision_and_recall = lambda says, truth: tuple(1 - x for x in right(says, truth))  #: all yes
precision_and_recall = lambda says, truth: "0.5 0.4"  #: expected two numbers

# %% check_without_feature(without)
def without(hidden, codes, decoder, scale, feature):  #: Right
    one = torch.zeros_like(codes)
    one[..., feature] = codes[..., feature]
    return hidden - one @ decoder / scale
without = lambda *given: right(*given).double()  #: Right
#: divide the part by the scale
without = lambda h, c, d, scale, i: h - c[..., i][..., None] * d[i]
without = lambda h, c, d, scale, i: h - c[..., i][..., None] * d[i] * scale  #: do not multiply
without = lambda h, c, d, scale, i: h + c[..., i][..., None] * d[i] / scale  #: once more
without = lambda h, c, d, scale, i: c[..., i][..., None] * d[i] / scale  #: the part itself
without = lambda h, c, d, scale, i: h  #: nothing has been removed
def without(hidden, codes, decoder, scale, feature):  #: do not add up the other features
    codes = codes.clone()
    codes[..., feature] = 0
    return codes @ decoder / scale
without = lambda h, c, d, scale, i: h - (h @ d[i])[..., None] * d[i]  #: not everything along it
without = lambda h, c, d, scale, i: h - d[i] / scale  #: its own number
without = lambda h, c, d, scale, i: h - c @ d / scale  #: one feature only
without = lambda h, c, d, scale, i: right(h, c, d, scale, 3)  #: feature 5
def without(hidden, codes, decoder, scale, feature):  #: changed its input in place
    hidden -= codes[..., feature][..., None] * decoder[feature] / scale
    return hidden
without = lambda h, c, d, scale, i: right(h, c, d, scale, i)[0]  #: expected shape
without = lambda h, c, d, scale, i: right(h, c, d, scale, i + 1)  #: with one more axis
without = lambda h, c, d, scale, i: h - c[..., i] * d[i] / scale  #: raised RuntimeError
