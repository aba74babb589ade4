// `cambium extract`: a LoRA adapter from the difference of two full models.
#include <filesystem>
#include <iostream>

#include "cli/combination_table.h"
#include "cli/command.h"
#include "cli/work_line.h"
#include "peft/extract.h"

namespace cambium::cli {

namespace {
struct ExtractArguments {
  SharedOptions shared;
  ExtractOptions options;
  std::string base, tuned, targets, out;
};

ModuleSelection parse_targets(const std::string& text) {
  if (text.empty()) return {};
  std::vector<std::string> names;
  for (std::size_t begin = 0; begin <= text.size();) {
    const std::size_t comma = std::min(text.find(',', begin), text.size());
    names.push_back(text.substr(begin, comma - begin));
    begin = comma + 1;
  }
  return names;
}

int run(ExtractArguments& a) {
  namespace fs = std::filesystem;
  catch_signals();
  apply_shared(a.shared);
  check<ConfigError>(!fs::exists(a.out) || (fs::is_directory(a.out) && fs::is_empty(a.out)), "--out: ", a.out, " exists: choose a new folder");
  a.options.target_modules = parse_targets(a.targets);
  a.options.key = RandomKey{a.shared.seed, 0}.fold("extract");
  WorkLine line("comparing", a.shared.quiet);
  ExtractReport report;
  try {
    write_lora_adapter(extract_adapter(a.base, a.tuned, a.options, &report, [&](std::size_t done, std::size_t total, const std::string& name) {
      check<StateError>(!stop_requested(), "extract: stopped: nothing was written");
      line.update(done, total, static_cast<double>(done) / static_cast<double>(total), name);
    }), a.out);
  } catch (const StateError&) {
    if (!stop_requested()) throw;
    line.finish();
    std::cerr << "cambium: stopped by a signal: nothing was written to " << a.out << std::endl;
    return signal_exit_code();
  }
  const double seconds = line.seconds();
  line.finish();
  print_table(report.modules, seconds);
  if (!report.left_over.empty()) {
    std::cout << report.left_over.size() << " tensors differ and are not in the adapter:";
    for (std::size_t i = 0; i < report.left_over.size() && i < 10; ++i) std::cout << (i ? ", " : " ") << report.left_over[i];
    std::cout << (report.left_over.size() > 10 ? ", …" : "") << std::endl;
  }
  answer(a.shared, Json{{"out", a.out}, {"rank", a.options.rank}, {"largest_error", report.modules.largest_error()}, {"modules", modules_json(report.modules)}, {"left_over", report.left_over}});
  return 0;
}
}  // namespace

Run add_extract(CLI::App& program) {
  auto a = std::make_shared<ExtractArguments>();
  CLI::App& c = *program.add_subcommand("extract", "a LoRA adapter from the difference of two full models");
  add_shared(c, a->shared, {.model = false, .adapter = false, .seed = true});
  c.add_option("--config", "JSON file with any of these options; the command line wins")->type_name("FILE");
  c.add_option("--model", a->base, "folder of the base model")->required()->type_name("DIR");
  c.add_option("--tuned", a->tuned, "folder of the same model after training")->required()->type_name("DIR");
  c.add_option("--r", a->options.rank, "rank of the adapter")->capture_default_str()->check(CLI::PositiveNumber);
  c.add_option("--target-modules", a->targets, "endings of module paths, with commas; default: every matrix that differs, but embeddings and head");
  c.add_option("--out", a->out, "new folder")->required()->type_name("DIR");
  c.footer("Example:\n  cambium extract --model models/base --tuned models/tuned --r 32 --out adapter");
  return [a] { return run(*a); };
}

}  // namespace cambium::cli
