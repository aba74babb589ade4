// Lookup in the tables of types that the sections of a tokenizer.json name. Internal.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <utility>

#include "kernels/error.h"

namespace cambium::detail {

/// The value beside `type`; ConfigError that names the type and what is supported.
template <class Make, std::size_t N>
Make find_type(const std::array<std::pair<std::string_view, Make>, N>& table, std::string_view type, std::string_view where) {
  std::string known;
  for (const auto& [name, make] : table) {
    if (name == type) return make;
    (known += known.empty() ? "" : ", ") += name;
  }
  fail<ConfigError>(where, ": type \"", type, "\" is not supported: expected one of ", known);
}

}  // namespace cambium::detail
