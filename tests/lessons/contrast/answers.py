# fmt: off
# ruff: noqa: E402, E731, F811, F821 - as a learner types them

# %% check_picks(my_picks, jsd, high)
# Rows are layers 0 to 4. Of the candidates 2 and 4, row 2 is the higher one at the first token.
jsd = torch.tensor([[9.0, 1, 9], [0, 9, 0], [5, 2, 1], [0, 0, 0], [4, 3, 2]])
high = [2, 4]
my_picks = [2, 4, 4]  #: Right
my_picks = torch.tensor([2, 4, 4], dtype=torch.int32)  #: Right
my_picks = [max(high, key=lambda i: jsd[i, t]) for t in range(3)]  #: Right
my_picks, high = torch.tensor([0, 1, 0]), range(2)  # places are the numbers here  #: Right
my_picks = jsd[high].argmax(dim=0)  #: look up the layers' numbers
my_picks = jsd[high].argmax(dim=1)  #: rows of the candidates first
my_picks = jsd.argmax(dim=0)  #: only the candidates
my_picks = torch.tensor([4, 4, 4])  #: rows of the candidates first
my_picks = jsd[high].max(dim=0).values  #: expected whole numbers
my_picks = right.float()  #: expected whole numbers
my_picks = 4  #: expected shape (3,), got ()
my_picks = jsd[high].argmax(dim=0).tolist()  #: look up the layers' numbers
my_picks = right[None]  #: expected shape (3,), got (1, 3)
my_picks = jsd[high].argmax(dim=0) + 2  #: rows of the candidates first

# %% check_contrast_batch(contrast_batch)
from tutorial_utils import contrast_logits


def divergence(p, q):
    kl = lambda p, q: torch.where(p > 0, p * (p / q).log(), 0).sum(dim=-1)
    return (kl(p, (p + q) / 2) + kl(q, (p + q) / 2)) / 2
def contrast(final, early, alpha, picked=None, of=None, fill=-torch.inf):
    picks = divergence(final.softmax(-1), early.softmax(-1)).argmax(dim=0)
    rows, probs = torch.arange(len(final)), (final if of is None else of).softmax(-1)
    mature, premature = final.log_softmax(dim=-1), early.log_softmax(dim=-1)
    scores = mature - premature[picks if picked is None else picked, rows]
    return scores.masked_fill(probs < alpha * probs.max(dim=-1, keepdim=True).values, fill)
by = lambda distance: lambda *given: contrast(
    *given, distance(given[0].log_softmax(-1), given[1].log_softmax(-1)).argmax(dim=0)
)
#: Right
contrast_batch = lambda z, early, a: contrast_logits(z, dict(enumerate(early)), alpha=a).scores
def contrast_batch(final, early, alpha):  #: Right
    log_q = final.log_softmax(-1)
    outside = log_q < log_q.max(-1, keepdim=True).values + math.log(alpha)
    return contrast(final, early, 0).masked_fill(outside, -torch.inf)
def contrast_batch(final, early, alpha):  #: each row picks a layer of its own
    mature, premature = final.log_softmax(dim=-1), early.log_softmax(dim=-1)
    picked = divergence(mature.exp(), premature.exp()).mean(dim=1).argmax()
    probs = mature.exp()
    implausible = probs < alpha * probs.max(dim=-1, keepdim=True).values
    return (mature - premature[picked]).masked_fill(implausible, -torch.inf)
def contrast_batch(final, early, alpha):  #: at least alpha times the highest
    mature, premature = final.log_softmax(dim=-1), early.log_softmax(dim=-1)
    picked = divergence(mature.exp(), premature.exp()).argmax(dim=0)
    return mature - premature[picked, torch.arange(len(final))]
def contrast_batch(final, early, alpha):  #: log-probabilities, not logits
    picked = divergence(final.softmax(-1), early.softmax(-1)).argmax(dim=0)
    scores, probs = final - early[picked, torch.arange(len(final))], final.softmax(-1)
    return scores.masked_fill(probs < alpha * probs.amax(-1, True), -torch.inf)
contrast_batch = lambda *given: right(*given).softmax(dim=-1)  #: before the softmax
def contrast_batch(final, early, alpha):  #: pick with `divergence`
    q, probs = final.softmax(-1), early.softmax(-1) + 1e-9
    picked = divergence(q, probs).argmax(dim=0)
    scores = q.log() - probs[picked, torch.arange(len(final))].log()
    return scores.masked_fill(q < alpha * q.amax(-1, True), -torch.inf)
