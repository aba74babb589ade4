// Strict JSON: what is accepted, every way to break it, memory of refused texts, random damage.
#include <doctest/doctest.h>

#include <random>

#include "tensor/json.h"
#include "tests/allocation_counter.h"

using namespace cambium;

namespace {

/// The message of the error that `text` gives, or "" when it is accepted; also checks form and memory.
std::string error_of(std::string_view text, int max_depth = 64) {
  const test::AllocationPeak peak;
  try {
    parse_json(text, "x.json", max_depth);
  } catch (const FileError& error) {
    const std::string message = error.what();
    CHECK(message.find('\n') == std::string::npos);
    CHECK(message.find("x.json: byte ") == 0);
    CHECK(message.size() < 400);
    CHECK(peak.bytes() <= 4 * text.size() + (std::size_t{1} << 20));
    return message;
  }
  return "";
}

bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("values of every kind") {
  const Json value = parse_json(R"( {"a": [1, -2, 2.5, 1e3, true, false, null], "b": {"": "x\n\u00e9\ud83d\ude00\/"}, "big": 18446744073709551615,
                                    "low": -9223372036854775808, "larger": 18446744073709551616, "empty": [[], {}]} )", "x");
  CHECK(value["a"].dump() == "[1,-2,2.5,1000.0,true,false,null]");
  CHECK(value["b"][""] == "x\n\xc3\xa9\xf0\x9f\x98\x80/");
  CHECK(value["big"].get<std::uint64_t>() == UINT64_MAX);
  CHECK(value["low"].get<std::int64_t>() == INT64_MIN);
  CHECK(value["larger"].get<double>() == 18446744073709551616.0);
  CHECK(value["empty"].dump() == "[[],{}]");
  CHECK(parse_json("0", "x") == 0);
  CHECK(parse_json("\"\"", "x") == "");
  CHECK(parse_json("1e-400", "x") == 0.0);
  CHECK(parse_json("\"\\u0000\\u0041\"", "x") == std::string("\0A", 2));
}

TEST_CASE("objects keep their order, also large ones, and are found by key") {
  std::string text = "{";
  for (int i = 0; i < 20000; ++i) text += (i ? ",\"k" : "\"k") + std::to_string((i * 7919) % 20000) + "\":" + std::to_string(i);
  const Json value = parse_json(text + "}", "x");
  REQUIRE(value.size() == 20000);
  CHECK(value.begin().key() == "k0");
  CHECK(std::next(value.begin()).key() == "k7919");
  CHECK(value["k7919"] == 1);
}

