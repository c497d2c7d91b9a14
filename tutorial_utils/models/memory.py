"""Choose the devices for a model's weights: how much memory is free, and what fits."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch
from accelerate import infer_auto_device_map
from accelerate.utils import get_balanced_memory
from transformers import PreTrainedModel

from tutorial_utils.models.quantize import bytes_in_four_bits

CGROUPS = Path("/sys/fs/cgroup")  # where Linux keeps a container's limits


def free_memory(device: str | torch.device) -> int:
    """The bytes that are free on a device."""
    device = torch.device(device)
    if device.type == "cuda":
        # torch keeps memory that it no longer uses, and will use it again.
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + unused
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    free = psutil.virtual_memory().available
    for folder, limit, used in (  # a container may be allowed less than the machine has
        (CGROUPS, "memory.max", "memory.current"),
        (CGROUPS / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        try:
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            cache = int(stat["active_file"]) + int(stat["inactive_file"])  # freed when needed
            left = int((folder / limit).read_text()) - int((folder / used).read_text()) + cache
            free = min(free, left)
        except (OSError, ValueError, KeyError):  # not there, or no limit ("max")
            continue
    return free


def place(
    empty: PreTrainedModel,
    label: str,
    device: torch.device,
    *,
    split: bool,
    in_four_bits: bool = False,
) -> tuple[dict[str, torch.device | int], str]:
    """Choose the device of each part of a model, and word the error in case memory runs out.

    `empty` is the model on the meta device. Returns the device map and the message. Raises
    MemoryError if the model cannot fit.
    """
    if getattr(empty.config, "quantization_config", None):  # takes less than `empty` shows
        return {"": device}, ""
    empty.tie_weights()
    needed = bytes_in_four_bits(empty) if in_four_bits else empty.get_memory_footprint()
    free, where = free_memory(device), str(device)
    count = torch.cuda.device_count() if split and device.type == "cuda" else 1
    if count > 1 and needed > 0.9 * free:  # the last tenth is for activations
        gpus = {i: free_memory(torch.device("cuda", i)) for i in range(count)}
        free, where = sum(gpus.values()), f"this machine's {count} GPUs together"
        blocks = list(empty._no_split_modules or [])  # decoder layers stay whole
        limits = {i: int(0.9 * left) for i, left in gpus.items()}
        limits = get_balanced_memory(empty, limits, no_split_module_classes=blocks)
        device_map = infer_auto_device_map(empty, limits, no_split_module_classes=blocks)
        fits = set(device_map.values()) <= set(gpus)  # what does not fit gets "cpu" or "disk"
    else:
        device_map, fits = {"": device}, needed <= free
    precision = "4 bits" if in_four_bits else str(empty.dtype).removeprefix("torch.")
    message = no_room(label, precision, needed, free, where)
    if not fits:
        raise MemoryError(message)
    return device_map, message


def no_room(label: str, precision: str, needed: int, free: int, where: str) -> str:
    """The message for a model that does not fit; `needed` and `free` are in bytes."""
    ways = ["Shut down other notebooks and programs that hold memory", "take a smaller model"]
    if precision == "float32":
        ways.append('take half the bytes with dtype="bfloat16"')
    if precision != "4 bits" and not where.startswith("mps"):
        ways.append('hold the weights in 4 bits with quantize="4bit"')
    if not where.startswith("cpu"):
        ways.append('use the slower device="cpu"')
    return (
        f"there is not enough memory for {label}: its weights need {needed / 2**30:.1f} GiB in "
        f"{precision}, and there are {free / 2**30:.1f} GiB free on {where}. "
        f"{', or '.join(ways)}."
    )
