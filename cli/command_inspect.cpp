// `cambium inspect`: what is in a model, adapter, GGUF or safetensors file, or run folder.
#include <filesystem>
#include <fstream>
#include <iostream>

#include "cli/command.h"

namespace cambium::cli {

namespace {
struct InspectArguments {
  SharedOptions shared;
  std::string path;
  bool check_values = false, spectrum = false;
};

struct Found {
  std::string name, type;
  Shape shape;
};

/// Prints the tensors and, if asked, counts the values that are not finite.
class TensorTable {
 public:
  explicit TensorTable(bool check) : check_(check) {}
  template <class Load>
  void row(const Found& found, Load load) {
    std::cout << "  " << found.name << "  " << found.type << ' ' << found.shape;
    ++tensors_;
    elements_ += found.shape.count();
    std::int64_t bad = 0;
    if (check_) {
      const Tensor tensor = load();
      if (is_float(tensor.dtype())) bad = count_not_finite(tensor);
      if (bad > 0) std::cout << "  " << bad << " values are NaN or infinite";
    }
    std::cout << '\n';
    if (bad > 0) bad_[found.name] = bad;
  }
  /// The closing line; 1 if a value was not finite.
  int finish(Json& json) const {
    std::cout << tensors_ << " tensors, " << elements_ << " elements";
    if (check_) std::cout << (bad_.empty() ? ", all finite" : concat_text(", ", bad_.size(), " tensors with NaN or infinity"));
    std::cout << std::endl;
    json["tensors"] = tensors_;
    json["elements"] = elements_;
    if (check_) json["not_finite"] = bad_;
    return bad_.empty() ? 0 : 1;
  }

