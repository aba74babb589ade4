// Strict JSON for files from strangers: no duplicate keys, bounded depth, valid UTF-8. Internal: not installed.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "kernels/error.h"

namespace cambium {

/// Objects keep the order of the file: the first matching key of a PEFT pattern wins.
using Json = nlohmann::ordered_json;

/// Parses one JSON value. `where` (a file name, say) starts the message of the FileError that is thrown for: syntax errors,
/// duplicate keys, nesting deeper than `max_depth`, invalid UTF-8, NaN or Infinity, text after the value.
Json parse_json(std::string_view text, std::string_view where, int max_depth = 64);

/// Reads and parses a whole file.
Json read_json_file(const std::string& path);

}  // namespace cambium
