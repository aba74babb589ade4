// check_json: one pass over a JSON text that finds every error, duplicate keys included, before anything is built from it.
#include <algorithm>

#include "tensor/json_reader.h"

namespace cambium {

namespace {

class Checker {
 public:
  Checker(std::string_view text, JsonReader& reader) : text_(text), reader_(reader) {}

  void value(bool top) {
    ++summary_.values;
    switch (reader_.peek()) {
      case JsonReader::Type::null: reader_.read_null(); return;
      case JsonReader::Type::boolean: reader_.read_boolean(); return;
      case JsonReader::Type::number: reader_.read_number(); return;
      case JsonReader::Type::string: {
        ++summary_.strings;
        const std::size_t begin = reader_.position();
        reader_.skip_string();
        count_bytes(begin);
        return;
      }
      case JsonReader::Type::array: array(top); return;
      case JsonReader::Type::object: object(top); return;
    }
  }
  const JsonSummary& summary() const { return summary_; }

 private:
  void count_bytes(std::size_t begin) {
    if (const std::size_t bytes = reader_.position() - begin; bytes > 17) summary_.long_bytes += bytes;
  }
  void array(bool top) {
    ++summary_.containers;
    reader_.enter(JsonReader::Type::array);
    while (reader_.next_element()) {
      if (top) ++summary_.top_members;
      value(false);
    }
  }
  // Hashes of the keys of all open objects lie on one stack; those of an object are sorted at its end. Eight bytes a key, where a
  // set of strings would cost a multiple of the file.
  void object(bool top) {
    ++summary_.containers;
    const std::size_t begin = reader_.position(), base = hashes_.size();
    reader_.enter(JsonReader::Type::object);
    while (true) {
      const std::size_t before = reader_.position();
      if (!reader_.next_key(nullptr)) break;
      if (top) ++summary_.top_members;
      ++summary_.keys;
      count_bytes(before);
      hashes_.push_back(reader_.key_hash());
      value(false);
    }
    const auto first = hashes_.begin() + static_cast<std::ptrdiff_t>(base);
    std::sort(first, hashes_.end());
    if (const auto twice = std::adjacent_find(first, hashes_.end()); twice != hashes_.end()) confirm(begin, *twice);
    hashes_.resize(base);
  }
  // Two keys with one hash: look at them again, for the position and because hashes of different keys can be made to collide.
  void confirm(std::size_t begin, std::uint64_t hash) {
    JsonReader again(text_, "", 1 << 20);
    again.set_position(begin);
    again.enter(JsonReader::Type::object);
    std::vector<std::size_t> seen;
    std::string key, earlier;
    while (again.next_key(nullptr)) {
      if (again.key_hash() == hash) {
        const std::size_t at = again.key_position();
        read_key(at, key);
        for (const std::size_t other : seen) {
          read_key(other, earlier);
          if (key == earlier) reader_.fail_at(at, "expected keys that differ, found " + quote_for_message(key) + " twice");
        }
        seen.push_back(at);
        if (seen.size() > 64) reader_.fail_at(at, "expected keys of an object, found too many made to look alike");
      }
      again.skip_value();
    }
  }
  void read_key(std::size_t at, std::string& key) const {
    JsonReader reader(text_, "", 1);
    reader.set_position(at);
    reader.read_string(key);
  }

  std::string_view text_;
  JsonReader& reader_;
  JsonSummary summary_;
  std::vector<std::uint64_t> hashes_;
};

}  // namespace

JsonSummary check_json(std::string_view text, std::string_view where, int max_depth, std::size_t first_byte) {
  JsonReader reader(text, where, max_depth, first_byte);
  Checker checker(text, reader);
  checker.value(true);
  reader.finish();
  return checker.summary();
}

}  // namespace cambium
