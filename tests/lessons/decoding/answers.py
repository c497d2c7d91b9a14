# fmt: off
# ruff: noqa: E402, E731, F811, F821 - as a learner types them

# %% check_tokens_kept(tokens_kept)
sums_of = lambda probs: probs.sort(descending=True).values.cumsum(dim=-1)
tokens_kept = lambda probs, top_p: torch.tensor(right(probs, top_p), dtype=torch.int32)  #: Right
tokens_kept = lambda probs, top_p: int((sums_of(probs)[:-1] < top_p).sum()) + 1  #: Right
#: are the probabilities sorted
tokens_kept = lambda probs, top_p: int((probs.cumsum(dim=-1) < top_p).sum()) + 1
def tokens_kept(probs, top_p):  #: is kept too
    sums = probs.sort(descending=True).values.cumsum(dim=-1)
    return int((sums < top_p).sum())
tokens_kept = lambda probs, top_p: int((sums_of(probs) < top_p).sum()) + 1  #: never count more
tokens_kept = lambda probs, top_p: int((probs.flip(0).cumsum(0)[:-1] < top_p).sum()) + 1  #: got 3
tokens_kept = lambda probs, top_p: 2.0  #: expected an int, one whole number, got 2.0
tokens_kept = lambda probs, top_p: torch.tensor(right(probs, top_p) + 0.5)  #: expected an int
tokens_kept = lambda probs, top_p: True  #: expected an int
tokens_kept = lambda probs, top_p: sums_of(probs) < top_p  #: count with sum()
tokens_kept = lambda probs, top_p: len(probs) if top_p > 0.8 else 2  #: no further token is needed

# %% check_penalise(penalise)
def penalise(logits, ids, penalty):  #: Right
    said = torch.zeros_like(logits).index_fill(0, ids, 1) * (penalty - 1) + 1
    return torch.where(logits > 0, logits / said, logits * said).tolist()
def penalise(logits, ids, penalty):  #: dividing a negative logit makes it higher
    new_logits = logits.clone()
    new_logits[ids] = logits[ids] / penalty
    return new_logits
def penalise(logits, ids, penalty):  #: work on a copy
    said = logits[ids]
    logits[ids] = torch.where(said > 0, said / penalty, said * penalty)
    return logits
def penalise(logits, ids, penalty):  #: penalise each token once
    for token_id in ids:
        logits = right(logits, token_id[None], penalty)
    return logits
def penalise(logits, ids, penalty):  #: penalise each token once
    new = right(logits, ids, penalty)
    twice = torch.tensor([i for i in ids if (ids == i).sum() > 1 and logits[i] < 0], dtype=int)
    return right(new, twice, penalty)
penalise = lambda logits, ids, penalty: logits[ids]  #: return all logits
#: only the tokens that occur
penalise = lambda z, ids, penalty: torch.where(z > 0, z / penalty, z * penalty)
penalise = lambda logits, ids, penalty: right(logits, ids, 2.0)  #: the penalty is an argument
#: divide positive logits
penalise = lambda logits, ids, penalty: logits.index_add(0, ids, -penalty * torch.ones(len(ids)))
#: divide positive logits
penalise = lambda logits, ids, penalty: logits.index_fill(0, ids, -torch.inf)
#: divide positive logits
penalise = lambda logits, ids, penalty: right(logits, ids, penalty).softmax(-1)

# %% check_continue_until(continue_until, model, tokenizer, prompt)
from tutorial_utils import decoding_steps

model, tokenizer = load("llama")
prompt = "The capital of France is Paris."

# %% or
from tutorial_utils import decoding_steps

model, tokenizer = load("gpt2")
prompt = "The capital of France is Paris."
def continue_until(prompt, stop, max_new_tokens):  #: only after the prompt
    steps = decoding_steps(model, tokenizer, prompt, max_new_tokens=max_new_tokens)
    for step in steps:
        if stop in step.text:
            break
    return step.text
def continue_until(prompt, stop, max_new_tokens):  #: return the whole text
    steps = decoding_steps(model, tokenizer, prompt, max_new_tokens=max_new_tokens)
    text = list(steps)[-1].text
    return text[: text.find(stop) + len(stop)]
def continue_until(prompt, stop, max_new_tokens):  #: only after the prompt
    text = right(prompt, "\x00", max_new_tokens)
    return text[: text.find(stop) + len(stop)] if stop in text else text
def continue_until(prompt, stop, max_new_tokens):  #: begins in the prompt
    for step in decoding_steps(model, tokenizer, prompt, max_new_tokens=max_new_tokens):
        found = step.text.find(stop, len(prompt) - len(stop) + 1)
        if found >= 0:
            return step.text[: found + len(stop)]
    return step.text
def continue_until(prompt, stop, max_new_tokens):  #: look in the text, not in the tokens
    before = prompt
    for step in decoding_steps(model, tokenizer, prompt, max_new_tokens=max_new_tokens):
        found = step.text[len(before) :].find(stop)
        if found >= 0:
            return step.text[: len(before) + found + len(stop)]
        before = step.text
    return before
def continue_until(prompt, stop, max_new_tokens):  #: expected 'The capital
    for step in decoding_steps(model, tokenizer, prompt, max_new_tokens=max_new_tokens):
        found = step.text.find(stop, len(prompt) + 1)
        if found >= 0:
            return step.text[: found + len(stop)]
    return step.text
def continue_until(prompt, stop, max_new_tokens):  #: that the last token completes
    text = prompt
    for step in decoding_steps(model, tokenizer, prompt, max_new_tokens=max_new_tokens):
        found = text.find(stop, len(prompt))
        if found >= 0:
            return text[: found + len(stop)]
        text = step.text
    return text
def continue_until(prompt, stop, max_new_tokens):  #: a prompt that occurs again
    for step in decoding_steps(model, tokenizer, prompt, max_new_tokens=max_new_tokens):
        new = step.text.replace(prompt, "")
        if stop in new:
            break
    return prompt + (new[: new.find(stop) + len(stop)] if stop in new else new)
def continue_until(prompt, stop, max_new_tokens):  #: cut the text after the stop
    for step in decoding_steps(model, tokenizer, prompt, max_new_tokens=max_new_tokens):
        if stop in step.text[len(prompt) :]:
            break
    return step.text
def continue_until(prompt, stop, max_new_tokens):  #: keep the stop itself
    text = right(prompt, stop, max_new_tokens)
    return text[: -len(stop)] if stop in text[len(prompt) :] else text
def continue_until(prompt, stop, max_new_tokens):  #: is there a `return`?
    text = right(prompt, stop, max_new_tokens)
    return text if stop in text else None
continue_until = lambda *args: 1  #: expected text, got int
continue_until = lambda *args: list(right(*args))  #: expected text, got list
#: return the prompt too
continue_until = lambda prompt, *args: right(prompt, *args)[len(prompt) :]
continue_until = lambda prompt, stop, n: right(prompt, stop, 16)  #: `max_new_tokens` as given
continue_until = lambda given, stop, n: right(prompt, stop, n)  #: `prompt` and
continue_until = lambda prompt, stop, n: right(prompt, stop, n) + stop  #: return the whole text
continue_until = lambda prompt, stop, n: prompt  #: return the whole text
