# fmt: off
# ruff: noqa: E731, F811, F821 - as a learner types them

# %% check_find_induction(find_induction)
from tutorial_utils import head_scores


def score(p, period, start, back=1):
    line = p.diagonal(-(period - back), dim1=-2, dim2=-1)[..., start + 1:]
    return line.mean(-1).mean(0)
def listed(patterns, f, least):
    found = [(s, i, h) for i, p in patterns.items() for h, s in enumerate(f(p).tolist())]
    return [(i, h) for s, i, h in sorted(found, reverse=True) if s > least]
#: Right
find_induction = lambda ps, n, start, least: listed(ps, lambda p: score(p, n, start), least)
find_induction = lambda *given: torch.tensor(right(*given)).reshape(-1, 2)  #: Right
find_induction = lambda *given: [list(pair) for pair in right(*given)]  #: Right
find_induction = lambda *given: right(*given)[::-1]  #: the highest first
#: the highest first
find_induction = lambda *given: sorted(right(*given))
#: previous-token head
def find_induction(patterns, period, start, least):
    scores = head_scores(patterns, "previous", start=start)
    return listed(scores, lambda s: s.mean(0), least)
find_induction = lambda *given: [(i - 1, h) for i, h in right(*given)]  #: heads count from 0
#: for two heads
find_induction = lambda ps, *given: right(dict(enumerate(ps.values(), 1)), *given)
#: changed its input in place
find_induction = lambda ps, *given: (right(ps, *given), ps.popitem())[0]
find_induction = lambda *given: torch.tensor(3)  #: is not a pair
find_induction = lambda *given: [(h, i) for i, h in right(*given)]  #: pairs are (layer, head)
#: not only the first row
find_induction = lambda ps, *given: right({i: p[:1] for i, p in ps.items()}, *given)
#: the text begins in column `start`
find_induction = lambda ps, period, start, least: right(ps, period, 0, least)
#: not after it
find_induction = lambda ps, period, start, least: right(ps, period, start + 1, least)
#: the text begins in column `start`
find_induction = lambda ps, period, start, least: right(ps, period, max(start - 1, 0), least)
find_induction = lambda ps, n, start, least: right(ps, n, start, 0.5)  #: above `threshold`
find_induction = lambda ps, n, start, least: right(ps, n, start, 0.4)  #: above `threshold`
#: check the period and the start
find_induction = lambda ps, n, start, least: listed(ps, lambda p: score(p, n, start - 1), least)
def find_induction(patterns, period, start, threshold):  #: the mean, not the median
    scores = head_scores(patterns, "induction", period=period, start=start)
    return listed(scores, lambda s: s.median(dim=0).values, threshold)
def find_induction(patterns, period, start, threshold):  #: above `threshold`
    scores = head_scores(patterns, "induction", period=period, start=start)
    return listed(scores, lambda s: s.amax(dim=0), threshold)
def find_induction(patterns, period, start, threshold):  #: above `threshold`
    scores = head_scores(patterns, "induction", period=period, start=start)
    return listed(scores, lambda s: s.amin(dim=0), threshold)
#: above `threshold`
find_induction = lambda ps, *given: right({i: p[:2] for i, p in ps.items()}, *given)
find_induction = lambda *given: right(*given)[:1]  #: above `threshold`
#: above `threshold`
find_induction = lambda ps, period, start, least: listed(ps, lambda p: score(p, period, start), 0)
#: check the period
find_induction = lambda ps, n, start, least: listed(ps, lambda p: score(p, n, start, 0), least)
find_induction = lambda *given: [*map(str, right(*given))]  #: is not a pair
find_induction = lambda *given: dict.fromkeys(right(*given))  #: expected a list, got dict
find_induction = lambda *given: [(i, float(h)) for i, h in right(*given)]  #: expected an int
find_induction = lambda *given: []  #: got none
find_induction = lambda *given: right(*given) or [(2, 1)]  #: expected none, got L2H1
#: above `threshold`
find_induction = lambda ps, period, start, least: [(i, h) for i in ps for h in range(4)]
#: above `threshold`
find_induction = lambda ps, period, start, least: listed(ps, lambda p: p.amax((0, 2, 3)), least)

# %% check_direct(direct)
def size_of(stream):
    return (stream.pow(2).mean() + 1e-6).sqrt()
