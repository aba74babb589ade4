// Pull reader for strict JSON without a tree: what parse_json and the safetensors header are built on. Internal: not installed.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/error.h"

namespace cambium {

/// Walks over a JSON text value by value; every error is a FileError with the byte and the key path. Memory: the depth only.
class JsonReader {
 public:
  enum class Type : std::uint8_t { null, boolean, number, string, array, object };

  /// A number as written: integers that fit exactly are kept so, everything else is a double.
  struct Number {
    enum class Kind : std::uint8_t { natural, negative, real } kind = Kind::natural;
    std::uint64_t natural = 0;
    std::int64_t negative = 0;
    double real = 0;
  };

  /// `first_byte` is added to the positions in messages: where the text begins within its file.
  JsonReader(std::string_view text, std::string_view where, int max_depth, std::size_t first_byte = 0)
      : text_(text), where_(where), max_depth_(max_depth), first_byte_(first_byte) {}

  Type peek();  ///< of the value that comes next
  void enter(Type container);
  /// Moves to the next member and fills `key` (unless nullptr, which only hashes it); false at the end of the object, which is left.
  bool next_key(std::string* key);
  bool next_element();  ///< false at the end of the array, which is left
  void read_null() { literal("null"); }
  bool read_boolean();
  Number read_number();
  void read_string(std::string& out);
  void skip_string() { hash_string(); }
  void skip_value();
  std::uint64_t key_hash() const { return key_hash_; }  ///< of the last key
  std::size_t key_position() const { return frames_.back().key_begin - 1; }
  void finish();  ///< only white space may follow

  std::size_t position() const { return position_; }
  void set_position(std::size_t position) { position_ = position; }
  /// Path to the value at hand, such as `model.merges[17]`; empty at the top.
  std::string path() const;
  /// Throws: "where: byte N (path): what".
  [[noreturn]] void fail_here(std::string_view what) const { fail_at(position_, what); }
  [[noreturn]] void fail_at(std::size_t position, std::string_view what) const;

 private:
  struct Frame {
    bool object = false, started = false;
    std::size_t key_begin = 0, key_end = 0, index = 0;
  };
  void skip_space();
  void literal(std::string_view word);
  std::string found() const;
  std::uint64_t hash_string();
  template <class Sink> void scan_string(Sink&& sink);
  template <class Sink> void scan_escape(Sink&& sink);
  std::uint32_t scan_hex();
  std::size_t check_utf8(std::size_t at) const;
  bool next(char close);

  std::string_view text_, where_;
  int max_depth_;
  std::size_t first_byte_, position_ = 0;
  std::uint64_t key_hash_ = 0;
  std::vector<Frame> frames_;
};

/// What a text holds, for budgets and exact reservations.
struct JsonSummary {
  std::size_t values = 0;        ///< of every kind, keys not counted
  std::size_t containers = 0;    ///< arrays and objects
  std::size_t strings = 0, keys = 0;
  std::size_t long_bytes = 0;    ///< of strings and keys too long to lie within a std::string
  std::size_t top_members = 0;   ///< of the outermost object or array
};

/// Checks the whole text by the rules of parse_json, duplicate keys included, without building anything: at most some three bytes
/// for each byte of the text.
JsonSummary check_json(std::string_view text, std::string_view where, int max_depth, std::size_t first_byte = 0);

/// `text` fit for a message of one line: quoted, cut after some 40 bytes, control characters and bytes that are no ASCII escaped.
std::string quote_for_message(std::string_view text);

}  // namespace cambium
