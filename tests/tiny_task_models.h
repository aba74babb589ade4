// BERT and T5 small enough for a test, with seeded random weights.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "autograd/ops.h"
#include "nn/models/model.h"

namespace cambium::test {

inline std::string bert_config(const std::string& more = "") {
  return R"({"model_type": "bert", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24, "max_position_embeddings": 32,
    "type_vocab_size": 2, "pad_token_id": 0, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.4)" + more + "}";
}

inline std::string t5_config(const std::string& more = "") {
  return R"({"model_type": "t5", "vocab_size": 50, "d_model": 16, "d_kv": 6, "d_ff": 24, "num_layers": 2, "num_decoder_layers": 3, "num_heads": 2, "dropout_rate": 0.0,
    "relative_attention_num_buckets": 8, "relative_attention_max_distance": 12, "pad_token_id": 0, "eos_token_id": 1, "decoder_start_token_id": 0, "is_encoder_decoder": true)" + more + "}";
}

inline std::string gated_t5_config() { return t5_config(R"(, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": false)"); }

inline std::shared_ptr<PretrainedModel> model_for(Task task, const std::string& config, std::uint64_t seed = 7) { return model_from_config(config, task, RandomKey{seed, 0}); }

inline Tensor int_rows(const std::vector<std::int64_t>& values, std::int64_t rows = 1) { return from_vector(values, {rows, static_cast<std::int64_t>(values.size()) / rows}); }

inline double difference_of(const Tensor& a, const Tensor& b) { return max(abs(sub(a, b))).item(); }

/// All gradients of a model that trains, in the order of its parameters; of parameters without one: undefined.
inline std::vector<Tensor> gradients_of(PretrainedModel& model, const ModelInput& input) {
  model.set_requires_grad(true);
  ForwardContext context;
  context.training = true;
  context.key = RandomKey{3, 0};
  backward(model.forward(input, context).loss);
  std::vector<Tensor> out;
  for (const auto& [name, slot] : model.named_parameters()) {
    out.push_back(slot->tensor.grad());
    slot->tensor.reset_grad();
  }
  return out;
}

inline double largest_difference_of(const std::vector<Tensor>& a, const std::vector<Tensor>& b) {
  double largest = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (a[i].defined() != b[i].defined()) return 1e30;
    if (a[i].defined()) largest = std::max(largest, difference_of(a[i], b[i]));
  }
  return largest;
}

}  // namespace cambium::test
