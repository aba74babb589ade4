// AdapterLayer: a layer of the base model with named adapters around it, the set of active ones, and what is merged.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "nn/module.h"
#include "peft/adapter_parameters.h"

namespace cambium {

/// What LoRA, IA3 and trainable tokens derive from: around a layer with one weight, which is Linear, Conv1D or Embedding. Adapters are inert until they are in the active set;
/// forward() reads this state and never changes it.
class AdapterLayer : public Layer {
 public:
  Child<Layer> base_layer{*this, "base_layer"};

  /// ConfigError for a layer of another kind.
  explicit AdapterLayer(std::shared_ptr<Layer> base);
  /// Whether a module is of a kind that adapters can be put around.
  static bool supports(const Module& module);

  const std::vector<std::string>& adapters() const { return adapters_; }
  bool has_adapter(const std::string& name) const;
  /// Order of activation is the order of summation. Names that this layer does not have are skipped: adapters may target different layers.
  void set_active(const std::vector<std::string>& names) { active_ = names; }
  const std::vector<std::string>& active() const { return active_; }
  void set_enabled(bool enabled) { enabled_ = enabled; }
  bool enabled() const { return enabled_; }
  virtual bool merged() const { return !merged_.empty(); }
  const std::vector<std::string>& merged_adapters() const { return merged_; }

  Tensor forward(const Tensor& x, const ForwardContext& context) const final;
  /// In chunks of rows where an adapter acts on the head; the base layer's own way where none does.
  Tensor forward_loss(const Tensor& hidden, const Tensor& targets, std::optional<double> count, const ForwardContext& context) const override;

  /// What the adapter adds to the weight, in the weight's own layout, float32 (float64 for a float64 base). StateError for methods that do not add.
  virtual Tensor get_delta_weight(const std::string& adapter) const;
  /// Puts the adapters into the base weight (and bias), computed in float32 from the original and rounded once. The old tensors are kept: unmerge() puts them back bit for bit.
  /// Adapters that are merged already or that this layer lacks are skipped. safe: StateError naming the adapter if the result has NaN or infinity, and
  /// nothing is changed.
  virtual void merge(const std::vector<std::string>& names, bool safe);
  virtual void unmerge();
  /// The base's tensors as they are without what is merged into them.
  virtual const Tensor& unmerged_weight() const { return original_weight_.defined() ? original_weight_ : weight().get(); }
  Tensor unmerged_bias() const { return original_bias_.defined() ? original_bias_ : has_bias() ? bias().get() : Tensor(); }
  virtual void delete_adapter(const std::string& name);
  /// Parameters of one adapter with the names they have in a file, below this layer's path: {"lora_A.weight", slot}.
  virtual std::vector<NamedParameter> adapter_parameters(const std::string& adapter) const = 0;

  bool is_embedding() const { return linear_ == nullptr; }
  std::int64_t in_features() const { return weight().get().size(weight_is_transposed() ? 0 : 1); }  ///< rows of an embedding
  std::int64_t out_features() const { return weight().get().size(weight_is_transposed() ? 1 : 0); }
  /// Whether the weight is stored (in, out): Conv1D and Embedding.
  bool weight_is_transposed() const { return linear_ == nullptr || linear_->weight_is_transposed(); }
  Param& weight() const { return *weight_; }
  bool has_bias() const { return linear_ != nullptr && linear_->bias().defined(); }
  Param& bias() const;  ///< StateError for an embedding; may hold no tensor

 protected:
  /// The layer with these adapters, all of them here and none merged.
  virtual Tensor forward_adapted(const Tensor& x, const std::vector<std::string>& names, const ForwardContext& context) const = 0;
  /// Changes weight and bias (undefined: there is none), both of float32 or wider, as the adapter does when it is merged; makes new tensors.
  virtual void merge_into(const std::string& adapter, Tensor& weight, Tensor& bias) const = 0;
  /// The adapters of this layer that a call uses: the context's, else the active ones; none when disabled.
  std::vector<std::string> selected(const ForwardContext& context) const;
  /// The base layer as it is without what is merged into it.
  Tensor forward_unmerged(const Tensor& x, const ForwardContext& context) const;
  void register_adapter(const std::string& name);  ///< StateError if it is there
  bool knows_adapter(const std::string& name) const;  ///< this layer or one that it wraps
  const LinearLike& linear_base() const { return *linear_; }
  std::optional<std::int64_t> padding_index() const { return padding_index_; }
  /// float32, or float64 beside a float64 base: what deltas and merges are computed in.
  DType wide_dtype() const { return weight().get().dtype() == DType::f64 ? DType::f64 : DType::f32; }
  /// What adapter values are kept in: float32 beside a 16-bit base unless `keep_dtype`.
  DType adapter_dtype(bool keep_dtype) const;

 private:
  LinearLike* linear_ = nullptr;
  Param* weight_ = nullptr;
  std::optional<std::int64_t> padding_index_;
  std::vector<std::string> adapters_, active_, merged_;
  bool enabled_ = true;
  void move_kept(Device device) override;
  Tensor original_weight_, original_bias_;  ///< defined while merged; the bias only if merging changed it
};

}  // namespace cambium
