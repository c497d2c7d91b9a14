"""The doctor's checks of models: the shipped one, and the one that TUTORIAL_MODEL names.

No weights are downloaded. Sizes are computed on the meta device, from the configuration alone.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from huggingface_hub import HfApi
from transformers import (
    AutoModelForCausalLM,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tutorial_utils.decoding import encode, next_token_logits, next_token_probs, top_tokens
from tutorial_utils.doctor.check import INSTALL, Check
from tutorial_utils.doctor.machine import free_disk
from tutorial_utils.models.config import read_config
from tutorial_utils.models.errors import plain_errors
from tutorial_utils.models.files import is_on_disk
from tutorial_utils.models.gguf import room_to_unpack, unpacked_folder
from tutorial_utils.models.load import DTYPE, find_source, load_model, pick_device, pick_dtype
from tutorial_utils.models.memory import place
from tutorial_utils.models.quantize import bytes_in_four_bits, check_quantize

PROMPT = "Trump works at McDonald's. Trump works at"
ANSWER = " McDonald"
SHORTER = "The dog"  # is padded in a batch with PROMPT
VARIABLE = "TUTORIAL_MODEL"
MOST_PARAMETERS = 1_000_000_000  # larger models are not tried out


def shipped_model() -> Iterator[Check]:
    """Load the shipped model, try it out and ask it the series' own question."""
    what = "shipped model"
    try:
        model, tokenizer = load_model("pocket-llama")
        try_out(model, tokenizer)
        probs = next_token_probs(model, tokenizer, PROMPT)[0]
        [(token, probability)] = top_tokens(probs, tokenizer, 1)
    except Exception as error:
        yield Check(what, "problem", f"does not run: {error}", INSTALL)
        return
    found = f'"{PROMPT}" goes on with "{token}" (probability {probability:.2f})'
    restore = "run `git checkout tutorial_utils/pocket_llama` in the project's folder"
    todo = f'expected "{ANSWER}", so its files may be damaged: {restore}, or install it again'
    if token == ANSWER:
        yield Check(what, "ok", found)
    else:
        yield Check(what, "warning", found, todo)


def chosen_model() -> Iterator[Check]:
    """Check the model that TUTORIAL_MODEL names: is access granted, does it fit, does it run."""
    name = os.environ.get(VARIABLE, "").strip()
    if not name:
        yield Check(VARIABLE, "ok", "not set: the series runs on the shipped model")
        return
    try:
        source, label = find_source(None)
        if isinstance(source, Path) and source.suffix == ".gguf":
            if not (unpacked_folder(source) / "config.json").is_file():
                needed = room_to_unpack(source, label) / 1e6
                found = f"{name}; the first load unpacks it, which takes {needed:,.0f} MB of disk"
                yield Check(VARIABLE, "ok", found)
                return
            source = unpacked_folder(source)
        on_disk = is_on_disk(source, label)
        if not on_disk:
            with plain_errors(source, label):
                HfApi().auth_check(str(source))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # `runs` shows the warnings of loading
            config = read_config(source, label, on_disk=on_disk)
        with plain_errors(source, label), init_empty_weights():
            dtype = {DTYPE: pick_dtype(pick_device())}
            empty = AutoModelForCausalLM.from_config(deepcopy(config), **dtype)
            empty.tie_weights()  # otherwise a matrix used at both ends counts twice
    except Exception as error:
        yield Check(VARIABLE, "problem", str(error), _todo(name, str(error)))
        return
    where = "on this machine" if on_disk else "access is granted; the first load downloads it"
    yield Check(VARIABLE, "ok", f"{name}, {where}")
    fit = fits(empty, label, 0 if on_disk else download_bytes(empty, config))
    yield fit
    if fit.state == "ok":
        yield from runs(empty.num_parameters(), on_disk)


