// Configuration files and near misses.
#include "cli/arguments.h"

#include <algorithm>
#include <numeric>

#include "tensor/json.h"

namespace cambium::cli {

namespace {

/// Levenshtein's distance.
std::size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    std::size_t diagonal = row[0]++;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t next = std::min({row[j] + 1, row[j - 1] + 1, diagonal + (a[i - 1] == b[j - 1] ? 0U : 1U)});
      diagonal = row[j];
      row[j] = next;
    }
  }
  return row.back();
}

std::string nearest(const std::string& name, const CLI::App& command) {
  std::string best;
  std::size_t least = SIZE_MAX;
  for (const CLI::Option* option : command.get_options())
    for (const std::string& long_name : option->get_lnames())
      if (const std::size_t d = distance(name, long_name); d < least) {
        least = d;
        best = long_name;
      }
  return best;
}

const CLI::App* find_command(const std::vector<std::string>& arguments, const CLI::App& program) {
  for (const std::string& argument : arguments) {
    if (argument.starts_with("-")) continue;
    for (const CLI::App* command : program.get_subcommands(nullptr))
      if (command->get_name() == argument) return command;
    return nullptr;
  }
  return nullptr;
}

/// A JSON value as the text of an option.
std::string option_text(const Json& value, const std::string& key, const std::string& path) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number() || value.is_boolean()) return value.dump();
  fail<ConfigError>(path, ": ", key, ": expected a text, a number, true, false or a list of them, found ", value.type_name());
}

/// The same among the commands.
std::string nearest_command(const std::string& name, const CLI::App& program) {
  std::string best;
  std::size_t least = SIZE_MAX;
  for (const CLI::App* command : program.get_subcommands(nullptr))
    if (const std::size_t d = distance(name, command->get_name()); d < least) {
      least = d;
      best = command->get_name();
    }
  return best;
}

}  // namespace

void check_names(const std::vector<std::string>& arguments, const CLI::App& program) {
  const CLI::App* command = find_command(arguments, program);
  if (command == nullptr) {
    for (const std::string& argument : arguments)
      if (!argument.starts_with("-")) fail<ConfigError>("'", argument, "' is no command: did you mean '", nearest_command(argument, program), "'?");
    return;
  }
  if (command->get_allow_extras()) return;
  for (const std::string& argument : arguments) {
    if (argument == "--") return;
    if (!argument.starts_with("--")) continue;
    const std::string name = argument.substr(2, argument.find('=') == std::string::npos ? std::string::npos : argument.find('=') - 2);
    check<ConfigError>(command->get_option_no_throw("--" + name) != nullptr || name == "version", "'--", name, "' is no option of ", command->get_name(), ": did you mean '--", nearest(name, *command), "'?");
  }
}

void insert_configuration(std::vector<std::string>& arguments, const CLI::App& program) {
  const CLI::App* command = find_command(arguments, program);
  if (command == nullptr) return;
  std::vector<std::string> from_file;
  for (std::size_t i = 0; i < arguments.size();) {
    std::string path;
    std::size_t used = 0;
    if (arguments[i] == "--config" && i + 1 < arguments.size()) {
      path = arguments[i + 1];
      used = 2;
    } else if (arguments[i].starts_with("--config=")) {
      path = arguments[i].substr(9);
      used = 1;
    }
    if (used == 0) {
      ++i;
      continue;
    }
    arguments.erase(arguments.begin() + static_cast<std::ptrdiff_t>(i), arguments.begin() + static_cast<std::ptrdiff_t>(i + used));
    const Json object = read_json_file(path);
    check<ConfigError>(object.is_object(), path, ": expected an object of options");
    for (const auto& [key, value] : object.items()) {
      std::string name = key;
      std::replace(name.begin(), name.end(), '_', '-');
      const CLI::Option* option = command->get_option_no_throw("--" + name);
      if (option == nullptr) fail<ConfigError>(path, ": '", key, "' is no option of ", command->get_name(), ": did you mean '", nearest(name, *command), "'?");
      const auto given = [&](const std::string& argument) { return argument == "--" + name || argument.starts_with("--" + name + "="); };
      if (std::any_of(arguments.begin(), arguments.end(), given) || value.is_null()) continue;
      if (option->get_expected_max() == 0) {
        check<ConfigError>(value.is_boolean(), path, ": ", key, ": expected true or false, found ", value.dump());
        if (value.get<bool>()) from_file.push_back("--" + name);
      } else if (value.is_array() && option->get_multi_option_policy() == CLI::MultiOptionPolicy::TakeAll) {
        for (const Json& item : value) from_file.push_back("--" + name + "=" + option_text(item, key, path));
      } else if (value.is_array()) {
        std::string joined;
        for (const Json& item : value) joined += (joined.empty() ? "" : ",") + option_text(item, key, path);
        from_file.push_back("--" + name + "=" + joined);
      } else {
        from_file.push_back("--" + name + "=" + option_text(value, key, path));
      }
    }
  }
  arguments.insert(arguments.end(), from_file.begin(), from_file.end());
}

std::string explain(const CLI::ParseError& error, const CLI::App& program) {
  std::string text = error.what();
  std::replace(text.begin(), text.end(), '\n', ' ');
  const std::vector<CLI::App*> used = const_cast<CLI::App&>(program).get_subcommands();
  if (error.get_name() == "ExtrasError") {
    const std::vector<std::string> left = program.remaining(true);
    for (const std::string& argument : left) {
      if (!argument.starts_with("--")) continue;
      const std::string name = argument.substr(2, argument.find('=') == std::string::npos ? std::string::npos : argument.find('=') - 2);
      const CLI::App& command = used.empty() ? program : *used.front();
      return concat_text("'", argument, "' is no option", used.empty() ? "" : " of " + used.front()->get_name(), ": did you mean '--", nearest(name, command), "'?");
    }
  }
  return text + (used.empty() ? ": see cambium --help" : ": see cambium " + used.front()->get_name() + " --help");
}

}  // namespace cambium::cli
