// config.json of T5, what only its files tell, and its starting values.
#include <cmath>
#include <cstring>

#include "nn/init.h"
#include "nn/models/loading.h"
#include "nn/models/t5.h"
#include "nn/norm.h"

namespace cambium {

namespace {

/// "relu", "gated-gelu" (the tanh approximation, as the reference means it) or "gated-silu", …
void read_feed_forward(const ConfigReader& config, T5Config& c) {
  const std::string text = config.text("feed_forward_proj", "relu");
  c.gated = text.starts_with("gated-");
  const std::string name = c.gated ? text.substr(6) : text;
  c.activation = text == "gated-gelu" ? UnaryFunction::gelu_tanh : activation_function(name);
}

T5Config read_t5(const ConfigReader& config, const std::string& json) {
  T5Config c;
  read_common(config, json, c, true);
  if (!config.has("d_kv")) c.head_dim = 64;
  c.intermediate_size = config.size({"d_ff"}, 2048);
  c.num_decoder_layers = config.size({"num_decoder_layers"}, c.num_hidden_layers);
  check<ConfigError>(c.num_decoder_layers <= 10000, config.where(), ": 'num_decoder_layers': expected at most 10000, found ", c.num_decoder_layers);
  c.buckets = config.size({"relative_attention_num_buckets"}, 32);
  c.max_distance = config.size({"relative_attention_max_distance"}, 128);
  check<ConfigError>(c.buckets >= 4 && c.buckets % 2 == 0 && c.max_distance > c.buckets / 2, config.where(), ": 'relative_attention_num_buckets': ", c.buckets,
                     " buckets up to a distance of ", c.max_distance, " leave no room");
  c.layer_norm_epsilon = config.number("layer_norm_epsilon", 1e-6);
  c.dropout = config.has("dropout_rate") ? config.probability("dropout_rate") : 0.1;
  c.initializer_factor = config.number("initializer_factor", 1.0);
  read_feed_forward(config, c);
  // Version 5 of transformers writes tie_word_embeddings true for every T5 and keeps its old meaning in scale_decoder_outputs.
  c.scale_decoder_outputs = config.boolean("scale_decoder_outputs", config.boolean("tie_word_embeddings", true));
  c.tie_word_embeddings = config.boolean("tie_word_embeddings", true) && c.scale_decoder_outputs;
  if (config.has("separate_lm_head")) c.tie_word_embeddings = !config.boolean("separate_lm_head", false);
  if (!c.pad_token_id) c.pad_token_id = 0;
  if (!c.decoder_start_token_id) c.decoder_start_token_id = c.pad_token_id;
  check<ConfigError>(*c.decoder_start_token_id < c.vocab_size, config.where(), ": 'decoder_start_token_id': expected an id below ", c.vocab_size, ", found ",
                     *c.decoder_start_token_id);
  config.refuse_unless("is_decoder", false);
  return c;
}

bool same_bytes(const Tensor& a, const Tensor& b) {
  if (a.shape() != b.shape() || a.dtype() != b.dtype()) return false;
  const Tensor x = contiguous(a), y = contiguous(b);
  return std::memcmp(x.view().data, y.view().data, static_cast<std::size_t>(x.count() * item_size(x.dtype()))) == 0;
}

}  // namespace

/// The head is separate if and only if the file has one that differs from the embeddings: configurations do not tell (see read_t5).
void adapt_t5_config(Json& config, const TensorSource& source) {
  const auto head = source.tensors.find("lm_head.weight");
  bool separate = false;
  for (const char* name : {"shared.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"}) {
    const auto table = source.tensors.find(name);
    if (head == source.tensors.end() || table == source.tensors.end()) continue;
    separate = !same_bytes(head->second(), table->second());
    break;
  }
  config["separate_lm_head"] = separate;
}

std::shared_ptr<PretrainedModel> make_t5(const ModelClass& chosen, const ConfigReader& config, const std::string& json, DType dtype) {
  return std::make_shared<T5>(chosen, read_t5(config, json), dtype);
}

/// As the reference starts: each matrix so that what it gives has the size of what it gets, and queries with the 1/sqrt(D) that scores do without.
void initialize_t5(PretrainedModel& model, RandomKey key, DType dtype) {
  const T5Config& c = dynamic_cast<T5&>(model).t5_config();
  const auto per = [&](std::int64_t width) { return c.initializer_factor / std::sqrt(static_cast<double>(width)); };
  NoGrad no_grad;
  model.visit([&](const std::string& path, Module& module) {
    const auto give = [&](Param& parameter, double deviation) {
      if (parameter.get().is_meta()) parameter.set(trained(random_normal(parameter.get().shape(), key.fold(path + "." + parameter.name()), 0.0, deviation, dtype)));
    };
    const std::string_view name = std::string_view(path).substr(path.rfind('.') + 1);
    if (auto* norm = dynamic_cast<RmsNorm*>(&module)) {
      norm->weight.set(trained(full(norm->weight.get().shape(), c.initializer_factor, dtype)));
    } else if (auto* table = dynamic_cast<Embedding*>(&module)) {
      give(table->weight, name == "relative_attention_bias" ? per(c.hidden_size) : c.initializer_factor);
    } else if (auto* linear = dynamic_cast<LinearLike*>(&module)) {
      const bool head = name == "lm_head", query = name == "q";
      const std::int64_t width = linear->in_features() * (query ? c.head_dim : 1);
      give(linear->weight(), head ? c.initializer_factor : per(width));
    } else {
      check<StateError>(module.own_parameters().empty(), "initialize_t5: no rule for the parameters of ", module.type_name(), " at '", path, "'");
    }
  });
}

}  // namespace cambium
