// `cambium merge`: a model with its adapters merged, as a Hugging Face folder.
#include <filesystem>
#include <iostream>

#include "cli/command.h"

namespace cambium::cli {

namespace {
struct MergeArguments {
  SharedOptions shared;
  std::string out;
  bool unsafe = false;
};

int run(const MergeArguments& a) {
  namespace fs = std::filesystem;
  check<ConfigError>(!a.shared.adapters.empty(), "merge: give at least one --adapter");
  check<ConfigError>(!a.out.ends_with(".gguf"), "--out: writing GGUF is not in this version: give a folder");
  check<ConfigError>(!fs::exists(a.out) || (fs::is_directory(a.out) && fs::is_empty(a.out)), "--out: ", a.out, " exists: choose a new folder");
  LoadedModel model = load_model(a.shared);
  const std::vector<std::string> names = model.peft->adapters();
  model.peft->merge_and_unload(!a.unsafe, names);
  // Written beside its name and renamed at the end: an interrupt leaves no half model.
  const fs::path partial = a.out + ".partial";
  fs::remove_all(partial);
  try {
    save_pretrained(*model.base, partial.string());
    for (const char* file : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "generation_config.json", "chat_template.jinja"})
      if (fs::exists(fs::path(a.shared.model) / file)) fs::copy_file(fs::path(a.shared.model) / file, partial / file, fs::copy_options::overwrite_existing);
    if (fs::exists(a.out)) fs::remove(a.out);
    fs::rename(partial, a.out);
  } catch (...) {
    std::error_code ignored;
    fs::remove_all(partial, ignored);
    throw;
  }
  say(a.shared, concat_text("merged ", names.size(), " adapter", names.size() == 1 ? "" : "s", " into ", a.out));
  answer(a.shared, Json{{"out", a.out}, {"adapters", names}});
  return 0;
}
}  // namespace

Run add_merge(CLI::App& program) {
  auto a = std::make_shared<MergeArguments>();
  CLI::App& c = *program.add_subcommand("merge", "write the model with its adapters merged in");
  add_shared(c, a->shared);
  c.add_option("--config", "JSON file with any of these options; the command line wins")->type_name("FILE");
  c.add_option("--out", a->out, "new folder for config.json and model.safetensors")->required()->type_name("DIR");
  c.add_flag("--unsafe", a->unsafe, "do not look for NaN and infinity in the merged weights");
  return [a] { return run(*a); };
}

}  // namespace cambium::cli
