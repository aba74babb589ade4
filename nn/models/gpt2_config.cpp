// config.json of GPT-2, and its starting values.
#include <cmath>

#include "nn/init.h"
#include "nn/models/decoder_model.h"
#include "nn/models/gpt2.h"
#include "nn/models/registry.h"

namespace cambium {

namespace {

Gpt2Config read_gpt2(const ConfigReader& config, const std::string& json) {
  Gpt2Config c;
  read_decoder(config, json, c);
  c.intermediate_size = config.size({"n_inner"}, 4 * c.hidden_size);
  c.tie_word_embeddings = config.boolean("tie_word_embeddings", true);
  c.layer_norm_epsilon = config.number("layer_norm_epsilon", 1e-5);
  c.activation = activation_function(config.text("activation_function", "gelu_new"));
  // GPT-2's own default is dropout everywhere.
  c.embd_pdrop = config.has("embd_pdrop") ? config.probability("embd_pdrop") : 0.1;
  c.attn_pdrop = config.has("attn_pdrop") ? config.probability("attn_pdrop") : 0.1;
  c.resid_pdrop = config.has("resid_pdrop") ? config.probability("resid_pdrop") : 0.1;
  c.scale_attn_weights = config.boolean("scale_attn_weights", true);
  c.scale_attn_by_inverse_layer_idx = config.boolean("scale_attn_by_inverse_layer_idx", false);
  check<ConfigError>(c.head_dim * c.num_attention_heads == c.hidden_size && c.num_key_value_heads == c.num_attention_heads, config.where(),
                     ": GPT-2 has as many key heads as query heads, and head sizes that add up to n_embd");
  return c;
}

}  // namespace

std::shared_ptr<PretrainedModel> make_gpt2(const ModelClass& chosen, const ConfigReader& config, const std::string& json, DType dtype) {
  return make_decoder_model<Gpt2Decoder>(chosen, read_gpt2(config, json), dtype);
}

void initialize_gpt2(PretrainedModel& model, RandomKey key, DType dtype) {
  initialize_decoder(model, key, dtype);
  // The projections that end in the residual stream start smaller, by the square root of how many there are (section 2.3 of the paper).
  NoGrad no_grad;
  const DecoderConfig& config = dynamic_cast<DecoderModel&>(model).decoder().config();
  const double narrowed = config.initializer_range / std::sqrt(2.0 * static_cast<double>(config.num_hidden_layers));
  model.visit([&](const std::string& path, Module& module) {
    if (!path.ends_with("c_proj")) return;
    Param& weight = dynamic_cast<LinearLike&>(module).weight();
    weight.set(trained(random_normal(weight.get().shape(), key.fold(path + ".narrowed"), 0.0, narrowed, dtype)));
  });
}

}  // namespace cambium
