"""Files of a newer transformers: what this one would overlook is named, never left out silently."""

from __future__ import annotations

import warnings

import pytest
import transformers
from packaging.version import Version

import tiny_models
from model_folders import copy_of, refusal
from tutorial_utils.models.load import load_model
from tutorial_utils.models.versions import check_version

OWN = Version(transformers.__version__)
NEXT = f"{OWN.major + 1}.0.0"
LATER = f"{OWN.major}.{OWN.minor + 1}.0"


def test_settings_of_the_next_version_are_not_overlooked(llama, gpt2, tmp_path):
    for make in (llama, gpt2):
        folder = copy_of(
            make, tmp_path / make.name, transformers_version=NEXT, new_positions={"base": 500000}
        )
        text = refusal(OSError, folder)
        assert f"written by transformers {NEXT}, and {OWN}" in text
        assert "new_positions" in text and "pip install -U transformers" in text


def test_a_later_version_gives_a_warning(llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x", transformers_version=LATER, new_scale=0.5)
    with pytest.warns(UserWarning, match="new_scale"):
        load_model(folder)


@pytest.mark.parametrize(
    "settings",
    [
        {"transformers_version": NEXT},
        {"transformers_version": NEXT, "new_scale": None, "new_list": [], "use_new": False},
        {"transformers_version": NEXT, "auto_map": {"AutoModelForCausalLM": "code.Model"}},
        {"transformers_version": NEXT, "torch_dtype": "float32", "temperature": 0.5},
        {"transformers_version": "4.40.0", "own_note": "a key of the owner's"},
        {"transformers_version": "unknown", "own_note": "a key of the owner's"},
        {"own_note": "a key of the owner's"},
    ],
)
def test_what_means_nothing_or_is_older_is_no_obstacle(settings, llama, tmp_path):
    folder = copy_of(llama, tmp_path / "x", **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        load_model(folder)


class OldLlama:
    """A configuration as of transformers 4: the base of the rotary positions has its own key."""

    def __init__(self, rope_theta=10000.0, rope_scaling=None):
        self.rope_theta, self.rope_scaling = rope_theta, rope_scaling


@pytest.mark.parametrize(
    ("rope", "lost"),
    [
        ({"rope_type": "default", "rope_theta": 10000.0}, False),
        ({"rope_type": "default", "rope_theta": 500000.0}, True),
        ({"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0}, True),
        ({"full_attention": {"rope_theta": 10000.0}}, True),
    ],
)
@pytest.mark.parametrize("written", ["5.0.0", None])
def test_rotary_positions_of_transformers_5(rope, lost, written, monkeypatch):
    """Read by 4, which keeps the key and computes with its own default."""
    monkeypatch.setattr("tutorial_utils.models.versions.__version__", "4.57.6")
    config = OldLlama()
    config.rope_parameters = rope
    settings = {"rope_parameters": rope, "transformers_version": written}
    if lost:
        with pytest.raises(OSError, match=r"overlooks in its config\.json: rope_parameters"):
            check_version(settings, config, "x")
    else:
        check_version(settings, config, "x")


def test_the_base_of_the_rotary_positions_is_the_files(tmp_path):
    """Whatever version wrote the file."""
    folder = tiny_models.make_llama(tmp_path / "x", rope_theta=500000.0)
    model, _ = load_model(folder)
    frequencies = model.model.rotary_emb.inv_freq
    assert float(frequencies[1]) ** -len(frequencies) == pytest.approx(500000, rel=1e-3)
