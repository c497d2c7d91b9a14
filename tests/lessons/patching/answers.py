# fmt: off
# ruff: noqa: E731, F811, F821 - as a learner types them

# %% check_carriers(carriers, share)
share = torch.tensor([[0.0, 1, -2], [0.1, 0.6, 0.2], [0, 0.3, 0.9], [0, 0, 1]])
carriers = [1, 1, 2, 2]  #: Right
carriers = share.argmax(dim=1).to(torch.int16)  #: Right
carriers = [row.argmax() for row in share]  #: Right
carriers = share.argmax(dim=0)  #: these are layers, one for each token
carriers = share.max(dim=1).values  #: argmax, not max
share = share[1:]  # as many layers as tokens  #: these are layers
carriers = share.argmax(dim=0)
carriers = share.abs().argmax(dim=1)  #: the largest without its sign
carriers = share.argmax(dim=1).float()  #: make them whole
carriers = [1, 1, 1, 2]  #: the second axis
carriers = share.argmax(dim=1) + 1  #: the second axis
carriers = share.argmax()  #: expected shape (4,), got ()
carriers = [1, 1, 2]  #: expected shape (4,), got (3,)
carriers = "token 1"  #: expected a tensor, got str
carriers = share[:, 0] > 0  #: whole numbers

# %% check_put_at(put_at)
def putting(source, positions, where=lambda rows, positions: (rows, positions), cast=True):
    def edit(hidden):
        new, rows = hidden.clone(), torch.arange(len(positions))
        vectors = source[0, positions]
        new[where(rows, positions)] = vectors.to(hidden) if cast else vectors
        return new
    return edit
def put_at(source, positions):  #: Right
    at = torch.arange(source.shape[1]) == positions[:, None]
    return lambda hidden: torch.where(at[..., None], source.to(hidden), hidden)
def put_at(source, positions):  #: only token positions[r]
    pairs = zip(range(len(positions)), positions)
    def edit(hidden):
        new = hidden.clone()
        for row, place in pairs:
            new[row, place] = source[0, place].to(hidden)
        return new
    return edit
def put_at(source, positions):  #: changed its input in place
    def edit(hidden):
        rows = torch.arange(len(positions))
        hidden[rows, positions] = source[0, positions].to(hidden)
        return hidden
    return edit
def put_at(source, positions):  #: every row took all of the positions
    def edit(hidden):
        new = hidden.clone()
        new[:, positions] = source[:, positions].to(hidden)
        return new
    return edit
#: only token positions[r] of row r changes
put_at = lambda source, positions: lambda hidden: source.expand_as(hidden).to(hidden)
#: the result is torch.float32
put_at = lambda source, positions: lambda hidden: right(source, positions)(hidden).float()
put_at = lambda source, positions: putting(source, positions, cast=False)  #: `source.to(hidden)`
def put_at(source, positions):  #: a row for each token
    def edit(hidden):
        new = hidden.clone()
        new[0, positions[0]] = source[0, positions[0]].to(hidden)
        return new
    return edit
def put_at(source, positions):  #: not its token r
    def edit(hidden):
        new = hidden.clone()
        new[range(len(hidden)), positions] = source[0, : len(hidden)].to(hidden)
        return new
    return edit
put_at = lambda source, positions: source  #: return a function
put_at = lambda source, positions: lambda hidden: ...  #: Not tried yet
put_at = lambda source, positions: lambda hidden: None  #: is there a `return`
put_at = lambda source, positions: 1 / 0  #: raised ZeroDivisionError
#: all of `hidden`, changed
put_at = lambda source, positions: lambda hidden: right(source, positions)(hidden).tolist()
put_at = lambda source, positions: lambda hidden: source[0, positions].to(hidden)  #: expected shape
put_at = lambda source, positions: lambda hidden: hidden.clone()  #: only token positions[r]
#: `source` was changed
put_at = lambda source, positions: (
    lambda hidden: (right(source, positions)(hidden), source.zero_())[0]
)
put_at = lambda source, positions: right(source, positions.flip(0))  #: only token positions[r]
#: only token positions[r]
put_at = lambda source, positions: lambda hidden: hidden + right(source, positions)(0 * hidden)

# %% check_without(without)
def part(hidden, unit):
    return (hidden @ unit)[..., None] * unit
#: Right
without = lambda h, v: h.double() - part(h.double(), v.double()) / (v.double() @ v.double())
without = lambda h, v: h @ (torch.eye(len(v)) - torch.outer(v, v) / v.pow(2).sum())  #: Right
#: a direction of norm 3
without = lambda hidden, direction: hidden - (hidden @ direction)[..., None] * direction
#: every token lost the same vector
without = lambda hidden, direction: hidden - direction / direction.norm()
without = lambda hidden, direction: hidden @ direction  #: expected shape (2, 3, 8), got (2, 3)
without = lambda hidden, direction: hidden - right(hidden, direction)  #: the component itself
without = lambda h, v: h - part(h, v) / v.norm()  #: a direction of norm 3
without = lambda h, v: h - part(h, v / v.norm().clamp(min=1))  #: a direction of norm 0.3
#: divide the direction by its norm
without = lambda h, v: h - part(h.mean(dim=1, keepdim=True), v / v.norm())
without = lambda h, v: h - part(h[:, -1:], v / v.norm())  #: divide the direction by its norm
without = lambda h, v: h.sub_(part(h, v / v.norm()))  #: changed its input
without = lambda h, v: h - part(h, v / v.norm()).relu()  #: divide the direction by its norm
#: divide the direction by its norm
without = lambda h, v: right(h, v) / right(h, v).norm(dim=-1, keepdim=True)
without = lambda h, v: right(h, v)[:, -1]  #: expected shape
without = lambda h, v: h - part(h, v / v.abs().sum())  #: divide the direction by its norm
