// Reading, writing and checking configurations.
#include "peft/config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "kernels/error.h"
#include "tensor/json.h"

namespace cambium {

namespace {

constexpr std::array<std::string_view, 6> kTasks = {"SEQ_CLS", "SEQ_2_SEQ_LM", "CAUSAL_LM", "TOKEN_CLS", "QUESTION_ANS", "FEATURE_EXTRACTION"};

/// Fields of PEFT 0.21's LoraConfig that Cambium does not act on, with the only values it accepts, which are the defaults.
Json unsupported_lora_fields() {
  return Json{{"alora_invocation_tokens", nullptr}, {"arrow_config", nullptr}, {"auto_mapping", nullptr}, {"corda_config", nullptr},
              {"ensure_weight_tying", false}, {"eva_config", nullptr}, {"kasa_config", nullptr}, {"layer_replication", nullptr},
              {"loftq_config", Json::object()}, {"lora_bias", false}, {"lora_ga_config", nullptr}, {"megatron_config", nullptr},
              {"megatron_core", "megatron.core"}, {"monteclora_config", nullptr}, {"qalora_group_size", 16}, {"target_parameters", nullptr},
              {"trainable_token_indices", nullptr}, {"use_bdlora", nullptr}, {"use_dora", false}, {"use_qalora", false}, {"velora_config", nullptr}};
}

/// These say how a file came to be, or matter only to a field above that is refused itself: any value is fine.
const std::set<std::string> kHarmless = {"auto_mapping", "megatron_core", "qalora_group_size", "runtime_config", "peft_version", "enable_lora", "merge_weights",
                                         "postprocess_past_key_value_function"};

class Reader {
 public:
  Reader(const Json& object, const std::string& where) : object_(object), where_(where) {}

  template <class T, class Convert>
  void field(const char* key, T& into, const char* expected, Convert convert) {
    used_.insert(key);
    const auto found = object_.find(key);
    if (found == object_.end()) return;
    if (!convert(*found, into)) fail<ConfigError>(where_, ": ", key, ": expected ", expected, ", found ", found->dump());
  }
  void integer(const char* key, std::int64_t& into) {
    field(key, into, "an integer", [](const Json& v, std::int64_t& x) {
      return v.is_number_integer() && (x = v.get<std::int64_t>(), true);
    });
  }
  void number(const char* key, double& into) {
    field(key, into, "a number", [](const Json& v, double& x) { return v.is_number() && (x = v.get<double>(), std::isfinite(x)); });
  }
  void boolean(const char* key, bool& into) {
    field(key, into, "true or false", [](const Json& v, bool& x) { return v.is_boolean() && (x = v.get<bool>(), true); });
  }
  void text(const char* key, std::string& into) {
    field(key, into, "a text", [](const Json& v, std::string& x) { return v.is_string() && (x = v.get<std::string>(), true); });
  }
  void optional_text(const char* key, std::optional<std::string>& into) {
    field(key, into, "a text or null", [](const Json& v, std::optional<std::string>& x) {
      if (v.is_null()) x.reset();
      else if (v.is_string()) x = v.get<std::string>();
      else return false;
      return true;
    });
  }
  static bool texts(const Json& v, std::vector<std::string>& out) {
    if (!v.is_array()) return false;
    for (const Json& item : v) {
      if (!item.is_string()) return false;
      std::string name = item.get<std::string>();
      if (std::find(out.begin(), out.end(), name) == out.end()) out.push_back(std::move(name));  // PEFT's lists can hold duplicates
    }
    return true;
  }
  void optional_texts(const char* key, std::optional<std::vector<std::string>>& into, bool single_allowed) {
    field(key, into, "a list of texts or null", [single_allowed](const Json& v, std::optional<std::vector<std::string>>& x) {
      x.reset();
      if (v.is_null()) return true;
      if (v.is_string() && single_allowed) {
        x = std::vector{v.get<std::string>()};
        return true;
      }
      x.emplace();
      return texts(v, *x);
    });
  }
  void selection(const char* key, ModuleSelection& into) {
    field(key, into, "a list of texts, a text or null", [](const Json& v, ModuleSelection& x) {
      if (v.is_null()) x = {};
      else if (v.is_string()) x = ModuleSelection(v.get<std::string>());
      else {
        std::vector<std::string> names;
        if (!texts(v, names)) return false;
        x = ModuleSelection(std::move(names));
      }
      return true;
    });
  }
  template <class T>
  void pattern(const char* key, std::vector<std::pair<std::string, T>>& into) {
    field(key, into, "an object of numbers", [](const Json& v, std::vector<std::pair<std::string, T>>& x) {
      x.clear();
      if (v.is_null()) return true;
      if (!v.is_object()) return false;
      for (const auto& [name, value] : v.items()) {
        if (std::is_integral_v<T> ? !value.is_number_integer() : !value.is_number()) return false;
        x.emplace_back(name, value.template get<T>());
      }
      return true;
    });
  }
  const std::set<std::string>& used() const { return used_; }
  void use(const char* key) { used_.insert(key); }

