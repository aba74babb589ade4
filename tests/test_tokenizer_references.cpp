// WordPiece, Unigram and SentencePiece against thousands of stored strings of the reference implementations.
#include <doctest/doctest.h>

#include <fstream>

#include "nn/text/tokenizer.h"
#include "tensor/json.h"
#include "tests/data_paths.h"

using namespace cambium;
namespace {

using Ids = std::vector<std::int64_t>;

std::vector<Json> read_lines(const std::string& path) {
  std::vector<Json> rows;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) rows.push_back(parse_json(line, path));
  REQUIRE(!rows.empty());
  return rows;
}

std::string from_hex(const std::string& hex) {
  std::string bytes;
  for (std::size_t i = 0; i < hex.size(); i += 2) bytes += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  return bytes;
}

// Ids, decoded text, and that encode_text says the same with origins that lie in the text in order.
void compare(const Tokenizer& tokenizer, const std::string& text, const Json& row, bool special) {
  CAPTURE(row.dump());
  const auto ids = row["ids"].get<Ids>();
  CHECK(tokenizer.encode(text, special) == ids);
  const Encoding encoding = tokenizer.encode_text(text, {.add_special_tokens = special});
  CHECK(encoding.ids == ids);
  REQUIRE(encoding.origins.size() == ids.size());
  REQUIRE(encoding.type_ids == Ids(ids.size(), 0));
  std::size_t last = 0;
  for (const TokenOrigin& origin : encoding.origins) {
    if (origin.sequence < 0) continue;
    CHECK((origin.begin <= origin.end && origin.end <= text.size() && origin.begin >= last));
    last = origin.begin;
  }
  CHECK(tokenizer.decode(ids, true) == (row.contains("d") ? row["d"] : row["t"]).get<std::string>());
}

TEST_CASE("MiniLM: every stored string, pair and odd byte, from tokenizer.json and from vocab.txt") {
  const auto folder = test::model_file("all-MiniLM-L6-v2");
  const auto strings = test::goldens("real/tokenizers/minilm-wordpiece.jsonl"), pairs = test::goldens("real/tokenizers/minilm-pairs.jsonl"),
             bytes = test::goldens("real/tokenizers/minilm-invalid-utf8.jsonl");
  if (!folder || !strings || !pairs || !bytes) return;
  const Tokenizer tokenizer = Tokenizer::from_file(*folder);
  CHECK(tokenizer.vocab_size() == 30522);
  CHECK(tokenizer.pad_id() == 0);
  const auto rows = read_lines(*strings);
  CHECK(rows.size() == 2000);
  for (const Json& row : rows) compare(tokenizer, row["t"], row, true);
  for (const Json& row : read_lines(*bytes)) compare(tokenizer, from_hex(row["hex"]), row, true);
  const auto two = read_lines(*pairs);
  CHECK(two.size() == 200);
  for (const Json& row : two) {
    const Encoding encoding = tokenizer.encode_pair(row["a"].get<std::string>(), row["b"].get<std::string>());
    CAPTURE(row.dump());
    CHECK(encoding.ids == row["ids"].get<Ids>());
    CHECK(encoding.type_ids == row["types"].get<Ids>());
  }
}

TEST_CASE("Unigram from a tokenizer.json with the steps of T5") {
  const auto file = test::goldens("real/tokenizers/hf-unigram-botchan.tokenizer.json"), strings = test::goldens("real/tokenizers/hf-unigram-botchan.jsonl");
  if (!file || !strings) return;
  const Tokenizer tokenizer = Tokenizer::from_file(*file);
  const auto rows = read_lines(*strings);
  CHECK(rows.size() == 1000);
  for (const Json& row : rows) compare(tokenizer, row["t"], row, true);
}

TEST_CASE("SentencePiece models: Unigram and BPE") {
  const auto folder = test::goldens("real/tokenizers");
  if (!folder) return;
  for (const char* name : {"botchan_en_unigram_1000", "botchan_en_bpe_1000", "kyoto_ja_unigram_8000"}) {
    CAPTURE(name);
    const auto model = test::sentencepiece_file(std::string(name) + ".model");
    if (!model) continue;
    const Tokenizer tokenizer = Tokenizer::from_file(*model);
    CHECK(tokenizer.bos_id() == 1);
    CHECK(tokenizer.eos_id() == 2);
    CHECK(!tokenizer.pad_id());
    const auto rows = read_lines(*folder + "/sp-" + name + ".jsonl");
    CHECK(rows.size() == (std::string_view(name) == "botchan_en_unigram_1000" ? 994 : 499));  // of 1000 or 500 strings, without those with U+0000
    for (const Json& row : rows) {
      compare(tokenizer, row["t"], row, false);
      CHECK(tokenizer.encode(row["t"].get<std::string>(), true) == row["ids"].get<Ids>());
    }
  }
}

}  // namespace
