// Damaged and unsupported tokenizers: one clear line each, never a crash.
#include <doctest/doctest.h>

#include "nn/text/tokenizer.h"
#include "tensor/json.h"
#include "tests/data_paths.h"
#include "tests/temporary_folder.h"

using namespace cambium;
namespace {

/// The message of loading `json`; empty if it loads.
std::string message_of(const std::string& json) {
  try {
    (void)Tokenizer::from_json(json, "t.json").encode("ab <x> 12", true);
    return {};
  } catch (const Error& error) {
    CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
    return error.what();
  }
}

bool contains(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

std::string with_model(const std::string& model) { return R"({"model":)" + model + "}"; }
std::string with_section(const std::string& section) {
  return "{" + section + R"(,"model":{"type":"BPE","vocab":{"a":0,"b":1,"ab":2,"<x>":3},"merges":["a b"]}})";
}

struct Case {
  const char* json;
  const char* words;
};

TEST_CASE("models") {
  CHECK(message_of(with_model(R"({"type":"BPE","vocab":{"a":0,"b":1,"ab":2},"merges":[["a","b"]]})")).empty());
  for (const Case& bad : std::vector<Case>{
           {R"({"type":"WordPieces","vocab":{"a":0}})", R"(type "WordPieces" is not supported: expected one of BPE, WordPiece, Unigram, WordLevel)"},
           {R"({"type":"WordPiece","vocab":{"a":0}})", "unk_token \"[UNK]\" is not in the vocab"},
           {R"({"type":"WordPiece","vocab":{"[UNK]":0},"max_input_chars_per_word":-1})", "max_input_chars_per_word"},
           {R"({"type":"WordPiece"})", "expected a vocab, found none"},
           {R"({"type":"Unigram"})", "expected a vocab, found none"},
           {R"({"type":"Unigram","vocab":{}})", R"(expected a list of ["token", score])"},
           {R"({"type":"Unigram","vocab":[]})", "found an empty one"},
           {R"({"type":"Unigram","vocab":[["a"]]})", R"(expected ["token", score])"},
           {R"({"type":"Unigram","vocab":[["a",0.0,1]]})", R"(expected ["token", score])"},
           {R"({"type":"Unigram","vocab":[[1,0.0]]})", R"(expected ["token", score])"},
           {R"({"type":"Unigram","vocab":[["a","b"]]})", R"(expected ["token", score])"},
           {R"({"type":"Unigram","vocab":[["a",1e999]]})", ""},
           {R"({"type":"Unigram","vocab":[["a",0],["a",0]]})", "twice"},
           {R"({"type":"Unigram","vocab":[["a",0]],"unk_id":1})", "unk_id"},
           {R"({"type":"Unigram","vocab":[["a",0]]})", "there is no unk_id"},
           {R"({"type":"Unigram","vocab":[["a",0]],"unk_id":0,"byte_fallback":1})", "byte_fallback: expected true or false"},
           {R"({"type":7,"vocab":{"a":0}})", "type: expected a string"},
           {R"([])", "expected an object"},
           {R"({"type":"BPE","merges":[]})", "expected a vocab"},
           {R"({"type":"BPE","vocab":[],"merges":[]})", "expected vocab to be an object"},
           {R"({"type":"BPE","vocab":{},"merges":[]})", "found an empty one"},
           {R"({"type":"BPE","vocab":{"a":0}})", "expected merges, found none"},
           {R"({"type":"BPE","vocab":{"a":0},"merges":{}})", "expected merges to be a list"},
           {R"({"type":"BPE","vocab":{"a":-1},"merges":[]})", "expected a whole number in 0"},
           {R"({"type":"BPE","vocab":{"a":1.5},"merges":[]})", "expected a whole number in 0"},
           {R"({"type":"BPE","vocab":{"a":"0"},"merges":[]})", "expected a whole number in 0"},
           {R"({"type":"BPE","vocab":{"a":4294967296},"merges":[]})", "expected a whole number in 0"},
           {R"({"type":"BPE","vocab":{"a":2147483647},"merges":[]})", "without a large gap"},
           {R"({"type":"BPE","vocab":{"a":0,"b":0},"merges":[]})", "id 0 stands for two tokens"},
           {R"({"type":"BPE","vocab":{"a":0,"a":1},"merges":[]})", "twice"},
           {R"({"type":"BPE","vocab":{"a":0,"b":1},"merges":["ab"]})", "expected two tokens with one blank"},
           {R"({"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b c"]})", "expected two tokens with one blank"},
           {R"({"type":"BPE","vocab":{"a":0,"b":1},"merges":[" b"]})", "expected two tokens with one blank"},
           {R"({"type":"BPE","vocab":{"a":0,"b":1},"merges":[["a"]]})", R"(expected "a b" or ["a", "b"])"},
           {R"({"type":"BPE","vocab":{"a":0,"b":1},"merges":[["a","b","c"]]})", R"(expected "a b" or ["a", "b"])"},
           {R"({"type":"BPE","vocab":{"a":0,"b":1},"merges":[["a",1]]})", R"(expected "a b" or ["a", "b"])"},
           {R"({"type":"BPE","vocab":{"a":0,"b":1},"merges":[3]})", R"(expected "a b" or ["a", "b"])"},
           {R"({"type":"BPE","vocab":{"a":0,"b":1},"merges":["a b"]})", R"(token "ab" is not in the vocab)"},
           {R"({"type":"BPE","vocab":{"a":0,"b":1},"merges":["a c"]})", R"(token "c" is not in the vocab)"},
           {R"({"type":"BPE","vocab":{"a":0},"merges":[],"dropout":0.1})", "dropout: expected null"},
           {R"({"type":"BPE","vocab":{"a":0},"merges":[],"unk_token":"u"})", "unk_token"},
           {R"({"type":"BPE","vocab":{"a":0},"merges":[],"byte_fallback":1})", "byte_fallback: expected true or false"},
           {R"({"type":"WordLevel","vocab":{"a":0},"unk_token":"u"})", "is not in the vocab"},
       }) {
    CAPTURE(bad.json);
    CHECK_MESSAGE(contains(message_of(with_model(bad.json)), bad.words), message_of(with_model(bad.json)));
  }
  CHECK(contains(message_of("{}"), "expected a section \"model\""));
  CHECK(contains(message_of("[1]"), "expected an object"));
  CHECK(contains(message_of("{\"model\":"), "t.json"));
}

TEST_CASE("stages") {
  CHECK(message_of(with_section(R"("normalizer":null)")).empty());
  for (const Case& bad : std::vector<Case>{
           {R"("normalizer":{"type":"Bert"})", "type \"Bert\" is not supported: expected one of NFC"},
           {R"("normalizer":{"type":"BertNormalizer","lowercase":"yes"})", "lowercase: expected true or false"},
           {R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"A"})", "groups of four letters"},
           {R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"A*=="})", "another character at 1"},
           {R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"AAAA"})", "at least 4 bytes"},
           {R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"/////w=="})", "expected a trie within"},
           {R"("normalizer":{"type":"Precompiled","precompiled_charsmap":"BAAAAAAAAABh"})", "a zero byte after the last text"},
           {R"("normalizer":{})", "normalizer: expected a member \"type\""},
           {R"("normalizer":7)", "normalizer: expected an object"},
           {R"("normalizer":{"type":"Sequence"})", "expected a member \"normalizers\""},
           {R"("normalizer":{"type":"Sequence","normalizers":[{"type":"X"}]})", "normalizer[0]: type \"X\""},
           {R"("normalizer":{"type":"Replace","content":"x"})", "expected a member \"pattern\""},
           {R"("normalizer":{"type":"Replace","pattern":{"Regex":"("},"content":"x"})", "does not compile"},
           {R"("normalizer":{"type":"Replace","pattern":{"Glob":"("},"content":"x"})", "expected a member \"String\""},
           {R"("pre_tokenizer":{"type":"UnicodeScripts"})", "type \"UnicodeScripts\" is not supported"},
           {R"("pre_tokenizer":{"type":"CharDelimiterSplit"})", "expected one character"},
           {R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"[a&&b]"},"behavior":"Isolated"})", "the intersection of classes is not supported"},
           {R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"[a[b]]"},"behavior":"Isolated"})", "a class within a class is not supported"},
           {R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\h"},"behavior":"Isolated"})", "\\h is not supported"},
           {R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"a"},"behavior":"Glued"})", "type \"Glued\" is not supported"},
           {R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":"a"},"behavior":"Isolated","invert":"no"})", "invert: expected true or false"},
           {R"("pre_tokenizer":{"type":"Metaspace","prepend_scheme":"last"})", "prepend_scheme"},
           {R"("pre_tokenizer":{"type":"Metaspace","replacement":"__"})", "expected one character"},
           {R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},{"Sequence":{"id":"A"}}],"special_tokens":{}})", "expected ids of <s>"},
           {R"("post_processor":{"type":"TemplateProcessing","single":[],"special_tokens":{}})", "expected the sequence A"},
           {R"("post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"B"}}],"special_tokens":{}})", "expected the sequence A once"},
           {R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}},{"Sequence":{"id":"A"}}],"special_tokens":{"x":{"ids":[-1]}}})", "expected an id in 0"},
           {R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x"}},{"Sequence":{"id":"A"}}],"special_tokens":{"x":{"ids":[99]}}})", "no token has the id 99"},
           {R"("post_processor":{"type":"RobertaProcessing","sep":["a"],"cls":["b",1]})", "expected [\"text\", id]"},
           {R"("decoder":{"type":"CTC"})", "type \"CTC\" is not supported"},
           {R"("decoder":{"type":"WordPiece","prefix":3})", "prefix: expected a string"},
           {R"("post_processor":{"type":"Sequence","processors":[{"type":"BertProcessing","sep":["a",0],"cls":["b",1]},{"type":"BertProcessing","sep":["a",0],"cls":["b",1]}]})", "found two"},
           {R"("post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A"}}],"pair":[{"Sequence":{"id":"A"}}],"special_tokens":{}})", "expected the sequence B, found none"},
           {R"("post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":-1}}],"special_tokens":{}})", "type_id"},
           {R"("decoder":{"type":"Strip","content":" ","start":-1,"stop":0})", "start: expected a whole number"},
           {R"("added_tokens":{})", "added_tokens: expected a list"},
           {R"("added_tokens":[{"content":"<x>"}])", "added_tokens[0]: expected a member \"id\""},
           {R"("added_tokens":[{"id":3}])", "added_tokens[0]: expected a member \"content\""},
           {R"("added_tokens":[{"id":-3,"content":"<x>"}])", "expected a whole number in 0"},
           {R"("added_tokens":[{"id":2147483647,"content":"<y>"}])", "without a large gap"},
           {R"("added_tokens":[{"id":3,"content":"<x>","special":3}])", "special: expected true or false"},
           {R"("added_tokens":[{"id":4,"content":"<x>"}])", "expected its id of the vocab, 3, found 4"},
           {R"("added_tokens":[{"id":1,"content":"<y>"}])", "id 1 is already taken"},
           {R"("added_tokens":[{"id":5,"content":"<y>"},{"id":5,"content":"<z>"}])", "id 5 stands for two added tokens"},
           {R"("added_tokens":[{"id":5,"content":"<y>"},{"id":6,"content":"<y>"}])", "is added twice"},
       }) {
    CAPTURE(bad.json);
    CHECK_MESSAGE(contains(message_of(with_section(bad.json)), bad.words), message_of(with_section(bad.json)));
  }
}

