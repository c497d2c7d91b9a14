"""What the doctor says of models: the shipped one, and the one TUTORIAL_MODEL names.

No weights are downloaded: sizes come from the configuration, on the meta device.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

from accelerate import init_empty_weights
from huggingface_hub import HfApi
from transformers import AutoModelForCausalLM, PretrainedConfig

from tutorial_utils.decoding import next_token_probs, top_tokens
from tutorial_utils.doctor.check import INSTALL, Check
from tutorial_utils.doctor.machine import free_disk
from tutorial_utils.models.config import read_config
from tutorial_utils.models.errors import plain_errors
from tutorial_utils.models.files import is_here
from tutorial_utils.models.load import DTYPE, find_source, load_model, pick_device, pick_dtype
from tutorial_utils.models.memory import place

PROMPT = "Trump works at McDonald's. Trump works at"
ANSWER = " McDonald"
WHAT = "TUTORIAL_MODEL"


def shipped_model() -> Iterator[Check]:
    """Load the shipped model and ask it the series' own question."""
    what = "shipped model"
    try:
        model, tokenizer = load_model("pocket-llama")
        probs = next_token_probs(model, tokenizer, PROMPT)[0]
        [(token, probability)] = top_tokens(probs, tokenizer, 1)
    except Exception as error:
        yield Check(what, "problem", f"does not load: {error}", INSTALL)
        return
    found = f'"{PROMPT}" goes on with "{token}" (probability {probability:.2f})'
    if token == ANSWER:
        yield Check(what, "ok", found)
    else:
        yield Check(what, "warning", found, f'expected "{ANSWER}": are its files whole?')


def chosen_model() -> Iterator[Check]:
    """What `load_model()` means here: is access granted, does it fit."""
    name = os.environ.get(WHAT, "").strip()
    if not name:
        yield Check(WHAT, "ok", "not set: the series runs on the shipped model")
        return
    try:
        source, label = find_source(None)
        here = is_here(source, label)
        if not here:
            with plain_errors(source, label):
                HfApi().auth_check(str(source))
        config = read_config(source, label, here=here)
    except Exception as error:
        yield Check(WHAT, "problem", str(error), _todo(name, str(error)))
        return
    where = "on this machine" if here else "access is granted; downloaded when it is first loaded"
    yield Check(WHAT, "ok", f"{name}, {where}")
    yield fits(config, label, here)


def _todo(name: str, error: str) -> str:
    if "is gated" in error:
        return f"ask for access at https://huggingface.co/{name}, then `hf auth login`"
    if "access token" in error:
        return "`hf auth login`"
    return f"`unset {WHAT}`, or name another model"


def fits(config: PretrainedConfig, label: str, here: bool) -> Check:
    """Parameters and bytes, from the configuration alone, against the memory that is free."""
    what, device = "does it fit", pick_device()
    with init_empty_weights():
        empty = AutoModelForCausalLM.from_config(config, **{DTYPE: pick_dtype(device)})
    needed = empty.get_memory_footprint()
    dtype = str(empty.dtype).removeprefix("torch.")
    found = f"{empty.num_parameters():,} parameters, {needed / 2**30:.1f} GiB in {dtype}"
    try:
        place(empty, label, device, split=True)
    except MemoryError as error:
        todo = f"`unset {WHAT}`, name a smaller model, or rent a larger GPU"
        return Check(what, "problem", f"{found}: {error}", todo)
    if not here and free_disk() < needed:
        room = "make room, or set HF_HOME to a folder on a larger disk"
        return Check(what, "problem", f"{found}; the disk for models has less", room)
    return Check(what, "ok", f"{found}; it fits on {device}")
