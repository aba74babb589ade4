// Configurations of the methods that put virtual tokens before the text: fields, checks, files.
#include <array>

#include "peft/config_fields.h"

namespace cambium {

namespace {

constexpr std::array<std::string_view, 3> kInits = {"RANDOM", "TEXT", "SAMPLE_VOCAB"};
constexpr std::array<std::string_view, 2> kEncoders = {"MLP", "LSTM"};

template <class Enum, std::size_t N>
auto choice(const std::array<std::string_view, N>& names) {
  return [&names](const Json& v, Enum& x) {
    const auto found = v.is_string() ? std::find(names.begin(), names.end(), v.get<std::string>()) : names.end();
    if (found == names.end()) return false;
    x = static_cast<Enum>(found - names.begin());
    return true;
  };
}

void check_positive(const char* config, const char* field, const std::optional<std::int64_t>& value) {
  check<ConfigError>(!value || *value > 0, config, ": ", field, ": expected a positive integer, found ", value.value_or(0));
}

template <class Config>
void check_sizes(const char* name, const Config& c) {
  check<ConfigError>(c.num_virtual_tokens.has_value(), name, ": num_virtual_tokens: expected a positive integer, found none");
  check_positive(name, "num_virtual_tokens", c.num_virtual_tokens);
  check_positive(name, "token_dim", c.token_dim);
  check_positive(name, "num_attention_heads", c.num_attention_heads);
  check_positive(name, "num_layers", c.num_layers);
  check<ConfigError>(!c.num_transformer_submodules || *c.num_transformer_submodules == 1 || *c.num_transformer_submodules == 2, name,
                     ": num_transformer_submodules: expected 1 or 2, found ", c.num_transformer_submodules.value_or(0));
}

template <class Config>
void parse_sizes(Config& c, detail::ConfigFields& fields) {
  fields.common(c);
  fields.optional_integer("num_virtual_tokens", c.num_virtual_tokens);
  fields.optional_integer("token_dim", c.token_dim);
  fields.optional_integer("num_transformer_submodules", c.num_transformer_submodules);
  fields.optional_integer("num_attention_heads", c.num_attention_heads);
  fields.optional_integer("num_layers", c.num_layers);
}

template <class Config>
void write_sizes(Json& out, const char* peft_type, const Config& c) {
  out["num_virtual_tokens"] = detail::optional_json(c.num_virtual_tokens);
  out["token_dim"] = detail::optional_json(c.token_dim);
  out["num_transformer_submodules"] = detail::optional_json(c.num_transformer_submodules);
  out["num_attention_heads"] = detail::optional_json(c.num_attention_heads);
  out["num_layers"] = detail::optional_json(c.num_layers);
  detail::write_common(out, peft_type, c);
}

}  // namespace

void validate(const PromptTuningConfig& c) {
  check_sizes("PromptTuningConfig", c);
  const bool text = c.prompt_tuning_init == PromptTuningInit::TEXT;
  check<ConfigError>(!text || c.tokenizer_name_or_path, "PromptTuningConfig: prompt_tuning_init TEXT needs tokenizer_name_or_path");
  check<ConfigError>(!text || c.prompt_tuning_init_text, "PromptTuningConfig: prompt_tuning_init TEXT needs prompt_tuning_init_text");
  check<ConfigError>(text || !c.tokenizer_kwargs, "PromptTuningConfig: tokenizer_kwargs goes with prompt_tuning_init TEXT only");
  if (c.tokenizer_kwargs)
    check<ConfigError>(parse_json(*c.tokenizer_kwargs, "PromptTuningConfig: tokenizer_kwargs").is_object(), "PromptTuningConfig: tokenizer_kwargs: expected a JSON object, found ",
                       *c.tokenizer_kwargs);
}

void validate(const PrefixTuningConfig& c) {
  check_sizes("PrefixTuningConfig", c);
  check_positive("PrefixTuningConfig", "encoder_hidden_size", c.encoder_hidden_size);
  check<ConfigError>(!c.init_weights || *c.init_weights == "zero", "PrefixTuningConfig: init_weights: expected \"zero\" or nothing, found \"", c.init_weights.value_or(""), "\"");
}

void validate(const PromptEncoderConfig& c) {
  check_sizes("PromptEncoderConfig", c);
  check_positive("PromptEncoderConfig", "encoder_hidden_size", c.encoder_hidden_size);
  check_positive("PromptEncoderConfig", "encoder_num_layers", c.encoder_num_layers);
  check<ConfigError>(c.encoder_dropout >= 0.0 && c.encoder_dropout < 1.0, "PromptEncoderConfig: encoder_dropout: expected a number in [0, 1), found ", c.encoder_dropout);
}

void detail::parse_into(PromptTuningConfig& c, ConfigFields& fields, std::vector<std::string>* warnings) {
  parse_sizes(c, fields);
  fields.field("prompt_tuning_init", c.prompt_tuning_init, "RANDOM, TEXT or SAMPLE_VOCAB", choice<PromptTuningInit>(kInits));
  fields.optional_text("prompt_tuning_init_text", c.prompt_tuning_init_text);
  fields.optional_text("tokenizer_name_or_path", c.tokenizer_name_or_path);
  fields.field("tokenizer_kwargs", c.tokenizer_kwargs, "an object or null", [](const Json& v, std::optional<std::string>& x) {
    x.reset();
    if (v.is_object()) {
      Json kept = v;
      kept.erase("trust_remote_code");  // as PEFT does: a file does not decide that
      x = kept.dump();
    }
    return v.is_null() || v.is_object();
  });
  c.other_fields = fields.others(Json::object(), warnings);
}

void detail::parse_into(PrefixTuningConfig& c, ConfigFields& fields, std::vector<std::string>* warnings) {
  parse_sizes(c, fields);
  fields.optional_integer("encoder_hidden_size", c.encoder_hidden_size);
  fields.boolean("prefix_projection", c.prefix_projection);
  fields.optional_text("init_weights", c.init_weights);
  c.other_fields = fields.others(Json::object(), warnings);
}

void detail::parse_into(PromptEncoderConfig& c, ConfigFields& fields, std::vector<std::string>* warnings) {
  parse_sizes(c, fields);
  fields.field("encoder_reparameterization_type", c.encoder_reparameterization_type, "MLP or LSTM", choice<PromptEncoderType>(kEncoders));
  fields.optional_integer("encoder_hidden_size", c.encoder_hidden_size);
  fields.integer("encoder_num_layers", c.encoder_num_layers);
  fields.number("encoder_dropout", c.encoder_dropout);
  c.other_fields = fields.others(Json::object(), warnings);
}

Json detail::to_json_object(const PromptTuningConfig& c) {
  Json out = Json::object();
  out["prompt_tuning_init"] = std::string(kInits[static_cast<std::size_t>(c.prompt_tuning_init)]);
  out["prompt_tuning_init_text"] = optional_json(c.prompt_tuning_init_text);
  out["tokenizer_name_or_path"] = optional_json(c.tokenizer_name_or_path);
  out["tokenizer_kwargs"] = c.tokenizer_kwargs ? parse_json(*c.tokenizer_kwargs, "tokenizer_kwargs") : Json(nullptr);
  write_sizes(out, "PROMPT_TUNING", c);
  return out;
}

Json detail::to_json_object(const PrefixTuningConfig& c) {
  Json out = Json::object();
  out["encoder_hidden_size"] = optional_json(c.encoder_hidden_size);
  out["prefix_projection"] = c.prefix_projection;
  out["init_weights"] = optional_json(c.init_weights);
  write_sizes(out, "PREFIX_TUNING", c);
  return out;
}

Json detail::to_json_object(const PromptEncoderConfig& c) {
  Json out = Json::object();
  out["encoder_reparameterization_type"] = std::string(kEncoders[static_cast<std::size_t>(c.encoder_reparameterization_type)]);
  out["encoder_hidden_size"] = optional_json(c.encoder_hidden_size);
  out["encoder_num_layers"] = c.encoder_num_layers;
  out["encoder_dropout"] = c.encoder_dropout;
  write_sizes(out, "P_TUNING", c);
  return out;
}

}  // namespace cambium
