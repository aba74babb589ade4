// Bookkeeping of named adapters, merging and unmerging.
#include "peft/adapter_layer.h"

#include <algorithm>

#include "nn/embedding.h"
#include "peft/chunked_loss.h"
#include "peft/mixed_batch.h"

namespace cambium {

bool AdapterLayer::supports(const Module& module) { return dynamic_cast<const LinearLike*>(&module) != nullptr || dynamic_cast<const Embedding*>(&module) != nullptr; }

AdapterLayer::AdapterLayer(std::shared_ptr<Layer> base) {
  linear_ = dynamic_cast<LinearLike*>(base.get());
  if (linear_ != nullptr) {
    weight_ = &linear_->weight();
  } else {
    auto* table = dynamic_cast<Embedding*>(base.get());
    check<ConfigError>(table != nullptr, "adapters: a ", base->type_name(), " cannot carry them: Linear, Conv1D and Embedding can");
    weight_ = &table->weight;
    padding_index_ = table->padding_index();
  }
  base_layer.set(std::move(base));
}

Param& AdapterLayer::bias() const {
  check<StateError>(linear_ != nullptr, path(), ": an embedding has no bias");
  return linear_->bias();
}

bool AdapterLayer::has_adapter(const std::string& name) const { return std::find(adapters_.begin(), adapters_.end(), name) != adapters_.end(); }

void AdapterLayer::register_adapter(const std::string& name) {
  check<StateError>(!has_adapter(name), path(), ": there is an adapter '", name, "' already");
  adapters_.push_back(name);
}

DType AdapterLayer::adapter_dtype(bool keep_dtype) const {
  const DType dtype = weight().get().dtype();
  return !keep_dtype && item_size(dtype) == 2 ? DType::f32 : dtype;
}

std::vector<std::string> AdapterLayer::selected(const ForwardContext& context) const {
  std::vector<std::string> out;
  if (!enabled_ && !context.override_adapters) return out;
  for (const std::string& name : context.override_adapters ? context.adapters : active_)
    if (has_adapter(name)) out.push_back(name);
  return out;
}

Tensor AdapterLayer::forward(const Tensor& x, const ForwardContext& context) const {
  if (!context.adapter_names.empty()) return forward_by_rows(*this, x, context, [this](const std::string& name) { return knows_adapter(name); });
  if (merged() && enabled_ && !context.override_adapters) return base_layer->forward(x, context);  // whatever is active, what is merged counts
  const std::vector<std::string> names = selected(context);
  if (names.empty()) return forward_unmerged(x, context);
  check<StateError>(!merged(), path(), ": adapters cannot be chosen for a call while some are merged: unmerge first");
  return forward_adapted(x, names, context);
}

Tensor AdapterLayer::forward_unmerged(const Tensor& x, const ForwardContext& context) const {
  if (!merged()) return base_layer->forward(x, context);
  if (is_embedding()) return embedding(x, unmerged_weight(), padding_index_);
  return weight_is_transposed() ? linear_transposed(x, unmerged_weight(), unmerged_bias()) : linear(x, unmerged_weight(), unmerged_bias());
}

bool AdapterLayer::knows_adapter(const std::string& name) const {
  if (has_adapter(name)) return true;
  const auto* inner = dynamic_cast<const AdapterLayer*>(base_layer.get().get());  // trained tokens around an adapted table
  return inner != nullptr && inner->knows_adapter(name);
}

Tensor AdapterLayer::forward_loss(const Tensor& hidden, const Tensor& targets, std::optional<double> count, const ForwardContext& context) const {
  if (!context.adapter_names.empty()) return Layer::forward_loss(hidden, targets, count, context);
  const bool merged_counts = merged() && enabled_ && !context.override_adapters;
  if (merged_counts || (!merged() && selected(context).empty())) return base_layer->forward_loss(hidden, targets, count, context);
  std::vector<Tensor> parameters;
  for (const auto& [name, slot] : named_parameters()) parameters.push_back(slot->tensor);
  return detail::chunked_cross_entropy(hidden, targets, count, out_features(), parameters, [&](const Tensor& rows, std::uint64_t chunk) {
    ForwardContext here = context;
    if (chunk > 0) here.key = here.key.fold(chunk);  // other rows, other dropout
    return forward(rows, here);
  });
}

Tensor AdapterLayer::get_delta_weight(const std::string&) const { fail<StateError>(path(), ": adapters of kind ", type_name(), " add nothing to the weight, they change it otherwise"); }

void AdapterLayer::merge(const std::vector<std::string>& names, bool safe) {
  NoGrad no_grad;
  // From the original, all merged adapters are put in one after the other in float32 and rounded once, however many calls it took to merge them.
  std::vector<std::string> all = merged_;
  for (const std::string& name : names)
    if (has_adapter(name) && std::find(all.begin(), all.end(), name) == all.end()) all.push_back(name);
  if (all.size() == merged_.size()) return;
  const Tensor old_weight = unmerged_weight(), old_bias = unmerged_bias();
  const Tensor wide_bias = old_bias.defined() ? to_dtype(old_bias, wide_dtype()) : Tensor();
  Tensor new_weight = to_dtype(old_weight, wide_dtype()), new_bias = wide_bias;
  const auto finite = [&] { return all_finite(new_weight) && (!new_bias.defined() || all_finite(new_bias)); };
  for (const std::string& name : all) {
    merge_into(name, new_weight, new_bias);
    if (safe) check<StateError>(finite(), path(), ": NaN or infinity after merging adapter '", name, "': it is broken, nothing was merged here");
  }
  const bool bias_changed = new_bias.defined() && !new_bias.same_body(wide_bias);
  new_weight = to_dtype(new_weight, old_weight.dtype());
  if (bias_changed) new_bias = to_dtype(new_bias, old_bias.dtype());
  if (safe) check<StateError>(finite(), path(), ": merging overflows ", old_weight.dtype(), ": nothing was merged here");
  weight().set(std::move(new_weight));
  original_weight_ = old_weight;
  if (bias_changed) {
    bias().set(std::move(new_bias));
    original_bias_ = old_bias;
  }
  merged_ = std::move(all);
}

void AdapterLayer::move_kept(Device device) {
  for (Tensor* kept : {&original_weight_, &original_bias_})
    if (kept->defined()) *kept = to_device(*kept, device);
}

void AdapterLayer::unmerge() {
  if (merged_.empty()) return;
  weight().set(std::move(original_weight_));
  original_weight_ = Tensor();
  if (original_bias_.defined()) bias().set(std::move(original_bias_));
  original_bias_ = Tensor();
  merged_.clear();
}

void AdapterLayer::delete_adapter(const std::string& name) {
  check<StateError>(std::find(merged_.begin(), merged_.end(), name) == merged_.end(), path(), ": adapter '", name, "' is merged: unmerge it before deleting it");
  std::erase(adapters_, name);
  std::erase(active_, name);
}

}  // namespace cambium
