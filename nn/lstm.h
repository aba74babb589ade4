// LSTM: layers of long short-term memory over sequences, in one or both directions.
#pragma once

#include "nn/module.h"

namespace cambium {

struct LstmOptions {
  std::int64_t num_layers = 1;
  bool bidirectional = false;
  bool with_bias = true;
  double dropout = 0.0;  ///< between layers, while training
};

/// Hochreiter and Schmidhuber 1997, with PyTorch's gates and names: weight_ih_l0 (4H, in), weight_hh_l0 (4H, H), bias_ih_l0, bias_hh_l0 (4H),
/// and the same with `_reverse` for the backward direction; gates in the order i, f, g, o. A layer above the first takes both directions of the one below.
class Lstm final : public Module {
 public:
  /// PyTorch's starting values: uniform in ±1 / sqrt(hidden_size).
  Lstm(std::int64_t input_size, std::int64_t hidden_size, RandomKey key, const LstmOptions& options = {}, DType dtype = DType::f32);

  std::string_view type_name() const override { return "LSTM"; }
  /// x (B, T, in); initial states (layers * directions, B, H) or undefined for zero. Result: output (B, T, directions * H), hidden and cell
  /// (layers * directions, B, H).
  LstmResult forward(const Tensor& x, const ForwardContext& context, const Tensor& hidden = {}, const Tensor& cell = {}) const;
  std::int64_t hidden_size() const { return hidden_size_; }

 private:
  struct Direction {
    std::unique_ptr<Param> input, hidden, input_bias, hidden_bias;
  };
  std::int64_t hidden_size_;
  LstmOptions options_;
  std::vector<Direction> directions_;  ///< layer by layer, forward before backward
};

}  // namespace cambium
