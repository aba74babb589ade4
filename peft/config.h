// Configurations of the tuners, with PEFT's names, defaults and files (adapter_config.json).
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace cambium {

enum class TaskType { SEQ_CLS, SEQ_2_SEQ_LM, CAUSAL_LM, TOKEN_CLS, QUESTION_ANS, FEATURE_EXTRACTION };
std::string_view name_of(TaskType task);
TaskType parse_task_type(std::string_view text);  ///< ConfigError listing the six

/// Which modules are meant: a list of names (each matches a path's end, whole components), one regular expression for the whole path, or nothing.
/// `{"q_proj", "v_proj"}` is a list; `"all-linear"` and `".*attn.*"` are texts.
class ModuleSelection {
 public:
  ModuleSelection() = default;
  ModuleSelection(std::initializer_list<std::string> names) : given_(true), names_(names) {}
  ModuleSelection(std::vector<std::string> names) : given_(true), names_(std::move(names)) {}
  ModuleSelection(std::string pattern) : given_(true), pattern_(std::move(pattern)) {}
  ModuleSelection(const char* pattern) : ModuleSelection(std::string(pattern)) {}

  bool given() const { return given_; }
  bool is_pattern() const { return given_ && pattern_.has_value(); }
  bool is_list() const { return given_ && !pattern_; }
  const std::vector<std::string>& names() const { return names_; }
  const std::string& pattern() const { return *pattern_; }
  bool operator==(const ModuleSelection&) const = default;

 private:
  bool given_ = false;
  std::vector<std::string> names_;
  std::optional<std::string> pattern_;
};

/// Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685). Every field has the name and default of PEFT's LoraConfig.
struct LoraConfig {
  std::int64_t r = 8;
  ModuleSelection target_modules;   ///< nothing: the table of defaults per architecture
  ModuleSelection exclude_modules;  ///< wins over target_modules
  double lora_alpha = 8;
  double lora_dropout = 0.0;        ///< on the adapter's input only
  bool fan_in_fan_out = false;      ///< weight stored (in, out); corrected to what the layers are
  std::string bias = "none";        ///< none, all, lora_only: which biases of the base are trained and saved
  bool use_rslora = false;          ///< scaling alpha / sqrt(r) instead of alpha / r (Kalajdzievski 2023, arXiv 2312.03732)
  std::optional<std::vector<std::string>> modules_to_save;  ///< trained in full, as a copy per adapter
  std::variant<bool, std::string> init_lora_weights = true; ///< true, false or "gaussian"
  std::optional<std::vector<std::int64_t>> layers_to_transform;
  std::optional<std::vector<std::string>> layers_pattern;
  std::vector<std::pair<std::string, std::int64_t>> rank_pattern;  ///< first matching key wins
  std::vector<std::pair<std::string, double>> alpha_pattern;
  std::optional<TaskType> task_type = std::nullopt;
  std::optional<std::string> base_model_name_or_path = std::nullopt, revision = std::nullopt;
  bool inference_mode = false;      ///< true: the adapter is not trained
  std::string other_fields = "{}";  ///< what a file held besides: unsupported fields at their defaults and unknown ones, written back as they were
};

/// One of the methods. Each new method is one more alternative here and one row of the table in config.cpp.
using PeftConfig = std::variant<LoraConfig>;

/// What a configuration says by itself (no model needed); ConfigError for what PEFT refuses at construction.
void validate(const LoraConfig& config);

/// adapter_config.json as PEFT 0.21 writes it: all its keys, sorted, two spaces of indent, `inference_mode` true.
std::string to_json(const PeftConfig& config);

/// Reads adapter_config.json. Unknown keys are kept and told in `warnings`; a known one that would change the maths and is not supported is a ConfigError.
PeftConfig parse_peft_config(std::string_view json, const std::string& where, std::vector<std::string>* warnings = nullptr);
PeftConfig read_peft_config(const std::string& folder, std::vector<std::string>* warnings = nullptr);

}  // namespace cambium