def try_out(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
    """One pass over two prompts in a batch, and one step of `generate`.

    Raises ValueError for a result that is not finite.
    """
    generate: Any = model.generate
    options = {"max_new_tokens": 1, "return_dict_in_generate": True, "output_logits": True}
    step = generate(**encode(model, tokenizer, PROMPT), **options)
    for logits in (next_token_logits(model, tokenizer, [PROMPT, SHORTER]), step.logits[0]):
        if not logits.amax(dim=-1).isfinite().all():  # -inf forbids a token
            dtype = str(model.dtype).removeprefix("torch.")
            todo = 'try dtype="float32"'
            if dtype == "float32":
                todo = "its files may be damaged; download or install it again"
            raise ValueError(f"its scores for the next token are not finite in {dtype}: {todo}")


def runs(parameters: int, on_disk: bool) -> Iterator[Check]:
    """Try out the model that TUTORIAL_MODEL names, if it is small, and check its chat template."""
    what = "does it run"
    if not on_disk:
        yield Check(what, "ok", "not tried: it has not been downloaded yet")
        return
    if parameters > MOST_PARAMETERS:
        yield Check(what, "ok", f"not tried: it has more than {MOST_PARAMETERS:,} parameters")
        return
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)
            model, tokenizer = load_model()
        try_out(model, tokenizer)
    except Exception as error:
        text = " ".join(str(error).split()) or type(error).__name__
        yield Check(what, "problem", text, f"`unset {VARIABLE}`, or name another model")
        return
    messages = [str(warning.message) for warning in caught if warning.category is UserWarning]
    if messages:
        todo = "the lessons run, but read their results with care"
        yield Check(what, "warning", messages[0], todo)
    else:
        found = "two prompts in a batch and a step of `generate` give finite numbers"
        yield Check(what, "ok", found)
    yield chat_template(tokenizer)


def chat_template(tokenizer: PreTrainedTokenizerBase) -> Check:
    """Check that the template accepts a single question, and that no second BOS is added to it."""
    what = "chat template"
    if not tokenizer.chat_template:
        return Check(what, "ok", "none, as in most base models")
    try:
        turns = [{"role": "user", "content": "Hello"}]
        ids = tokenizer(tokenizer.apply_chat_template(turns, tokenize=False))["input_ids"]
    except Exception as error:
        text = " ".join(str(error).split())[:200]
        todo = "give it the turns that it asks for, or pass another with `chat_template=`"
        todo += "; the lessons do not need it"
        return Check(what, "warning", f"it refuses a single question: {text}", todo)
    if tokenizer.bos_token_id is not None and ids[:2] == [tokenizer.bos_token_id] * 2:
        todo = "tokenize its text with `tokenizer(text, add_special_tokens=False)`"
        return Check(what, "warning", "tokenizing its text adds a second BOS", todo)
    return Check(what, "ok", "tokenizing its text adds no second BOS")


def _todo(name: str, error: str) -> str:
    if "is gated" in error:
        return f"ask for access at https://huggingface.co/{name}, then `hf auth login`"
    if "access token" in error:
        return "`hf auth login`"
    return f"`unset {VARIABLE}`, or name another model"


def download_bytes(empty: PreTrainedModel, config: PretrainedConfig) -> int:
    """How large a model's files are, in the dtype that its configuration names."""
    named = (getattr(part, DTYPE, None) for part in (config, config.get_text_config()))
    dtype = next(filter(None, named), torch.float32)
    return int(empty.num_parameters() * dtype.itemsize)


def fits(empty: PreTrainedModel, label: str, download: int) -> Check:
    """Compare what a model needs with the free memory, and `download` bytes with the free disk.

    `empty` is the model on the meta device.
    """
    what, device = "does it fit", pick_device()
    dtype = str(empty.dtype).removeprefix("torch.")
    try:
        in_four_bits = check_quantize(None, device)
    except (OSError, ValueError) as error:
        return Check(
            what, "problem", str(error), "`unset TUTORIAL_QUANTIZE`, or do what the message says"
        )
    needed = bytes_in_four_bits(empty) if in_four_bits else empty.get_memory_footprint()
    precision = "4 bits" if in_four_bits else dtype
    found = f"{empty.num_parameters():,} parameters, {needed / 2**30:.1f} GiB in {precision}"
    try:
        places, _ = place(empty, label, device, split=True, in_four_bits=in_four_bits)
    except MemoryError as error:
        todo = f"`unset {VARIABLE}`, name a smaller model, or rent a larger GPU"
        if not in_four_bits and device.type != "mps":
            todo = f"`export TUTORIAL_QUANTIZE=4bit` stores it in 4 bits; or {todo}"
        return Check(what, "problem", f"{found}: {error}", todo)
    if free_disk() < download:
        room = "make room, or set HF_HOME to a folder on a larger disk"
        files = f"its files take {download / 2**30:.1f} GiB, and the disk for models has less room"
        return Check(what, "problem", f"{found}; {files}", room)
    count = len(set(places.values()))
    where = f"{count} of this machine's GPUs together" if count > 1 else str(device)
    return Check(what, "ok", f"{found}; it fits on {where}")
