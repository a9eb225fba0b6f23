#!/usr/bin/env python3
"""Makes tests/data/metrics.json: texts as the reference implementations normalise and tokenise them, and their scores.

Needs transformers 5.23, sacrebleu 2.6, pycocoevalcap 1.2 (with Java for its tokenizer) and scikit-learn 1.9.
"""
import json
import os
import random
import sys

from pycocoevalcap.cider.cider_scorer import CiderScorer
from pycocoevalcap.tokenizer.ptbtokenizer import PTBTokenizer
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from sklearn.metrics import accuracy_score, f1_score
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../data/metrics.json")
SPELLINGS = {"colour": "color", "realise": "realize"}

SENTENCES = [
    "Mr. Quilter's manner isn't less interesting, he's been told.", "I'ma gonna  say 'hello' (laughs) [noise] <eos> uh, um!",
    "It cost twenty one dollars and seven cents; she'd paid $20 million.", "one oh one, double three, nineteen eighty-four",
    "Two and a half percent of 1,234,567 is thirty thousand eight hundred and sixty four point two",
    "the twenty first of the fifties; a hundredth, three millions, six billionths", "minus five pounds, positive six, negative me",
    "€0.07 and $0.70, ¢5, £3 and ¢9; 5 % of 7%", "Colour and realise, naïve café, Straße Ørsted Æon, ﬁne, 日本語 देवनागरी",
    "point five, three point one four one five, 192 point 168 point 0 point 1", "won't can't let's y'all would've they're we'll",
    "zero hundred, 0 thousands, five six seven, ten two, one hundred thousand two", "triple the double oh seven per cent per day",
    "St. John's dr. said: u.s.a. is 1960s' 21 st century, x1 9am 3.5.2", "", "   ", "...", "and a half", "seven and a half and a half",
    "decillion nonillion two decillion three", "99999999999999999999 hundred and one", "three point one hundred", "3.14159 hundred",
]
TRANSLATIONS = [
    "Hello, world! It's 3.5 km (2.2 mi)... isn't it?", "a-b 1-2 x_y &quot;quoted&amp;&lt;&gt; <skipped>text", "end. ", "1,000.50,a .5 5. é.ü,3",
    "Der Preis: 5€, 10$; 50% [sic] {braces} ~tilde|pipe", "日本.語,です", "",
]
CAPTIONS = [
    "A man (in red) isn't playing the dog's ball, he's at 9:30 .", "Two dogs -- one brown, one black -- run...", "a \"sign\" says 1,000 m.p.h.!",
    "Mr. Smith cannot slip 'n' slide; they're on a T-shirt-clad -walk", "the player from washington d.c. scores 3.5 points",
    "It 's the boys' turn & they can't wait .", "``quoted'' and 'single' text", "",
]
CORPUS = [
    ("a dog jumps over the red fence", ["a brown dog jumps over a fence", "the dog is leaping over the red fence", "dog jumping"]),
    ("two men play the guitar on a stage", ["two men are playing guitars on stage", "a band plays on a stage"]),
    ("snow", ["a skier goes down a hill in the snow"]),
    ("the the the the", ["the cat is on the mat", "there is a cat on the mat"]),
    ("a boy in a blue shirt runs on the beach", ["a boy runs on a beach in a blue shirt", "a young boy in blue runs along the beach"]),
]
POOR = [("aa bb cc dd", ["aa xx yy zz ww"]), ("ee", ["ff gg"])]


def numbers():
    """Number words in random order."""
    words = ("one two five six ten twelve nineteen twenty fifty ninety hundred thousand million oh zero double and point minus dollars cents "
             "percent first third twentieth fifties hundreds 3 20 0.5 $5 100 dog").split()
    r = random.Random(1)
    return [" ".join(r.choice(words) for _ in range(r.randint(2, 8))) for _ in range(80)]


def cider(corpus):
    scorer = CiderScorer()
    for hypothesis, references in corpus:
        scorer += (hypothesis, references)
    return [float(s) for s in scorer.compute_score()[1]]


def bleu(corpus):
    most = max(len(refs) for _, refs in corpus)
    streams = [[refs[i] if i < len(refs) else None for _, refs in corpus] for i in range(most)]
    return float(BLEU().corpus_score([h for h, _ in corpus], streams).score)


def main():
    basic, english, plain = BasicTextNormalizer(), EnglishTextNormalizer(SPELLINGS), EnglishTextNormalizer({})
    ptb = PTBTokenizer().tokenize({i: [{"caption": c}] for i, c in enumerate(CAPTIONS)})
    r = random.Random(2)
    truth = [r.choice("abcd") for _ in range(60)]
    given = [t if r.random() < 0.6 else r.choice("abce") for t in truth]
    corpora = {"corpus": CORPUS, "poor": POOR, "short": [("one two", ["one two"])]}
    out = {
        "spellings": SPELLINGS,
        "normalize": [{"text": s, "basic": basic(s), "english": english(s), "plain": plain(s)} for s in SENTENCES + numbers()],
        "split_13a": [{"text": s, "words": Tokenizer13a()(s.rstrip())} for s in TRANSLATIONS],
        "split_caption": [{"text": c, "words": ptb[i][0]} for i, c in enumerate(CAPTIONS)],
        "scores": [{"items": [{"hypothesis": h, "references": refs} for h, refs in c], "bleu": bleu(c), "cider_d": cider(c)}
                   for c in corpora.values()],
        "classes": {"truth": truth, "given": given, "accuracy": accuracy_score(truth, given),
                    "macro_f1": f1_score(truth, given, average="macro"),
                    "f1": dict(zip("abcde", map(float, f1_score(truth, given, average=None, labels=list("abcde")))))},
    }
    with open(OUT, "w", encoding="utf-8") as f:
        json.dump(out, f, ensure_ascii=False, indent=1)
        f.write("\n")
    print(f"{OUT}: {os.path.getsize(OUT)} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
