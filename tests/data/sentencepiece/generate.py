"""Makes the small SentencePiece models in this folder and their ids: pip install sentencepiece==0.2.3 protobuf && python generate.py"""
import io
import json
import sys

sys.path.insert(0, "../tokenizers")
import sentencepiece
from generate import CORPUS, strings
from sentencepiece import sentencepiece_model_pb2 as pb

RULES = "\n".join(["FF21\t0041", "FB01\t0066 0069", "E9\t0065", "65 301\t0045", "9\t20", "A\t20", "D\t20", "3000\t20", "AD\t", "2026\t2E 2E 2E", "4B\t006B"]) + "\n"


def train(name, change=None, **options):
    model = io.BytesIO()
    defaults = dict(model_type="unigram", vocab_size=150, hard_vocab_limit=False, character_coverage=0.98, normalization_rule_name="identity", num_threads=1, minloglevel=2)
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(CORPUS * 5), model_writer=model, **{**defaults, **options})
    proto = pb.ModelProto.FromString(model.getvalue())
    proto.trainer_spec.ClearField("input")
    if change:
        change(proto)
    data = proto.SerializeToString()
    open(name + ".model", "wb").write(data)
    processor = sentencepiece.SentencePieceProcessor(model_proto=data)
    with open(name + ".jsonl", "w") as out:
        for text in strings():
            if "\0" in text:
                continue
            ids = processor.encode(text)
            row = {"t": text, "ids": ids}
            decoded = processor.decode(ids)
            if decoded != text:
                row["d"] = decoded
            out.write(json.dumps(row, separators=(",", ":")) + "\n")


def unused(proto):
    for piece in proto.pieces[20:60:3]:
        if piece.type == pb.ModelProto.SentencePiece.NORMAL and len(piece.piece) > 1:
            piece.type = pb.ModelProto.SentencePiece.UNUSED


def main():
    open("/tmp/rules.tsv", "w").write(RULES)
    train("unigram_rules", normalization_rule_tsv="/tmp/rules.tsv", user_defined_symbols=["<mask>", "ab", "two  spaces"], control_symbols=["<ctl>"], byte_fallback=True, vocab_size=420)
    train("unigram_suffix", treat_whitespace_as_suffix=True, unk_surface="?", pad_id=3)
    train("unigram_spaces", remove_extra_whitespaces=False, add_dummy_prefix=False, change=unused)
    train("bpe_bytes", model_type="bpe", byte_fallback=True, split_digits=True, remove_extra_whitespaces=False, vocab_size=420)
    train("bpe_symbols", model_type="bpe", normalization_rule_tsv="/tmp/rules.tsv", user_defined_symbols=["<mask>", "ab", "the"], change=unused)


if __name__ == "__main__":
    main()
