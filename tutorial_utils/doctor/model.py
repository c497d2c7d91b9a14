"""What the doctor says of models: the shipped one, and the one TUTORIAL_MODEL names.

No weights are downloaded: sizes come from the configuration, on the meta device.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from accelerate import init_empty_weights
from huggingface_hub import HfApi, constants
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tutorial_utils.decoding import next_token_probs, top_tokens
from tutorial_utils.doctor.check import INSTALL, Check
from tutorial_utils.models.errors import check_kind, plain_errors
from tutorial_utils.models.load import (
    DTYPE,
    find_source,
    in_cache,
    load_model,
    pick_device,
    pick_dtype,
)
from tutorial_utils.models.memory import place

PROMPT = "Trump works at McDonald's. Trump works at"
ANSWER = " McDonald"
WHAT = "TUTORIAL_MODEL"


def shipped_model() -> Check:
    """Load the shipped model and ask it the series' own question."""
    what = "shipped model"
    try:
        model, tokenizer = load_model("pocket-llama")
        probs = next_token_probs(model, tokenizer, PROMPT)[0]
        [(token, probability)] = top_tokens(probs, tokenizer, 1)
    except Exception as error:
        return Check(what, "problem", f"does not load: {error}", INSTALL)
    found = f'"{PROMPT}" goes on with "{token}" (probability {probability:.2f})'
    if token != ANSWER:
        return Check(what, "warning", found, f'expected "{ANSWER}": are its files whole?')
    return Check(what, "ok", found)


def chosen_model() -> Iterator[Check]:
    """What `load_model()` means here: is access granted, does it fit, one BOS or two."""
    name = os.environ.get(WHAT, "").strip()
    if not name:
        yield Check(WHAT, "ok", "not set: the series runs on the shipped model")
        return
    try:
        source, label = find_source(None)
        here = isinstance(source, Path) or in_cache(source)
        with plain_errors(source, label):
            if not here:
                HfApi().auth_check(source)
            config = AutoConfig.from_pretrained(
                str(source), local_files_only=here, trust_remote_code=False
            )
        check_kind(config, label)
    except Exception as error:
        yield Check(WHAT, "problem", str(error), _todo(name, str(error)))
        return
    where = "on this machine" if here else "access is granted; downloaded when it is first loaded"
    yield Check(WHAT, "ok", f"{name}, {where}")
    yield fits(config, label, here)
    yield bos(source, here)


def _todo(name: str, error: str) -> str:
    if "is gated" in error:
        return f"ask for access at https://huggingface.co/{name}, then `hf auth login`"
    if "access token" in error:
        return "`hf auth login`"
    return f"`unset {WHAT}`, or name another model"


def fits(config, label: str, here: bool) -> Check:
    """Parameters and bytes, from the configuration alone, against the memory that is free."""
    device = pick_device()
    with init_empty_weights():
        empty = AutoModelForCausalLM.from_config(config, **{DTYPE: pick_dtype(device)})
    needed = empty.get_memory_footprint()
    dtype = str(empty.dtype).removeprefix("torch.")
    found = f"{empty.num_parameters():,} parameters, {needed / 2**30:.1f} GiB in {dtype}"
    todo = f"`unset {WHAT}`, name a smaller model, or rent a larger GPU"
    try:
        place(empty, label, device, split=True)
    except MemoryError as error:
        return Check("does it fit", "problem", f"{found}: {error}", todo)
    folder = Path(constants.HF_HUB_CACHE)
    while not folder.exists():
        folder = folder.parent
    if not here and shutil.disk_usage(folder).free < needed:
        room = "make room, or set HF_HOME to a folder on a larger disk"
        return Check("does it fit", "problem", f"{found}; the disk for models has less", room)
    return Check("does it fit", "ok", f"{found}; it fits on {device}")


def bos(source: str | Path, here: bool) -> Check:
    """Whether a text that the chat template made gets a second BOS from the tokenizer."""
    what = "chat template"
    if not here:
        return Check(what, "ok", "looked at once the model has been downloaded")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(source), local_files_only=True)
    except Exception as error:
        text = " ".join(str(error).split())
        return Check(what, "problem", f"the tokenizer does not load: {text}", "download it again")
    if not tokenizer.chat_template:
        return Check(what, "ok", "none: this is a base model")
    text = tokenizer.apply_chat_template([{"role": "user", "content": "Hello"}], tokenize=False)
    ids = tokenizer(text)["input_ids"]
    if tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        todo = "pass its text on with `tokenizer(text, add_special_tokens=False)`"
        return Check(what, "warning", "its text gets a second BOS when it is tokenized", todo)
    return Check(what, "ok", "its text is tokenized with no second BOS")