TEST_CASE("each rule broken gives one line with byte and key path") {
  struct Case { std::string text; std::string_view words; };
  const Case cases[] = {
      {"", "byte 0: expected a value, found the end of the text"},
      {"  ", "byte 2: expected a value"},
      {"{\"a\": 1, \"a\": 2}", "byte 9: expected keys that differ, found \"a\" twice"},
      {"{\"x\": {\"a\": 1, \"\\u0061\": 2}}", "byte 15 (x): expected keys that differ, found \"a\" twice"},
      {"[1, 2", "expected ',' or ']', found the end"},
      {"[1 2]", "byte 3 ([0]): expected ',' or ']', found \"2\""},
      {"{\"a\": [1, {\"b\": ?}]}", "(a[1].b): expected a value, found \"?\""},
      {"[1,]", "expected a value after ','"},
      {"{\"a\":1,}", "expected a value after ','"},
      {"[,1]", "expected a value"},
      {"{a: 1}", "expected a key in quotes"},
      {"{\"a\" 1}", "expected ':' after a key"},
      {"{1: 1}", "expected a key in quotes"},
      {"[1}", "expected ',' or ']', found \"}\""},
      {"NaN", "JSON has no NaN and no Infinity"},
      {"[Infinity]", "JSON has no NaN"},
      {"-Infinity", "JSON has no NaN"},
      {"01", "byte 0: expected a number without leading zeros"},
      {"-01", "without leading zeros"},
      {"-", "expected a digit"},
      {"+1", "expected a value"},
      {".5", "expected a value"},
      {"1.", "expected a digit after '.'"},
      {"1e", "expected a digit in an exponent"},
      {"0x10", "expected the end of the text"},
      {"1e400", "range of a double"},
      {"-" + std::string(400, '9'), "range of a double"},
      {"tru", "expected true"},
      {"nul", "expected null"},
      {"'a'", "expected a value"},
      {"\"abc", "byte 0: expected the closing quote"},
      {"\"abc\\", "expected an escape sequence"},
      {"\"a\nb\"", "byte 2: expected control characters to be escaped"},
      {"\"\\x41\"", "expected an escape sequence of JSON, found \"\\x\""},
      {"\"\\u12g4\"", "four hexadecimal digits"},
      {"\"\\u12", "four hexadecimal digits"},
      {"\"\\ud800\"", "pair of surrogates"},
      {"\"\\ud800\\u0041\"", "pair of surrogates"},
      {"\"\\udc00\\ud800\"", "pair of surrogates"},
      {"\"\x80\"", "byte 1: expected valid UTF-8, found \"\\x80\""},
      {"\"\xc0\xaf\"", "expected valid UTF-8"},
      {"\"\xe0\x80\x80\"", "expected valid UTF-8"},
      {"\"\xed\xa0\x80\"", "expected valid UTF-8"},
      {"\"\xf4\x90\x80\x80\"", "expected valid UTF-8"},
      {"\"\xf5\x80\x80\x80\"", "expected valid UTF-8"},
      {"\"\xe2\x82", "expected valid UTF-8"},
      {"\xef\xbb\xbf{}", "byte 0: expected a value, found \"\\xef\""},
      {"{} {}", "byte 3: expected the end of the text, found \"{\""},
      {std::string("{}\0", 3), "expected the end of the text"},
      {"// comment\n1", "expected a value"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.text);
    const std::string message = error_of(c.text);
    CAPTURE(message);
    CHECK(contains(message, c.words));
  }
}

TEST_CASE("nesting is bounded") {
  const auto nested = [](int depth) { return std::string(static_cast<std::size_t>(depth), '[') + std::string(static_cast<std::size_t>(depth), ']'); };
  CHECK(error_of(nested(64)).empty());
  CHECK(contains(error_of(nested(65)), "byte 64 ([0]"));
  CHECK(contains(error_of(nested(65)), "at most 64 levels of nesting"));
  CHECK(contains(error_of(nested(1000000)), "levels of nesting"));
  CHECK(contains(error_of("[[]]", 1), "at most 1 levels"));
}

TEST_CASE("refused texts cost little memory, whatever they hold") {
  const auto repeated = [](const std::string& unit, std::size_t bytes) {
    std::string text = "[";
    while (text.size() < bytes) text += unit + ",";
    return text + "?]";
  };
  for (const std::string unit : {"0", "[]", "{}", "\"\"", "[\"\",\"\"]", "{\"\":0}", "\"" "0123456789abcdef0123456789" "\"", "1.5"}) {
    CAPTURE(unit);
    CHECK(contains(error_of(repeated(unit, 3000000)), "expected a value"));
  }
  CHECK(contains(error_of("\"" + std::string(5000000, 'x') + "\x80\""), "valid UTF-8"));
  CHECK(contains(error_of("{\"" + std::string(5000000, 'x') + "\":1," + "\"" + std::string(5000000, 'x') + "\":1}"), "twice"));
  std::string keys = "{\"0\":0";
  for (int i = 0; keys.size() < 5000000; ++i) keys += ",\"" + std::to_string(i + 1) + "\":0";
  CHECK(contains(error_of(keys + ",\"77\":0}"), "found \"77\" twice"));
  CHECK(contains(error_of(std::string(5000000, '0')), "leading zeros"));
  CHECK(contains(error_of("1" + std::string(5000000, '0')), "range of a double"));
}

TEST_CASE("keys made to collide in the hash are not taken for duplicates") {
  // Two strings with the same 64-bit FNV-1a hash.
  CHECK(error_of(R"({"8yn0iYCKYHlIj4-BwPqk": 1, "GReLUrM4wMqfg9yzV3KQ": 2})").empty());
}

