"""Makes the tokenizers and token ids in this folder with the reference library: pip install tokenizers==0.23.3 && python generate.py"""
import json
import random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

GPT2_ALPHABET = pre_tokenizers.ByteLevel.alphabet()
LLAMA3 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
QWEN2 = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

CORPUS = [
    "The quick brown fox jumps over the lazy dog, doesn't it? We'll see; they've said I'm right.",
    "In 1984 there were 12345 sheep and 67 goats, worth 3.14 each.",
    "def main():\n    return [x for x in range(10)]\n\n\treturn None\r\n",
    "Größe, naïve café, Ångström, smørrebrød, Łódź, İstanbul, straße",
    "Привет, мир! Как дела? Γειά σου Κόσμε. שלום עולם مرحبا بالعالم",
    "日本語のテキスト。中文文本,한국어 텍스트",
    "👍🏽 👩‍👩‍👧‍👦 🇩🇪 🎉🎉🎉",
    "A B C a b c  two  spaces   three    four",
] * 4

STRINGS = [
    "", " ", "  ", "\n", "\r\n", "\n\n \n", "\t\tx", " a", "a ", "  a  b   c ", "a\u00a0b", "a\u3000b\u2003c", "a\u180eb", "\u2028x\u2029",
    "Hello world", "hello, WORLD!", "doesn't DOESN'T we'LL they'Ve I'M x'y 'sss'", "it\u017f 'ſ K's",
    "1 12 123 1234 12345 ١٢٣ Ⅷ ½ ² 𝟘𝟙", "3.14159e-10", "   12  345", "a1b2c3", "x=1;y+=22", "!!!???...", "«quoted» “quoted” ‘q’", "a_b_c __init__ a-b",
    "naïve naïve café café", "ﬁne ﬀ Å Å ﷺ ㌀ ｱｲｳ", "e\u0301\u0323 e\u0323\u0301", "İI ıi ẞß ΑΣ ΣΑΣ", "x\u0301\u0301\u0301", "가각힣 가",
    "日本語 テスト 中文 한국어", "สวัสดี नमस्ते", "Привет мир", "שלום مرحبا", "👍🏽👩‍👩‍👧‍👦🇩🇪", "\ufeffbom \u200b\u200d\u00ad", "\u0000\u0001\u007f\u0085", "\uffff \ue000 \U0010ffff",
    "<s>", "</s>", "<s>a</s>", "a <s> b", "a<mask>b", "a <mask> b", " <mask> ", "x\n <mask>\n y", "<mask><mask>", "word", "a word b", "aword", "word word", "swordw", "_word", "word1 éword word\u0301",
    "MiXeD", "mixed", "a MIXED b", "<|im_start|>user\nhi<|im_end|>\n", "<|im_start", "<|im_start|><|im_start|>", "<a><ab><abc>", "<abcd", "\u2581x \u2581\u2581y", "▁", " ▁ ",
    "def f(x):\n    return x\n\n\n", "    \n    x", "a\n\n\nb", "a \n b", "…—–", "https://example.org/a?b=c&d=%20#e", "user@example.org", "$1,234.56", "C++ C# .NET", "'", "''", "'s", " 's",
    "x" * 30, "ab" * 40, "the " * 20, "日" * 30, "\t" * 9, " " * 17 + "x",
]


WITH_ORIGINS = {"bert", "cased", "unigram", "unigram_bytes"}


def strings():
    rng = random.Random(20)
    pools = ["abcde ", "aA'sStT ", "0123 ab", " \n\r\t x", "éüßñ ÅΩ", "日本語中文 ", "👍🏽‍♂️🇩 ", "!?.,;:-_ a", "<mask>word s ", "e\u0301\u0323\u0327o "]
    out = list(STRINGS)
    for _ in range(50):
        pool = rng.choice(pools)
        out.append("".join(rng.choice(pool) for _ in range(rng.randint(1, 24))))
    for _ in range(40):
        out.append("".join(chr(rng.choice([rng.randint(1, 0x2ff), rng.randint(0x300, 0x2fff), rng.randint(0x3040, 0xd7a3)])) for _ in range(rng.randint(1, 8))))
    return out


