// Tokenizers against the reference library: tiny ones of every form, and SmolLM2's real one.
#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <thread>

#include "nn/text/tokenizer.h"
#include "tensor/json.h"
#include "tests/data_paths.h"
#include "tests/temporary_folder.h"

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

std::string text_or(const Json& row, const char* key, const std::string& otherwise) {
  return row.contains(key) ? row[key].get<std::string>() : otherwise;
}

std::string streamed(const Tokenizer& tokenizer, const Ids& ids, bool skip_special_tokens) {
  StreamDecoder decoder(tokenizer, skip_special_tokens);
  std::string text;
  for (const std::int64_t id : ids) text += decoder.push(id);
  return text + decoder.finish();
}

// Begins and ends in characters, as the reference counts.
Ids characters_of(const Encoding& encoding, const std::string& text) {
  const auto count = [&](std::size_t bytes) { return std::count_if(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(bytes), [](char c) { return (c & 0xC0) != 0x80; }); };
  Ids places;
  for (const TokenOrigin& origin : encoding.origins) places.push_back(count(origin.begin)), places.push_back(count(origin.end));
  return places;
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
      const Encoding encoding = tokenizer.encode_text(text, {.add_special_tokens = false});
      CHECK(encoding.ids == ids);
      if (row.contains("o")) CHECK(characters_of(encoding, text) == row["o"].get<Ids>());
    }
  }
  CHECK(count == 19);
}

TEST_CASE("small SentencePiece models give the ids and texts of SentencePiece") {
  for (const char* name : {"unigram_rules", "unigram_suffix", "unigram_spaces", "bpe_bytes", "bpe_symbols"}) {
    CAPTURE(name);
    const std::string file = test::source_file(std::string("tests/data/sentencepiece/") + name);
    const Tokenizer tokenizer = Tokenizer::from_file(file + ".model");
    for (const Json& row : read_lines(file + ".jsonl")) {
      CAPTURE(row.dump());
      const auto text = row["t"].get<std::string>();
      const auto ids = row["ids"].get<Ids>();
      CHECK(tokenizer.encode(text, true) == ids);
      CHECK(tokenizer.encode_text(text).ids == ids);
      CHECK(tokenizer.decode(ids) == text_or(row, "d", text));
      CHECK(streamed(tokenizer, ids, true) == text_or(row, "d", text));
    }
  }
}