 private:
  bool check_;
  std::int64_t tensors_ = 0, elements_ = 0;
  Json bad_ = Json::object();
};

Found found_in(const SafetensorsInfo& info) { return {info.name, std::string(info.type_name()), info.shape}; }

int safetensors(const std::string& path, const InspectArguments& a, Json& json) {
  const SafetensorsFile file(path);
  TensorTable table(a.check_values);
  for (const std::string& name : file.names()) table.row(found_in(file.info(name)), [&] { return file.tensor(name); });
  return table.finish(json);
}

/// Singular values of every module of a LoRA adapter, and the ranks that would do.
void print_spectrum(const LoraAdapter& adapter, Json& json) {
  std::cout << "module  rank  norm  largest  smallest  rank that keeps 90 / 99 % of the energy\n";
  Json modules = Json::array();
  for (const ModuleSpectrum& m : spectrum(adapter)) {
    const std::int64_t most = m.rank_keeping(0.9), nearly = m.rank_keeping(0.99);
    std::cout << "  " << m.path << "  " << m.rank << "  " << m.norm() << "  " << m.values.front() << "  " << m.values.back() << "  " << most << " / " << nearly << '\n';
    modules.push_back({{"module", m.path}, {"rank", m.rank}, {"norm", m.norm()}, {"values", m.values}, {"rank_90", most}, {"rank_99", nearly}});
  }
  json["spectrum"] = modules;
}

/// The factors of a GGUF adapter under its own names: the order of rows changes no singular value.
LoraAdapter factors_of(const GgufFile& file) {
  LoraAdapter out;
  out.where = file.path();
  const double alpha = file.value("adapter.lora.alpha").number();
  for (const GgufTensorInfo& info : file.tensors()) {
    const std::string name(info.name);
    if (!name.ends_with(".lora_a")) continue;
    const std::string base = name.substr(0, name.size() - 7);
    const bool table = base == "token_embd.weight";
    const Tensor a = file.tensor(name), b = file.tensor(base + ".lora_b");
    LoraAdapter::Part part{base, table, 0.0, table ? contiguous(transpose(a)) : a, b, {}, {}};
    part.scaling = alpha / static_cast<double>(part.a.size(0));
    out.parts.push_back(part);
  }
  return out;
}

int gguf(const InspectArguments& a, Json& json) {
  const GgufFile file(a.path);
  for (const std::string_view key : file.keys()) std::cout << "  " << key << " = " << file.value(key).text() << '\n';
  TensorTable table(a.check_values);
  for (const auto& info : file.tensors()) table.row({std::string(info.name), concat_text(info.type), info.shape}, [&] { return file.tensor(info.name); });
  const bool is_adapter = file.has("general.type") && file.value("general.type").string() == "adapter";
  if (is_adapter) json["kind"] = "gguf adapter";
  check<ConfigError>(is_adapter || !a.spectrum, "--spectrum: ", a.path, " is no adapter");
  if (a.spectrum) print_spectrum(factors_of(file), json);
  return table.finish(json);
}

int run(const InspectArguments& a) {
  namespace fs = std::filesystem;
  const fs::path path = a.path;
  check<FileError>(fs::exists(path), "inspect: there is no ", a.path);
  Json json{{"path", a.path}};
  int code = 0;
  check<ConfigError>(!a.spectrum || a.path.ends_with(".gguf") || fs::exists(path / "adapter_config.json"), "--spectrum: ", a.path, " is no adapter");
  if (!fs::is_directory(path)) {
    const bool is_gguf = a.path.ends_with(".gguf");
    check<ConfigError>(is_gguf || a.path.ends_with(".safetensors"), "inspect: ", a.path, ": expected a folder, a .gguf or a .safetensors file");
    json["kind"] = is_gguf ? "gguf" : "safetensors";
    std::cout << a.path << ": " << (is_gguf ? "GGUF file" : "safetensors file") << '\n';
    code = is_gguf ? gguf(a, json) : safetensors(a.path, a, json);
  } else if (fs::exists(path / "adapter_config.json")) {
    std::vector<std::string> warnings;
    const PeftConfig config = read_peft_config(a.path, &warnings);
    json["kind"] = "adapter";
    json["config"] = parse_json(to_json(config), "config");
    std::cout << a.path << ": adapter\n" << to_json(config) << '\n';
    for (const std::string& warning : warnings) std::cout << "warning: " << warning << '\n';
    if (a.spectrum) print_spectrum(read_lora_adapter(a.path), json);
    code = safetensors((path / "adapter_model.safetensors").string(), a, json);
  } else if (fs::exists(path / "run.json")) {
    const Json run = read_json_file((path / "run.json").string());
    json["kind"] = "run";
    json["run"] = run;
    std::cout << a.path << ": run\n" << run.dump(2) << '\n';
    std::ifstream metrics(path / "metrics.jsonl");
    std::string last;
    std::int64_t rows = 0;
    for (std::string line; std::getline(metrics, line);) {
      last = line;
      ++rows;
    }
    if (rows > 0) std::cout << rows << " rows of metrics, the last: " << last << std::endl;
    json["metrics"] = rows;
  } else if (fs::exists(path / "config.json")) {
    json["kind"] = "model";
    const Json config = read_json_file((path / "config.json").string());
    json["config"] = config;
    std::cout << a.path << ": model\n" << config.dump(2) << '\n';
    const ShardedSafetensors folder = open_safetensors_folder(a.path);
    TensorTable table(a.check_values);
    for (const std::string& name : folder.names()) table.row(found_in(folder.info(name)), [&] { return folder.tensor(name); });
    code = table.finish(json);
  } else {
    fail<ConfigError>("inspect: ", a.path, ": expected config.json, adapter_config.json or run.json in the folder");
  }
  answer(a.shared, json);
  return code;
}
}  // namespace

Run add_inspect(CLI::App& program) {
  auto a = std::make_shared<InspectArguments>();
  CLI::App& c = *program.add_subcommand("inspect", "what is in a model, adapter, GGUF, safetensors file or run folder");
  add_shared(c, a->shared, {.model = false, .adapter = false});
  c.add_option("path,--model", a->path, "file or folder")->required();
  c.add_flag("--check-values", a->check_values, "look for NaN and infinity; exit code 1 if there are some");
  c.add_flag("--spectrum", a->spectrum, "of a LoRA adapter: singular values of every module and the ranks that would do");
  return [a] { return run(*a); };
}

}  // namespace cambium::cli