def trained(size, pre_tokenizer, normalizer=None, special=(), alphabet=GPT2_ALPHABET, **options):
    tokenizer = Tokenizer(models.BPE(**options))
    tokenizer.pre_tokenizer = pre_tokenizer
    if normalizer:
        tokenizer.normalizer = normalizer
    marks = {k: v for k, v in options.items() if k in ("continuing_subword_prefix", "end_of_word_suffix")}
    trainer = trainers.BpeTrainer(vocab_size=size, special_tokens=list(special), initial_alphabet=alphabet, show_progress=False, **marks)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def byte_level(pattern, digits=False):
    steps = [pre_tokenizers.Digits(individual_digits=True)] if digits else []
    if pattern:
        steps.append(pre_tokenizers.Split(Regex(pattern), "isolated", invert=False))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=pattern is None))
    return pre_tokenizers.Sequence(steps)


def tokenizers():
    gpt2 = trained(420, pre_tokenizers.ByteLevel(add_prefix_space=False), special=["<s>", "</s>"])
    gpt2.decoder, gpt2.post_processor = decoders.ByteLevel(), processors.ByteLevel(trim_offsets=False)
    gpt2.add_tokens([AddedToken("<mask>", lstrip=True, normalized=False, special=True), AddedToken("word", single_word=True), AddedToken("<a>", rstrip=True), AddedToken("<abc>"),
                     AddedToken("<ab>"), AddedToken("MiXeD", normalized=True)])
    yield "gpt2", gpt2

    roberta = trained(420, pre_tokenizers.ByteLevel(add_prefix_space=True), special=["<s>", "</s>", "<mask>"])
    roberta.decoder, roberta.post_processor = decoders.ByteLevel(), processors.RobertaProcessing(("</s>", 1), ("<s>", 0))
    yield "roberta", roberta

    llama3 = trained(420, byte_level(LLAMA3), special=["<s>", "</s>"])
    llama3.decoder = decoders.ByteLevel()
    llama3.post_processor = processors.Sequence([processors.ByteLevel(), processors.TemplateProcessing(single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", 0)])])
    yield "llama3", llama3

    qwen2 = trained(420, byte_level(QWEN2), normalizers.NFC())
    qwen2.decoder = decoders.ByteLevel()
    qwen2.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    qwen2.add_tokens([AddedToken("café", normalized=True)])
    yield "qwen2", qwen2

    smollm = trained(400, byte_level(None, digits=True), special=["<|im_start|>", "<|im_end|>"])
    smollm.decoder = decoders.ByteLevel()
    yield "smollm", smollm

    # Llama 2's form: no pieces, blanks become marks, bytes as fallback.
    llama2 = trained(300, pre_tokenizers.Metaspace(prepend_scheme="first", split=False), special=["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)],
                     alphabet=[], unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    vocabulary = json.loads(llama2.to_str())
    vocabulary["pre_tokenizer"] = None
    vocabulary["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]}
    pieces = {f"<0x{i:02X}>" for i in range(256)} | {"<unk>", "<s>", "</s>"}
    letters = sorted({c for line in CORPUS[:3] for c in line.replace(" ", "▁")})
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{i:02X}>" for i in range(256)] + letters + ["▁t", "he", "▁the", "in", "▁a"]
    vocabulary["model"]["vocab"] = {t: i for i, t in enumerate(tokens)}
    vocabulary["model"]["merges"] = [["▁", "t"], ["h", "e"], ["▁t", "he"], ["i", "n"], ["▁", "a"]]
    llama2 = Tokenizer.from_str(json.dumps(vocabulary))
    llama2.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    llama2.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)])
    yield "llama2", llama2

    # Whole pieces that are tokens stay whole, though the merges would stop before.
    whole = json.loads(llama3.to_str())
    whole["model"]["ignore_merges"] = True
    for i, token in enumerate(["Ġquick", "Ġworld", "Hello", "xxxx"]):
        if token not in whole["model"]["vocab"]:
            whole["model"]["vocab"][token] = 420 + i
    yield "ignore_merges", Tokenizer.from_str(json.dumps(whole))

    metaspace = trained(200, pre_tokenizers.Metaspace(), normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase(), normalizers.Strip()]), special=["<unk>", "<mask>"],
                        alphabet=[], unk_token="<unk>", fuse_unk=False)
    metaspace.decoder = decoders.Metaspace()
    metaspace.add_tokens([AddedToken("MiXeD", normalized=True)])
    yield "metaspace", metaspace

    suffix = trained(260, pre_tokenizers.Sequence([pre_tokenizers.Whitespace(), pre_tokenizers.Digits()]), normalizers.Sequence([normalizers.NFD(), normalizers.Replace(Regex("[aeiou]{2,}"), "A")]),
                     special=["<unk>"], alphabet=[], unk_token="<unk>", end_of_word_suffix="</w>")
    suffix.decoder = decoders.BPEDecoder()
    yield "suffix", suffix

    prefix = trained(260, pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]), normalizers.NFKD(), special=["<unk>"], alphabet=[],
                     unk_token="<unk>", fuse_unk=True, continuing_subword_prefix="##")
    yield "prefix", prefix

    for behavior in ["removed", "merged_with_previous", "merged_with_next", "contiguous"]:
        split = trained(300, pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(r"[aeiou\s]"), behavior), pre_tokenizers.Split("b", "isolated", invert=True), pre_tokenizers.Punctuation("merged_with_previous"),
                                                      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]), special=["<s>"])
        split.decoder = decoders.ByteLevel()
        yield "split_" + behavior, split

    bert = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=20))
    bert.normalizer, bert.pre_tokenizer, bert.decoder = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    bert.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=220, special_tokens=["[PAD]", "[UNK]", "[CLS]", "[SEP]", "<mask>"], show_progress=False))
    bert.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    yield "bert", bert

    cased = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    cased.normalizer = normalizers.BertNormalizer(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    cased.pre_tokenizer, cased.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece(cleanup=False)
    cased.train_from_iterator(CORPUS, trainers.WordPieceTrainer(vocab_size=200, special_tokens=["[UNK]", "<s>", "</s>"], show_progress=False))
    cased.post_processor = processors.TemplateProcessing(single="<s> $A </s>", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 1), ("</s>", 2)])
    yield "cased", cased

    # T5's and XLM-R's form, with a score for every letter so that some text falls to bytes or to the unknown token.
    letters = sorted({c for line in CORPUS[:3] for c in line.replace(" ", "▁")})
    scores = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)] + [(c, -4.0 - i / 16) for i, c in enumerate(letters)]
    scores += [("▁the", -2.5), ("he", -3.0), ("in", -3.25), ("▁a", -2.75), ("ing", -3.5), ("ab", -3.0), ("xx", -9.0)]
    for name, fallback in [("unigram", False), ("unigram_bytes", True)]:
        unigram = Tokenizer(models.Unigram(scores + ([(f"<0x{i:02X}>", -20.0) for i in range(256)] if fallback else []), unk_id=2, byte_fallback=fallback))
        unigram.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")] + ([] if fallback else [normalizers.StripAccents()]))
        unigram.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first" if fallback else "always", split=not fallback)
        unigram.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")]) if fallback else decoders.Metaspace()
        unigram.add_special_tokens(["<pad>", "</s>", "<unk>", AddedToken("<mask>", lstrip=True, special=True)])
        unigram.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)])
        yield name, unigram

    words = Tokenizer(models.WordLevel({"<unk>": 0, "hello": 1, "world": 2, ",": 3, "the": 7, "!": 5}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    yield "words", words


def minimal(tokenizer):
    """The file with merges as "a b", which older versions wrote, where no token holds a blank."""
    data = json.loads(tokenizer.to_str())
    merges = data["model"].get("merges", [])
    if merges and not any(" " in part for pair in merges for part in pair):
        data["model"]["merges"] = [" ".join(pair) for pair in merges]
    return data


def main():
    for name, tokenizer in tokenizers():
        data = minimal(tokenizer) if name != "llama3" else json.loads(tokenizer.to_str())
        tokenizer = Tokenizer.from_str(json.dumps(data))
        with open(f"{name}.json", "w", encoding="utf-8") as file:
            json.dump(data, file, ensure_ascii=False, separators=(",", ":"))
        with open(f"{name}.jsonl", "w", encoding="ascii") as file:
            for text in strings():
                ids = tokenizer.encode(text, add_special_tokens=True).ids
                plain = tokenizer.encode(text, add_special_tokens=False)
                row = {"t": text, "ids": plain.ids}
                if name in WITH_ORIGINS:
                    row["o"] = [at for pair in plain.offsets for at in pair]
                if ids != row["ids"]:
                    row["special"] = ids
                for key, skip in [("d", False), ("ds", True)]:
                    row[key] = tokenizer.decode(ids, skip_special_tokens=skip)
                if row["ds"] == row["d"]:
                    del row["ds"]
                if row["d"] == row["t"]:
                    del row["d"]
                file.write(json.dumps(row, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