TEST_CASE("pairs, words, truncation and origins") {
  const Tokenizer bert = Tokenizer::from_file(test::source_file("tests/data/tokenizers/bert.json"));
  const std::string a = "The  Quick brown", b = "l\xC3\xA4zy dog, \xFF dog";
  const Encoding pair = bert.encode_pair(a, b);
  const Ids ids_a = bert.encode(a), ids_b = bert.encode(b);
  REQUIRE(pair.ids.size() == ids_a.size() + ids_b.size() + 3);
  CHECK(pair.ids.front() == 2);
  CHECK(pair.ids[ids_a.size() + 1] == 3);
  CHECK(std::count(pair.type_ids.begin(), pair.type_ids.end(), 0) == static_cast<std::ptrdiff_t>(ids_a.size() + 2));
  // The bytes of a word, whatever became of them: white space and accents are outside and inside of what a token stands for.
  std::vector<std::string> words;
  for (std::size_t i = 0; i < pair.ids.size(); ++i) {
    const TokenOrigin& origin = pair.origins[i];
    if (origin.sequence < 0) {
      CHECK((origin.begin == 0 && origin.end == 0 && origin.word == -1));
      continue;
    }
    const std::string part = (origin.sequence == 0 ? a : b).substr(origin.begin, origin.end - origin.begin);
    const std::size_t word = static_cast<std::size_t>(origin.word) + (origin.sequence == 0 ? 0 : 3);
    if (words.size() <= word) words.resize(word + 1);
    words[word] += part;
  }
  CHECK(words == std::vector<std::string>{"The", "Quick", "brown", "l\xC3\xA4zy", "dog", ",", "dog"});

  const Encoding cut = bert.encode_pair(a, b, {.max_length = 8});
  CHECK(cut.ids.size() == 8);
  CHECK(cut.origins.size() == 8);
  CHECK(cut.type_ids == Ids{0, 0, 0, 0, 0, 1, 1, 1});
  CHECK(bert.encode_text(a, {.max_length = 4}).ids == Ids{2, ids_a[0], ids_a[1], 3});
  CHECK(bert.encode_text(a, {.add_special_tokens = false, .max_length = 2}).ids == Ids{ids_a[0], ids_a[1]});
  const std::size_t room = ids_a.size() + 4;
  const Encoding second = bert.encode_pair(a, b, {.max_length = room, .truncation = Truncation::only_second});
  CHECK(Ids(second.ids.begin() + 1, second.ids.begin() + 1 + static_cast<std::ptrdiff_t>(ids_a.size())) == ids_a);
  CHECK(second.ids.size() == room);
  CHECK_THROWS_WITH_AS(bert.encode_pair(a, b, {.max_length = 5, .truncation = Truncation::only_second}), doctest::Contains("expected room for the first text's"), ConfigError);
  CHECK_THROWS_WITH_AS(bert.encode_text(a, {.max_length = 2}), doctest::Contains("expected more than the 2 special tokens"), ConfigError);

  const Encoding split = bert.encode_words({"The", "", "\xE6\x97\xA5x,", "dog"});
  Ids of_words;
  for (const TokenOrigin& origin : split.origins) of_words.push_back(origin.word);
  CHECK(of_words.front() == -1);
  CHECK(of_words.back() == -1);
  CHECK(std::is_sorted(of_words.begin() + 1, of_words.end() - 1));
  CHECK(std::count(of_words.begin(), of_words.end(), 1) == 0);
  CHECK(std::count(of_words.begin(), of_words.end(), 2) >= 3);

  const Encoding cased = Tokenizer::from_file(test::source_file("tests/data/tokenizers/cased.json")).encode_pair("a", "b");
  CHECK(cased.type_ids == Ids{0, 0, 0, 1, 1});
  const Encoding roberta = Tokenizer::from_file(test::source_file("tests/data/tokenizers/roberta.json")).encode_pair("x y", "z");
  CHECK(roberta.ids.front() == 0);
  CHECK(roberta.type_ids == Ids(roberta.ids.size(), 0));
  // RoBERTa's blanks belong to the ids, not to the origins: <s> Ġ x Ġ y, as the reference has them.
  CHECK(characters_of(roberta, "x y") == Ids{0, 0, 0, 0, 0, 1, 2, 2, 2, 3, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0});
}