TEST_CASE("lists") {
  const TokenizerLists good{.tokens = {"a", "b", "ab", "<x>"}, .token_types = {1, 1, 1, 3}, .merges = {"a b"}, .pre_tokenizer = "gpt-2"};
  CHECK(Tokenizer::from_lists(good, "g").encode("ab<x>c") == std::vector<std::int64_t>{2, 3});
  const auto message = [&](auto&& change) -> std::string {
    TokenizerLists lists = good;
    change(lists);
    try {
      (void)Tokenizer::from_lists(lists, "g");
    } catch (const ConfigError& error) {
      return error.what();
    }
    return {};
  };
  CHECK(contains(message([](auto& l) { l.pre_tokenizer = "tekken"; }), "g: pre-tokenizer: type \"tekken\" is not supported: expected one of default, gpt-2"));
  CHECK(contains(message([](auto& l) { l.tokens.clear(); }), "expected tokens, found none"));
  CHECK(contains(message([](auto& l) { l.token_types.pop_back(); }), "expected as many token types as tokens"));
  CHECK(contains(message([](auto& l) { l.token_types[0] = 9; }), "expected a type in 1"));
  CHECK(contains(message([](auto& l) { l.tokens[1] = "a"; }), "stands there twice"));
  CHECK(contains(message([](auto& l) { l.merges.push_back("ab"); }), "expected two tokens with one blank"));
  CHECK(contains(message([](auto& l) { l.merges.push_back("b a"); }), "token \"ba\" is not in the vocab"));
  CHECK(contains(message([](auto& l) { l.eos_id = 4; }), "eos id: expected an id below 4, found 4"));
  CHECK(contains(message([](auto& l) { l.add_bos = true; }), "names no bos id"));
}

