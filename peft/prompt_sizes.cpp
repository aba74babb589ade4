// Completing the sizes of prompt methods.
#include "peft/prompt_sizes.h"

#include <algorithm>
#include <array>

#include "tensor/json.h"

namespace cambium {

namespace {

/// Attention of the stack that a prefix goes to: the decoder's, where there are two.
struct PrefixTarget {
  std::int64_t layers = 0, heads = 0, head_dim = 0;
  bool overrides = false;  ///< PEFT's rule for grouped heads: what the user gave is replaced
};

PrefixTarget prefix_target(const PretrainedModel& model) {
  const ModelConfig& m = model.config();
  const Json json = m.json.empty() ? Json::object() : parse_json(m.json, "config.json");
  PrefixTarget out{m.num_hidden_layers, m.num_attention_heads, m.head_dim > 0 ? m.head_dim : m.hidden_size / m.num_attention_heads, false};
  if (const auto found = json.find("num_decoder_layers"); found != json.end() && found->is_number_integer()) out.layers = found->get<std::int64_t>();
  // PEFT asks whether transformers' configuration has num_key_value_heads, which these classes always have, also where the file leaves it away.
  constexpr std::array<std::string_view, 4> kGrouped = {"llama", "mistral", "qwen2", "qwen3"};
  if (json.contains("num_key_value_heads") || std::find(kGrouped.begin(), kGrouped.end(), m.model_type) != kGrouped.end()) {
    out.heads = m.num_key_value_heads;
    out.overrides = true;
  } else if (m.model_type == "falcon" && !json.value("new_decoder_architecture", false)) {
    out.heads = m.num_key_value_heads;  // the newer architecture keeps repeated heads in its cache, so that a prefix has all of them
  }
  return out;
}

template <class Config>
PromptSizes complete(Config& c, const char* name, const PretrainedModel& model, bool prefix) {
  const ModelConfig& m = model.config();
  validate(c);
  if (!c.num_transformer_submodules) c.num_transformer_submodules = c.task_type == TaskType::SEQ_2_SEQ_LM ? 2 : 1;
  if (!c.base_model_name_or_path) c.base_model_name_or_path = m.name_or_path;
  if (prefix) {
    const PrefixTarget target = prefix_target(model);
    if (!c.num_layers) c.num_layers = target.layers;
    if (!c.num_attention_heads || target.overrides) c.num_attention_heads = target.heads;
    if (!c.token_dim || target.overrides) c.token_dim = target.heads * target.head_dim;
    check<ConfigError>(*c.num_layers == target.layers, name, ": num_layers: the model has ", target.layers, " layers that take a prefix, found ", *c.num_layers);
    const std::int64_t heads = *c.num_attention_heads, width = *c.token_dim;
    check<ConfigError>(heads > 0 && m.num_attention_heads % heads == 0 && width == heads * target.head_dim, name, ": token_dim ", width, " over num_attention_heads ", heads,
                       " does not fit this model, whose ", m.num_attention_heads, " heads have ", target.head_dim, " columns: leave both away, or give ", target.heads * target.head_dim, " and ",
                       target.heads);
  } else {
    if (!c.num_layers) c.num_layers = m.num_hidden_layers;
    if (!c.num_attention_heads) c.num_attention_heads = m.num_attention_heads;
    if (!c.token_dim) c.token_dim = m.hidden_size;
    check<ConfigError>(*c.token_dim == m.hidden_size, name, ": token_dim: embeddings of this model have ", m.hidden_size, " columns, found ", *c.token_dim);
  }
  return {*c.num_virtual_tokens, *c.num_transformer_submodules, *c.num_layers, *c.token_dim, *c.num_attention_heads, *c.token_dim, prefix};
}

}  // namespace

PromptSizes complete_prompt_config(PeftConfig& config, const PretrainedModel& model, std::vector<std::string>& warnings) {
  if (auto* c = std::get_if<PromptTuningConfig>(&config)) return complete(*c, "PromptTuningConfig", model, false);
  const auto hidden_size = [](auto& c, PromptSizes sizes) {
    if (!c.encoder_hidden_size) c.encoder_hidden_size = sizes.width;
    sizes.hidden = *c.encoder_hidden_size;
    return sizes;
  };
  if (auto* c = std::get_if<PrefixTuningConfig>(&config)) return hidden_size(*c, complete(*c, "PrefixTuningConfig", model, true));
  auto* c = std::get_if<PromptEncoderConfig>(&config);
  check<ConfigError>(c != nullptr, "adapters of another method cannot be added to those of a prompt method");
  const PromptSizes sizes = hidden_size(*c, complete(*c, "PromptEncoderConfig", model, false));
  if (c->encoder_reparameterization_type == PromptEncoderType::MLP && c->encoder_num_layers != 2)
    warnings.push_back(concat_text("PromptEncoderConfig: encoder_num_layers ", c->encoder_num_layers, " has no effect: an MLP always has three linear layers"));
  if (c->encoder_reparameterization_type == PromptEncoderType::MLP && c->encoder_dropout != 0.0)
    warnings.push_back("PromptEncoderConfig: encoder_dropout has no effect on an MLP");
  if (c->encoder_reparameterization_type == PromptEncoderType::LSTM && c->encoder_num_layers == 1 && c->encoder_dropout != 0.0)
    warnings.push_back("PromptEncoderConfig: encoder_dropout has no effect on an LSTM of one layer: it stands between layers");
  return sizes;
}

}  // namespace cambium
