"""Tiny byte-level BPE vocabularies, laid out as the families' real ones are."""
import json

from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

LETTERS = ["Ġ"] + list("abcdefghijklmnopqrstuvwxyz.,?'-ABIMT")
MERGES = [("Ġ", "t"), ("h", "e"), ("Ġ", "a"), ("i", "n"), ("Ġt", "he"), ("e", "r"), ("o", "n"), ("Ġ", "s"), ("n", "d"),
          ("o", "u"), ("Ġ", "w"), ("a", "t"), ("e", "n"), ("Ġ", "o"), ("o", "r"), ("i", "s"), ("Ġ", "m"), ("Ġ", "b"),
          ("e", "d"), ("in", "g"), ("Ġa", "nd"), ("Ġ", "A"), ("Ġm", "an"), ("a", "n")]
TEXT_TOKENS = len(LETTERS) + len(MERGES)


def tokenizer(special=(), plain=()):
    """Letters and merges first, then `special` and `plain` added tokens; ids in this order."""
    merges = sorted(MERGES, key=lambda m: m == ("Ġm", "an"))  # "an" has to be there before "Ġman"
    vocab = {t: i for i, t in enumerate(LETTERS + ["".join(m) for m in merges])}
    out = Tokenizer(BPE(vocab=vocab, merges=merges))
    out.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    out.decoder = decoders.ByteLevel()
    out.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in special])
    out.add_tokens([AddedToken(t, special=False, normalized=True) for t in plain])
    return out


def to_json(made):
    return json.loads(made.to_str())