// Fields of a protocol-buffer message.
std::string field(int number, const std::string& bytes) { return std::string{static_cast<char>(number << 3 | 2), static_cast<char>(bytes.size())} + bytes; }
std::string varint_field(int number, int value) { return std::string{static_cast<char>(number << 3), static_cast<char>(value)}; }
std::string piece(const std::string& text, int type, const std::string& score = std::string(4, '\0')) {
  return field(1, field(1, text) + std::string{static_cast<char>(2 << 3 | 5)} + score + varint_field(3, type));
}

TEST_CASE("SentencePiece models") {
  const test::TemporaryFolder folder;
  const auto message = [&](const std::string& bytes) -> std::string {
    try {
      (void)Tokenizer::from_file(folder.write("x.model", bytes)).encode("ab <x> 12", true);
      return {};
    } catch (const ConfigError& error) {
      CHECK(std::string_view(error.what()).find('\n') == std::string_view::npos);
      return error.what();
    }
  };
  const std::string good = piece("<unk>", 2) + piece("<s>", 3) + piece("a", 1) + piece("b", 1) + piece("ab", 1);
  CHECK(message(good).empty());
  CHECK(message(good + field(9, "a field of later versions")).empty());
  for (const auto& bad : std::vector<std::pair<std::string, std::string>>{
           {"", "expected pieces, found none"},
           {good.substr(0, good.size() - 1), "a length reaches beyond the end"},
           {"\x0A", "a number reaches beyond the end"},
           {std::string(11, '\xFF'), "a number is longer than 10 bytes"},
           {"\x0A" + std::string(10, '\xFF') + "\x01", "a number is longer than 10 bytes"},
           {"\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01", "a length reaches beyond the end"},
           {"\x0B", "unknown wire type"},
           {std::string(1, '\0'), "expected the key of a field"},
           {varint_field(1, 3), "byte 0: field 1 is of another wire type"},
           {good + piece("c", 7), "expected a type of piece in 1"},
           {good + piece("", 1), "piece 5: expected a text in UTF-8"},
           {good + piece("\xFF", 1), "piece 5: expected a text in UTF-8"},
           {good + piece("a", 1), "token \"a\" stands there twice"},
           {good + piece("c", 1, std::string("\x00\x00\xC0\x7F", 4)), "expected a score that is finite"},
           {piece("a", 1), "expected one unknown piece, found 0"},
           {good + piece("<u>", 2), "expected one unknown piece, found 2"},
           {good + piece("<0x41>", 6), "no byte in a model without byte_fallback"},
           {good + piece("<0xZZ>", 6) + field(2, "\x98\x02\x01"), "expected <0xHH>"},
           {good + piece("<0x41>", 6) + field(2, "\x98\x02\x01"), "expected 256 byte pieces"},
           {good + field(2, varint_field(3, 3)), "expected a model of type UNIGRAM or BPE, found WORD"},
           {good + field(2, varint_field(3, 9)), "expected a type of model in 1"},
           {good + field(3, field(2, "abc")), "expected a character map of at least 4 bytes"},
       }) {
    CAPTURE(bad.second);
    CHECK_MESSAGE(contains(message(bad.first), bad.second), message(bad.first));
  }
}