contrast_batch = lambda *given: right(*given)[0]  #: expected shape
contrast_batch = lambda *given: right(*given) + 1  #: compare the picked layers
#: changed its input
contrast_batch = lambda final, early, alpha: right(final.sub_(1), early, alpha)
contrast_batch = lambda *given: contrast(*given, fill=0)  #: -inf, not 0
def contrast_batch(final, early, alpha):  #: the max is over dim=-1
    probs = final.softmax(-1)
    return contrast(final, early, 0).masked_fill(probs < alpha * probs.max(), -torch.inf)
#: compare the picked layers
contrast_batch = lambda final, early, alpha: contrast(final, early, alpha, of=early[0])
contrast_batch = by(lambda p, q: (q.exp() - p.exp()).abs().sum(-1))  #: pick with `divergence`
contrast_batch = by(lambda p, q: (q.exp() - p.exp()).norm(dim=-1))  #: pick with `divergence`
contrast_batch = by(lambda p, q: (p.exp() * (p - q)).sum(-1))  #: pick with `divergence`
contrast_batch = by(lambda p, q: (q.exp() * (q - p)).sum(-1))  #: pick with `divergence`
contrast_batch = by(lambda p, q: (p - q).abs().sum(-1))  #: pick with `divergence`
contrast_batch = by(lambda p, q: -divergence(p.exp(), q.exp()))  #: pick with `divergence`
def contrast_batch(final, early, alpha):  #: compare the picked layers
    probs, everything = final.softmax(-1), contrast(final, early, 0)
    return everything.masked_fill(probs <= alpha * probs.amax(-1, True), -torch.inf)
contrast_batch = lambda final: final  #: raised TypeError

# %% check_strength(contrast_by)
def by(final, early, beta, alpha, fill=-torch.inf, of=None):
    q = (final if of is None else of).softmax(-1)
    scores = final.log_softmax(-1) - beta * early.log_softmax(-1)
    return scores.masked_fill(q < alpha * q.max(), fill)
def contrast_by(final, early, beta, alpha):  #: Right
    log_q = final.double().log_softmax(-1)
    scores = log_q - beta * early.double().log_softmax(-1)
    return torch.where(log_q >= log_q.max() + math.log(alpha), scores, -torch.inf)
def contrast_by(final, early, beta, alpha):  #: beta multiplies
    q = final.softmax(-1)
    scores = q.log() - beta * (early.softmax(-1) + 1e-9).log()
    return scores.masked_fill(q < alpha * q.max(), -torch.inf)
def contrast_by(final, early, beta, alpha):  #: at least alpha times the highest
    return final.log_softmax(dim=-1) - beta * early.log_softmax(dim=-1)
def contrast_by(final, early, beta, alpha):  #: beta multiplies
    log_q = final.log_softmax(dim=-1)
    implausible = log_q.exp() < alpha * log_q.exp().max()
    scores = log_q - early.log_softmax(dim=-1)
    return scores.masked_fill(implausible, -torch.inf)
#: beta multiplies
contrast_by = lambda final, early, beta, alpha: (1 - beta) * final + by(final, early, beta, 0)
contrast_by = lambda final, *others: final / 0 * 0  #: there is a NaN
#: there is a NaN
contrast_by = lambda final, early, beta, alpha: (
    right(final, early, 0, alpha) - beta * right(early, final, 0, alpha)
)
def contrast_by(final, early, beta, alpha):  #: log-probabilities, not logits
    scores = final - beta * early
    return torch.where(right(final, early, beta, alpha) > -torch.inf, scores, -torch.inf)
contrast_by = lambda *given: by(*given, fill=0)  #: -inf, not 0
contrast_by = lambda *given: by(*given, of=given[1])  #: beta multiplies
contrast_by = lambda *given: by(*given, of=by(*given))  #: beta multiplies
#: beta multiplies
contrast_by = lambda final, early, beta, alpha: beta * right(final, early, 1, alpha)
contrast_by = lambda final, early, beta, alpha: right(final, early, alpha, beta)  #: beta multiplies
#: beta multiplies
contrast_by = lambda final, early, beta, alpha: right(final, early, beta, alpha / 2)
contrast_by = lambda *given: right(*given).log_softmax(-1)  #: beta multiplies
contrast_by = lambda *given: right(*given)[right(*given) > -torch.inf]  #: expected shape