TEST_CASE("a vocab.txt and a T5 folder follow their configuration") {
  const test::TemporaryFolder folder;
  const auto write = [&](const std::string& name, const std::string& text) { folder.write(name, text); };
  write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nthe\nThe\n##m\n\xC3\xA9\r\n");
  const std::string path = folder.path();
  CHECK(Tokenizer::exists(path));
  CHECK(Tokenizer::from_file(path).encode("The Them [MASK]\xC3\xA9", true) == Ids{2, 5, 5, 7, 4, 1, 3});
  write("tokenizer_config.json", R"({"tokenizer_class": "BertTokenizerFast", "do_lower_case": false})");
  CHECK(Tokenizer::from_file(path).encode("The Them \xC3\xA9", true) == Ids{2, 6, 6, 7, 8, 3});
  CHECK(Tokenizer::from_file(path + "/vocab.txt").encode("The", false) == Ids{6});
  CHECK(Tokenizer::from_file(path).pad_id() == 0);
  for (const auto& bad : std::vector<std::pair<std::string, std::string>>{{R"({"tokenizer_class": "BertJapaneseTokenizer"})", "tokenizer_class: expected one of"},
                                                                         {R"({"do_basic_tokenize": false})", "do_basic_tokenize: expected true"},
                                                                         {R"({"never_split": ["x"]})", "never_split: expected null"},
                                                                         {R"({"sep_token": "<sep>"})", "sep_token \"<sep>\" is not in the vocab"},
                                                                         {R"([])", "expected an object"}}) {
    write("tokenizer_config.json", bad.first);
    CHECK_THROWS_WITH_AS(Tokenizer::from_file(path), doctest::Contains(bad.second.c_str()), ConfigError);
  }
  std::filesystem::remove(folder.file("vocab.txt"));
  CHECK(!Tokenizer::exists(path));
  CHECK_THROWS_AS(Tokenizer::from_file(path), FileError);

  std::filesystem::copy(test::source_file("tests/data/sentencepiece/unigram_suffix.model"), folder.file("spiece.model"));
  const Tokenizer alone = Tokenizer::from_file(path + "/spiece.model");
  write("tokenizer_config.json", R"({"tokenizer_class": "T5Tokenizer", "extra_ids": 2, "eos_token": "</s>"})");
  const Tokenizer t5 = Tokenizer::from_file(path);
  const std::int64_t size = alone.vocab_size();
  CHECK(t5.vocab_size() == size + 2);
  CHECK(t5.token_to_id("<extra_id_0>") == size + 1);
  Ids expected = alone.encode("the fox");
  expected.push_back(*t5.eos_id());
  CHECK(t5.encode("the fox", true) == expected);
  CHECK(t5.encode("<extra_id_1>") == Ids{size});
  CHECK(t5.decode(expected, true).find("the fox") == 0);
  write("tokenizer_config.json", R"({"tokenizer_class": "XLMRobertaTokenizer"})");
  CHECK_THROWS_WITH_AS(Tokenizer::from_file(path), doctest::Contains("expected T5Tokenizer or LlamaTokenizer"), ConfigError);
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
  for (const char* name : {"bert", "unigram", "unigram_bytes"}) {
    const Tokenizer other = Tokenizer::from_json(to_json(name), name);
    for (const std::string unit : {"a", " ", "the", "x ", "e\xCC\x81", ".", "<s", "\xE6\x97\xA5"}) {
      std::string text;
      while (text.size() < 100000) text += unit;
      for (const std::int64_t id : other.encode_text(text).ids) REQUIRE((id >= 0 && id < other.vocab_size()));
    }
  }
  std::string marks = "x";  // a run of marks in the wrong order: normal forms must not sort it by exchanging neighbours
  for (int i = 0; i < 50000; ++i) marks += i % 2 ? "\xCC\x81" : "\xCC\xA3";
  CHECK(Tokenizer::from_json(to_json("qwen2"), "qwen2").encode(marks).size() > 50000);
}

TEST_CASE("any bytes give ids of the vocabulary, decoded one by one or at once the same") {
  std::uint32_t state = 7;
  const auto random = [&] { return state = state * 1664525U + 1013904223U, state >> 8; };
  for (const char* name : {"gpt2", "llama2", "metaspace", "qwen2", "suffix", "bert", "unigram", "unigram_bytes"}) {
    const Tokenizer tokenizer = Tokenizer::from_json(to_json(name), name);
    for (int round = 0; round < 200; ++round) {
      std::string text(random() % 40, '\0');
      for (char& c : text) c = static_cast<char>(random() % 4 ? random() : 0xC0 + random() % 64);
      for (const std::int64_t id : tokenizer.encode(text, true)) REQUIRE((id >= 0 && id < tokenizer.vocab_size()));
      Ids ids(random() % 12);
      for (auto& id : ids) id = static_cast<std::int64_t>(random() % static_cast<std::uint32_t>(tokenizer.vocab_size() + 3)) - 1;
      if (std::string_view(name) != "llama2" && std::string_view(name) != "unigram_bytes") CHECK(streamed(tokenizer, ids, true) == tokenizer.decode(ids, true));
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