direct = lambda p, s, w, d: (p * w) @ d / size_of(s)  #: Right
direct = lambda p, s, w, d: [float((row / size_of(s) * w * d).sum()) for row in p]  #: Right
direct = lambda p, s, w, d: p @ (w * d) * (s.pow(2).mean() + 1e-6).rsqrt()  #: Right
#: freeze the scale
direct = lambda p, s, w, d: (p / (p.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * w) @ d
direct = lambda p, s, w, d: (p * w) @ d  #: divide by the size of the stream
direct = lambda p, s, w, d: (p / size_of(s)) @ d  #: multiply by `weight` too
direct = lambda p, s, w, d: (p / size_of(p.sum(0)) * w) @ d  #: only a part of it
direct = lambda p, s, w, d: p / size_of(s) * w * d  #: add up over the coordinates
direct = lambda p, s, w, d: right(p, s, w, d).sum()  #: do not add the pieces up
direct = lambda p, s, w, d: (p * w) @ d / s.norm()  #: not by the length
direct = lambda p, s, w, d: (p * w) @ d / (s.pow(2).mean().sqrt() + 1e-6)  #: under the root
direct = lambda p, s, w, d: (p * w) @ d / (s.pow(2).mean() + 1e-6)  #: take the root
direct = lambda p, s, w, d: ((p - p.mean(-1, keepdim=True)) / size_of(s) * w) @ d  #: divide all
direct = lambda p, s, w, d: (p * w) @ d / s.std()  #: divide all pieces
direct = lambda p, s, w, d: right(p, s, w, d).abs()  #: divide all pieces
direct = lambda p, s, w, d: right(p, s, w, d).softmax(0)  #: divide all pieces
direct = lambda p, s, w, d: right(p, s, w, d)[:, None]  #: expected shape (3,)
direct = lambda *given: right(*given).squeeze()  #: expected shape (1,)

# %% check_break_it(break_it)
def grow(loss, heads, enough, key):
    gone = []
    while not enough(gone) and len(gone) < len(heads):
        gone.append(max([h for h in heads if h not in gone], key=lambda h: key(gone, h)))
    return gone
def break_it(loss_without, heads, target):  #: Right
    gone, left = [], list(heads)
    while left and loss_without(gone) < target:
        left.sort(key=lambda head: loss_without([*gone, head]))
        gone.append(left.pop())
    return gone
break_it = lambda *given: tuple(right(*given))  #: Right
break_it = lambda *given: torch.tensor(right(*given)).reshape(-1, 2)  #: Right
# The first two run in the notebook too, where nothing of this table is.
break_it = lambda *given: right(*given)[:1]  #: heads are left
break_it = lambda loss, heads, t: heads  #: `max` with a `key`
#: together with those in the list
break_it = lambda loss, heads, t: grow(loss, heads, lambda g: loss(g) >= t, lambda g, h: loss([h]))
#: `max` with a `key`
break_it = lambda loss, hs, t: grow(loss, hs, lambda g: loss(g) >= t, lambda g, h: -loss([*g, h]))
#: one of which lowers the loss
break_it = lambda loss, hs, t: [h for h in right(loss, hs, t) if loss([h]) > loss([])]
def break_it(loss_without, heads, target):  #: for no heads
    gone = []
    while loss_without(gone) < target:
        left = [head for head in heads if head not in gone]
        gone.append(max(left, key=lambda head: loss_without([*gone, head])))
        if len(gone) == len(heads):
            break
    return gone
break_it = lambda loss, heads, t: right(loss, heads, t + 0.05)  #: stop as soon as
break_it = lambda *given: sorted(right(*given))  #: the order in which you added them
break_it = lambda *given: right(*given) * 2  #: cannot be added again
break_it = lambda loss, heads, t: right(loss, heads, t) or [heads[0]]  #: before you add the first
break_it = lambda loss, heads, t: [h for h in heads if loss([h]) >= t]  #: heads are left
break_it = lambda loss, heads, t: right(loss, heads[::-1][:2], t)  #: `max` with a `key`
break_it = lambda loss, heads, t: len(right(loss, heads, t))  #: expected a list, got int
break_it = lambda loss, heads, t: max(heads, key=lambda h: loss([h]))  #: is not a pair
break_it = lambda loss, heads, t: [str(h) for h in right(loss, heads, t)]  #: is not a pair
def break_it(loss_without, heads, target):  #: changed its input in place
    gone = []
    while heads and loss_without(gone) < target:
        gone.append(heads.pop(heads.index(max(heads, key=lambda h: loss_without([*gone, h])))))
    return gone
break_it = lambda loss, all_, t: [] if loss(all_) < t else right(loss, all_, t)  #: heads are left
