"""What the small tokenizers are trained on, and the texts they are tried with."""
import random

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It didn't see the dog, and the dog doesn't care; they're friends.",
    "A tessera is a tile of a mosaic and a token, and the photo shows two dogs running through the grass on a beach.",
    "In the beginning there was the word, and we'll say that I've heard it, I'm sure, and he'd know it's theirs.",
    "Numbers like 1, 22, 333, 4444 and 1234567890 as well as 3.14159 and 1,000,000 are cut in different ways.",
    "Der schnelle braune Fuchs springt über den faulen Hund; die Straße ist schön, größer und übermütig.",
    "Le renard brun saute par-dessus le chien paresseux; où est la forêt? Ça va très bien, mon cœur, à bientôt.",
    "El veloz murciélago hindú comía feliz cardillo y kiwi. ¿Dónde está la biblioteca? ¡Mañana por la mañana!",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. Быстрая лиса прыгает через ленивую собаку.",
    "Η γρήγορη αλεπού πηδάει πάνω από το τεμπέλικο σκυλί. Καλημέρα, κόσμε, και καληνύχτα.",
    "الثعلب البني السريع يقفز فوق الكلب الكسول. مرحبا بالعالم، كيف حالك اليوم؟",
    "השועל החום המהיר קופץ מעל הכלב העצלן. שלום עולם, מה שלומך היום?",
    "तेज़ भूरी लोमड़ी आलसी कुत्ते के ऊपर कूदती है। नमस्ते दुनिया, आप कैसे हैं?",
    "สุนัขจิ้งจอกสีน้ำตาลกระโดดข้ามสุนัขขี้เกียจ สวัสดีชาวโลก",
    "敏捷的棕色狐狸跳过了懒狗。你好，世界！今天天气很好，我们去公园吧。",
    "素早い茶色の狐がのろまな犬を飛び越える。こんにちは、世界！カタカナとひらがな。",
    "빠른 갈색 여우가 게으른 개를 뛰어넘는다. 안녕하세요 세계! 오늘은 날씨가 좋습니다.",
    "def encode(self, text):\n    for i, c in enumerate(text):\n        if c == ' ':\n            yield i\n    return None\n",
    "int main(int argc, char** argv) {\n\tstd::vector<int> v = {1, 2, 3};\n\treturn v.size() > 0 ? 0 : 1;\n}\n",
    "😀 smile 👩‍👩‍👧‍👦 family 🇩🇪 flag 👍🏽 thumb ❤️ heart 🏳️‍🌈 rainbow",
    "the the the and and and of of to to in in is is that that it it he he was was for for on on are are",
] * 3