TEST_CASE("a damaged tokenizer.json loads or fails in one line, wherever the damage is") {
  for (const char* name : {"llama2", "suffix", "gpt2", "bert", "unigram"}) {
    const std::string good = test::read_text(test::source_file(std::string("tests/data/tokenizers/") + name + ".json"));
    std::uint32_t state = 3;
    const auto random = [&] { return state = state * 1664525U + 1013904223U, state >> 8; };
    for (int round = 0; round < 150; ++round) {
      std::string bad = good;
      for (std::uint32_t hit = random() % 3 + 1; hit > 0; --hit) {
        const std::size_t at = random() % bad.size();
        switch (random() % 4) {
          case 0: bad[at] = static_cast<char>(random()); break;
          case 1: bad.erase(at, random() % 20); break;
          case 2: bad.insert(at, bad.substr(random() % bad.size(), random() % 30)); break;
          default: bad[at] = "0123456789{}[]\",:tfn"[random() % 20];
        }
      }
      (void)message_of(bad);
    }
  }
  CHECK_THROWS_AS(Tokenizer::from_file("/nonexistent/tokenizer.json"), FileError);
}

TEST_CASE("a pattern that backtracks without end is stopped") {
  const std::string json = R"({"pre_tokenizer":{"type":"Split","pattern":{"Regex":"(a+)+$"},"behavior":"Isolated"},"model":{"type":"BPE","vocab":{"a":0,"b":1},"merges":[]}})";
  const Tokenizer tokenizer = Tokenizer::from_json(json, "t.json");
  CHECK_THROWS_AS(tokenizer.encode(std::string(60, 'a') + "b"), ConfigError);
}

}  // namespace