TEST_CASE("print and parse again is the identity") {
  std::mt19937 random(3);
  const auto value = [&](auto&& self, int depth) -> Json {
    switch (random() % (depth > 0 ? 8U : 6U)) {
      case 0: return nullptr;
      case 1: return random() % 2 == 0;
      case 2: return static_cast<std::int64_t>(random()) - (std::int64_t{1} << 31);
      case 3: return std::ldexp(static_cast<double>(random()), static_cast<int>(random() % 200) - 100);
      case 4: case 5: {
        std::string text;
        for (std::size_t i = random() % 20; i > 0; --i) text += static_cast<char>(random() % 128);
        return text + "é€😀";
      }
      case 6: {
        Json array = Json::array();
        for (std::size_t i = random() % 5; i > 0; --i) array.push_back(self(self, depth - 1));
        return array;
      }
      default: {
        Json object = Json::object();
        for (std::size_t i = random() % 5; i > 0; --i) object[std::to_string(random() % 10)] = self(self, depth - 1);
        return object;
      }
    }
  };
  for (int i = 0; i < 500; ++i) {
    const Json original = value(value, 5);
    CHECK(parse_json(original.dump(), "x") == original);
    CHECK(parse_json(original.dump(2), "x") == original);
  }
}

TEST_CASE("random damage: the same texts are accepted as by the library for JSON, others are errors") {
  const std::string valid = R"({"version": "1.0", "model": {"vocab": {"a": 0, "é": 1, "\u0120b": 2}, "merges": [["a", "b"], "c d"]},
                               "x": [1, -2.5e-3, true, null, {"deep": [[[{}]]]}], "s": "\ud83d\ude00\n"})";
  std::mt19937 random(7);
  int accepted = 0;
  for (int i = 0; i < 6000; ++i) {
    std::string text = valid;
    for (std::size_t edits = 1 + random() % 3; edits > 0; --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 4) {
        case 0: text[at] = static_cast<char>(random()); break;
        case 1: text.erase(at, 1 + random() % 4); break;
        case 2: text.insert(at, 1, "{}[]\",:0-1eE.\\u tn"[random() % 18]); break;
        default: text.insert(at, text.substr(random() % text.size(), random() % 8)); break;
      }
    }
    const std::string message = error_of(text);
    if (message.empty()) ++accepted;
    CAPTURE(text);
    CAPTURE(message);
    // Theirs takes the last of two keys, a byte-order mark at the start, and nothing else that ours refuses.
    if (message.empty()) CHECK(Json::accept(text));
    else if (!contains(message, "twice")) CHECK_FALSE(Json::accept(text));
  }
  CHECK(accepted > 100);
}

TEST_CASE("typed values") {
  const Json value = parse_json(R"({"i": 5, "u": 18446744073709551615, "d": 1.5, "s": "x", "b": true, "a": []})", "x");
  CHECK(json_integer(value["i"], "x: i") == 5);
  CHECK(json_number(value["i"], "x: i") == 5.0);
  CHECK(json_number(value["d"], "x: d") == 1.5);
  CHECK(json_boolean(value["b"], "x: b"));
  CHECK(json_string(value["s"], "x: s") == "x");
  CHECK(json_member(value, "s", "x") == "x");
  CHECK_THROWS_WITH_AS(json_integer(value["d"], "x: d"), "x: d: expected an integer, found 1.5", FileError);
  CHECK_THROWS_WITH_AS(json_integer(value["u"], "x: u", 0), "x: u: expected an integer from 0 to 9223372036854775807, found 18446744073709551615",
                       FileError);
  CHECK_THROWS_WITH_AS(json_integer(value["i"], "x: i", 6, 7), "x: i: expected an integer from 6 to 7, found 5", FileError);
  CHECK_THROWS_WITH_AS(json_boolean(value["i"], "x: i"), "x: i: expected true or false, found 5", FileError);
  CHECK_THROWS_WITH_AS(json_string(value["a"], "x: a"), "x: a: expected a string, found an array", FileError);
  CHECK_THROWS_WITH_AS(json_number(value["s"], "x: s"), "x: s: expected a number, found \"x\"", FileError);
  CHECK_THROWS_WITH_AS(json_member(value, "q", "x"), "x: expected a member \"q\", found none", FileError);
  CHECK_THROWS_WITH_AS(json_member(value["a"], "q", "x"), "x: expected an object, found an array", FileError);
}
