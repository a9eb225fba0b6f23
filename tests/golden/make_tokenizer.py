#!/usr/bin/env python3
"""Makes tests/data/tokenizer: small tokenizers of every kind, and what HF tokenizers make of many texts.

    tests/golden/make_tokenizer.py [--check]                  (needs tokenizers 0.23)
    tests/golden/make_tokenizer.py --real ../shared           also the ids of the real tokenizers there
    tests/golden/make_tokenizer.py --train                    new tokenizers, too; else those committed stay, because
                                                              HF's trainer breaks some ties in an order of chance

texts.json holds the texts: a string, {"hex": bytes} or {"repeat": [string, times]}. Each folder has a
tokenizer.json (or vocab.json and merges.txt) and golden.json, with a list for each text: `plain` (special
tokens count as text), `special` (they are parsed; null: the same as plain), `whole` (parsed and with the
post-processor; null: the same as special), `kept` and `skipped` (decoded from `whole`, with and without special
tokens; null: `kept` is the text, which is then a string, `skipped` is `kept`). Ids are runs, [id, times] where an id comes often.
"""
import argparse
import itertools
import json
import pathlib
import sys

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from reference.tokenizer_texts import CORPUS, TEXTS  # noqa: E402

DATA = pathlib.Path(__file__).parent.parent / "data" / "tokenizer"
LLAMA3 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
          r"|\s+(?!\S)|\s+")
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
O200K = "|".join([
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?""",
    r"""\p{N}{1,3}""", r""" ?[^\s\p{L}\p{N}]+[\r\n/]*""", r"""\s*[\r\n]+""", r"""\s+(?!\S)""", r"""\s+"""])
CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def special(*contents, **flags):
    return [AddedToken(c, special=True, normalized=False, **flags) for c in contents]


def plain(*contents, **flags):
    return [AddedToken(c, special=False, **flags) for c in contents]


def train(normalizer=None, pre=None, size=600, alphabet=(), limit=None, **model):
    made = Tokenizer(BPE(**model))
    if normalizer:
        made.normalizer = normalizer
    if pre:
        made.pre_tokenizer = pre
    more = {k: v for k, v in model.items() if k in ("continuing_subword_prefix", "end_of_word_suffix")}
    if limit:
        more["limit_alphabet"] = limit
    made.train_from_iterator(CORPUS, BpeTrainer(vocab_size=size, show_progress=False, initial_alphabet=list(alphabet), **more))
    return made


def byte_level(pre, size=600, normalizer=None, **model):
    made = train(normalizer, pre, size, sorted(pre_tokenizers.ByteLevel.alphabet()), **model)
    made.decoder = decoders.ByteLevel()
    return made


def with_tokens(made, *tokens):
    """The tokens have ids behind the vocabulary, or those of the vocabulary where it has them."""
    made.add_tokens(list(tokens))
    return made


def rebuilt(made, extra=(), **model):
    """The same tokenizer with more of the model's options, and `extra` first in its vocabulary."""
    old = json.loads(made.to_str())["model"]
    vocab = {t: i for i, t in enumerate(list(extra) + [t for t in old["vocab"] if t not in extra])}
    out = Tokenizer(BPE(vocab=vocab, merges=[tuple(m) for m in old["merges"]], **model))
    for part in ("normalizer", "pre_tokenizer", "decoder"):
        if getattr(made, part):
            setattr(out, part, getattr(made, part))
    return out


def template(made, single, *names):
    made.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=[(n, made.token_to_id(n)) for n in names])
    return made


def gpt2():
    return with_tokens(byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False)), *special("<|endoftext|>"))


def roberta():
    made = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))
    with_tokens(made, *special("<s>", "</s>", "<unk>"), *special("<mask>", lstrip=True))
    made.post_processor = processors.RobertaProcessing(("</s>", made.token_to_id("</s>")), ("<s>", made.token_to_id("<s>")))
    return made


def split_then_bytes(expression):
    return pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(expression), "isolated"),
                                    pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])


def llama3():
    made = byte_level(split_then_bytes(LLAMA3))
    made = rebuilt(made, ["Ġthe", "Ġquick"], ignore_merges=True)  # words that no merge makes
    with_tokens(made, *special("<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>"))
    template(made, "<|begin_of_text|> $A", "<|begin_of_text|>")
    made.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), made.post_processor])
    return made


def qwen2():
    made = byte_level(split_then_bytes(QWEN2), normalizer=normalizers.NFC())
    return with_tokens(made, *special("<|endoftext|>", "<|im_start|>", "<|im_end|>"), *plain("<tool_call>", normalized=False))


def o200k():
    return with_tokens(byte_level(split_then_bytes(O200K)), *special("<|endoftext|>"))


