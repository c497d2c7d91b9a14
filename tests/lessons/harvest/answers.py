# fmt: off
# ruff: noqa: E731, F811, F821 - as a learner types them

# %% check_bytes_on_disk(bytes_on_disk)
bytes_on_disk = lambda *sizes: float(math.prod(sizes))  #: Right
bytes_on_disk = lambda *sizes: torch.tensor(math.prod(sizes))  #: Right
bytes_on_disk = lambda tokens, layers, hidden, itemsize: tokens * layers * hidden  #: by `itemsize`
#: multiply all four
bytes_on_disk = lambda tokens, layers, hidden, size: tokens * (layers + 1) * hidden * size
bytes_on_disk = lambda *sizes: torch.tensor(512)  #: multiply all four
bytes_on_disk = lambda *sizes: True  #: expected a number, got True
bytes_on_disk = lambda *sizes: math.nan  #: expected a number, got nan
bytes_on_disk = lambda *sizes: f"{math.prod(sizes):,}"  #: expected a number, got str
bytes_on_disk = lambda *sizes: math.prod(sizes) * 8  #: multiply all four
bytes_on_disk = lambda *sizes: sum(sizes)  #: multiply all four
#: multiply all four
bytes_on_disk = lambda tokens, layers, hidden, itemsize: tokens * layers * hidden * 4

# %% check_positions_of(positions_of)
positions_of = lambda mask: (mask.cumsum(-1) - 1).masked_fill(mask == 0, 1)  #: Right
positions_of = lambda mask: right(mask).tolist()  #: Right
positions_of = lambda mask: right(mask).int() * mask  #: Right
#: for padding on the left
positions_of = lambda mask: torch.arange(mask.shape[1]).expand(mask.shape)
#: for padding on the left
positions_of = lambda m: torch.arange(m.shape[1]).expand(m.shape) if m[0, 0] == 1 else right(m)
positions_of = lambda mask: mask.cumsum(dim=1)  #: too high by 1
positions_of = lambda mask: (mask.cumsum(dim=0) - 1).clamp(min=0)  #: not [0, 1, 2
positions_of = lambda mask: mask.sum(dim=1)  #: expected shape (2, 3), got (2,)
positions_of = lambda mask: (mask.cumsum(dim=1) - 1.0).clamp(min=0)  #: whole numbers
positions_of = lambda mask: mask == 1  #: whole numbers
positions_of = lambda mask: mask.add_(1)  #: changed its input
positions_of = lambda mask: mask  #: not [0, 1, 2
positions_of = lambda mask: right(mask[:1]).expand(mask.shape)  #: for padding on the right
#: for padding on the right
positions_of = lambda mask: torch.arange(mask.shape[1]) - (mask[0] == 0).sum() + 0 * mask
positions_of = lambda mask: right(mask)[mask.bool()]  #: expected shape

# %% check_batches_of(batches_of)
batches_of = lambda *given: [torch.tensor(batch) for batch in right(*given)]  #: Right
def batches_of(lengths, tokens):  # the longest first  #: Right
    batches = [[]]
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if batches[-1] and (len(batches[-1]) + 1) * lengths[batches[-1][0]] > tokens:
            batches.append([])
        batches[-1].append(i)
    return batches
batches_of = lambda lengths, tokens: [list(range(len(lengths)))]  #: a batch has 240 tokens
def batches_of(lengths, tokens):  #: the last batch is still open
    batches, batch = [], []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[i] > tokens:
            batches.append(batch)
            batch = []
        batch.append(i)
    return batches
def batches_of(lengths, tokens):  #: a batch has 10 tokens
    batches, batch = [], []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and (len(batch) + 1) * lengths[batch[-1]] > tokens:
            batches.append(batch)
            batch = []
        batch.append(i)
    return [*batches, batch]
def batches_of(lengths, tokens):  #: batches
    batches, batch = [], []
    for i in sorted(range(len(lengths)), key=lambda i: lengths[i]):
        if batch and ((len(batch) + 1) * lengths[i] > tokens or len(batch) == 16):
            batches.append(batch)
            batch = []
        batch.append(i)
    return [*batches, batch]
def batches_of(lengths, tokens):  #: are padding
    batches = [[]]
    for i, _ in enumerate(lengths):
        if (len(batches[-1]) + 1) * max(lengths[j] for j in (*batches[-1], i)) > tokens:
            batches.append([])
        batches[-1].append(i)
    return batches
#: there are 200 batches
batches_of = lambda lengths, n: right(lengths, n) if n != 300 else [[i] for i in range(200)]
#: changed its input
batches_of = lambda lengths, tokens: (right(lengths, tokens), lengths.sort())[0]
batches_of = lambda lengths, tokens: [[], *right(lengths, tokens)]  #: an empty batch
batches_of = lambda lengths, tokens: list(range(len(lengths)))  #: not a list of lists
batches_of = lambda lengths, tokens: [[0, 0]]  #: a prompt is in the batches more than once
#: begin each new batch with an empty list
batches_of = lambda *given: [[*first, *right(*given)[0]] for first in right(*given)]
