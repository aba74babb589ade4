// config.json of BERT, and its starting values.
#include "nn/init.h"
#include "nn/models/bert.h"
#include "nn/models/registry.h"

namespace cambium {

namespace {

BertConfig read_bert(const ConfigReader& config, const std::string& json) {
  BertConfig c;
  read_common(config, json, c);
  c.intermediate_size = config.size({"intermediate_size"}, 3072);
  c.type_vocab_size = config.size({"type_vocab_size"}, 2);
  c.layer_norm_eps = config.number("layer_norm_eps", 1e-12);
  c.initializer_range = config.number("initializer_range", 0.02);
  c.activation = activation_function(config.text("hidden_act", "gelu"));
  // BERT's own default is dropout everywhere.
  c.hidden_dropout = config.has("hidden_dropout_prob") ? config.probability("hidden_dropout_prob") : 0.1;
  c.attention_dropout = config.has("attention_probs_dropout_prob") ? config.probability("attention_probs_dropout_prob") : 0.1;
  c.classifier_dropout = config.has("classifier_dropout") ? config.probability("classifier_dropout") : c.hidden_dropout;
  if (!config.has("max_position_embeddings")) c.max_position_embeddings = 512;
  config.refuse_unless("position_embedding_type", "absolute");
  config.refuse_unless("is_decoder", false);
  check<ConfigError>(c.head_dim * c.num_attention_heads == c.hidden_size && c.num_key_value_heads == c.num_attention_heads, config.where(),
                     ": BERT has as many key heads as query heads, and head sizes that add up to hidden_size");
  return c;
}

}  // namespace

std::shared_ptr<PretrainedModel> make_bert(const ModelClass& chosen, const ConfigReader& config, const std::string& json, DType dtype) {
  return std::make_shared<Bert>(chosen, read_bert(config, json), dtype);
}

void initialize_bert(PretrainedModel& model, RandomKey key, DType dtype) { initialize_normal(model, key, dynamic_cast<Bert&>(model).bert_config().initializer_range, dtype); }

}  // namespace cambium
