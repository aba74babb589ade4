// The `cambium` command: finds the subcommand, reads options and configuration files, turns errors into one line and an exit code.
#include <algorithm>
#include <iostream>

#include "cli/arguments.h"
#include "cli/command.h"

int main(int argc, char** argv) {
  using namespace cambium;
  CLI::App program{"Cambium: parameter-efficient fine-tuning of language models, from scratch in C++"};
  program.name("cambium");
  program.set_version_flag("--version", CAMBIUM_VERSION);
  program.require_subcommand(1);
  std::vector<std::pair<std::string, cli::Run>> runs;
  runs.emplace_back("train", cli::add_train(program));
  runs.emplace_back("eval", cli::add_eval(program));
  runs.emplace_back("generate", cli::add_generate(program));
  runs.emplace_back("merge", cli::add_merge(program));
  runs.emplace_back("combine", cli::add_combine(program));
  runs.emplace_back("convert", cli::add_convert(program));
  runs.emplace_back("extract", cli::add_extract(program));
  runs.emplace_back("inspect", cli::add_inspect(program));
  runs.emplace_back("tokenize", cli::add_tokenize(program));
  runs.emplace_back("logits", cli::add_logits(program));
  runs.emplace_back("devices", cli::add_devices(program));
  for (const char* later : {"plan"}) {
    program.add_subcommand(later, "not in this version")->allow_extras();
    runs.emplace_back(later, [later]() -> int { fail<ConfigError>("cambium ", later, ": this command is not in this version"); });
  }
  try {
    std::vector<std::string> arguments(argv + 1, argv + argc);
    cli::check_names(arguments, program);
    cli::insert_configuration(arguments, program);
    std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them from the back
    program.parse(arguments);
    for (const auto& [name, run] : runs)
      if (program.got_subcommand(name)) return run();
    return 2;
  } catch (const CLI::Success& help) {
    return program.exit(help);
  } catch (const CLI::ParseError& error) {
    std::cerr << "cambium: " << cli::explain(error, program) << std::endl;
    return 2;
  } catch (const ConfigError& error) {
    std::cerr << "cambium: " << error.what() << std::endl;
    return 2;
  } catch (const std::bad_alloc&) {
    std::cerr << "cambium: out of memory: use a smaller --batch-size or --max-length, or --dtype bfloat16" << std::endl;
    return 1;
  } catch (const std::exception& error) {
    std::cerr << "cambium: " << error.what() << std::endl;
    return 1;
  }
}