def mixed_scripts():
    steps = [pre_tokenizers.Split(Regex(r"\p{N}{1,3}"), "isolated"),
             pre_tokenizers.Split(Regex("[一-龥぀-ゟ゠-ヿ]+"), "isolated"),
             pre_tokenizers.Split(Regex(r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
                                        r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"), "isolated"),
             pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    return with_tokens(byte_level(pre_tokenizers.Sequence(steps)), *special("<｜begin▁of▁sentence｜>"))


BYTES = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]


def llama2():
    normal = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made = train(normalizers.Replace(" ", "▁"), pre_tokenizers.Metaspace(), 500, limit=90)
    made.normalizer, made.pre_tokenizer = normal, None
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    made = rebuilt(made, BYTES, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    with_tokens(made, *special("<unk>", "<s>", "</s>"), *plain("</name>", normalized=True))
    return template(made, "<s> $A", "<s>")


def gemma():
    made = train(normalizers.Replace(" ", "▁"), pre_tokenizers.Split("▁", "merged_with_previous"), 500, limit=90)
    made.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    made.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    made = rebuilt(made, BYTES, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    with_tokens(made, *special("<unk>", "<s>", "</s>"), *plain("\n\n", "  ", normalized=False))
    return template(made, "<s> $A </s>", "<s>", "</s>")


def metaspace():
    made = train(None, pre_tokenizers.Metaspace(prepend_scheme="first"), 400, limit=60)
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    made = rebuilt(made, ["<unk>"], unk_token="<unk>", fuse_unk=False)
    return with_tokens(made, *special("<unk>", "<sep>"))


def metaspace_whole():
    made = train(None, pre_tokenizers.Metaspace(prepend_scheme="always"), 400, limit=60)
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    made.decoder = decoders.Metaspace(prepend_scheme="always")
    made = rebuilt(made, ["<unk>", "<0xC3>", "<0xA9>"], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    return with_tokens(made, *special("<unk>", "<sep>"))


def clip():
    normal = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    pre = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(CLIP), "removed", invert=True),
                                   pre_tokenizers.ByteLevel(add_prefix_space=False)])
    made = train(normal, pre, 900, sorted(pre_tokenizers.ByteLevel.alphabet()), end_of_word_suffix="</w>")
    old = [c + "</w>" for c in sorted(pre_tokenizers.ByteLevel.alphabet())]
    made = rebuilt(made, old, end_of_word_suffix="</w>", continuing_subword_prefix="", unk_token="<|endoftext|>")
    made.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Replace("</w>", " ")])
    with_tokens(made, *special("<|startoftext|>", "<|endoftext|>"))
    made.post_processor = processors.RobertaProcessing(
        ("<|endoftext|>", made.token_to_id("<|endoftext|>")), ("<|startoftext|>", made.token_to_id("<|startoftext|>")),
        trim_offsets=False, add_prefix_space=False)
    return made


def whisper():
    made = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    names = ["<|endoftext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|transcribe|>", "<|notimestamps|>"]
    with_tokens(made, *special(*names), *plain(*[f"<|{i * 0.02:.2f}|>" for i in range(101)], normalized=False))
    return template(made, f"{names[1]} {names[2]} {names[4]} {names[5]} $A {names[0]}", *names)


def flags():
    normal = normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()])
    made = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True), 400, normal)
    return with_tokens(
        made, *plain("cat", single_word=True, normalized=False), *plain("Dög", single_word=True, normalized=True),
        *plain("left", lstrip=True, normalized=False), *plain("Right", rstrip=True, normalized=True),
        *plain("both", lstrip=True, rstrip=True, normalized=False), *plain("leftover", normalized=False),
        *plain("\t", rstrip=True, normalized=False), *special("[S]", lstrip=True, rstrip=True),
        AddedToken("[Né]", special=True, normalized=True), AddedToken("é", special=False, normalized=True),
        *special("the", single_word=True), *plain("<|a|>", "<|a|><|b|>", "<|b|>", normalized=False))


def subwords():
    made = train(None, pre_tokenizers.Whitespace(), 500, limit=80, continuing_subword_prefix="##", unk_token="[UNK]")
    made = rebuilt(made, ["[UNK]", "[CLS]", "[SEP]"], continuing_subword_prefix="##", unk_token="[UNK]")
    with_tokens(made, *special("[UNK]", "[CLS]", "[SEP]"))
    made.post_processor = processors.BertProcessing(("[SEP]", made.token_to_id("[SEP]")), ("[CLS]", made.token_to_id("[CLS]")))
    return made


def words():
    normal = normalizers.Sequence([normalizers.NFKD(), normalizers.Strip(left=True, right=True)])
    pre = pre_tokenizers.Sequence([pre_tokenizers.BertPreTokenizer(), pre_tokenizers.WhitespaceSplit(),
                                   pre_tokenizers.Punctuation("merged_with_next"), pre_tokenizers.Digits(individual_digits=False)])
    made = train(normal, pre, 500, limit=80, end_of_word_suffix="</w>")
    made.decoder = decoders.BPEDecoder("</w>")
    return made


