// IA3 around one matrix layer: learned factors on its output features, or on its input features in a feed-forward layer.
#pragma once

#include "peft/adapter_layer.h"

namespace cambium {

/// y = base(x) l, bias included, with l (out, 1); in a feed-forward layer y = base(x l) with l (1, in). Several active adapters multiply.
/// Liu et al. 2022, arXiv 2205.05638.
class IA3Layer final : public AdapterLayer {
 public:
  IA3Layer(std::shared_ptr<Layer> base, bool is_feedforward) : AdapterLayer(std::move(base)), is_feedforward_(is_feedforward) {}
  std::string_view type_name() const override { return "ia3.Linear"; }

  Child<AdapterParameters> ia3_l{*this, "ia3_l", std::make_shared<AdapterParameters>()};

  bool is_feedforward() const { return is_feedforward_; }
  /// Ones, or standard normal when `ones` is false; float32 beside a 16-bit base unless `keep_dtype`.
  void add_adapter(const std::string& name, bool ones, bool keep_dtype, RandomKey key);
  void delete_adapter(const std::string& name) override;
  std::vector<NamedParameter> adapter_parameters(const std::string& adapter) const override { return {{"ia3_l", ia3_l->at(adapter).slot()}}; }

 protected:
  Tensor forward_adapted(const Tensor& x, const std::vector<std::string>& names, const ForwardContext& context) const override;
  void merge_into(const std::string& adapter, Tensor& weight, Tensor& bias) const override;

 private:
  bool is_feedforward_;
};

}  // namespace cambium
