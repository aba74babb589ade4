// Making models: from files and from configurations, for any task.
#include <algorithm>
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

void check_options(const LoadOptions& options) {
  check<DTypeError>(!options.dtype || is_float(*options.dtype), "loading: a model holds floating numbers, ", options.dtype.value_or(DType::f32), " is none");
  const auto named = static_cast<std::int64_t>(options.label_names.size());
  check<ConfigError>(!options.num_labels || (*options.num_labels > 0 && (named == 0 || named == *options.num_labels)), "loading: num_labels is ", options.num_labels.value_or(0),
                     ", label_names names ", named);
}

/// The configuration with the labels of the options instead of its own. True when that changed it.
bool override_labels(Json& config, const LoadOptions& options) {
  if (!options.problem_type.empty()) config["problem_type"] = options.problem_type;
  if (!options.num_labels && options.label_names.empty()) return !options.problem_type.empty();
  std::vector<std::string> names = options.label_names;
  if (names.empty())
    for (std::int64_t i = 0; i < *options.num_labels; ++i) names.push_back("LABEL_" + std::to_string(i));
  Json by_number = Json::object(), by_name = Json::object();
  for (std::size_t i = 0; i < names.size(); ++i) {
    by_number[std::to_string(i)] = names[i];
    check<ConfigError>(!by_name.contains(names[i]), "loading: two labels are called '", names[i], "'");
    by_name[names[i]] = i;
  }
  config.erase("num_labels");
  config["id2label"] = by_number;
  config["label2id"] = by_name;
  return true;
}

struct Made {
  const ModelFamily& family;
  const ModelClass& chosen;
  std::shared_ptr<PretrainedModel> model;
};

/// The model with meta parameters, and the rows it was made by. `source`: the files, if there are any.
Made make_model(Json config, const std::string& text, const std::string& where, std::optional<Task> task, const LoadOptions& options, const TensorSource* source, DType dtype) {
  check_options(options);
  check<ConfigError>(config.is_object(), where, ": expected an object");
  const std::string saved = override_labels(config, options) ? config.dump(2) : text;
  const ModelFamily& family = family_of(ConfigReader(config, where));
  if (family.adapt_config && source) family.adapt_config(config, *source);
  const ConfigReader reader(config, where);
  const ModelClass& chosen = class_of(family, task, reader);
  const bool labels = options.num_labels || !options.label_names.empty() || !options.problem_type.empty();
  check<ConfigError>(!labels || chosen.task == Task::sequence_classification || chosen.task == Task::token_classification, where, ": a model for ", name_of(chosen.task),
                     " has no classes: leave num_labels, label_names and problem_type away");
  return {family, chosen, family.make(chosen, reader, saved, dtype)};
}

/// Gives a value to the parameters of the head that the file lacks.
void initialize_head(const std::map<std::string, ParameterSlot*>& head, double deviation, DType dtype, RandomKey key) {
  for (const auto& [name, slot] : head) {
    const Shape shape = slot->tensor.shape();
    const bool weight = shape.rank() >= 2;
    check<StateError>(weight || name.ends_with(".bias"), "loading: no rule how '", name, "' starts");
    slot->tensor = weight ? random_normal(shape, key.fold(name), 0.0, deviation, dtype) : zeros(shape, dtype);
  }
}

}  // namespace