HAND = [
    "", " ", "  ", "   ", "\n", "\r\n", "\t", " \n ", "a", " a", "a ", "  a", "a  b", "a   b \n\n c\r\n\r\nd", "\n\n\n x", " \t x",
    "Hello, world!", "Hello world", " Hello world ", "I'm he'll they've you're it's can't he'd 'S 'T 'RE I'LL 'x ' '",
    "I'M HE'LL THEY'VE IT'S CAN'T we'ſ 'ſ", "don''t 'tis o'clock ''s '' ' s",
    "1 22 333 4444 55555 666666 1234567890 3.14 1,000 ½ ² Ⅷ ٣٤٥ १२३ 𝟘𝟙", "x1y22z333", "100% $5.00 #1 @me a_b __init__ --flag",
    "über Straße größer ÀÉÎÕÜ ñ ç œ Æ ø å ß ſ İ ı Ǆ ﬁ ﬂ ﬀ", "Съешь же ещё этих мягких французских булок", "Καλημέρα κόσμε ΣΊΣΥΦΟΣ σς",
    "مرحبا بالعالم، كيف حالك؟ ١٢٣", "שָׁלוֹם עוֹלָם", "नमस्ते दुनिया क्षत्रिय", "สวัสดีชาวโลก น้ำ", "你好，世界！我们去公园吧。",
    "こんにちは、世界！カタカナ ｶﾀｶﾅ がガ か\u3099", "안녕하세요 세계 \u1112\u1161\u11ab\u1100\u1173\u11af", "አማርኛ ქართული Հայերեն ᏣᎳᎩ ꦗꦮ",
    "😀😃 👩‍👩‍👧‍👦 🇩🇪🇫🇷 👍🏽 ❤️ 🏳️‍🌈 🧑🏿‍🚀", "👩\u200d", "\u200d\u200c\u200b\ufeff", "e\u0301 é a\u0308\u0323 a\u0323\u0308 ṩ s\u0323\u0307",
    "Z̷̢̛a̶l̵g̸o̴ t̷e̸x̷t̵", "\u0301start", "A\u030a Å Å ℌ ﷺ ㍿ ① ｆｕｌｌ", "\u0344 \u0958 \u2126 \ufb1d \U0001d15e \U0002f800",
    "a\x00b\x01c\x7fd\x80e\x85f\x9f", "\x0b\x0c\x1c\x1d\x1e\x1f", "a\u00a0b\u1680c\u2003d\u2028e\u2029f\u202fg\u3000h\u180ei",
    "\ue000\uf8ff\U000f0000\U0010ffff\ufffe\uffff\ufffd", "𐍈𐎀𒀀𓀀𝔘𝔫𝔦 𠀀𠮷",
    "def f(x):\n    if x > 0:\n        return x ** 2\n\telse:\n\t\tpass  # done\n\n\nclass A: pass\n",
    "for (int i = 0; i < n; ++i) { a[i] += b[i] * c[i]; } // ok\r\n/* end */", "<html><body class=\"x\">&amp;</body></html>",
    "https://example.org/a/b?c=d&e=f#g user@example.org C:\\dir\\file.txt", "{\"a\": [1, 2.5e-3, null, true], \"b\": {\"c\": \"d\\n\"}}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "thethethethethethethethethethethethethethethethethetheandandandandandandandandandandandandandandandand",
    "-----=====-----=====-----======-----=====!!!!!?????.....,,,,,;;;;;:::::-----=====-----=====-----======",
    "<|endoftext|>", "a<|endoftext|>b <|endoftext|> c<|endoftext|>", "<|endoftext|><|endoftext|>", "<|endoftext", "<|<|endoftext|>|>",
    "<s>Hello</s> <s> Hello </s>", "<mask> a  <mask>  b<mask>c", "<unk> <sep>a<sep> b", "[CLS] a [SEP] [UNK] [MASK]",
    "<|begin_of_text|>user<|eot_id|>\n\n<|end_of_text|>", "<|im_start|>user\nhi<|im_end|>\n<tool_call>{}</tool_call><tool_call>",
    "<|startoftranscript|><|en|><|transcribe|><|0.00|> Hello<|1.50|><|2.00|><|2.02|><|notimestamps|><|endoftext|>",
    "<|startoftext|>a photo of a cat<|endoftext|>", "x</name>y </name> z", "<0x41><0xE4><0x00>", "▁a ▁ b▁c", "Ġa Ċ", "##ing a##b", "a</w> b</w>",
    "cat concat cat! _cat catx (cat) Cat äcat cat\u0301", "dog Dög DÖG hotdog dog. do\u0308g", "a left b  left  c leftover aleftb",
    "x Right y right  z  RIGHTw", " both  x  both both\tboth", "\t\t\t a \t b\t", "\t" * 5 + " \t", "a [S] b  [S]  [S]c", "[Né] [ne] [NE] [né]x",
    "the cat the, bathe the", "é e\u0301 E\u0301 e", "<|a|><|b|> <|a|> <|b|><|a|><|a|><|b|>", "naïve word and naïve  word, naive word",
    "<end>e<end> ee eee 12 345", "a,b|c-d--e 12a34 foo ooo -a-a- 1-2", "photo-graph,of|a mosaic", "<｜begin▁of▁sentence｜>hi",
    "The quick brown fox", "the quick", " the quick", "the  quick", "I said: \"Don't!\" (twice) [maybe] {or} <not>…—–‘’“”",
    "Mr. O'Neill's 3rd-floor flat costs £1,200.50/month; that's ~15% more than 2019's.", "camelCaseWord HTTPServer XMLHttpRequest iPhone",
    "ALL CAPS TEXT'S AND'LL", "mixed漢字とkanaと123 and한국어text", "line one\nline two\r\nline three\rline four\u2028line five",
    {"hex": "ff"}, {"hex": "61ff62"}, {"hex": "c3"}, {"hex": "61c3"}, {"hex": "c328"}, {"hex": "e28261"}, {"hex": "e282"},
    {"hex": "f09f98"}, {"hex": "f09f9861"}, {"hex": "eda080"}, {"hex": "c080"}, {"hex": "f8888888"}, {"hex": "f4908080"}, {"hex": "80bf80"},
    {"hex": "e0809f41e0a0"}, {"hex": "20ff20fe20"}, {"hex": "f0808080c1bfe0"},
    {"repeat": [" ", 100000]}, {"repeat": ["a", 20000]}, {"repeat": ["\n", 3000]}, {"repeat": ["e\u0301", 100]}, {"repeat": ["\u0301\u0323", 60]},
    {"repeat": ["ab ", 150]}, {"repeat": ["你", 100]},
]

PIECES = ["a", "the", "dog", "Straße", " ", "  ", "\n", "\r\n", "\t", "'", "'s", "'LL", "1", "23", "456", "é", "e\u0301", "ſ", "я", "ё", "ш", "你", "好",
          "か", "\u3099", "한", "ع", "न", "्", "😀", "\u200d", "\ufe0f", "👍", "🏽", "-", ",", ".", "!?", "<", "|", ">", "<|endoftext|>", "<s>", "▁", "Ġ", "_",
          "\u00a0", "\u3000", "\u2028", "\x00", "½", "٣", "<|a|>", "cat", "left", "both", "\u0345", "İ", "ﬁ", "##", "o", "oo", "A", "Zz", "ON", "\u180e"]


def random_texts(count=50, seed=7):
    rng = random.Random(seed)
    return ["".join(rng.choice(PIECES) for _ in range(rng.randint(1, 24))) for _ in range(count)]


TEXTS = HAND + random_texts()
