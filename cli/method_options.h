// The methods of fine-tuning as options: every field of a method's configuration, with dashes.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>
#include <string_view>

#include "tensor/json.h"

namespace cambium::cli {

/// A method as the command spells it, PEFT's name of its type ("" for full training), and the learning rate that suits it.
struct Method {
  std::string_view name, peft_type;
  double learning_rate;
  unsigned bit;
};
/// ConfigError listing the methods.
const Method& find_method(std::string_view name);
const Method& find_method_by_type(std::string_view peft_type);

/// Adds an option for every field of every method; what is given is collected in `fields` under PEFT's names.
void add_method_options(CLI::App& command, const std::shared_ptr<Json>& fields);
/// ConfigError for a field that the method does not have, naming the methods that do.
void check_fields(const Json& fields, const Method& method);

}  // namespace cambium::cli
