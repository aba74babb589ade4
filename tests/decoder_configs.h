// Configurations of every decoder family, small enough for a test.
#pragma once

#include <string>
#include <vector>

namespace cambium::test {

inline std::string llama_config(const std::string& type, const std::string& more = "") {
  return R"({"model_type": ")" + type + R"(", "vocab_size": 50, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 64, "rope_theta": 10000.0, "initializer_range": 0.4, "tie_word_embeddings": true)" + more + "}";
}

inline std::string gpt2_config(const std::string& more = "") {
  return R"({"model_type": "gpt2", "vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 32, "initializer_range": 0.4, "embd_pdrop": 0.0,
    "attn_pdrop": 0.0, "resid_pdrop": 0.0)" + more + "}";
}

inline std::string gptj_config(const std::string& more = "") {
  return R"({"model_type": "gptj", "vocab_size": 50, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64, "rotary_dim": 4, "initializer_range": 0.4)" + more + "}";
}

inline std::string falcon_config(const std::string& more = "") {
  return R"({"model_type": "falcon", "vocab_size": 50, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "initializer_range": 0.4)" + more + "}";
}
inline std::string falcon_40b_config(const std::string& more = "") {
  return falcon_config(R"(, "new_decoder_architecture": true, "num_kv_heads": 2, "tie_word_embeddings": false)" + more);
}
inline std::string falcon_rw_config(const std::string& more = "") {
  return falcon_config(R"(, "alibi": true, "multi_query": false, "parallel_attn": false, "bias": true)" + more);
}

/// One of each kind of decoder.
inline std::vector<std::string> decoder_configs() {
  return {gpt2_config(),
          llama_config("llama"),
          llama_config("mistral", R"(, "sliding_window": 3)"),
          llama_config("qwen2"),
          llama_config("qwen3", R"(, "head_dim": 6)"),
          gptj_config(),
          falcon_config(),
          falcon_40b_config(),
          falcon_40b_config(R"(, "num_ln_in_parallel_attn": 1, "ffn_hidden_size": 40, "activation": "gelu_new", "bias": true)"),
          falcon_rw_config(),
          falcon_config(R"(, "alibi": true, "rope_theta": 500.0)")};
}

}  // namespace cambium::test
