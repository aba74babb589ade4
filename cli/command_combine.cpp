// `cambium combine`: a weighted combination of adapters, from their folders alone.
#include <charconv>
#include <filesystem>
#include <iostream>

#include "cli/combination_table.h"
#include "cli/command.h"
#include "cli/work_line.h"
#include "peft/combine.h"

namespace cambium::cli {

namespace {
struct CombineArguments {
  SharedOptions shared;
  std::vector<std::string> adapters;
  CombineOptions options;
  std::optional<double> keep_energy;
  std::string compat = "corrected", out;
};

struct Source { std::string folder, name; double weight = 1.0; };

/// "DIR=NAME:WEIGHT", "DIR:WEIGHT", "DIR=NAME" or "DIR".
Source parse_source(const std::string& text, std::size_t index) {
  Source out;
  std::string rest = text;
  const std::size_t colon = text.rfind(':');
  if (colon != std::string::npos && !std::filesystem::exists(text)) {
    const char* begin = text.data() + colon + 1;
    const char* end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(begin, end, out.weight);
    check<ConfigError>(error == std::errc() && stop == end, "--adapter: '", text, "': expected a number behind the last colon (DIR=NAME:WEIGHT), found '", text.substr(colon + 1), "'");
    rest = text.substr(0, colon);
  }
  std::tie(out.folder, out.name) = parse_adapter(rest, index);
  return out;
}

int run(CombineArguments& a) {
  catch_signals();
  apply_shared(a.shared);
  check<ConfigError>(!a.adapters.empty(), "combine: give at least one --adapter DIR=NAME:WEIGHT");
  namespace fs = std::filesystem;
  check<ConfigError>(!fs::exists(a.out) || (fs::is_directory(a.out) && fs::is_empty(a.out)), "--out: ", a.out, " exists: choose a new folder");
  a.options.compat = parse_merge_compat(a.compat);
  a.options.key = RandomKey{a.shared.seed, 0}.fold("combine");
  std::vector<LoraAdapter> sources;
  std::vector<double> weights;
  Json inputs = Json::array();
  for (std::size_t i = 0; i < a.adapters.size(); ++i) {
    const Source source = parse_source(a.adapters[i], i);
    std::vector<std::string> warnings;
    sources.push_back(read_lora_adapter(source.folder, &warnings));
    weights.push_back(source.weight);
    for (const std::string& warning : warnings) say(a.shared, "warning: " + warning);
    inputs.push_back({{"folder", source.folder}, {"name", source.name}, {"weight", source.weight}});
  }
  WorkLine line("combining", a.shared.quiet);
  const CombinationProgress progress = [&](std::size_t done, std::size_t total, const std::string& path) {
    check<StateError>(!stop_requested(), "combine: stopped: nothing was written");
    line.update(done, total, static_cast<double>(done) / static_cast<double>(total), path);
  };
  CombinationReport report;
  try {
    LoraAdapter result = combine_adapters(sources, weights, a.options, &report, progress);
    if (a.keep_energy) result = resize_adapter(result, {.energy = a.keep_energy}, &report, progress);
    write_lora_adapter(result, a.out);
  } catch (const StateError&) {
    if (!stop_requested()) throw;
    line.finish();
    std::cerr << "cambium: stopped by a signal: nothing was written to " << a.out << std::endl;
    return signal_exit_code();
  }
  const double seconds = line.seconds();
  line.finish();
  print_table(report, seconds);
  say(a.shared, "combined adapter in " + a.out + ": try cambium generate --model BASE --adapter " + a.out);
  answer(a.shared, Json{{"out", a.out}, {"adapters", inputs}, {"combination_type", a.options.combination_type}, {"rank", report.rank}, {"largest_error", report.largest_error()}, {"seconds", seconds},
                        {"modules", modules_json(report)}});
  return 0;
}
}  // namespace

Run add_combine(CLI::App& program) {
  auto a = std::make_shared<CombineArguments>();
  CLI::App& c = *program.add_subcommand("combine", "weighted combination of LoRA adapters into a new adapter folder; needs no model");
  add_shared(c, a->shared, {.model = false, .adapter = false, .seed = true});
  c.add_option("--config", "JSON file with any of these options; the command line wins")->type_name("FILE");
  c.add_option("--adapter", a->adapters, "adapter folder with its weight (default 1); repeatable")->take_all()->type_name("DIR=NAME:WEIGHT");
  CombineOptions& o = a->options;
  c.add_option("--combination-type", o.combination_type, "linear, cat, svd, ties, dare_linear, dare_ties, magnitude_prune, or the last four with _svd")->capture_default_str();
  c.add_option("--svd-rank", o.svd_rank, "rank of the result of types that end in svd; default: the largest of the sources");
  c.add_option("--svd-clamp", o.svd_clamp, "quantile to which the new factors are limited");
  c.add_option("--svd-full-matrices", o.svd_full_matrices, "accepted for PEFT's sake: the result is the same")->capture_default_str();
  c.add_option("--density", o.density, "share of entries kept by ties, dare and magnitude_prune");
  c.add_option("--majority-sign-method", o.majority_sign_method, "total or frequency, of ties");
  c.add_option("--merge-compat", a->compat, "corrected, peft_0_21, peft_0_9_to_0_20, peft_0_7 or peft_0_4: whose arithmetic")->capture_default_str();
  c.add_flag("--measure-error", o.measure_error, "of types that work on factors, too: against the same combination of whole deltas");
  c.add_option("--keep-energy", a->keep_energy, "then cut every module to the smallest rank that keeps this share of its squared singular values")->check(CLI::Range(0.0, 1.0));
  c.add_option("--out", a->out, "new folder")->required()->type_name("DIR");
  c.footer("Examples:\n  cambium combine --adapter en=a:0.7 --adapter de=b:0.3 --svd-rank 16 --out both\n"
           "  cambium combine --adapter one=a:1 --adapter two=b:-1 --combination-type cat --keep-energy 0.9 --out difference");
  return [a] { return run(*a); };
}

}  // namespace cambium::cli
