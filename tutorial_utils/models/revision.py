"""What tells the weights of one model from those of another."""

from __future__ import annotations

import hashlib

from transformers import PreTrainedModel


def model_revision(model: PreTrainedModel) -> str:
    """The commit on the hub; for a model from a folder, a hash of 64 numbers of each weight."""
    commit = getattr(model.config, "_commit_hash", None)
    if commit:
        return commit
    digest = hashlib.sha256()
    for name, weight in model.named_parameters():
        if weight.is_meta:  # on disk, and not worth reading: its neighbours tell the model
            continue
        some = weight.detach().flatten()[:: max(1, weight.numel() // 64)]
        digest.update(name.encode() + some.float().cpu().numpy().tobytes())
    return f"weights {digest.hexdigest()[:16]}"
