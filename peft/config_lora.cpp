// LoraConfig: fields, checks, file.
#include "peft/config_fields.h"

namespace cambium {

namespace {

/// Fields of PEFT 0.21's LoraConfig that Cambium does not act on, with the only values it accepts, which are the defaults.
Json unsupported_fields() {
  return Json{{"alora_invocation_tokens", nullptr}, {"arrow_config", nullptr}, {"auto_mapping", nullptr}, {"corda_config", nullptr},
              {"ensure_weight_tying", false}, {"eva_config", nullptr}, {"kasa_config", nullptr}, {"layer_replication", nullptr},
              {"loftq_config", Json::object()}, {"lora_ga_config", nullptr}, {"megatron_config", nullptr}, {"megatron_core", "megatron.core"},
              {"monteclora_config", nullptr}, {"qalora_group_size", 16}, {"target_parameters", nullptr}, {"use_bdlora", nullptr},
              {"use_qalora", false}, {"velora_config", nullptr}};
}

std::string lower_case(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
  return text;
}

bool token_indices(const Json& value, TokenIndices& out) {
  out = TokenIndices();
  if (value.is_null()) return true;
  if (value.is_array()) {
    TokenIndices::Tokens tokens;
    if (!detail::ConfigFields::integers(value, tokens)) return false;
    out = TokenIndices(std::move(tokens));
    return true;
  }
  if (!value.is_object()) return false;
  TokenIndices::Map modules;
  for (const auto& [name, list] : value.items()) {
    modules.emplace_back(name, TokenIndices::Tokens());
    if (!detail::ConfigFields::integers(list, modules.back().second)) return false;
  }
  if (!modules.empty()) out = TokenIndices(std::move(modules));
  return true;
}

void check_tokens(const TokenIndices::Tokens& tokens, const std::string& where) {
  std::set<std::int64_t> seen;
  check<ConfigError>(!tokens.empty(), "LoraConfig: trainable_token_indices", where, ": expected at least one token");
  for (const std::int64_t token : tokens) {
    check<ConfigError>(token >= 0, "LoraConfig: trainable_token_indices", where, ": expected tokens from 0 on, found ", token);
    check<ConfigError>(seen.insert(token).second, "LoraConfig: trainable_token_indices", where, ": token ", token, " is listed twice");
  }
}

}  // namespace

LoraInit parse_lora_init(const std::variant<bool, std::string>& init) {
  using Way = LoraInit::Way;
  if (const bool* plain = std::get_if<bool>(&init)) return {*plain ? Way::kaiming : Way::uniform};
  const std::string& name = std::get<std::string>(init);
  const std::string lower = lower_case(name);
  if (lower == "gaussian") return {Way::gaussian};
  if (lower == "olora") return {Way::olora};
  if (name == "orthogonal") return {Way::orthogonal};
  if (name == "pissa") return {Way::pissa};
  constexpr std::string_view niter = "pissa_niter_";
  if (name.starts_with(niter)) {
    const std::string digits = name.substr(niter.size());
    if (!digits.empty() && digits.size() < 6 && digits.find_first_not_of("0123456789") == std::string::npos) return {Way::pissa, std::stoll(digits)};
  }
  fail<ConfigError>("LoraConfig: init_lora_weights: expected true, false, \"gaussian\", \"pissa\", \"pissa_niter_N\", \"olora\" or \"orthogonal\", found \"", name, "\"");
}

void validate(const LoraConfig& c) {
  check<ConfigError>(c.r > 0, "LoraConfig: r: expected a positive integer, found ", c.r);
  for (const auto& [key, rank] : c.rank_pattern) check<ConfigError>(rank > 0, "LoraConfig: rank_pattern['", key, "']: expected a positive integer, found ", rank);
  check<ConfigError>(std::isfinite(c.lora_alpha), "LoraConfig: lora_alpha: expected a finite number");
  check<ConfigError>(c.lora_dropout >= 0.0 && c.lora_dropout < 1.0, "LoraConfig: lora_dropout: expected a number in [0, 1), found ", c.lora_dropout);
  check<ConfigError>(c.bias == "none" || c.bias == "all" || c.bias == "lora_only", "LoraConfig: bias: expected none, all or lora_only, found '", c.bias, "'");
  check<ConfigError>(!(c.target_modules.is_pattern() && c.layers_to_transform), "LoraConfig: layers_to_transform cannot be used when target_modules is a text: write the layers into the pattern");
  check<ConfigError>(!(c.target_modules.is_pattern() && c.layers_pattern), "LoraConfig: layers_pattern cannot be used when target_modules is a text");
  check<ConfigError>(!(c.layers_pattern && !c.layers_pattern->empty() && !c.layers_to_transform), "LoraConfig: layers_pattern needs layers_to_transform");
  const LoraInit init = parse_lora_init(c.init_lora_weights);
  if (c.lora_bias) {
    check<ConfigError>(std::holds_alternative<bool>(c.init_lora_weights), "LoraConfig: lora_bias: only init_lora_weights true or false goes with it, found \"",
                       std::holds_alternative<bool>(c.init_lora_weights) ? "" : std::get<std::string>(c.init_lora_weights), "\"");
    check<ConfigError>(!c.use_dora, "LoraConfig: lora_bias does not go with use_dora");
  }
  if (init.way == LoraInit::Way::orthogonal) check<ConfigError>(c.r % 2 == 0, "LoraConfig: init_lora_weights \"orthogonal\": expected an even r, found ", c.r);
  for (const auto& [name, tokens] : c.trainable_token_indices.modules()) check_tokens(tokens, "['" + name + "']");
  if (c.trainable_token_indices.given() && !c.trainable_token_indices.is_map()) check_tokens(c.trainable_token_indices.tokens(), "");
}

void detail::parse_into(LoraConfig& c, ConfigFields& fields, std::vector<std::string>* warnings) {
  fields.common(c);
  fields.integer("r", c.r);
  fields.selection("target_modules", c.target_modules);
  fields.selection("exclude_modules", c.exclude_modules);
  fields.number("lora_alpha", c.lora_alpha);
  fields.number("lora_dropout", c.lora_dropout);
  fields.boolean("fan_in_fan_out", c.fan_in_fan_out);
  fields.text("bias", c.bias);
  fields.boolean("use_rslora", c.use_rslora);
  fields.boolean("use_dora", c.use_dora);
  fields.boolean("lora_bias", c.lora_bias);
  fields.field("init_lora_weights", c.init_lora_weights, "true, false or a text", [](const Json& v, std::variant<bool, std::string>& x) {
    if (v.is_boolean()) x = v.get<bool>();
    else if (v.is_string()) x = v.get<std::string>();
    else return false;
    return true;
  });
  fields.field("layers_to_transform", c.layers_to_transform, "a list of integers, an integer or null", [](const Json& v, auto& x) {
    x.reset();
    if (v.is_null()) return true;
    x.emplace();
    if (!v.is_number_integer()) return ConfigFields::integers(v, *x);
    x->push_back(v.get<std::int64_t>());
    return true;
  });
  fields.optional_texts("layers_pattern", c.layers_pattern, true);
  fields.pattern("rank_pattern", c.rank_pattern);
  fields.pattern("alpha_pattern", c.alpha_pattern);
  fields.field("trainable_token_indices", c.trainable_token_indices, "a list of integers, an object of such lists or null", token_indices);
  c.other_fields = fields.others(unsupported_fields(), warnings);
}

Json detail::to_json_object(const LoraConfig& c) {
  Json out = unsupported_fields();
  out["r"] = c.r;
  out["target_modules"] = selection_json(c.target_modules);
  out["exclude_modules"] = selection_json(c.exclude_modules);
  out["lora_alpha"] = number_json(c.lora_alpha);
  out["lora_dropout"] = c.lora_dropout;
  out["fan_in_fan_out"] = c.fan_in_fan_out;
  out["bias"] = c.bias;
  out["use_rslora"] = c.use_rslora;
  out["use_dora"] = c.use_dora;
  out["lora_bias"] = c.lora_bias;
  if (const bool* plain = std::get_if<bool>(&c.init_lora_weights)) out["init_lora_weights"] = *plain;
  else out["init_lora_weights"] = std::get<std::string>(c.init_lora_weights);
  out["layers_to_transform"] = optional_json(c.layers_to_transform);
  out["layers_pattern"] = optional_json(c.layers_pattern);
  if (c.layers_pattern && c.layers_pattern->size() == 1) out["layers_pattern"] = c.layers_pattern->front();  // as people give it to PEFT
  out["rank_pattern"] = pattern_json(c.rank_pattern);
  out["alpha_pattern"] = pattern_json(c.alpha_pattern);
  Json tokens = nullptr;
  if (c.trainable_token_indices.is_map()) {
    tokens = Json::object();
    for (const auto& [name, list] : c.trainable_token_indices.modules()) tokens[name] = list;
  } else if (c.trainable_token_indices.given()) {
    tokens = c.trainable_token_indices.tokens();
  }
  out["trainable_token_indices"] = tokens;
  write_common(out, "LORA", c);
  return out;
}

}  // namespace cambium
