// Strict JSON for files from strangers: no duplicate keys, bounded depth, valid UTF-8. Internal: not installed.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "kernels/error.h"

namespace cambium {

/// Objects keep the order of the file: the first matching key of a PEFT pattern wins.
using Json = nlohmann::ordered_json;

/// Parses one JSON value. `where` (a file name, say) starts the message of the FileError that is thrown for: syntax errors,
/// duplicate keys, nesting deeper than `max_depth`, invalid UTF-8, NaN or Infinity, text after the value. Nothing is built before the
/// whole text has passed, so that a text that is refused costs at most some three times its size. Integers outside of int64 and uint64
/// become doubles, as JSON has one kind of number.
Json parse_json(std::string_view text, std::string_view where, int max_depth = 64);

/// Reads and parses a whole file.
Json read_json_file(const std::string& path);

// Values of a known kind. `where` says which ("config.json: hidden_size"); FileError when the value is of another kind.
std::int64_t json_integer(const Json& value, std::string_view where, std::int64_t minimum = INT64_MIN, std::int64_t maximum = INT64_MAX);
double json_number(const Json& value, std::string_view where);
bool json_boolean(const Json& value, std::string_view where);
const std::string& json_string(const Json& value, std::string_view where);
/// The member `key` of an object; FileError when `object` is none or has no such member.
const Json& json_member(const Json& object, std::string_view key, std::string_view where);

}  // namespace cambium
