// MeanHead: classes from the mean of a model's last hidden states, for models whose own head is weak or untrained.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "nn/models/model.h"

namespace cambium {

/// logits = W mean_t(hidden_t) + b over the real tokens of each row (virtual ones of a learned prompt do not count), in float32. PEFT has no name for such a head, so it
/// lies beside the adapter in a file of its own, mean_head.safetensors.
class MeanHead final : public Module {
 public:
  /// As torch initialises a linear layer: uniform within 1 / sqrt(features).
  MeanHead(std::int64_t features, std::int64_t classes, RandomKey key);
  std::string_view type_name() const override { return "MeanHead"; }
  Param weight{*this, "weight"};  ///< (classes, features)
  Param bias{*this, "bias"};      ///< (classes)

  /// hidden (B, V + T, C) of padded rows with attention_mask (B, T), or (1, T, C) of rows side by side with `starts`; to (B, classes).
  Tensor forward(const Tensor& hidden, const ModelInput& input) const;
  /// Runs `features` on the input without its labels, and gives logits and, with labels int64 (B), the loss: cross-entropy summed over the rows / label_count.
  ModelOutput classify(const std::function<ModelOutput(const ModelInput&, const ForwardContext&)>& features, const ModelInput& input, const ForwardContext& context) const;

  void save(const std::string& folder) const;
  /// The head in a folder; null if there is none. FileError when it is not one for hidden states of `features` entries.
  static std::shared_ptr<MeanHead> load(const std::string& folder, std::int64_t features);

 private:
  MeanHead() = default;
};

}  // namespace cambium
