// Hugging Face folders: config.json with model.safetensors or shards, read and written.
#include <algorithm>
#include <filesystem>

#include "nn/models/loading.h"
#include "tensor/atomic_file.h"
#include "tensor/safetensors.h"

namespace cambium {

namespace {

std::string read_config_text(const std::string& path) {
  const std::shared_ptr<const MappedFile> file = MappedFile::open(path);
  return {reinterpret_cast<const char*>(file->data()), file->size()};
}

std::string_view dtype_text(DType dtype) { return name_of(dtype); }

}  // namespace

std::shared_ptr<PretrainedModel> load_huggingface_folder(const std::string& folder, std::optional<Task> task, const LoadOptions& options) {
  const std::string config_path = (std::filesystem::path(folder) / "config.json").string();
  check<FileError>(std::filesystem::exists(config_path), folder, ": there is no config.json: expected a Hugging Face model folder");
  const std::string text = read_config_text(config_path);
  Json config = parse_json(text, config_path);
  TensorSource source;
  source.where = folder;
  if (!options.meta) {
    auto files = std::make_shared<ShardedSafetensors>(open_safetensors_folder(folder));
    for (const std::string& name : files->names()) source.tensors.emplace(name, [files, name] { return files->tensor(name); });
  }
  check<ConfigError>(config.is_object(), config_path, ": expected an object");
  config["_name_or_path"] = folder;  // as transformers has it: where the model came from, not where it once was saved
  return load_model(std::move(config), text, config_path, source, task, options);
}

void save_pretrained(const PretrainedModel& model, const std::string& folder, std::int64_t max_shard_bytes) {
  check<ConfigError>(max_shard_bytes > 0, "save_pretrained: a shard needs a positive size, found ", max_shard_bytes);
  const std::vector<NamedTensor> state = model.state_dict();
  check<StateError>(!state.empty(), "save_pretrained: the model has no parameters");
  for (const auto& [name, tensor] : state) {
    check<StateError>(!tensor.is_meta(), "save_pretrained: '", name, "' has no values yet");
    check<StateError>(name.find("lora_") == std::string::npos && name.find("base_layer") == std::string::npos, "save_pretrained: '", name,
                      "' belongs to an adapter: merge_and_unload() first, or save the adapter");
  }
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  check<FileError>(!error, folder, ": cannot be created: ", error.message());
  const auto inside = [&](const std::string& name) { return (std::filesystem::path(folder) / name).string(); };

  Json config = parse_json(model.config().json, "config");
  const ConfigReader reader(config, "config");
  const ModelClass& saved = class_of(family_of(reader), model.task(), reader);
  config["architectures"] = Json::array({std::string(saved.architecture)});
  const char* dtype_key = config.contains("torch_dtype") ? "torch_dtype" : "dtype";
  config[dtype_key] = std::string(dtype_text(state.front().second.dtype()));

  // Filled in the order of the state dict, as transformers does: a tensor that would make a shard too large begins the next one.
  std::vector<std::vector<NamedTensor>> shards(1);
  std::int64_t filled = 0, total = 0;
  for (const NamedTensor& entry : state) {
    const std::int64_t bytes = entry.second.count() * item_size(entry.second.dtype());
    if (!shards.back().empty() && filled + bytes > max_shard_bytes) {
      shards.emplace_back();
      filled = 0;
    }
    shards.back().push_back(entry);
    filled += bytes;
    total += bytes;
  }
  const std::string index_path = inside("model.safetensors.index.json");
  if (shards.size() == 1) {
    save_safetensors(inside("model.safetensors"), state);
    std::filesystem::remove(index_path, error);  // of an earlier, larger model: it would win over the new file or contradict it
  } else {
    Json map = Json::object();
    std::vector<std::pair<std::string, std::string>> places;
    for (std::size_t i = 0; i < shards.size(); ++i) {
      std::string number = std::to_string(i + 1), count = std::to_string(shards.size());
      const std::string name = "model-" + std::string(5 - std::min<std::size_t>(5, number.size()), '0') + number + "-of-" +
                               std::string(5 - std::min<std::size_t>(5, count.size()), '0') + count + ".safetensors";
      save_safetensors(inside(name), shards[i]);
      for (const NamedTensor& entry : shards[i]) places.emplace_back(entry.first, name);
    }
    std::sort(places.begin(), places.end());
    for (const auto& [tensor, file] : places) map[tensor] = file;
    Json metadata = Json::object();
    metadata["total_size"] = total;
    Json index = Json::object();
    index["metadata"] = metadata;
    index["weight_map"] = map;
    write_file(index_path, index.dump(2) + "\n");
    std::filesystem::remove(inside("model.safetensors"), error);
  }
  write_file(inside("config.json"), config.dump(2) + "\n");
}

}  // namespace cambium
