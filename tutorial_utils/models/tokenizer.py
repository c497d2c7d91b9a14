"""Load a model's tokenizer, and check that it tokenizes as its tokenizer.json says."""

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

# Has repeated spaces, digits, several scripts, and an accent that is a character of its own, which
# a normalizer may merge with the letter before it.
SAMPLE = "The cafe\u0301 at 12:30 isn't  far.\n\tNaïve 東京 🙂"
# These settings override tokenizer.json, so with one of them a difference is no mistake.
OVERRIDES = ("add_prefix_space", "do_lower_case", "strip_accents")

Expected = tuple[list[int], list[int], str]


def load_tokenizer(source: str | Path, label: str, *, on_disk: bool) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a folder or of a name on the hub; `on_disk`: without the network.

    In some versions of transformers, the tokenizer's class loses spaces, a normalizer or the BOS
    token that tokenizer.json asks for. The file is then read without that class.

    Raises OSError if the tokenizer can't be loaded, or if it does not do what its file says.
    """
    what = f"the tokenizer of {label}"
    if isinstance(source, Path):
        check_folder(source, label, "tokenizer")
    with plain_errors(source, what), _missing_reader(source):
        settings = get_tokenizer_config(str(source), local_files_only=on_disk)
        # transformers 4 knows the class TokenizersBackend as PreTrainedTokenizerFast.
        renamed = settings.get("tokenizer_class") == "TokenizersBackend"
        kind: Any = PreTrainedTokenizerFast if renamed else AutoTokenizer
        where = {"local_files_only": on_disk, "trust_remote_code": False}
        tokenizer = kind.from_pretrained(str(source), **where)
        if not tokenizer.vocab_size:  # transformers 5 does not fail without a vocabulary
            raise OSError("there is no tokenizer.json")
        folder = snapshot(source)
        if folder is None or not (folder / "tokenizer.json").is_file():
            return tokenizer
        expected = _read_sample(Tokenizer.from_file(str(folder / "tokenizer.json")))
        if expected is None or _agree(tokenizer, expected, settings):
            return tokenizer
        plain = PreTrainedTokenizerFast.from_pretrained(str(source), local_files_only=on_disk)
        if _agree(plain, expected, settings):
            return plain
        if any(settings.get(name) is not None for name in OVERRIDES):
            return tokenizer
    raise OSError(
        f"{what} can't be used: transformers {transformers.__version__} loads it as "
        f"{type(tokenizer).__name__}, which gives other tokens than its tokenizer.json. Another "
        f"version of transformers may read it right: `pip install -U transformers`. {OTHERS}"
    )


@contextmanager
def _missing_reader(source: str | Path) -> Iterator[None]:
    """If an error comes from a package that is not installed, name that package.

    A folder without tokenizer.json has a *.model file, which another package has to read.
    """
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
    """The ids of SAMPLE without and with special tokens, and the text decoded from the first.

    None if the tokenizer cannot encode SAMPLE.
    """
    file.no_truncation()
    file.no_padding()
    try:
        ids = file.encode(SAMPLE, add_special_tokens=False).ids
        return ids, file.encode(SAMPLE).ids, file.decode(ids, skip_special_tokens=False)
    except Exception:  # the vocabulary lacks a token of SAMPLE; tokenizers raises a plain Exception
        return None


def _agree(
    tokenizer: PreTrainedTokenizerBase, expected: Expected, settings: dict[str, Any]
) -> bool:
    """Whether the tokenizer encodes and decodes SAMPLE as its file and its settings say."""
    ids, with_special, text = expected
    try:
        own_ids = tokenizer(SAMPLE, add_special_tokens=False, verbose=False)["input_ids"]
        own_with_special = tokenizer(SAMPLE, verbose=False)["input_ids"]
        own_text = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    except Exception:  # the class cannot encode SAMPLE, though the file can
        return False
    adds = [settings.get(name) for name in ("add_bos_token", "add_eos_token")]
    allowed = [with_special]
    if adds != [None, None]:  # the settings may override what the file says of BOS and EOS
        bos, eos = [tokenizer.bos_token_id], [tokenizer.eos_token_id]
        allowed.append(bos * bool(adds[0]) + ids + eos * bool(adds[1]))
    return own_ids == ids and own_text == text and own_with_special in allowed
