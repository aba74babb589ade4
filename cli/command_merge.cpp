// `cambium merge`: a model with its adapters merged in, written tensor by tensor as a Hugging Face folder or a GGUF file.
#include <filesystem>
#include <iomanip>
#include <iostream>

#include "cli/command.h"
#include "cli/work_line.h"
#include "peft/merge_file.h"

namespace cambium::cli {

namespace {
struct MergeArguments {
  SharedOptions shared;
  std::string out, gguf_type;
  bool unsafe = false;
};

int run(const MergeArguments& a) {
  namespace fs = std::filesystem;
  catch_signals();
  apply_shared(a.shared);
  check<ConfigError>(!a.shared.adapters.empty(), "merge: give at least one --adapter");
  check<ConfigError>(!fs::exists(a.out) || (fs::is_directory(a.out) && fs::is_empty(a.out)), "--out: ", a.out, " exists: choose a new ", a.out.ends_with(".gguf") ? "file" : "folder");
  MergeOptions options;
  options.safe = !a.unsafe;
  if (!a.shared.dtype.empty()) options.dtype = parse_dtype(a.shared.dtype);
  if (!a.gguf_type.empty()) options.gguf_type = parse_gguf_type(a.gguf_type);
  options.stop = [] { return stop_requested().load(); };
  WorkLine line("merging", a.shared.quiet);
  options.progress = [&](const MergeProgress& p) {
    line.update(p.done, p.total, p.total_bytes > 0 ? static_cast<double>(p.bytes) / static_cast<double>(p.total_bytes) : 1.0, p.tensor);
  };
  std::vector<std::string> folders, names;
  for (std::size_t i = 0; i < a.shared.adapters.size(); ++i) {
    const auto [folder, name] = parse_adapter(a.shared.adapters[i], i);
    folders.push_back(folder);
    names.push_back(name);
  }
  MergeReport report;
  try {
    report = merge_model_files(a.shared.model, folders, a.out, options);
  } catch (const StateError&) {
    if (!stop_requested()) throw;
    line.finish();
    std::cerr << "cambium: stopped by a signal: nothing was written to " << a.out << std::endl;
    return signal_exit_code();
  }
  const double seconds = line.seconds();
  line.finish();
  std::cout << "tensors written  " << report.tensors << "\n  of them merged " << report.merged << "\nsize             " << std::fixed << std::setprecision(1) << static_cast<double>(report.bytes) / 1e6
            << " MB in " << report.files.size() << (report.files.size() == 1 ? " file" : " files") << "\ntime             " << std::setprecision(2) << seconds << " s" << std::endl;
  for (const std::string& note : report.notes) std::cout << "note: " << note << std::endl;
  say(a.shared, concat_text("merged ", names.size(), " adapter", names.size() == 1 ? "" : "s", " into ", a.out));
  answer(a.shared, Json{{"out", a.out}, {"adapters", names}, {"tensors", report.tensors}, {"merged", report.merged}, {"bytes", report.bytes}, {"files", report.files}, {"notes", report.notes}});
  return 0;
}
}  // namespace

Run add_merge(CLI::App& program) {
  auto a = std::make_shared<MergeArguments>();
  CLI::App& c = *program.add_subcommand("merge", "write the model with its adapters merged in, tensor by tensor");
  add_shared(c, a->shared);
  c.add_option("--config", "JSON file with any of these options; the command line wins")->type_name("FILE");
  c.add_option("--out", a->out, "new folder, in the model's shards, or, from a GGUF model, a new .gguf file")->required()->type_name("PATH");
  c.add_option("--gguf-type", a->gguf_type, "F32, F16, BF16 or Q8_0 for the matrices of a GGUF file; default: as stored, F16 where blocks were")->type_name("TYPE");
  c.add_flag("--unsafe", a->unsafe, "do not look for NaN and infinity in the merged weights");
  c.footer("Examples:\n  cambium merge --model models/llama --adapter runs/one/adapter --out merged\n  cambium merge --model model.Q4_1.gguf --adapter adapter --out merged.gguf --gguf-type F16");
  return [a] { return run(*a); };
}

}  // namespace cambium::cli
