// Adapters' tensors and the tensors of the model that they change.
#include "peft/merge_plan.h"

#include <filesystem>

#include "autograd/ops.h"
#include "peft/file_keys.h"
#include "peft/gguf_adapter.h"
#include "tensor/safetensors.h"

namespace cambium {

namespace {


/// Values per row of the stored matrix, in its order.
Tensor in_row_order(const Tensor& values, const StoredMatrix& matrix) { return matrix.head_dim > 0 ? pairs_from_halves(values, matrix.head_dim) : values; }

/// Biases that were trained in place keep the base's dtype, unlike those of a module's copy.
bool is_trained_bias(const std::string& path, const std::string& member, const Json& config) {
  if (member != "bias" || config.value("bias", std::string("none")) == "none") return false;
  const Json copies = config.value("modules_to_save", Json());
  if (copies.is_array())
    for (const Json& entry : copies)
      if (("." + path + ".").find("." + entry.get<std::string>() + ".") != std::string::npos) return false;
  return true;
}

}  // namespace

void MergePlan::change(std::size_t item, Change change) {
  check<DTypeError>(source_.items()[item].dtype == DType::f32 || item_size(source_.items()[item].dtype) == 2, source_.where(), ": '", source_.items()[item].name, "' is ", source_.items()[item].dtype,
                    ": files are merged in float32: load the model and use merge_and_unload()");
  edits_[item].push_back(std::move(change));
}

std::size_t MergePlan::weight_of(const std::string& path, const std::string& where) const {
  const auto item = source_.find(path, "weight");
  check<NameError>(item.has_value(), where, ": it adapts '", path, "', of which ", source_.where(), " has no weight: it belongs to another base model");
  return *item;
}

TensorEdit MergePlan::edit(std::size_t item) const {
  TensorEdit out;
  for (const Change& change : edits_.at(item)) change(out);
  out.check_shape(source_.items()[item].shape, source_.items()[item].name);
  return out;
}

void MergePlan::add_adapter(const std::string& path) {
  if (path.ends_with(".gguf")) {
    const LoraAdapter adapter = read_gguf_adapter(path, source_.config().dump());
    return add_lora(adapter, Json::object());
  }
  const Json config = read_json_file(path + "/adapter_config.json");
  const std::string method = config.value("peft_type", std::string());
  if (method == "LORA") return add_lora(read_lora_adapter(path), config);
  if (method == "IA3") return add_ia3(path);
  fail<ConfigError>(path, ": adapters of method ", method.empty() ? "unknown" : method, " change no weights: only LORA and IA3 can be merged");
}

void MergePlan::add_lora(const LoraAdapter& adapter, const Json& config) {
  // First what replaces base tensors: deltas come on top.
  for (const auto& [key, tensor] : adapter.others) add_other(key, tensor, config, adapter.where);
  for (const LoraAdapter::Part& part : adapter.parts) {
    const std::size_t item = weight_of(part.path, adapter.where);
    const StoredMatrix matrix = source_.matrix(item);
    const bool turned = part.embedding || matrix.transposed;
    check<ShapeError>(source_.items()[item].shape == (turned ? Shape{part.a.size(1), part.b.size(0)} : Shape{part.b.size(0), part.a.size(1)}), adapter.where, ": '", part.path, "': ",
                      source_.items()[item].name, " is ", source_.items()[item].shape, ", the adapter is made for ", Shape{part.b.size(0), part.a.size(1)}, ": it belongs to another base model");
    change(item, [part, matrix, turned](TensorEdit& edit) {
      const Tensor b = turned ? part.b : in_row_order(part.b, matrix);
      if (!part.magnitude.defined()) edit.add_delta(b, part.a, part.scaling, turned);
      else edit.add_dora(b, part.a, part.scaling, turned, turned ? part.magnitude : in_row_order(reshape(part.magnitude, {part.magnitude.count()}), matrix));
    });
    if (!part.bias.defined()) continue;
    const auto bias = source_.find(part.path, "bias");
    check<ConfigError>(bias.has_value(), adapter.where, ": '", part.path, "' has a lora_bias and the base layer no bias to add it to: it cannot be merged");
    change(*bias, [part, matrix](TensorEdit& edit) { edit.add_vector(in_row_order(part.bias, matrix), part.scaling); });
  }
}

void MergePlan::add_ia3(const std::string& folder) {
  const SafetensorsFile file((std::filesystem::path(folder) / "adapter_model.safetensors").string());
  const Json config = read_json_file(folder + "/adapter_config.json");
  std::vector<std::string> names = file.names();
  for (const std::string& name : names) {
    const std::string key = without_prefix(name);
    const std::size_t marker = key.rfind(".ia3_l");
    const Tensor l = file.tensor(name);
    if (marker == std::string::npos) {
      add_other(key, l, config, folder);
      continue;
    }
    const std::string path = key.substr(0, marker);
    check<ShapeError>(l.rank() == 2 && (l.size(0) == 1 || l.size(1) == 1), folder, ": '", name, "': expected (out, 1) or (1, in), found ", l.shape());
    const std::size_t item = weight_of(path, folder);
    const StoredMatrix matrix = source_.matrix(item);
    const Shape& shape = source_.items()[item].shape;
    check<ShapeError>(shape.rank() == 2, folder, ": '", path, "': ", source_.items()[item].name, " is ", shape, ": expected a matrix");
    const std::int64_t in = matrix.transposed ? shape[0] : shape[1], out = matrix.transposed ? shape[1] : shape[0];
    // (1, in) scales the input, (out, 1) the output; a vector of one entry says which side it is for by the size of that side.
    const bool on_input = l.size(0) == 1 && (l.size(1) != 1 || in == 1);
    check<ShapeError>(l.count() == (on_input ? in : out), folder, ": '", name, "' is ", l.shape(), " for a matrix of ", out, " x ", in, ": it belongs to another base model");
    change(item, [l, matrix, on_input](TensorEdit& edit) {
      if (on_input == matrix.transposed) edit.scale_rows(on_input ? l : in_row_order(reshape(l, {l.count()}), matrix));
      else edit.scale_columns(l);
    });
    if (on_input) continue;
    if (const auto bias = source_.find(path, "bias")) change(*bias, [l, matrix](TensorEdit& edit) { edit.scale_rows(in_row_order(reshape(l, {l.count()}), matrix)); });
  }
}

void MergePlan::add_other(const std::string& key, const Tensor& tensor, const Json& config, const std::string& where) {
  const std::size_t dot = key.rfind('.');
  check<NameError>(dot != std::string::npos, where, ": '", key, "' is no tensor of an adapter");
  if (const std::size_t marker = key.rfind(".token_adapter.trainable_tokens_delta"); marker != std::string::npos) {
    const std::string path = key.substr(0, marker);
    const Json indices = config.value("trainable_token_indices", Json());
    Json list = indices;
    if (indices.is_object())
      for (const auto& [module, rows] : indices.items())
        if (path == module || path.ends_with("." + module)) list = rows;
    check<ConfigError>(list.is_array(), where, ": '", key, "': trainable_token_indices does not say which rows these are");
    const auto rows = list.get<std::vector<std::int64_t>>();
    change(weight_of(path, where), [rows, tensor](TensorEdit& edit) { edit.replace_rows(rows, tensor); });
    return;
  }
  std::string path = key.substr(0, dot), member = key.substr(dot + 1);
  const bool of_base = path.ends_with(".base_layer");
  if (of_base) path = path.substr(0, path.size() - std::string_view(".base_layer").size());
  // The copy of a tied head is a tensor of its own from now on: found under its own name only.
  const std::string name = source_.name_for(path, member);
  std::optional<std::size_t> item = source_.find(path, member);
  if (item && source_.items()[*item].name != name && !of_base) item.reset();
  if (!item) {
    for (const Added& other : added_) check<ConfigError>(other.name != name, where, ": another adapter brings its own '", name, "' too: only one can be merged");
    const bool head = path == "lm_head" || path.ends_with(".lm_head");
    added_.push_back({name, tensor, head});
    return;
  }
  const StoredMatrix matrix = source_.matrix(*item);
  check<ConfigError>(!replaced_.contains(*item) || of_base, where, ": another adapter replaces '", name, "' too: only one can be merged");
  if (!of_base && !is_trained_bias(path, member, config)) replaced_[*item] = true;
  const Tensor stored = matrix.turned && tensor.rank() == 2 ? transpose(tensor) : tensor;
  check<ShapeError>(source_.items()[*item].shape == stored.shape(), where, ": '", key, "' is ", tensor.shape(), ", ", name, " is ", source_.items()[*item].shape, ": it belongs to another base model");
  change(*item, [stored, matrix](TensorEdit& edit) { edit.replace(in_row_order(stored, matrix)); });
}

}  // namespace cambium
