// Models small enough for a test, with seeded random weights, and what tests ask of them.
#pragma once

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "autograd/ops.h"
#include "nn/models/model.h"

namespace cambium::test {

inline std::shared_ptr<PretrainedModel> tiny_llama(int layers = 2, DType dtype = DType::f32, std::uint64_t seed = 1) {
  const std::string config = R"({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": )" +
                             std::to_string(layers) + R"(, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 40, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5, "tie_word_embeddings": false, "hidden_act": "silu", "eos_token_id": 2, "initializer_range": 0.3})";
  LoadOptions options;
  options.dtype = dtype;
  return AutoModelForCausalLM::from_config(config, RandomKey{seed, 0}, options);
}

inline std::shared_ptr<PretrainedModel> tiny_gpt2(std::uint64_t seed = 1) {
  return AutoModelForCausalLM::from_config(R"({"architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_embd": 16, "n_head": 4, "n_layer": 2, "n_positions": 64, "vocab_size": 40,
    "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0, "initializer_range": 0.3})", RandomKey{seed, 0});
}

inline ModelInput tiny_input() {
  ModelInput input;
  input.input_ids = from_vector(std::vector<std::int64_t>{1, 5, 9, 30, 7, 2, 8, 8, 39, 11}, {2, 5});
  return input;
}

template <class M>
std::vector<float> logits_of(const M& model, const ForwardContext& context = {}) {
  NoGrad no_grad;
  return to_dtype(model.forward(tiny_input(), context).logits, DType::f32).template to_vector<float>();
}

inline double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  if (a.size() != b.size()) return 1e30;
  double largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  return largest;
}

/// Every element of every parameter, to see whether a model is what it was.
inline std::vector<std::pair<std::string, std::vector<double>>> values_of(const Module& module) {
  std::vector<std::pair<std::string, std::vector<double>>> out;
  for (const auto& [name, slot] : module.named_parameters()) out.emplace_back(name, slot->tensor.to_vector<double>());
  return out;
}

/// The message of the error that `action` throws, which must be an E of one line; "" when it throws nothing.
template <class E, class F>
std::string error_of(F&& action) {
  try {
    action();
  } catch (const E& error) {
    const std::string text = error.what();
    return text.find('\n') == std::string::npos ? text : "SEVERAL LINES: " + text;
  }
  return "";
}

inline bool contains(const std::string& text, std::string_view part) { return text.find(part) != std::string::npos; }

}  // namespace cambium::test
