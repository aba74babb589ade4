// Writing and reading adapter folders.
#include "peft/save_load.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "tensor/safetensors.h"

namespace cambium {

namespace {

constexpr std::string_view kPrefix = "base_model.model.";

void write_text(const std::filesystem::path& path, const std::string& text) {
  const std::filesystem::path temporary = path.string() + ".tmp";
  std::ofstream out(temporary, std::ios::binary);
  out << text;
  out.close();
  if (!out) {
    std::error_code ignored;
    std::filesystem::remove(temporary, ignored);
    fail<FileError>("save: cannot write ", path.string());
  }
  std::filesystem::rename(temporary, path);
}

std::string model_card(const std::string& base) {
  return "---\nbase_model: " + base + "\nlibrary_name: peft\ntags:\n- cambium\n---\n\n# Adapter for " + base +
         "\n\nTrained with Cambium. It loads in Hugging Face PEFT (`PeftModel.from_pretrained(base, folder)`) and in `cambium generate --adapter folder`.\n";
}

/// All ways in which a file may spell the key of a slot; the first is the one that is written.
std::vector<std::string> spellings(const std::string& key, const std::string& adapter) {
  std::vector<std::string> out = {key};
  const std::size_t dot = key.rfind('.');
  // An adapter's name left in: lora_A.default.weight. Trainers that save a state dict as it is do that.
  for (const std::string& name : {adapter, std::string("default")}) out.push_back(key.substr(0, dot) + "." + name + key.substr(dot));
  if (key.ends_with(".base_layer.bias")) out.push_back(key.substr(0, key.size() - std::string_view(".base_layer.bias").size()) + ".bias");
  return out;
}

}  // namespace

void save_adapter(const Tuner& tuner, const std::string& adapter, const std::string& folder) {
  const PeftConfig& config = tuner.config(adapter);
  const std::filesystem::path target(folder);
  check<FileError>(!std::filesystem::exists(target) || std::filesystem::is_directory(target), "save_pretrained: ", folder, " is a file, expected a folder");
  std::error_code error;
  std::filesystem::create_directories(target, error);
  check<FileError>(!error, "save_pretrained: cannot make folder ", folder, ": ", error.message());
  std::vector<NamedTensor> tensors;
  for (const auto& [key, slot] : tuner.adapter_state(adapter)) tensors.emplace_back(std::string(kPrefix) + key, contiguous(detach(slot->tensor)));
  save_safetensors((target / "adapter_model.safetensors").string(), tensors);
  write_text(target / "adapter_config.json", to_json(config));
  const auto base = std::visit([](const auto& c) { return c.base_model_name_or_path; }, config);
  write_text(target / "README.md", model_card(base.value_or("unknown")));
}

LoadReport set_adapter_state(Tuner& tuner, const std::string& adapter, const std::vector<NamedTensor>& tensors, bool strict) {
  struct Entry { std::string key; std::shared_ptr<ParameterSlot> slot; const Tensor* found = nullptr; };
  std::vector<Entry> entries;
  std::map<std::string, std::size_t> places;
  for (auto& [key, slot] : tuner.adapter_state(adapter)) {
    for (const std::string& spelling : spellings(key, adapter)) places.emplace(spelling, entries.size());
    entries.push_back({key, slot});
  }
  // The base weight that PEFT stores beside an adapted embedding or head may be in a file that our own rule would not have put it in.
  for (const auto& [path, layer] : tuner.adapter_layers()) {
    const std::string key = path + ".base_layer.weight";
    if (places.contains(key) || std::none_of(tensors.begin(), tensors.end(), [&, k = &key](const NamedTensor& t) { return t.first == std::string(kPrefix) + *k; })) continue;
    places.emplace(key, entries.size());
    entries.push_back({key, layer->weight().slot()});
  }

  LoadReport report;
  for (const auto& [name, tensor] : tensors) {
    const std::string key = name.starts_with(kPrefix) ? name.substr(kPrefix.size()) : name;
    const auto place = places.find(key);
    if (place == places.end() || entries[place->second].found) {
      report.unexpected.push_back(name);
      continue;
    }
    Entry& entry = entries[place->second];
    if (!(entry.slot->tensor.shape() == tensor.shape())) {
      report.mismatched.push_back(concat_text(name, " (expected ", entry.slot->tensor.shape(), ", found ", tensor.shape(), ")"));
      entry.found = &tensor;
    } else if (!is_float(tensor.dtype())) {
      report.mismatched.push_back(concat_text(name, " (expected ", entry.slot->tensor.dtype(), ", found ", tensor.dtype(), ")"));
      entry.found = &tensor;
    } else {
      entry.found = &tensor;
    }
  }
  for (const Entry& entry : entries)
    if (!entry.found) report.missing.push_back(std::string(kPrefix) + entry.key);
  if (strict && !report.complete()) {
    std::string text;
    const auto part = [&](const char* what, const std::vector<std::string>& names) {
      if (names.empty()) return;
      text += concat_text(": ", names.size(), " ", what, " (");
      for (std::size_t i = 0; i < names.size() && i < 10; ++i) text += (i ? ", " : "") + names[i];
      text += names.size() > 10 ? ", …)" : ")";
    };
    part("missing", report.missing);
    part("unexpected", report.unexpected);
    part("of another shape", report.mismatched);
    fail<NameError>("adapter '", adapter, "'", text);
  }

  NoGrad no_grad;
  for (const Entry& entry : entries) {
    if (!entry.found || !(entry.found->shape() == entry.slot->tensor.shape()) || !is_float(entry.found->dtype())) continue;
    const Tensor& now = entry.slot->tensor;
    Tensor value = clone(to_dtype(*entry.found, now.dtype()));
    if (now.requires_grad()) value.set_requires_grad(true);
    entry.slot->tensor = value;
  }
  return report;
}

LoadReport load_adapter(Tuner& tuner, const std::string& folder, const std::string& name, const AdapterLoadOptions& options) {
  const std::filesystem::path source(folder);
  check<FileError>(std::filesystem::is_directory(source), "load_adapter: ", folder, " is no folder");
  const std::filesystem::path file = source / "adapter_model.safetensors";
  if (!std::filesystem::exists(file) && std::filesystem::exists(source / "adapter_model.bin"))
    fail<FileError>("load_adapter: ", (source / "adapter_model.bin").string(), " is a pickle, which is never read: convert it in Python: "
                    "import torch, safetensors.torch; t = torch.load('adapter_model.bin', weights_only=True); safetensors.torch.save_file(t, 'adapter_model.safetensors')");
  std::vector<std::string> notes;
  PeftConfig config = read_peft_config(folder, &notes);
  const SafetensorsFile tensors_file(file.string());
  std::vector<NamedTensor> tensors;
  for (const std::string& key : tensors_file.names()) tensors.emplace_back(key, tensors_file.tensor(key));

  std::visit([&](auto& c) { c.inference_mode = !options.is_trainable; }, config);
  const std::vector<std::string> active_before = tuner.active_adapters();
  std::vector<std::pair<std::shared_ptr<ParameterSlot>, bool>> trained_before;
  for (const auto& [key, slot] : tuner.model->named_parameters()) trained_before.emplace_back(slot, slot->tensor.requires_grad());
  tuner.inject_adapter(name, config, options.adapter);
  try {
    return set_adapter_state(tuner, name, tensors, options.strict);
  } catch (...) {
    tuner.take_back(name, active_before);
    for (const auto& [slot, trained] : trained_before) slot->tensor.set_requires_grad(trained);
    throw;
  }
}

}  // namespace cambium
