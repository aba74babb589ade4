// config.json of Falcon.
#include "nn/models/decoder_model.h"
#include "nn/models/falcon.h"
#include "nn/models/registry.h"
#include "nn/models/rope.h"

namespace cambium {

namespace {

FalconConfig read_falcon(const ConfigReader& config, const std::string& json) {
  FalconConfig c;
  read_decoder(config, json, c);
  const bool grouped = config.boolean("new_decoder_architecture", false), multi_query = config.boolean("multi_query", true);
  c.intermediate_size = config.size({"ffn_hidden_size"}, 4 * c.hidden_size);
  c.tie_word_embeddings = config.boolean("tie_word_embeddings", true);
  c.layer_norm_epsilon = config.number("layer_norm_epsilon", 1e-5);
  c.hidden_dropout = config.probability("hidden_dropout");
  c.attention_dropout = config.probability("attention_dropout");
  if (!config.has("classifier_dropout")) c.classifier_dropout = c.hidden_dropout;
  c.activation = activation_function(config.text("activation", "gelu"));
  c.bias = config.boolean("bias", false);
  c.parallel = config.boolean("parallel_attn", true);
  c.alibi = config.boolean("alibi", false);
  check<ConfigError>(c.head_dim * c.num_attention_heads == c.hidden_size, config.where(), ": Falcon's head sizes add up to hidden_size");
  // One key head, as many as there are groups, or one for each query head; num_kv_heads says how many only in the new architecture.
  const std::int64_t given = config.size({"num_kv_heads", "n_head_kv"}, c.num_attention_heads);
  c.num_key_value_heads = grouped ? given : multi_query ? 1 : c.num_attention_heads;
  check<ConfigError>(c.num_attention_heads % c.num_key_value_heads == 0, config.where(), ": 'num_kv_heads': ", c.num_attention_heads, " attention heads are no multiple of ",
                     c.num_key_value_heads);
  check<ConfigError>(!grouped || c.parallel, config.where(), ": 'parallel_attn': the new decoder architecture has no sequential block, found false");
  const std::int64_t norms = config.size({"num_ln_in_parallel_attn"}, grouped ? 2 : 1);
  check<ConfigError>(norms == 1 || (norms == 2 && grouped), config.where(), ": 'num_ln_in_parallel_attn': expected 1", grouped ? " or 2" : "", ", found ", norms);
  c.two_norms = norms == 2;
  if (!c.alibi) c.frequencies = rope_frequencies(config, c.head_dim);
  return c;
}

}  // namespace

std::shared_ptr<PretrainedModel> make_falcon(const ModelClass& chosen, const ConfigReader& config, const std::string& json, DType dtype) {
  return make_decoder_model<FalconDecoder>(chosen, read_falcon(config, json), dtype);
}

}  // namespace cambium
