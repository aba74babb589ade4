// Writing and reading adapter folders.
#include "peft/save_load.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>

#include "peft/initial_weights.h"
#include "peft/gguf_adapter.h"
#include "tensor/safetensors.h"

namespace cambium {

namespace {

/// Ours, beside PEFT's files: the encoder of a prompt method, whose adapter file holds only what it gave.
constexpr const char* kEncoderFile = "prompt_encoder.safetensors";

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
std::vector<std::string> spellings(const std::string& key, const std::string& adapter, const std::vector<std::string>& saved_modules) {
  std::vector<std::string> out = {key};
  constexpr std::string_view bias = ".base_layer.bias", magnitude = ".lora_magnitude_vector";
  if (key.ends_with(bias)) out.push_back(key.substr(0, key.size() - bias.size()) + ".bias");  // PEFT 0.4
  if (key.ends_with(magnitude)) out.push_back(key + ".weight");
  // An adapter's name left in: lora_A.default.weight, ia3_l.default. Trainers that save a state dict as it is do that.
  for (const std::string& name : {adapter, std::string("default")}) {
    const std::size_t dot = key.rfind('.');
    out.push_back(key.substr(0, dot) + "." + name + key.substr(dot));
    out.push_back(key + "." + name);
    if (key.ends_with(magnitude)) out.push_back(key + "." + name + ".weight");
    for (const std::string& module : saved_modules)
      if (key.starts_with(module + ".")) out.push_back(module + ".modules_to_save." + name + key.substr(module.size()));
  }
  return out;
}

/// A copy of `value` in the slot's dtype, trained as what was there.
void put(ParameterSlot& slot, const Tensor& value) {
  NoGrad no_grad;
  Tensor copy = clone(to_dtype(to_device(value, slot.tensor.device()), slot.tensor.dtype()));
  if (slot.tensor.requires_grad()) copy.set_requires_grad(true);
  slot.tensor = copy;
}

std::vector<NamedTensor> tensors_of(const SafetensorsFile& file) {
  std::vector<NamedTensor> out;
  for (const std::string& key : file.names()) out.emplace_back(key, file.tensor(key));
  return out;
}

/// An adapter whose encoder is to be trained on: its parameters from our file, heads from PEFT's, whose prompt must be what the encoder gives.
LoadReport set_encoder_state(Tuner& tuner, const std::string& adapter, const std::vector<NamedTensor>& encoder, const std::vector<NamedTensor>& tensors, bool strict) {
  const std::vector<NamedParameter> entries = tuner.encoder_state(adapter);
  check<NameError>(entries.size() == encoder.size(), "adapter '", adapter, "': ", kEncoderFile, ": expected ", entries.size(), " tensors, found ", encoder.size());
  for (const auto& [key, slot] : entries) {
    const auto found = std::find_if(encoder.begin(), encoder.end(), [&, name = &key](const NamedTensor& t) { return t.first == *name; });
    check<NameError>(found != encoder.end(), "adapter '", adapter, "': ", kEncoderFile, ": there is no '", key, "'");
    check<ShapeError>(found->second.shape() == slot->tensor.shape() && is_float(found->second.dtype()), "adapter '", adapter, "': ", kEncoderFile, ": '", key, "': expected floats ", slot->tensor.shape(),
                      ", found ", found->second.dtype(), " ", found->second.shape());
    put(*slot, found->second);
  }
  std::vector<NamedTensor> others;
  const std::vector<NamedParameter> state = tuner.adapter_state(adapter);
  const std::vector<NamedTensor> given = tuner.adapter_tensors(adapter);
  for (const auto& [key, tensor] : tensors) {
    const auto computed = std::find_if(given.begin(), given.end(), [&, name = &key](const NamedTensor& t) { return t.first == *name; });
    if (computed == given.end() || std::any_of(state.begin(), state.end(), [&, name = &key](const NamedParameter& p) { return p.first == *name; })) {
      others.emplace_back(key, tensor);
      continue;
    }
    check<ShapeError>(computed->second.shape() == tensor.shape(), "adapter '", adapter, "': '", key, "': expected ", computed->second.shape(), ", found ", tensor.shape());
    NoGrad no_grad;
    // Rounding differs from machine to machine; another encoder differs by far more.
    const double difference = max(abs(sub(computed->second, to_dtype(to_device(tensor, computed->second.device()), computed->second.dtype())))).item(), size = max(abs(computed->second)).item();
    check<StateError>(difference <= 1e-3 * std::max(size, 1.0), "adapter '", adapter, "': ", kEncoderFile, " gives another '", key, "' than the adapter's file holds: they do not belong together");
  }
  return set_adapter_state(tuner, adapter, others, strict);
}

}  // namespace

void write_adapter_folder(const PeftConfig& config, const std::vector<NamedTensor>& tensors, const std::string& folder) {
  const std::filesystem::path target(folder);
  check<FileError>(!std::filesystem::exists(target) || std::filesystem::is_directory(target), "save_pretrained: ", folder, " is a file, expected a folder");
  std::error_code error;
  std::filesystem::create_directories(target, error);
  check<FileError>(!error, "save_pretrained: cannot make folder ", folder, ": ", error.message());
  save_safetensors((target / "adapter_model.safetensors").string(), tensors);
  write_text(target / "adapter_config.json", to_json(config));
  const auto base = std::visit([](const auto& c) { return c.base_model_name_or_path; }, config);
  write_text(target / "README.md", model_card(base.value_or("unknown")));
}

void save_adapter(const Tuner& tuner, const std::string& adapter, const std::string& folder, const AdapterSaveOptions& options) {
  PeftConfig config = tuner.config(adapter);
  std::vector<NamedTensor> tensors = tuner.adapter_tensors(adapter);
  if (options.path_initial_model_for_weight_conversion) {
    auto* lora = std::get_if<LoraConfig>(&config);
    check<ConfigError>(lora != nullptr, "path_initial_model_for_weight_conversion: adapter '", adapter, "' is ", peft_type_of(config), ", not LORA");
    const SafetensorsFile initial((std::filesystem::path(*options.path_initial_model_for_weight_conversion) / "adapter_model.safetensors").string());
    std::vector<NamedTensor> before;
    for (const std::string& key : initial.names()) before.emplace_back(key, initial.tensor(key));
    tensors = detail::as_plain_lora(tensors, before, *lora);
  }
  write_adapter_folder(config, tensors, folder);
  const std::filesystem::path file = std::filesystem::path(folder) / kEncoderFile;
  std::vector<NamedTensor> encoder;
  for (const auto& [key, slot] : tuner.encoder_state(adapter)) encoder.emplace_back(key, contiguous(detach(slot->tensor)));
  std::error_code ignored;
  if (!encoder.empty()) save_safetensors(file.string(), encoder);
  else std::filesystem::remove(file, ignored);  // one of another adapter would be taken for this one's
}

LoadReport set_adapter_state(Tuner& tuner, const std::string& adapter, const std::vector<NamedTensor>& tensors, bool strict) {
  struct Entry { std::string key; std::shared_ptr<ParameterSlot> slot; const Tensor* found = nullptr; };
  std::vector<Entry> entries;
  std::map<std::string, std::size_t> places;
  const std::string prefix(tuner.key_prefix());
  const auto with_prefix = [&](const std::string& key) { return key.starts_with(prefix) ? key : prefix + key; };
  std::vector<std::string> saved_modules;
  for (const auto& [path, wrapper] : tuner.saved_modules()) saved_modules.push_back(prefix + path);
  for (auto& [key, slot] : tuner.adapter_state(adapter)) {
    places.emplace(with_prefix(key), entries.size());
    entries.push_back({key, slot});
  }
  // Names as they are come before other spellings: an adapter may be called like a module.
  for (std::size_t i = 0; i < entries.size(); ++i)
    for (const std::string& spelling : spellings(with_prefix(entries[i].key), adapter, saved_modules)) places.emplace(spelling, i);
  // The base weight that PEFT stores beside an adapted embedding or head may be in a file that our own rule would not have put it in.
  for (const auto& [path, layer] : tuner.adapter_layers()) {
    const std::string key = prefix + path + ".base_layer.weight";
    if (places.contains(key) || std::none_of(tensors.begin(), tensors.end(), [&, k = &key](const NamedTensor& t) { return t.first == *k; })) continue;
    places.emplace(key, entries.size());
    entries.push_back({key, layer->weight().slot()});
  }
  // PEFT also stores embeddings of the base whose vocabulary was changed.
  for (const std::string& path : {tuner.model->input_embedding_path(), tuner.model->output_embedding_path()}) {
    const std::string key = prefix + path + ".weight";
    if (path.empty() || places.contains(key) || std::none_of(tensors.begin(), tensors.end(), [&](const NamedTensor& t) { return t.first == key; })) continue;
    for (Param* p : tuner.model->child(path).module()->own_parameters())
      if (p->name() == "weight") {
        places.emplace(key, entries.size());
        entries.push_back({key, p->slot()});
      }
  }

  LoadReport report;
  for (const auto& [name, tensor] : tensors) {
    const auto place = places.find(with_prefix(name));
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
  // What the file holds under another of its names is there, and what the base keeps for itself may be left out.
  std::set<const ParameterSlot*> filled;
  for (const Entry& entry : entries)
    if (entry.found) filled.insert(entry.slot.get());
  for (const Entry& entry : entries)
    if (!entry.found && !filled.contains(entry.slot.get()) && entry.key.find(".original_module.") == std::string::npos) report.missing.push_back(entry.key);
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

  for (const auto& [path, layer] : tuner.adapter_layers())
    for (const Entry& entry : entries)
      check<StateError>(!entry.found || layer->merged_adapters().empty() || (entry.slot != layer->weight().slot() && !(layer->has_bias() && entry.slot == layer->bias().slot())), "adapter '",
                        adapter, "': the file holds '", entry.key, "' of the base, into which adapters are merged: unmerge them first");
  for (const Entry& entry : entries)
    if (entry.found && entry.found->shape() == entry.slot->tensor.shape() && is_float(entry.found->dtype())) put(*entry.slot, *entry.found);
  return report;
}

namespace {

/// Adds an adapter whose values `fill` brings. On any error the model is as it was.
template <class Fill>
LoadReport add_and_fill(Tuner& tuner, const std::string& name, PeftConfig& config, const AdapterLoadOptions& options, Fill&& fill) {
  const std::vector<std::string> active_before = tuner.active_adapters();
  struct Before { std::shared_ptr<ParameterSlot> slot; Tensor tensor; bool trained; };
  std::vector<Before> before;  // adapters that change the base (PiSSA) put another tensor into its slots
  for (const auto& [key, slot] : tuner.model->named_parameters()) before.push_back({slot, slot->tensor, slot->tensor.requires_grad()});
  AdapterOptions adapter = options.adapter;
  adapter.from_file = true;
  tuner.inject_adapter(name, config, adapter);
  try {
    return fill();
  } catch (...) {
    tuner.take_back(name, active_before);
    for (const Before& b : before) {
      b.slot->tensor = b.tensor;
      b.slot->tensor.set_requires_grad(b.trained);
    }
    throw;
  }
}

}  // namespace

LoadReport add_adapter_with_state(Tuner& tuner, const std::string& name, PeftConfig config, const std::vector<NamedTensor>& tensors, const AdapterLoadOptions& options) {
  return add_and_fill(tuner, name, config, options, [&] { return set_adapter_state(tuner, name, tensors, options.strict); });
}

LoadReport load_adapter(Tuner& tuner, const std::string& folder, const std::string& name, const AdapterLoadOptions& options) {
  if (folder.ends_with(".gguf")) {
    const LoraAdapter adapter = read_gguf_adapter(folder, tuner.model->config().json);
    PeftConfig from_file = adapter.config;
    std::get<LoraConfig>(from_file).inference_mode = !options.is_trainable;
    return add_adapter_with_state(tuner, name, std::move(from_file), file_tensors(adapter), options);
  }
  const std::filesystem::path source(folder);
  check<FileError>(std::filesystem::is_directory(source), "load_adapter: ", folder, " is no folder");
  const std::filesystem::path file = source / "adapter_model.safetensors";
  if (!std::filesystem::exists(file) && std::filesystem::exists(source / "adapter_model.bin"))
    fail<FileError>("load_adapter: ", (source / "adapter_model.bin").string(), " is a pickle, which is never read: convert it in Python: "
                    "import torch, safetensors.torch; t = torch.load('adapter_model.bin', weights_only=True); safetensors.torch.save_file(t, 'adapter_model.safetensors')");
  std::vector<std::string> notes;
  PeftConfig config = read_peft_config(folder, &notes);
  const std::vector<NamedTensor> tensors = tensors_of(SafetensorsFile(file.string()));
  const bool trains_encoder = options.is_trainable && tuner.is_prompt_learning();
  std::vector<NamedTensor> encoder;
  if (trains_encoder) {
    check<StateError>(std::filesystem::exists(source / kEncoderFile), "load_adapter: ", folder, ": a prompt's file holds only what its encoder gave, so training cannot go on from it: expected ",
                      kEncoderFile, " beside it, which save_pretrained writes: load it without is_trainable");
    encoder = tensors_of(SafetensorsFile((source / kEncoderFile).string()));
  }

  std::visit([&](auto& c) { c.inference_mode = !options.is_trainable; }, config);
  return add_and_fill(tuner, name, config, options, [&] {
    return trains_encoder ? set_encoder_state(tuner, name, encoder, tensors, options.strict) : set_adapter_state(tuner, name, tensors, options.strict);
  });
}

}  // namespace cambium
