// The table of model families, and what their configurations share.
#include "nn/models/registry.h"

#include <algorithm>

namespace cambium {

namespace {

constexpr ModelFamily kFamilies[] = {
    {"gpt2", "GPT2LMHeadModel", make_gpt2, initialize_gpt2},
    {"llama", "LlamaForCausalLM", make_llama, initialize_llama},
    {"mistral", "MistralForCausalLM", make_llama, initialize_llama},
    {"qwen2", "Qwen2ForCausalLM", make_llama, initialize_llama},
    {"qwen3", "Qwen3ForCausalLM", make_llama, initialize_llama},
};

}  // namespace

std::span<const ModelFamily> model_families() { return kFamilies; }

const ModelFamily& family_of(const ConfigReader& config) {
  const std::string type = config.text("model_type", "");
  std::string known;
  for (const ModelFamily& family : kFamilies) {
    known += (known.empty() ? "" : ", ") + std::string(family.model_type);
    if (family.model_type != type) continue;
    const std::vector<std::string> architectures = config.texts("architectures");
    // A bare backbone (GPT2Model, LlamaModel) has the same tensors but the head, which is tied or missing by name.
    const bool fits = architectures.empty() || std::any_of(architectures.begin(), architectures.end(), [&](const std::string& name) {
                        return name == family.architecture || name + "ForCausalLM" == std::string(family.architecture) || name.ends_with("Model");
                      });
    check<ConfigError>(fits, config.where(), ": 'architectures': expected ", family.architecture, ", found ", architectures,
                       ": only causal language models are supported");
    return family;
  }
  fail<ConfigError>(config.where(), ": model_type '", type, "' is not supported: ", known, " are");
}

void read_common(const ConfigReader& config, const std::string& json, ModelConfig& out) {
  out.json = json;
  out.model_type = config.text("model_type", "");
  out.name_or_path = config.text("_name_or_path", "");
  out.vocab_size = config.size({"vocab_size"});
  out.hidden_size = config.size({"hidden_size", "n_embd"});
  out.num_hidden_layers = config.size({"num_hidden_layers", "n_layer"});
  out.num_attention_heads = config.size({"num_attention_heads", "n_head"});
  out.num_key_value_heads = config.size({"num_key_value_heads"}, out.num_attention_heads);
  out.max_position_embeddings = config.size({"max_position_embeddings", "n_positions", "n_ctx"}, 2048);
  check<ConfigError>(out.num_hidden_layers <= 10000, config.where(), ": 'num_hidden_layers': expected at most 10000, found ", out.num_hidden_layers);
  check<ConfigError>(out.num_attention_heads % out.num_key_value_heads == 0, config.where(), ": 'num_key_value_heads': ", out.num_attention_heads,
                     " attention heads are no multiple of ", out.num_key_value_heads);
  if (config.has("head_dim")) {
    out.head_dim = config.size({"head_dim"});
  } else {
    check<ConfigError>(out.hidden_size % out.num_attention_heads == 0, config.where(), ": 'hidden_size': ", out.hidden_size, " is no multiple of ",
                       out.num_attention_heads, " heads");
    out.head_dim = out.hidden_size / out.num_attention_heads;
  }
  out.bos_token_id = config.token("bos_token_id");
  out.pad_token_id = config.token("pad_token_id");
  out.eos_token_ids = config.tokens("eos_token_id");
  if (out.pad_token_id && *out.pad_token_id >= out.vocab_size)
    fail<ConfigError>(config.where(), ": 'pad_token_id': expected an id below ", out.vocab_size, ", found ", *out.pad_token_id);
  config.refuse_unless("quantization_config", Json());
  config.refuse_unless("add_cross_attention", false);
  config.refuse_unless("is_encoder_decoder", false);
}

}  // namespace cambium
