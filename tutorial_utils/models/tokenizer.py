"""A model's tokenizer, and whether it does what its file says."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.utils import is_protobuf_available, is_sentencepiece_available

from tutorial_utils.models.errors import OTHERS, plain_errors
from tutorial_utils.models.files import check_folder
from tutorial_utils.models.integrity import snapshot

# Spaces, an accent as a sign of its own (a normalizer may join it), digits, several scripts.
SAMPLE = "The cafe\u0301 at 12:30 isn't  far.\n\tNaïve 東京 🙂"
# With these settings a tokenizer differs from tokenizer.json on purpose.
OVERRIDES = ("add_prefix_space", "do_lower_case", "strip_accents")

Expected = tuple[list[int], list[int], str]


def load_tokenizer(source: str | Path, label: str, *, here: bool) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder or of a name on the hub; `here`: no network is needed.

    Some classes of transformers do something else than tokenizer.json says, which depends on the
    version: they lose spaces, a normalizer, the BOS. The file is then read without such a class.

    Raises OSError for one that can't be loaded, or not as its file says.
    """
    what = f"the tokenizer of {label}"
    if isinstance(source, Path):
        check_folder(source, label, "tokenizer")
    with plain_errors(source, what), _missing_reader(source):
        settings = get_tokenizer_config(str(source), local_files_only=here)
        # What transformers 5 calls TokenizersBackend, 4 calls PreTrainedTokenizerFast.
        renamed = settings.get("tokenizer_class") == "TokenizersBackend"
        kind: Any = PreTrainedTokenizerFast if renamed else AutoTokenizer
        where = {"local_files_only": here, "trust_remote_code": False}
        tokenizer = kind.from_pretrained(str(source), **where)
        if not tokenizer.vocab_size:  # what transformers 5 makes of a missing vocabulary
            raise OSError("there is no tokenizer.json")
        folder = snapshot(source)
        if folder is None or not (folder / "tokenizer.json").is_file():
            return tokenizer
        expected = _read_sample(Tokenizer.from_file(str(folder / "tokenizer.json")))
        if expected is None or _agree(tokenizer, expected, settings):
            return tokenizer
        plain = PreTrainedTokenizerFast.from_pretrained(str(source), local_files_only=here)
        if _agree(plain, expected, settings):
            return plain
        if any(settings.get(name) is not None for name in OVERRIDES):
            return tokenizer
    raise OSError(
        f"{what} can't be used: what transformers {transformers.__version__} makes of it "
        f"({type(tokenizer).__name__}) gives other tokens than its tokenizer.json. Another version "
        f"may do as the file says: `pip install -U transformers`. {OTHERS}"
    )


@contextmanager
def _missing_reader(source: str | Path) -> Iterator[None]:
    """Say which package reads a tokenizer.model, where it is not installed."""
    try:
        yield
    except Exception as error:
        folder = snapshot(source)
        if folder is None or (folder / "tokenizer.json").exists():
            raise
        for file in sorted(folder.glob("*.model")):
            # SentencePiece's files begin with a line feed, tiktoken's with text.
            if file.read_bytes()[:1] != b"\n":
                todo = "tiktoken"
            elif not (is_sentencepiece_available() and is_protobuf_available()):
                todo = "sentencepiece protobuf"
            else:
                continue
            raise OSError(
                f"{file.name} needs another package: `pip install {todo}`, and restart the kernel"
            ) from error
        raise


def _read_sample(file: Tokenizer) -> Expected | None:
    """SAMPLE's ids, its ids with special tokens, and the text again; None if it has no tokens."""
    file.no_truncation()
    file.no_padding()
    try:
        ids = file.encode(SAMPLE, add_special_tokens=False).ids
        return ids, file.encode(SAMPLE).ids, file.decode(ids, skip_special_tokens=False)
    except Exception:  # an unknown token; the error has no type of its own
        return None


def _agree(
    tokenizer: PreTrainedTokenizerBase, expected: Expected, settings: dict[str, Any]
) -> bool:
    """Whether the tokenizer makes of SAMPLE what its file and its settings say."""
    ids, whole, text = expected
    try:
        own = tokenizer(SAMPLE, add_special_tokens=False, verbose=False)["input_ids"]
        own_whole = tokenizer(SAMPLE, verbose=False)["input_ids"]
        own_text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    except Exception:  # what the file can encode, the class can't
        return False
    adds = [settings.get(name) for name in ("add_bos_token", "add_eos_token")]
    allowed = [whole]
    if adds != [None, None]:  # the settings may change what the file says of the two
        bos, eos = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
        allowed.append(bos * bool(adds[0]) + ids + eos * bool(adds[1]))
    return own == ids and own_text == text and own_whole in allowed
