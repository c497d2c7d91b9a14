# fmt: off
# ruff: noqa: E731, F811, F821 - as a learner types them

# %% check_entropies(entropies, die_logits)
die_logits = torch.tensor([2.0, 1.0, 0.5, -1.0, -3.0])
softmax = lambda z: z.softmax(dim=-1)
entropy = lambda probs: -(probs * probs.log()).sum(dim=-1)
bits = lambda T: entropy(softmax(die_logits / T)).item() / math.log(2)
entropies = torch.tensor([bits(0.5), bits(1), bits(2)], dtype=torch.float64)  #: Right
entropies = [torch.tensor(bits(T)) for T in (0.5, 1, 2)]  #: Right
entropies = tuple(bits(T) for T in (0.5, 1, 2))  #: Right
entropies, die_logits = [bits(0.5), bits(1), bits(2)], die_logits.bfloat16()  #: Right
entropies = [entropy(softmax(die_logits / T)).item() for T in (0.5, 1, 2)]  #: these are nats
#: divide the logits
entropies = [entropy(softmax(die_logits * T)).item() / math.log(2) for T in (0.5, 1, 2)]
entropies = 1.5  #: put them into a list
entropies = None  #: put them into a list
entropies = [bits(0.5), bits(1)]  #: expected shape (3,), got (2,)
entropies = [-bits(T) for T in (0.5, 1, 2)]  #: never below 0
entropies = [1.0, 2.0, 3.0]  #: one softmax and one entropy
#: expected shape (3,), got (3, 5)
entropies = torch.stack([softmax(die_logits / T) for T in (0.5, 1, 2)])
entropies = "1.1, 1.7, 2.1"  #: expected a tensor, got str
entropies = [math.nan] * 3  #: at one place, got nan

# %% check_log_softmax(log_softmax)
log_softmax = lambda z: torch.log_softmax(z, dim=-1)  #: Right
log_softmax = lambda z: torch.log_softmax(z.double(), dim=-1)  #: Right
log_softmax = lambda z: z - z.logsumexp(dim=-1)[..., None]  #: Right
#: subtract the highest logit first
log_softmax = lambda z: z - z.exp().sum(dim=-1, keepdim=True).log()
log_softmax = lambda z: z.log_softmax(dim=0)  #: another axis
log_softmax = lambda z: z.softmax(dim=-1)  #: these are probabilities
log_softmax = lambda z: z.softmax(-1).log()  #: don't take the logarithm
log_softmax = lambda z: z.double().softmax(-1).log()  #: don't take the logarithm
#: its own highest logit
log_softmax = lambda z: (z - z.max()) - (z - z.max()).exp().sum(dim=-1, keepdim=True).log()
#: its own highest logit
log_softmax = lambda z: z - z.max() - (z - z.max()).logsumexp(-1, True).clamp(min=-500)
log_softmax = lambda z: z.log_softmax(dim=-2) if z.ndim > 1 else z.log_softmax(-1)  #: another axis
log_softmax = lambda z: z - z.exp().sum().log()  #: over dim=-1
#: changed its input
log_softmax = lambda z: z.sub_(z.max(dim=-1, keepdim=True).values).log_softmax(-1)
log_softmax = lambda z: z.clamp(min=-1e4).log_softmax(-1)  #: its log-probability is minus infinity
log_softmax = lambda z: z.log_softmax(-1) / math.log(2)  #: compare with torch.log_softmax

# %% check_ending_bits(ending_bits)
each = lambda z, ids, k: right(z[-k - 1 :], ids[-k - 1 :], 1)
ending_bits = lambda logits, ids, k: right(logits, ids, k).item()  #: Right
#: Right
ending_bits = lambda z, i, k: sum(-z[n - 1].softmax(-1)[i[n]].log2() for n in range(-k, 0))
#: compare `predictions`
ending_bits = lambda z, ids, k: sum(-z[i - 1].softmax(-1)[ids[i]].log2() for i in range(6 - k, 6))
def ending_bits(logits, ids, k):  #: no shift
    log_probs = logits[-k:].log_softmax(dim=-1)
    return -log_probs.gather(-1, ids[-k:, None]).sum() / math.log(2)
def ending_bits(logits, ids, k):  #: these are nats
    log_probs = logits[-k - 1 : -1].log_softmax(dim=-1)
    return -log_probs.gather(-1, ids[-k:, None]).sum()
ending_bits = lambda z, ids, k: right(z, ids, k).expand(k)  #: expected shape ()
ending_bits = lambda logits, ids, k: right(logits, ids, 5)  #: whole text
ending_bits = lambda logits, ids, k: right(logits, ids, k + 1)  #: one token too many
ending_bits = lambda logits, ids, k: 0.0  #: compare `predictions`
def ending_bits(logits, ids, k):  #: compare `predictions`
    probs = logits.exp() / logits.exp().sum(-1, keepdim=True)
    return -probs[-k - 1 : -1].gather(1, ids[-k:, None]).log2().sum()
def ending_bits(logits, ids, k):  #: compare `predictions`
    probs = logits[-k - 1 : -1].softmax(-1).gather(1, ids[-k:, None])
    return -(probs + 1e-9).log2().sum()
#: compare `predictions`
ending_bits = lambda z, ids, k: -z[-k - 1 : -1].softmax(-1).gather(1, ids[-k:, None]).sum().log2()
ending_bits = lambda logits, ids, k: right(logits, ids, k).round()  #: compare `predictions`
ending_bits = lambda logits, ids, k: logits[k + 99]  #: raised IndexError
