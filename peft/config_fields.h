// Reading and writing the fields of adapter_config.json: what the methods share. Internal: not installed.
#pragma once

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "kernels/error.h"
#include "peft/config.h"
#include "tensor/json.h"

namespace cambium::detail {

/// Takes the fields of one object into members; every refusal names file, key, what was expected and what stands there.
class ConfigFields {
 public:
  ConfigFields(const Json& object, const std::string& where) : object_(object), where_(where) {}

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
  void optional_integer(const char* key, std::optional<std::int64_t>& into) {
    field(key, into, "an integer or null", [](const Json& v, std::optional<std::int64_t>& x) {
      if (v.is_null()) x.reset();
      else if (v.is_number_integer()) x = v.get<std::int64_t>();
      else return false;
      return true;
    });
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
  static bool integers(const Json& v, std::vector<std::int64_t>& out) {
    if (!v.is_array()) return false;
    for (const Json& item : v) {
      if (!item.is_number_integer()) return false;
      out.push_back(item.get<std::int64_t>());
    }
    return true;
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
  /// What every method has besides its own.
  template <class Config>
  void common(Config& c) {
    use("peft_type");
    optional_texts("modules_to_save", c.modules_to_save, false);
    field("task_type", c.task_type, "a task or null", [](const Json& v, std::optional<TaskType>& x) {
      if (v.is_null()) x.reset();
      else if (v.is_string()) x = parse_task_type(v.get<std::string>());
      else return false;
      return true;
    });
    optional_text("base_model_name_or_path", c.base_model_name_or_path);
    optional_text("revision", c.revision);
    boolean("inference_mode", c.inference_mode);
  }
  /// The rest of the object: what `defaults` lists is an error unless it is the default, unknown keys are kept and warned of, junk of old versions is dropped.
  std::string others(const Json& defaults, std::vector<std::string>* warnings) const;
  const std::set<std::string>& used() const { return used_; }
  void use(const char* key) { used_.insert(key); }

 private:
  const Json& object_;
  const std::string& where_;
  std::set<std::string> used_;
};

template <class T> Json optional_json(const std::optional<T>& value) { return value ? Json(*value) : Json(nullptr); }
/// Lists sorted and without duplicates: PEFT has sets there.
Json names_json(std::vector<std::string> names);
Json selection_json(const ModuleSelection& selection);
/// A whole number is written as one, as Python writes an int.
Json number_json(double value);

template <class T>
Json pattern_json(const std::vector<std::pair<std::string, T>>& pattern) {
  Json out = Json::object();
  for (const auto& [name, value] : pattern) out[name] = number_json(static_cast<double>(value));
  return out;
}

/// The fields that every method writes, and what a file held besides.
template <class Config>
void write_common(Json& out, const char* peft_type, const Config& c) {
  out["peft_type"] = peft_type;
  out["modules_to_save"] = c.modules_to_save ? names_json(*c.modules_to_save) : Json(nullptr);
  out["task_type"] = c.task_type ? Json(std::string(name_of(*c.task_type))) : Json(nullptr);
  out["base_model_name_or_path"] = optional_json(c.base_model_name_or_path);
  out["revision"] = optional_json(c.revision);
  out["inference_mode"] = true;
  out["peft_version"] = "0.21.2";  // whose format this is
  if (!out.contains("auto_mapping")) out["auto_mapping"] = nullptr;
  const Json others = parse_json(c.other_fields, "other_fields");
  for (const auto& [key, value] : others.items()) out[key] = value;
}

Json to_json_object(const LoraConfig& c);
Json to_json_object(const IA3Config& c);
Json to_json_object(const PromptTuningConfig& c);
Json to_json_object(const PrefixTuningConfig& c);
Json to_json_object(const PromptEncoderConfig& c);
void parse_into(LoraConfig& c, ConfigFields& fields, std::vector<std::string>* warnings);
void parse_into(IA3Config& c, ConfigFields& fields, std::vector<std::string>* warnings);
void parse_into(PromptTuningConfig& c, ConfigFields& fields, std::vector<std::string>* warnings);
void parse_into(PrefixTuningConfig& c, ConfigFields& fields, std::vector<std::string>* warnings);
void parse_into(PromptEncoderConfig& c, ConfigFields& fields, std::vector<std::string>* warnings);

}  // namespace cambium::detail
