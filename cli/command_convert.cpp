// `cambium convert`: an adapter from PEFT's folder to GGUF and back.
#include <filesystem>
#include <iostream>

#include "cli/command.h"
#include "peft/gguf_adapter.h"

namespace cambium::cli {

namespace {
struct ConvertArguments {
  SharedOptions shared;
  std::string adapter, model, out, type = "F32";
};

int run(const ConvertArguments& a) {
  namespace fs = std::filesystem;
  apply_shared(a.shared);
  const bool from_gguf = a.adapter.ends_with(".gguf"), to_gguf = a.out.ends_with(".gguf");
  check<ConfigError>(from_gguf != to_gguf, "convert: ", a.adapter, " to ", a.out, ": one of the two has to be a .gguf file, the other a PEFT folder");
  check<ConfigError>(!fs::exists(a.out) || (!to_gguf && fs::is_directory(a.out) && fs::is_empty(a.out)), "--out: ", a.out, " exists: choose a new ", to_gguf ? "file" : "folder");
  const std::string base = read_base_config(a.model);
  std::vector<std::string> warnings;
  LoraAdapter adapter = from_gguf ? read_gguf_adapter(a.adapter, base) : read_lora_adapter(a.adapter, &warnings);
  for (const std::string& warning : warnings) say(a.shared, "warning: " + warning);
  if (from_gguf) {
    adapter.config.base_model_name_or_path = a.model;
    write_lora_adapter(adapter, a.out);
  } else {
    write_gguf_adapter(adapter, base, a.out, parse_gguf_type(a.type));
  }
  std::int64_t parameters = 0;
  for (const LoraAdapter::Part& part : adapter.parts) parameters += part.a.count() + part.b.count();
  std::cout << adapter.parts.size() << " modules, rank " << adapter.config.r << ", " << parameters << " parameters: " << a.adapter << " -> " << a.out << std::endl;
  answer(a.shared, Json{{"out", a.out}, {"modules", adapter.parts.size()}, {"rank", adapter.config.r}, {"parameters", parameters}});
  return 0;
}
}  // namespace

Run add_convert(CLI::App& program) {
  auto a = std::make_shared<ConvertArguments>();
  CLI::App& c = *program.add_subcommand("convert", "LoRA adapter: PEFT folder to GGUF file and back");
  add_shared(c, a->shared, {.model = false, .adapter = false});
  c.add_option("--config", "JSON file with any of these options; the command line wins")->type_name("FILE");
  c.add_option("--adapter", a->adapter, "PEFT folder or .gguf file")->required()->type_name("PATH");
  c.add_option("--model", a->model, "the base model, for its names and the order of its rows: folder, config.json or .gguf")->required()->type_name("PATH");
  c.add_option("--out", a->out, "new .gguf file or folder")->required()->type_name("PATH");
  c.add_option("--gguf-type", a->type, "F32, F16, BF16 or Q8_0")->capture_default_str()->type_name("TYPE");
  c.footer("Examples:\n  cambium convert --adapter runs/one/adapter --model SmolLM2-135M-Instruct.Q4_1.gguf --out adapter.gguf\n"
           "  cambium convert --adapter adapter.gguf --model models/smollm2 --out adapter");
  return [a] { return run(*a); };
}

}  // namespace cambium::cli
