// Arguments before CLI11 sees them: configuration files, and messages about names that do not exist.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

namespace cambium::cli {

/// ConfigError with the nearest name for a command or option that does not exist. Before CLI11 looks, which would first ask for the options that are then missing.
void check_names(const std::vector<std::string>& arguments, const CLI::App& program);

/// Replaces `--config FILE` by the options that the JSON file holds; options that stand on the command line win. ConfigError for a key that is no option of the command,
/// with the nearest name.
void insert_configuration(std::vector<std::string>& arguments, const CLI::App& program);

/// CLI11's error as one line; for an unknown option with the nearest name.
std::string explain(const CLI::ParseError& error, const CLI::App& program);

}  // namespace cambium::cli