std::shared_ptr<PretrainedModel> load_model(Json config, const std::string& config_text, const std::string& config_where, const TensorSource& files,
                                            std::optional<Task> task, const LoadOptions& options) {
  NoGrad no_grad;
  const auto [family, chosen, model] = make_model(config, config_text, config_where, task, options, options.meta ? nullptr : &files,
                                                 options.meta ? options.dtype.value_or(DType::f32) : DType::f32);
  if (options.meta) return model;
  const TensorSource source = renamed(family, chosen, files);
  const auto is_new_head = [&, chosen = chosen](std::string_view name) {
    return (!chosen.new_head.empty() && name.starts_with(chosen.new_head)) || (!chosen.new_head_too.empty() && name.starts_with(chosen.new_head_too));
  };

  // Every name that a tied parameter has leads to one slot; the first one is read, a second one in the file is a copy of it.
  std::vector<std::pair<std::string, ParameterSlot*>> places;
  model->visit([&](const std::string& path, Module& module) {
    for (Param* p : module.own_parameters())
      if (p->defined()) places.emplace_back(path + "." + p->name(), p->slot().get());
  });
  std::map<ParameterSlot*, bool> filled;
  for (const auto& [name, slot] : places) filled[slot] = filled[slot] || source.tensors.contains(name);
  std::map<std::string, std::function<Tensor()>> rest = source.tensors;
  for (const auto& [name, slot] : places) rest.erase(name);
  std::vector<std::string> missing, unexpected;
  std::map<std::string, ParameterSlot*> head;
  for (const auto& [name, slot] : model->named_parameters()) {
    if (filled[slot.get()]) continue;
    // A head of which a part is there is a damaged one.
    const std::string module = name.substr(0, name.rfind('.') + 1);
    const auto sibling = source.tensors.lower_bound(module);
    const bool whole = sibling == source.tensors.end() || !sibling->first.starts_with(module);
    if (whole && is_new_head(name)) head.emplace(name, slot.get());
    else missing.push_back(name);
  }
  for (const auto& [name, read] : rest)
    if (!is_optional_part(family, chosen, name)) unexpected.push_back(name);
  std::string problems;
  add_names(problems, "missing", missing);
  add_names(problems, "unexpected", unexpected);
  check<NameError>(problems.empty(), source.where, ": its tensors are not those of ", config_where, " (", chosen.architecture, ")", problems);

  std::map<ParameterSlot*, bool> done;
  DType dtype = options.dtype.value_or(DType::f32);
  bool dtype_known = options.dtype.has_value();
  for (const auto& [name, slot] : places) {
    if (done[slot] || !source.tensors.contains(name)) continue;
    done[slot] = true;
    Tensor tensor = source.tensors.at(name)();
    check<DTypeError>(is_float(tensor.dtype()), source.where, ": '", name, "': expected floating numbers, found ", tensor.dtype());
    if (!dtype_known) dtype = tensor.dtype();  // the first one is the token embeddings
    dtype_known = true;
    if (tensor.shape() != slot->tensor.shape() && options.ignore_mismatched_sizes && is_new_head(name)) {
      head.emplace(name, slot);
      continue;
    }
    check<ShapeError>(tensor.shape() == slot->tensor.shape(), source.where, ": '", name, "': expected ", slot->tensor.shape(), " by ", config_where, ", found ",
                      tensor.shape());
    slot->tensor = to_device(to_dtype(tensor, dtype), options.device);
  }
  check<DTypeError>(dtype != DType::f16 || family.no_float16.empty(), source.where, ": ", family.no_float16);
  initialize_head(head, ConfigReader(config, config_where).number("initializer_range", 0.02), dtype, options.head_key);
  std::vector<std::string> names;
  for (const auto& [name, slot] : head) names.push_back(name);
  model->set_newly_initialized(std::move(names));
  model->to(options.device);
  return model;
}

std::shared_ptr<PretrainedModel> load_pretrained(const std::string& path, std::optional<Task> task, const LoadOptions& options) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path, error);
  check<FileError>(std::filesystem::exists(status), path, ": there is no such model: expected a Hugging Face folder or a .gguf file");
  if (std::filesystem::is_directory(status)) return load_huggingface_folder(path, task, options);
  check<FileError>(path.ends_with(".gguf"), path, ": expected a Hugging Face folder or a .gguf file");
  return load_gguf(path, task, options);
}

std::shared_ptr<PretrainedModel> model_from_config(const std::string& config_json, std::optional<Task> task, RandomKey key, const LoadOptions& options) {
  const DType dtype = options.dtype.value_or(DType::f32);
  const Made made = make_model(parse_json(config_json, "config"), config_json, "config", task, options, nullptr, dtype);
  check<DTypeError>(dtype != DType::f16 || made.family.no_float16.empty(), "config: ", made.family.no_float16);
  if (options.meta) made.model->set_requires_grad(true);
  else made.family.initialize(*made.model, key, dtype);
  made.model->to(options.device);
  return made.model;
}

}  // namespace cambium
