// Bookkeeping of named adapters, merging and unmerging.
#include "peft/adapter_layer.h"

#include <algorithm>

namespace cambium {

AdapterWeight* AdapterWeights::find(const std::string& adapter) const {
  for (const auto& slot : slots_)
    if (slot->name() == adapter) return slot->get().get();
  return nullptr;
}

void AdapterWeights::add(const std::string& adapter, Tensor value) {
  slots_.push_back(std::make_unique<Child<AdapterWeight>>(*this, adapter, std::make_shared<AdapterWeight>(std::move(value))));
}

void AdapterWeights::remove(const std::string& adapter) {
  std::erase_if(slots_, [&](const auto& slot) { return slot->name() == adapter; });
}

Param& AdapterWeights::at(const std::string& adapter) const {
  AdapterWeight* found = find(adapter);
  check<NameError>(found != nullptr, path(), ": no adapter '", adapter, "' here");
  return found->weight;
}

bool AdapterLayer::has_adapter(const std::string& name) const { return std::find(adapters_.begin(), adapters_.end(), name) != adapters_.end(); }

void AdapterLayer::register_adapter(const std::string& name) {
  check<StateError>(!has_adapter(name), path(), ": there is an adapter '", name, "' already");
  adapters_.push_back(name);
}

std::vector<std::string> AdapterLayer::selected(const ForwardContext& context) const {
  std::vector<std::string> out;
  if (!enabled_ && !context.override_adapters) return out;
  for (const std::string& name : context.override_adapters ? context.adapters : active_)
    if (has_adapter(name)) out.push_back(name);
  return out;
}

Tensor AdapterLayer::forward_unmerged(const Tensor& x, const ForwardContext& context) const {
  if (!merged()) return base_layer->forward(x, context);
  return weight_is_transposed() ? linear_transposed(x, original_weight_, bias()) : linear(x, original_weight_, bias());
}

void AdapterLayer::merge(const std::vector<std::string>& names, bool safe) {
  NoGrad no_grad;
  const Tensor now = weight().get();
  const DType wide = now.dtype() == DType::f64 ? DType::f64 : DType::f32;
  // From the original, all merged adapters are added in float32 and rounded once, however many calls it took to merge them.
  std::vector<std::string> all = merged_;
  for (const std::string& name : names)
    if (has_adapter(name) && std::find(all.begin(), all.end(), name) == all.end()) all.push_back(name);
  if (all.size() == merged_.size()) return;
  const Tensor original = merged() ? original_weight_ : now;
  Tensor sum = to_dtype(original, wide);
  for (const std::string& name : all) {
    sum = add(sum, get_delta_weight(name));
    if (safe) check<StateError>(all_finite(sum), path(), ": NaN or infinity after merging adapter '", name, "': it is broken, nothing was merged here");
  }
  Tensor result = to_dtype(sum, original.dtype());
  if (safe) check<StateError>(all_finite(result), path(), ": merging overflows ", original.dtype(), ": nothing was merged here");
  weight().set(std::move(result));
  original_weight_ = original;
  merged_ = std::move(all);
}

void AdapterLayer::unmerge() {
  if (!merged()) return;
  weight().set(std::move(original_weight_));
  original_weight_ = Tensor();
  merged_.clear();
}

void AdapterLayer::delete_adapter(const std::string& name) {
  check<StateError>(std::find(merged_.begin(), merged_.end(), name) == merged_.end(), path(), ": adapter '", name, "' is merged: unmerge it before deleting it");
  std::erase(adapters_, name);
  std::erase(active_, name);
}

}  // namespace cambium
