// Tokenizers against the reference library: tiny ones of every form, and SmolLM2's real one.
#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "nn/text/tokenizer.h"
#include "tensor/json.h"
#include "tests/data_paths.h"

namespace cambium {
namespace {

using Ids = std::vector<std::int64_t>;

std::vector<Json> read_lines(const std::string& path) {
  std::vector<Json> rows;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) rows.push_back(parse_json(line, path));
  REQUIRE(!rows.empty());
  return rows;
}

std::string text_or(const Json& row, const char* key, const std::string& otherwise) {
  return row.contains(key) ? row[key].get<std::string>() : otherwise;
}

std::string streamed(const Tokenizer& tokenizer, const Ids& ids, bool skip_special_tokens) {
  StreamDecoder decoder(tokenizer, skip_special_tokens);
  std::string text;
  for (const std::int64_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

TEST_CASE("tokenizer.json gives the ids and texts of the reference library") {
  std::size_t count = 0;
  for (const auto& entry : std::filesystem::directory_iterator(test::source_file("tests/data/tokenizers"))) {
    if (entry.path().extension() != ".json") continue;
    ++count;
    const Tokenizer tokenizer = Tokenizer::from_file(entry.path().string());
    for (const Json& row : read_lines(entry.path().string() + "l")) {
      CAPTURE(entry.path().filename().string());
      CAPTURE(row.dump());
      const auto text = row["t"].get<std::string>();
      const auto ids = row["ids"].get<Ids>();
      const Ids with_special = row.contains("special") ? row["special"].get<Ids>() : ids;
      CHECK(tokenizer.encode(text) == ids);
      CHECK(tokenizer.encode(text, true) == with_special);
      const std::string decoded = text_or(row, "d", text), skipped = text_or(row, "ds", decoded);
      CHECK(tokenizer.decode(with_special) == decoded);
      CHECK(tokenizer.decode(with_special, true) == skipped);
      CHECK(streamed(tokenizer, with_special, false) == decoded);
      CHECK(streamed(tokenizer, with_special, true) == skipped);
    }
  }
  CHECK(count == 15);
}

TEST_CASE("SmolLM2: every stored string, and bytes that are not UTF-8") {
  const auto model = test::model_file("SmolLM2-135M-Instruct.Q4_1.gguf");
  const auto strings = test::goldens("real/tokenizers/smollm2-bpe.jsonl"), bytes = test::goldens("real/tokenizers/smollm2-invalid-utf8.jsonl");
  if (!model || !strings || !bytes) return;
  const Tokenizer tokenizer = Tokenizer::from_file(*model);
  CHECK(tokenizer.vocab_size() == 49152);
  CHECK(tokenizer.bos_id() == 1);
  CHECK(tokenizer.eos_id() == 2);
  CHECK(tokenizer.token_to_id("<|im_end|>") == 2);
  CHECK(tokenizer.is_special(2));
  CHECK(tokenizer.chat_template().find("add_generation_prompt") != std::string::npos);
  const auto compare = [&](const Json& row, const std::string& text) {
    CAPTURE(row.dump());
    const auto ids = row["ids"].get<Ids>();
    const std::string decoded = text_or(row, "d", row["t"].get<std::string>());
    CHECK(tokenizer.encode(text) == ids);
    CHECK(tokenizer.encode(text, true) == ids);
    CHECK(tokenizer.decode(ids) == decoded);
    CHECK(streamed(tokenizer, ids, false) == decoded);
  };
  const auto rows = read_lines(*strings);
  CHECK(rows.size() == 2000);
  for (const Json& row : rows) compare(row, row["t"].get<std::string>());
  for (const Json& row : read_lines(*bytes)) {
    std::string text;
    const auto hex = row["hex"].get<std::string>();
    for (std::size_t i = 0; i < hex.size(); i += 2) text += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    compare(row, text);
  }
}

TEST_CASE("the tokenizer of the tiny models") {
  const auto folder = test::goldens("models/tokenizer");
  if (!folder) return;
  const Tokenizer tokenizer = Tokenizer::from_file(*folder);
  CHECK(tokenizer.vocab_size() == 26);
  CHECK(tokenizer.encode("the tweet is  good?", true) == Ids{1, 11, 12, 13, 24, 3});
  CHECK(tokenizer.decode({1, 11, 12}, true) == "the tweet");
  CHECK(tokenizer.bos_id() == 1);
  CHECK(tokenizer.eos_id() == 2);
  CHECK(tokenizer.pad_id() == 0);
  CHECK_THROWS_WITH_AS(tokenizer.id_to_token(5), "id_to_token: expected the id of a token, found 5 in a vocabulary of 26", NameError);
}

std::string to_json(const std::string& name) { return test::read_text(test::source_file("tests/data/tokenizers/" + name + ".json")); }

TEST_CASE("lists with a rule's name equal the tokenizer.json with the rule spelled out") {
  for (const auto& pair : std::vector<std::pair<std::string, std::string>>{{"smollm", "smollm"}, {"gpt2", "gpt-2"}, {"llama3", "llama-bpe"}, {"qwen2", "qwen2"}}) {
    const std::string& file = pair.first;
    CAPTURE(file);
    const Json json = parse_json(to_json(file), file);
    TokenizerLists lists;
    lists.pre_tokenizer = pair.second;
    lists.bos_id = 0;
    const auto put = [&](std::size_t id, const std::string& token, int type) {
      if (lists.tokens.size() <= id) lists.tokens.resize(id + 1), lists.token_types.resize(id + 1, 1);
      lists.tokens[id] = token;
      lists.token_types[id] = type;
    };
    for (const auto& [token, id] : json["model"]["vocab"].items()) put(id.get<std::size_t>(), token, 1);
    for (const Json& token : json["added_tokens"]) put(token["id"].get<std::size_t>(), token["content"], token["special"].get<bool>() ? 3 : 4);
    for (const Json& merge : json["model"]["merges"]) {
      lists.merges.push_back(merge.is_string() ? merge.get<std::string>() : merge[0].get<std::string>() + " " + merge[1].get<std::string>());
    }
    const Tokenizer spelled = Tokenizer::from_json(to_json(file), file), named = Tokenizer::from_lists(lists, file);
    for (const Json& row : read_lines(test::source_file("tests/data/tokenizers/" + file + ".jsonl"))) {
      const auto text = row["t"].get<std::string>();
      CAPTURE(row.dump());
      // A list has no flags of tokens, and llama3's keeps whole pieces that are tokens.
      if (text.find("word") != std::string::npos || text.find('<') != std::string::npos || text.find("caf") != std::string::npos) continue;
      CHECK(named.encode(text) == spelled.encode(text));
    }
  }
}

TEST_CASE("long texts without a break, in parts of one size or another, come back") {
  const Tokenizer tokenizer = Tokenizer::from_json(to_json("llama3"), "llama3");
  for (const std::string unit : {"a", " ", "\n", "0", "the", "e\xCC\x81", "<s", "'", "\xE6\x97\xA5"}) {
    std::string text;
    while (text.size() < 100000) text += unit;
    const Ids ids = tokenizer.encode(text);
    CHECK(tokenizer.decode(ids) == text);
    for (const std::int64_t id : ids) REQUIRE((id >= 0 && id < tokenizer.vocab_size()));
  }
  std::string marks = "x";  // a run of marks in the wrong order: normal forms must not sort it by exchanging neighbours
  for (int i = 0; i < 50000; ++i) marks += i % 2 ? "\xCC\x81" : "\xCC\xA3";
  CHECK(Tokenizer::from_json(to_json("qwen2"), "qwen2").encode(marks).size() > 50000);
}

TEST_CASE("any bytes give ids of the vocabulary, decoded one by one or at once the same") {
  std::uint32_t state = 7;
  const auto random = [&] { return state = state * 1664525U + 1013904223U, state >> 8; };
  for (const char* name : {"gpt2", "llama2", "metaspace", "qwen2", "suffix"}) {
    const Tokenizer tokenizer = Tokenizer::from_json(to_json(name), name);
    for (int round = 0; round < 200; ++round) {
      std::string text(random() % 40, '\0');
      for (char& c : text) c = static_cast<char>(random() % 4 ? random() : 0xC0 + random() % 64);
      for (const std::int64_t id : tokenizer.encode(text, true)) REQUIRE((id >= 0 && id < tokenizer.vocab_size()));
      Ids ids(random() % 12);
      for (auto& id : ids) id = static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(tokenizer.vocab_size() + 3)) - 1;
      if (std::string_view(name) != "llama2") CHECK(streamed(tokenizer, ids, true) == tokenizer.decode(ids, true));
    }
  }
}

TEST_CASE("threads share one tokenizer") {
  const Tokenizer tokenizer = Tokenizer::from_json(to_json("smollm"), "smollm");
  const std::string text = "The quick brown fox 1984 doesn't jump \xF0\x9F\x91\x8D\n";
  const Ids ids = tokenizer.encode(text);
  std::vector<std::thread> threads;
  std::vector<int> equal(4, 0);
  for (std::size_t i = 0; i < equal.size(); ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 50; ++round) equal[i] += tokenizer.encode(text) == ids && tokenizer.decode(ids) == text;
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(equal == std::vector<int>(4, 50));
}

}  // namespace
}  // namespace cambium
