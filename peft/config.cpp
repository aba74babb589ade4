// Configurations: which method a file is of, and what all methods share in reading and writing.
#include "peft/config.h"

#include <array>

#include "peft/config_fields.h"

namespace cambium {

namespace {

constexpr std::array<std::string_view, 6> kTasks = {"SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"};
constexpr std::array<std::string_view, 5> kMethods = {"LORA", "IA3", "PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"};  // in the order of PeftConfig

/// These say how a file came to be, or matter only to a field that is refused itself: any value is fine.
const std::set<std::string> kHarmless = {"auto_mapping", "megatron_core", "qalora_group_size", "runtime_config", "peft_version", "enable_lora", "merge_weights",
                                         "postprocess_past_key_value_function"};

/// PEFT sorts the keys of nested objects as well, but for overlapping patterns the order decides which one wins: it is kept.
Json sorted(const Json& value) {
  if (!value.is_object()) return value;
  std::vector<std::pair<std::string, Json>> items;
  for (const auto& [key, item] : value.items()) items.emplace_back(key, key == "rank_pattern" || key == "alpha_pattern" ? item : sorted(item));
  std::sort(items.begin(), items.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  Json out = Json::object();
  for (auto& [key, item] : items) out[key] = std::move(item);
  return out;
}

}  // namespace

std::string_view name_of(TaskType task) { return kTasks[static_cast<std::size_t>(task)]; }

TaskType parse_task_type(std::string_view text) {
  for (std::size_t i = 0; i < kTasks.size(); ++i)
    if (kTasks[i] == text) return static_cast<TaskType>(i);
  fail<ConfigError>("task_type: expected SEQ_CLS, SEQ_2_SEQ_LM, CAUSAL_LM, TOKEN_CLS, QUESTION_ANS or FEATURE_EXTRACTION, found '", text, "'");
}

std::string_view peft_type_of(const PeftConfig& config) { return kMethods[config.index()]; }

bool is_prompt_learning(const PeftConfig& config) { return config.index() >= 2; }

const ModuleSelection& target_modules_of(const PeftConfig& config) {
  if (const auto* lora = std::get_if<LoraConfig>(&config)) return lora->target_modules;
  const auto* ia3 = std::get_if<IA3Config>(&config);
  check<StateError>(ia3 != nullptr, peft_type_of(config), " has no target_modules");
  return ia3->target_modules;
}

Json detail::names_json(std::vector<std::string> names) {
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

Json detail::selection_json(const ModuleSelection& selection) {
  if (!selection.given()) return nullptr;
  return selection.is_pattern() ? Json(selection.pattern()) : names_json(selection.names());
}

Json detail::number_json(double value) {
  if (value == std::floor(value) && std::fabs(value) < 1e15) return static_cast<std::int64_t>(value);
  return value;
}

std::string detail::ConfigFields::others(const Json& defaults, std::vector<std::string>* warnings) const {
  Json out = Json::object();
  for (const auto& [key, value] : object_.items()) {
    if (used_.contains(key)) continue;
    if (const auto found = defaults.find(key); found != defaults.end()) {
      const bool empty = value.is_null() || (value.is_object() && value.empty()) || value == false;
      if (value != *found && !empty && !kHarmless.contains(key))
        fail<ConfigError>(where_, ": ", key, " = ", value.dump(), " is not supported: only its default ", found->dump(), " is");
      if (value != *found) out[key] = value;
    } else if (key == "auto_mapping") {
      if (!value.is_null()) out[key] = value;
    } else if (!kHarmless.contains(key)) {
      out[key] = value;
      if (warnings) warnings->push_back(concat_text(where_, ": unknown key '", key, "' is kept but has no effect"));
    }
  }
  return out.dump();
}

std::string to_json(const PeftConfig& config) {
  return std::visit([](const auto& c) { return sorted(detail::to_json_object(c)).dump(2); }, config);
}

PeftConfig parse_peft_config(std::string_view json, const std::string& where, std::vector<std::string>* warnings) {
  const Json object = parse_json(json, where);
  check<ConfigError>(object.is_object(), where, ": expected an object");
  const auto type = object.find("peft_type");
  check<ConfigError>(type != object.end() && type->is_string(), where, ": peft_type: expected a text such as \"LORA\"");
  const std::string name = type->get<std::string>();
  PeftConfig config;
  if (name == "LORA") config = LoraConfig{};
  else if (name == "IA3") config = IA3Config{};
  else if (name == "PROMPT_TUNING") config = PromptTuningConfig{};
  else if (name == "PREFIX_TUNING") config = PrefixTuningConfig{};
  else if (name == "P_TUNING") config = PromptEncoderConfig{};
  else fail<ConfigError>(where, ": peft_type: expected LORA, IA3, PROMPT_TUNING, PREFIX_TUNING or P_TUNING, found ", name, ": other methods are not supported");
  detail::ConfigFields fields(object, where);
  std::visit([&](auto& c) {
    detail::parse_into(c, fields, warnings);
    validate(c);
  }, config);
  return config;
}

PeftConfig read_peft_config(const std::string& folder, std::vector<std::string>* warnings) {
  const std::string path = folder + "/adapter_config.json";
  return parse_peft_config(read_json_file(path).dump(), path, warnings);
}

}  // namespace cambium
