// AdapterLayer: a layer of the base model with named adapters around it, the set of active ones, and what is merged.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/module.h"

namespace cambium {

/// A parameter that belongs to one adapter: shown in the tree as `NAME.weight` below `lora_A` and the like.
class AdapterWeight final : public Module {
 public:
  explicit AdapterWeight(Tensor value) { weight.set(std::move(value)); }
  std::string_view type_name() const override { return "AdapterWeight"; }
  Param weight{*this, "weight"};
};

/// Parameters by adapter's name, in the order they were added.
class AdapterWeights final : public Module {
 public:
  std::string_view type_name() const override { return "AdapterWeights"; }
  void add(const std::string& adapter, Tensor value);
  void remove(const std::string& adapter);
  bool contains(const std::string& adapter) const { return find(adapter) != nullptr; }
  Param& at(const std::string& adapter) const;  ///< NameError

 private:
  AdapterWeight* find(const std::string& adapter) const;
  std::vector<std::unique_ptr<Child<AdapterWeight>>> slots_;
};

/// What LoRA and later tuners derive from. Adapters are inert until they are in the active set; forward() reads this state and never changes it.
class AdapterLayer : public LinearLike {
 public:
  Child<LinearLike> base_layer{*this, "base_layer"};

  explicit AdapterLayer(std::shared_ptr<LinearLike> base) { base_layer.set(std::move(base)); }

  const std::vector<std::string>& adapters() const { return adapters_; }
  bool has_adapter(const std::string& name) const;
  /// Order of activation is the order of summation. Names that this layer does not have are skipped: adapters may target different layers.
  void set_active(const std::vector<std::string>& names) { active_ = names; }
  const std::vector<std::string>& active() const { return active_; }
  void set_enabled(bool enabled) { enabled_ = enabled; }
  bool enabled() const { return enabled_; }
  bool merged() const { return !merged_.empty(); }
  const std::vector<std::string>& merged_adapters() const { return merged_; }

  /// What the adapter adds to the weight, in the weight's own layout, float32 (float64 for a float64 base).
  virtual Tensor get_delta_weight(const std::string& adapter) const = 0;
  /// Adds the adapters' deltas to the base weight, computed in float32 and rounded once. The old tensor is kept: unmerge() puts it back bit for bit.
  /// Adapters that are merged already or that this layer lacks are skipped. safe: StateError naming the adapter if the result has NaN or infinity, and
  /// nothing is changed.
  void merge(const std::vector<std::string>& names, bool safe);
  void unmerge();
  virtual void delete_adapter(const std::string& name);
  /// Parameters of one adapter with the names they have in a file, below this layer's path: {"lora_A.weight", slot}.
  virtual std::vector<NamedParameter> adapter_parameters(const std::string& adapter) const = 0;

  std::int64_t in_features() const override { return base_layer->in_features(); }
  std::int64_t out_features() const override { return base_layer->out_features(); }
  bool weight_is_transposed() const override { return base_layer->weight_is_transposed(); }
  Param& weight() override { return base_layer->weight(); }
  Param& bias() override { return base_layer->bias(); }
  using LinearLike::bias;
  using LinearLike::weight;

 protected:
  /// The adapters of this layer that a call uses: the context's, else the active ones; none when disabled.
  std::vector<std::string> selected(const ForwardContext& context) const;
  /// The base layer as it is without what is merged into it.
  Tensor forward_unmerged(const Tensor& x, const ForwardContext& context) const;
  void register_adapter(const std::string& name);  ///< StateError if it is there

 private:
  std::vector<std::string> adapters_, active_, merged_;
  bool enabled_ = true;
  Tensor original_weight_;  ///< defined while merged
};

}  // namespace cambium
