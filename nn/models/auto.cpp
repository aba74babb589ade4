// from_pretrained and from_config: which loader and which family.
#include <filesystem>

#include "nn/init.h"
#include "nn/models/loading.h"

namespace cambium {

namespace {

/// "missing a, b, … (12 in all)", at most ten names.
void add_names(std::string& problems, std::string_view kind, const std::vector<std::string>& names) {
  if (names.empty()) return;
  problems += concat_text(": ", kind, " ");
  for (std::size_t i = 0; i < names.size() && i < 10; ++i) problems += (i ? ", " : "") + names[i];
  if (names.size() > 10) problems += concat_text(", … (", names.size(), " in all)");
}

void check_device(const LoadOptions& options) {
  check<DeviceError>(options.device == Device{}, "loading: models run on the cpu so far, found device ", options.device);
  check<DTypeError>(!options.dtype || is_float(*options.dtype), "loading: a model holds floating numbers, ", options.dtype.value_or(DType::f32), " is none");
}

}  // namespace

std::shared_ptr<PretrainedModel> load_model(const Json& config, const std::string& config_text, const std::string& config_where, TensorSource source,
                                            const LoadOptions& options) {
  NoGrad no_grad;
  check_device(options);
  const ConfigReader reader(config, config_where);
  const std::shared_ptr<PretrainedModel> model = family_of(reader).make(reader, config_text, DType::f32);

  // Every name that a tied parameter has leads to one slot; the first one is read, a second one in the file is a copy of it.
  std::vector<std::pair<std::string, ParameterSlot*>> places;
  model->visit([&](const std::string& path, Module& module) {
    for (Param* p : module.own_parameters())
      if (p->defined()) places.emplace_back(path + "." + p->name(), p->slot().get());
  });
  std::map<ParameterSlot*, bool> filled;
  for (const auto& [name, slot] : places) filled[slot] = filled[slot] || source.tensors.contains(name);
  std::vector<std::string> missing, unexpected;
  for (const auto& [name, slot] : model->named_parameters())
    if (!filled[slot.get()]) missing.push_back(name);
  std::map<std::string, std::function<Tensor()>> rest = source.tensors;
  for (const auto& [name, slot] : places) rest.erase(name);
  for (const auto& [name, read] : rest) unexpected.push_back(name);
  std::string problems;
  add_names(problems, "missing", missing);
  add_names(problems, "unexpected", unexpected);
  check<NameError>(problems.empty(), source.where, ": its tensors are not those of ", config_where, " (", model->type_name(), ")", problems);

  std::map<ParameterSlot*, bool> done;
  DType dtype = options.dtype.value_or(DType::f32);
  bool dtype_known = options.dtype.has_value();
  for (const auto& [name, slot] : places) {
    if (done[slot] || !source.tensors.contains(name)) continue;
    Tensor tensor = source.tensors.at(name)();
    check<ShapeError>(tensor.shape() == slot->tensor.shape(), source.where, ": '", name, "': expected ", slot->tensor.shape(), " by ", config_where, ", found ",
                      tensor.shape());
    check<DTypeError>(is_float(tensor.dtype()), source.where, ": '", name, "': expected floating numbers, found ", tensor.dtype());
    if (!dtype_known) dtype = tensor.dtype();  // the first one is the token embeddings
    dtype_known = true;
    slot->tensor = to_dtype(tensor, dtype);
    done[slot] = true;
  }
  return model;
}

std::shared_ptr<PretrainedModel> AutoModelForCausalLM::from_pretrained(const std::string& path, const LoadOptions& options) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  check<FileError>(std::filesystem::exists(status), path, ": there is no such model: expected a Hugging Face folder or a .gguf file");
  if (std::filesystem::is_directory(status)) return load_huggingface_folder(path, options);
  check<FileError>(path.ends_with(".gguf"), path, ": expected a Hugging Face folder or a .gguf file");
  return load_gguf(path, options);
}

std::shared_ptr<PretrainedModel> AutoModelForCausalLM::from_config(const std::string& config_json, RandomKey key, const LoadOptions& options) {
  check_device(options);
  const Json config = parse_json(config_json, "config");
  const ConfigReader reader(config, "config");
  const ModelFamily& family = family_of(reader);
  const DType dtype = options.dtype.value_or(DType::f32);
  std::shared_ptr<PretrainedModel> model = family.make(reader, config_json, dtype);
  family.initialize(*model, key, dtype);
  return model;
}

}  // namespace cambium
