// LoRA around one layer: y = base(x) + sum over active adapters of scaling B A dropout(x), and its kinds for matrices and embeddings.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <variant>

#include "peft/adapter_layer.h"
#include "peft/config.h"

namespace cambium {

/// r, alpha and the rest for one adapter in one layer, with the patterns already resolved.
struct LoraLayerOptions {
  std::int64_t r = 8;
  double alpha = 8, dropout = 0.0;
  bool use_rslora = false, use_dora = false, lora_bias = false;
  std::variant<bool, std::string> init = true;
  bool keep_dtype = false;  ///< adapter in the base's dtype, even a 16-bit one; else those are raised to float32 (autocast_adapter_dtype)
};

/// What LoRA around a matrix and around an embedding share. For an embedding "in" are the rows of its table.
class LoraLayer : public AdapterLayer {
 public:
  using AdapterLayer::AdapterLayer;

  Child<AdapterWeights> lora_A{*this, "lora_A", std::make_shared<AdapterWeights>()}, lora_B{*this, "lora_B", std::make_shared<AdapterWeights>()};
  Child<AdapterParameters> lora_embedding_A{*this, "lora_embedding_A", std::make_shared<AdapterParameters>()},
      lora_embedding_B{*this, "lora_embedding_B", std::make_shared<AdapterParameters>()};
  Child<AdapterWeights> lora_magnitude_vector{*this, "lora_magnitude_vector", std::make_shared<AdapterWeights>()};

  /// A (r, in) and B (out, r), initialised from `key` as `options.init` says (peft/lora_init.h). "pissa" and "olora" take their part out of the base weight, which is replaced.
  void add_adapter(const std::string& name, const LoraLayerOptions& options, RandomKey key);
  void delete_adapter(const std::string& name) override;

  /// The factors, whichever kind of layer this is.
  Param& a(const std::string& adapter) const { return is_embedding() ? lora_embedding_A->at(adapter) : lora_A->at(adapter); }
  Param& b(const std::string& adapter) const { return is_embedding() ? lora_embedding_B->at(adapter) : lora_B->at(adapter); }
  Tensor get_delta_weight(const std::string& adapter) const override;
  std::vector<NamedParameter> adapter_parameters(const std::string& adapter) const override;

  std::int64_t r(const std::string& adapter) const { return state(adapter).options.r; }
  double lora_alpha(const std::string& adapter) const { return state(adapter).options.alpha; }
  double scaling(const std::string& adapter) const { return state(adapter).scaling; }
  double lora_dropout(const std::string& adapter) const { return state(adapter).options.dropout; }
  bool use_dora(const std::string& adapter) const { return state(adapter).options.use_dora; }
  bool lora_bias(const std::string& adapter) const { return state(adapter).options.lora_bias; }
  /// scaling = factor * initial scaling. Nothing happens where the layer lacks the adapter, as in PEFT.
  void set_scale(const std::string& adapter, double factor);
  void set_scaling(const std::string& adapter, double scaling);  ///< the value itself; NameError
  void scale_layer(double factor);                     ///< multiplies the scaling of all active adapters
  void unscale_layer(std::optional<double> factor = {});  ///< divides it again; without a factor: back to the initial one

 protected:
  void merge_into(const std::string& adapter, Tensor& weight, Tensor& bias) const override;
  /// DoRA's factor on the outputs (out): magnitude / |row of W + s B A|, the length not differentiated; float32 or wider.
  Tensor dora_factor(const std::string& adapter) const;

 private:
  struct State {
    LoraLayerOptions options;
    double initial_scaling = 1.0, scaling = 1.0;
  };
  const State& state(const std::string& adapter) const;
  /// Lengths of the rows of W + s B A (out), without a graph and without forming the sum.
  Tensor row_lengths(const std::string& adapter) const;
  Tensor base_row_squares() const;
  std::map<std::string, State> states_;

  /// |W_row|^2 of the base weight as it was last seen; recomputed when the weight is another one.
  struct RowSquares {
    Tensor weight, squares;
    std::uint32_t version = 0;
  };
  mutable RowSquares row_squares_;
  mutable std::mutex row_squares_mutex_;
};

class LoraLinear final : public LoraLayer {
 public:
  explicit LoraLinear(std::shared_ptr<LinearLike> base) : LoraLayer(std::move(base)) {}
  std::string_view type_name() const override { return "lora.Linear"; }

 protected:
  Tensor forward_adapted(const Tensor& x, const std::vector<std::string>& names, const ForwardContext& context) const override;

 private:
  Tensor with_dora(const Tensor& x, const std::vector<std::string>& names, const ForwardContext& context) const;
  Tensor widened_bias(const std::vector<std::string>& names) const;
  LoraTerm term_of(const std::string& adapter, const ForwardContext& context) const;
};

/// y = E[x] + s Aᵀ[x] Bᵀ; dropout does not apply, as in PEFT. The row of padding gets no gradient. A head tied to the table is not affected until the adapter is merged.
class LoraEmbedding final : public LoraLayer {
 public:
  explicit LoraEmbedding(std::shared_ptr<Layer> base) : LoraLayer(std::move(base)) {}
  std::string_view type_name() const override { return "lora.Embedding"; }

 protected:
  Tensor forward_adapted(const Tensor& ids, const std::vector<std::string>& names, const ForwardContext& context) const override;
};

}  // namespace cambium