 private:
  const Json& object_;
  const std::string& where_;
  std::set<std::string> used_;
};

template <class T> Json optional_json(const std::optional<T>& value) { return value ? Json(*value) : Json(nullptr); }

Json selection_json(const ModuleSelection& selection) {
  if (!selection.given()) return nullptr;
  if (selection.is_pattern()) return selection.pattern();
  std::vector<std::string> names = selection.names();
  std::sort(names.begin(), names.end());
  names.erase(std::unique(names.begin(), names.end()), names.end());
  return names;
}

template <class T>
Json pattern_json(const std::vector<std::pair<std::string, T>>& pattern) {
  Json out = Json::object();
  for (const auto& [name, value] : pattern) out[name] = value;
  return out;
}

/// A whole number is written as one, as Python writes an int.
Json number_json(double value) {
  if (value == std::floor(value) && std::fabs(value) < 1e15) return static_cast<std::int64_t>(value);
  return value;
}

LoraConfig parse_lora(const Json& object, const std::string& where, std::vector<std::string>* warnings) {
  LoraConfig c;
  Reader reader(object, where);
  reader.use("peft_type");
  reader.integer("r", c.r);
  reader.selection("target_modules", c.target_modules);
  reader.selection("exclude_modules", c.exclude_modules);
  reader.number("lora_alpha", c.lora_alpha);
  reader.number("lora_dropout", c.lora_dropout);
  reader.boolean("fan_in_fan_out", c.fan_in_fan_out);
  reader.text("bias", c.bias);
  reader.boolean("use_rslora", c.use_rslora);
  reader.optional_texts("modules_to_save", c.modules_to_save, false);
  reader.field("init_lora_weights", c.init_lora_weights, "true, false or a text", [](const Json& v, std::variant<bool, std::string>& x) {
    if (v.is_boolean()) x = v.get<bool>();
    else if (v.is_string()) x = v.get<std::string>();
    else return false;
    return true;
  });
  reader.field("layers_to_transform", c.layers_to_transform, "a list of integers, an integer or null", [](const Json& v, auto& x) {
    x.reset();
    if (v.is_null()) return true;
    x.emplace();
    if (v.is_number_integer()) {
      x->push_back(v.get<std::int64_t>());
      return true;
    }
    if (!v.is_array()) return false;
    for (const Json& item : v) {
      if (!item.is_number_integer()) return false;
      x->push_back(item.get<std::int64_t>());
    }
    return true;
  });
  reader.optional_texts("layers_pattern", c.layers_pattern, true);
  reader.pattern("rank_pattern", c.rank_pattern);
  reader.pattern("alpha_pattern", c.alpha_pattern);
  reader.field("task_type", c.task_type, "a task or null", [](const Json& v, std::optional<TaskType>& x) {
    if (v.is_null()) x.reset();
    else if (v.is_string()) x = parse_task_type(v.get<std::string>());
    else return false;
    return true;
  });
  reader.optional_text("base_model_name_or_path", c.base_model_name_or_path);
  reader.optional_text("revision", c.revision);
  reader.boolean("inference_mode", c.inference_mode);

  const Json defaults = unsupported_lora_fields();
  Json others = Json::object();
  for (const auto& [key, value] : object.items()) {
    if (reader.used().contains(key)) continue;
    if (const auto found = defaults.find(key); found != defaults.end()) {
      const bool empty = value.is_null() || (value.is_object() && value.empty()) || value == false;
      if (value != *found && !empty && !kHarmless.contains(key))
        fail<ConfigError>(where, ": ", key, " = ", value.dump(), " is not supported: only its default ", found->dump(), " is");
      if (value != *found) others[key] = value;
    } else if (!kHarmless.contains(key)) {
      others[key] = value;
      if (warnings) warnings->push_back(concat_text(where, ": unknown key '", key, "' is kept but has no effect"));
    }
  }
  c.other_fields = others.dump();
  validate(c);
  return c;
}

/// PEFT sorts the keys of nested objects as well, but for overlapping patterns the order decides which one wins: it is kept.
std::string dump_sorted(const Json& object) {
  std::vector<std::pair<std::string, Json>> items;
  for (const auto& [key, value] : object.items()) items.emplace_back(key, value);
  std::sort(items.begin(), items.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  Json sorted = Json::object();
  for (auto& [key, value] : items) sorted[key] = std::move(value);
  return sorted.dump(2);
}

std::string lora_json(const LoraConfig& c) {
  Json out = unsupported_lora_fields();
  out["peft_type"] = "LORA";
  out["r"] = c.r;
  out["target_modules"] = selection_json(c.target_modules);
  out["exclude_modules"] = selection_json(c.exclude_modules);
  out["lora_alpha"] = number_json(c.lora_alpha);
  out["lora_dropout"] = c.lora_dropout;
  out["fan_in_fan_out"] = c.fan_in_fan_out;
  out["bias"] = c.bias;
  out["use_rslora"] = c.use_rslora;
  out["modules_to_save"] = c.modules_to_save ? selection_json(ModuleSelection(*c.modules_to_save)) : Json(nullptr);
  if (const bool* plain = std::get_if<bool>(&c.init_lora_weights)) out["init_lora_weights"] = *plain;
  else out["init_lora_weights"] = std::get<std::string>(c.init_lora_weights);
  out["layers_to_transform"] = optional_json(c.layers_to_transform);
  out["layers_pattern"] = optional_json(c.layers_pattern);
  if (c.layers_pattern && c.layers_pattern->size() == 1) out["layers_pattern"] = c.layers_pattern->front();  // as people give it to PEFT
  out["rank_pattern"] = pattern_json(c.rank_pattern);
  Json alphas = Json::object();
  for (const auto& [name, value] : c.alpha_pattern) alphas[name] = number_json(value);
  out["alpha_pattern"] = alphas;
  out["task_type"] = c.task_type ? Json(std::string(name_of(*c.task_type))) : Json(nullptr);
  out["base_model_name_or_path"] = optional_json(c.base_model_name_or_path);
  out["revision"] = optional_json(c.revision);
  out["inference_mode"] = true;
  out["peft_version"] = "0.21.2";  // whose format this is
  const Json others = parse_json(c.other_fields, "LoraConfig.other_fields");
  for (const auto& [key, value] : others.items()) out[key] = value;
  return dump_sorted(out);
}

}  // namespace

std::string_view name_of(TaskType task) { return kTasks[static_cast<std::size_t>(task)]; }

TaskType parse_task_type(std::string_view text) {
  for (std::size_t i = 0; i < kTasks.size(); ++i)
    if (kTasks[i] == text) return static_cast<TaskType>(i);
  fail<ConfigError>("task_type: expected SEQ_CLS, SEQ_2_SEQ_LM, CAUSAL_LM, TOKEN_CLS, QUESTION_ANS or FEATURE_EXTRACTION, found '", text, "'");
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
  if (const auto* name = std::get_if<std::string>(&c.init_lora_weights)) {
    std::string lower = *name;
    std::transform(lower.begin(), lower.end(), lower.begin(), [](char ch) { return ch >= 'A' && ch <= 'Z' ? static_cast<char>(ch + 32) : ch; });
    check<ConfigError>(lower == "gaussian", "LoraConfig: init_lora_weights: expected true, false or \"gaussian\", found \"", *name, "\"");
  }
}

std::string to_json(const PeftConfig& config) { return std::visit([](const LoraConfig& c) { return lora_json(c); }, config); }

PeftConfig parse_peft_config(std::string_view json, const std::string& where, std::vector<std::string>* warnings) {
  const Json object = parse_json(json, where);
  check<ConfigError>(object.is_object(), where, ": expected an object");
  const auto type = object.find("peft_type");
  check<ConfigError>(type != object.end() && type->is_string(), where, ": peft_type: expected a text such as \"LORA\"");
  const std::string name = type->get<std::string>();
  if (name == "LORA") return parse_lora(object, where, warnings);
  fail<ConfigError>(where, ": peft_type: expected LORA, found ", name, ": other methods are not supported");
}

PeftConfig read_peft_config(const std::string& folder, std::vector<std::string>* warnings) {
  const std::string path = folder + "/adapter_config.json";
  return parse_peft_config(read_json_file(path).dump(), path, warnings);
}

}  // namespace cambium
