# fmt: off
# ruff: noqa: E731, F821 - as a learner types them

# %% check_my_prompt(my_prompt, model, tokenizer)
model, tokenizer = load("pocket-llama")
my_prompt = "The capital of Italy is"  #: Right
my_prompt = "The capital of France is"  #: begin to say it again
my_prompt = "Anna lives in Rome. "  #: ends with a space
my_prompt = "The capital of Italy is "  #: ends with a space
my_prompt = "Bob went to Rome. Bob went to"  #: few kinds of sentence
my_prompt = "Rome"  #: few kinds of sentence
my_prompt = "Anna lives in Rome. Anna lives in Rome"  #: few kinds of sentence
my_prompt = "Anna lives in Paris. Anna lives in"  #: begin to say it again
my_prompt = ""  #: is empty
my_prompt = "Rome " * 400  #: too long
my_prompt = 3  #: put it in quotes
my_prompt = ["Anna lives in Rome. Anna lives in"]  #: put it in quotes

# %% check_weights_gib(weights_gib)
weights_gib = lambda n, dtype: n * torch.empty(0, dtype=dtype).element_size() / 1024**3  #: Right
weights_gib = lambda n, dtype: torch.tensor(n * dtype.itemsize / 2**30)  #: Right
weights_gib = lambda n, dtype: n * torch.finfo(dtype).bits / 8 / 2**30  #: raised TypeError
weights_gib = lambda parameters, dtype: parameters * dtype.itemsize / 10**9  #: a GiB is 2**30
weights_gib = lambda parameters, dtype: parameters * 4 / 2**30  #: depends on the dtype
weights_gib = lambda parameters, dtype: torch.zeros(3)  #: expected a number
weights_gib = lambda parameters, dtype: math.nan  #: expected a number, got nan
weights_gib = lambda parameters, dtype: f"{right(parameters, dtype):.2f} GiB"  #: expected a number
#: expected 0.01466, got 0.003666
weights_gib = lambda n, dtype: n * (4 if dtype == torch.float32 else 2) / 2**30
weights_gib = lambda n, dtype: n * max(dtype.itemsize, 2) / 2**30  #: expected 7.479, got 14.96
weights_gib = lambda parameters, dtype: right(parameters, dtype) / 8  #: not in bits
weights_gib = lambda parameters, dtype: parameters * dtype.itemsize / 2**20  #: in MiB
weights_gib = lambda parameters, dtype: parameters * dtype.itemsize // 2**30  #: bytes of each