def splits():
    steps = [pre_tokenizers.Split("-", "merged_with_previous"), pre_tokenizers.Split("a", "merged_with_next"),
             pre_tokenizers.Split(Regex("[0-9]"), "contiguous"), pre_tokenizers.Split(",", "removed"),
             pre_tokenizers.Split(Regex("o*"), "isolated"), pre_tokenizers.CharDelimiterSplit("|"),
             pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.Punctuation("contiguous"),
             pre_tokenizers.FixedLength(7), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
             pre_tokenizers.Split("Ġ", "merged_with_next")]
    return byte_level(pre_tokenizers.Sequence(steps), 400, normalizers.Sequence([normalizers.NFKC(), normalizers.Strip(True, False)]))


def byte_normal():
    """ByteLevel as a normalizer, decoders that cut, and added tokens that are normalized with it."""
    made = byte_level(pre_tokenizers.Split(Regex("Ġ?[^Ġ]+"), "isolated"), 400, normalizers.ByteLevel())
    made.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip("e", 2, 1), decoders.Replace(Regex("[0-9]+"), "#")])
    return with_tokens(made, *plain("naïve word", normalized=True), *special("<end>"))


CASES = [gpt2, roberta, llama3, qwen2, o200k, mixed_scripts, llama2, gemma, metaspace, metaspace_whole, clip, whisper, flags,
         subwords, words, splits, byte_normal]


def text_of(entry):
    if isinstance(entry, str):
        return entry
    if "hex" in entry:
        return bytes.fromhex(entry["hex"]).decode("utf-8", "replace")
    return entry["repeat"][0] * entry["repeat"][1]


def runs(ids):
    out = []
    for value, group in itertools.groupby(ids):
        count = len(list(group))
        out += [[value, count]] if count > 3 else [value] * count
    return out


def golden(made, decode_limit=2000):
    results = []
    for entry in TEXTS:
        text = text_of(entry)
        made.encode_special_tokens = True
        ids = made.encode(text, add_special_tokens=False).ids
        made.encode_special_tokens = False
        parsed = made.encode(text, add_special_tokens=False).ids
        whole = made.encode(text, add_special_tokens=True).ids
        result = {"plain": runs(ids)}
        if parsed != ids:
            result["special"] = runs(parsed)
        if whole != parsed:
            result["whole"] = runs(whole)
        if len(text) <= decode_limit and whole:  # HF's BPEDecoder does not take an empty list
            kept, skipped = made.decode(whole, skip_special_tokens=False), made.decode(whole, skip_special_tokens=True)
            if kept != text or not isinstance(entry, str):
                result["kept"] = kept
            if skipped != kept:
                result["skipped"] = skipped
        results.append(result)
    return results


def dump(value):
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"


def lines(values):
    return "[\n" + ",\n".join(dump(v).rstrip("\n") for v in values) + "\n]\n"


def files(train_anew):
    out = {"texts.json": json.dumps(TEXTS, ensure_ascii=True, indent=0) + "\n"}
    for case in CASES:
        name = case.__name__.replace("_", "-")
        committed = DATA / name / "tokenizer.json"
        made = case() if train_anew or not committed.exists() else Tokenizer.from_file(str(committed))
        document = json.loads(made.to_str())
        out[f"{name}/golden.json"] = lines(golden(Tokenizer.from_str(made.to_str())))
        if case is gpt2:  # both ways to open it
            out["gpt2-files/vocab.json"] = dump(document["model"]["vocab"])
            out["gpt2-files/merges.txt"] = "#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in document["model"]["merges"])
            out["gpt2-files/special_tokens_map.json"] = dump({"eos_token": "<|endoftext|>", "pad_token": {"content": "<|endoftext|>"}})
            document["model"]["merges"] = [f"{a} {b}" for a, b in document["model"]["merges"]]  # as older files have it
        out[f"{name}/tokenizer.json"] = dump(document)
    return out


def real_files(shared):
    whisper_en = Tokenizer.from_file(str(shared / "models/whisper-tiny.en/tokenizer.json"))
    base = shared / "tokenizers/gpt2-bpe"
    model = BPE.from_file(str(base / "gpt2_vocab.json"), str(base / "merges.txt"))
    gpt2_full = Tokenizer(model)
    gpt2_full.pre_tokenizer, gpt2_full.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    gpt2_full.add_special_tokens(special("<|endoftext|>"))
    return {"real-whisper-tiny.en.json": lines(golden(whisper_en)), "real-gpt2.json": lines(golden(gpt2_full))}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--real", type=pathlib.Path)
    options = parser.parse_args()
    made = files(options.train)
    if options.real:
        made |= real_files(options.real)
    different = [n for n, text in made.items() if not (DATA / n).exists() or (DATA / n).read_text("utf-8") != text]
    if options.check:
        print("different:" if different else "as committed", *different)
        sys.exit(bool(different))
    for name in different:
        (DATA / name).parent.mkdir(parents=True, exist_ok=True)
        (DATA / name).write_text(made[name], "utf-8")


if __name__ == "__main__":
    main()
