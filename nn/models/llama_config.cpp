// config.json of the Llama family, and its starting values.
#include "nn/models/decoder_model.h"
#include "nn/models/llama.h"
#include "nn/models/registry.h"
#include "nn/models/rope.h"

namespace cambium {

namespace {

/// Sliding windows by `layer_types` where they are listed, else by the rule of the model type.
std::vector<std::int64_t> read_windows(const ConfigReader& config, const LlamaConfig& c) {
  std::vector<std::int64_t> windows(static_cast<std::size_t>(c.num_hidden_layers), 0);
  const bool qwen = c.model_type.starts_with("qwen");
  const std::vector<std::string> types = config.texts("layer_types");
  if (!types.empty()) {
    check<ConfigError>(types.size() == windows.size(), config.where(), ": 'layer_types': expected ", windows.size(), " entries, found ", types.size());
    for (std::size_t i = 0; i < windows.size(); ++i) {
      if (types[i] == "full_attention") continue;
      check<ConfigError>(types[i] == "sliding_attention", config.where(), ": 'layer_types': full_attention and sliding_attention are supported, found '", types[i], "'");
      windows[i] = config.size({"sliding_window"});
    }
  } else if (c.model_type == "mistral" && config.has("sliding_window")) {
    windows.assign(windows.size(), config.size({"sliding_window"}));
  } else if (qwen && config.boolean("use_sliding_window", false) && config.has("sliding_window")) {
    // The first max_window_layers layers see everything.
    const Json* first = config.find("max_window_layers");
    const std::int64_t full = first != nullptr && *first == 0 ? 0 : config.size({"max_window_layers"}, 28);
    for (std::size_t i = 0; i < windows.size(); ++i)
      if (static_cast<std::int64_t>(i) >= full) windows[i] = config.size({"sliding_window"});
  }
  return windows;
}

LlamaConfig read_llama(const ConfigReader& config, const std::string& json) {
  LlamaConfig c;
  read_decoder(config, json, c);
  const bool qwen2 = c.model_type == "qwen2", mistral = c.model_type == "mistral";
  c.intermediate_size = config.size({"intermediate_size"});
  c.tie_word_embeddings = config.boolean("tie_word_embeddings", false);
  c.rms_norm_eps = config.number("rms_norm_eps", 1e-6);
  c.attention_dropout = config.probability("attention_dropout");
  c.activation = activation_function(config.text("hidden_act", "silu"));
  const bool attention_bias = !qwen2 && !mistral && config.boolean("attention_bias", false);
  c.query_bias = qwen2 || attention_bias;
  c.output_bias = attention_bias;
  c.mlp_bias = c.model_type == "llama" && config.boolean("mlp_bias", false);
  c.query_key_norm = c.model_type == "qwen3";
  c.windows = read_windows(config, c);
  c.frequencies = rope_frequencies(config, c.head_dim);
  // Settings of relatives that this decoder does not have.
  config.refuse_unless("partial_rotary_factor", 1.0);
  config.refuse_unless("rope_interleaved", false);
  config.refuse_unless("attn_logit_softcapping", Json());
  config.refuse_unless("final_logit_softcapping", Json());
  config.refuse_unless("num_local_experts", Json());
  return c;
}

}  // namespace

std::shared_ptr<PretrainedModel> make_llama(const ModelClass& chosen, const ConfigReader& config, const std::string& json, DType dtype) {
  return make_decoder_model<LlamaDecoder>(chosen, read_llama(config, json), dtype);
}

}  // namespace cambium
