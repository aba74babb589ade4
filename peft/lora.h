// LoRA around one matrix layer: y = base(x) + sum over active adapters of scaling B A dropout(x).
#pragma once

#include <map>
#include <optional>
#include <variant>

#include "peft/adapter_layer.h"
#include "peft/config.h"

namespace cambium {

/// r, alpha and the rest for one adapter in one layer, with the patterns already resolved.
struct LoraLayerOptions {
  std::int64_t r = 8;
  double alpha = 8, dropout = 0.0;
  bool use_rslora = false;
  std::variant<bool, std::string> init = true;
  bool keep_dtype = false;  ///< adapter in the base's dtype, even a 16-bit one; else those are raised to float32 (autocast_adapter_dtype)
};

class LoraLinear final : public AdapterLayer {
 public:
  using AdapterLayer::AdapterLayer;
  std::string_view type_name() const override { return "lora.Linear"; }

  Child<AdapterWeights> lora_A{*this, "lora_A", std::make_shared<AdapterWeights>()}, lora_B{*this, "lora_B", std::make_shared<AdapterWeights>()};

  /// A (r, in) and B (out, r), initialised from `key`: true: A uniform in +-1/sqrt(in), B zero; "gaussian": A normal with deviation 1/r, B zero;
  /// false: both uniform, in +-1/sqrt(in) and +-1/sqrt(r).
  void add_adapter(const std::string& name, const LoraLayerOptions& options, RandomKey key);
  void delete_adapter(const std::string& name) override;

  Tensor forward(const Tensor& x, const ForwardContext& context) const override;
  Tensor get_delta_weight(const std::string& adapter) const override;
  std::vector<NamedParameter> adapter_parameters(const std::string& adapter) const override;

  std::int64_t r(const std::string& adapter) const { return state(adapter).options.r; }
  double lora_alpha(const std::string& adapter) const { return state(adapter).options.alpha; }
  double scaling(const std::string& adapter) const { return state(adapter).scaling; }
  double lora_dropout(const std::string& adapter) const { return state(adapter).options.dropout; }
  /// scaling = factor * initial scaling. Nothing happens where the layer lacks the adapter, as in PEFT.
  void set_scale(const std::string& adapter, double factor);
  void set_scaling(const std::string& adapter, double scaling);  ///< the value itself; NameError
  void scale_layer(double factor);                     ///< multiplies the scaling of all active adapters
  void unscale_layer(std::optional<double> factor = {});  ///< divides it again; without a factor: back to the initial one

 private:
  struct State {
    LoraLayerOptions options;
    double initial_scaling = 1.0, scaling = 1.0;
  };
  const State& state(const std::string& adapter) const;
  std::map<std::string, State> states_;
};

}  // namespace cambium
