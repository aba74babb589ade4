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

/// Rows of token embeddings that are trained: a list is for the input embeddings, a map names modules. `{3, 7}` is a list, `{{"wte", {3, 7}}}` a map.
class TokenIndices {
 public:
  using Tokens = std::vector<std::int64_t>;
  using Map = std::vector<std::pair<std::string, Tokens>>;
  TokenIndices() = default;
  TokenIndices(std::initializer_list<std::int64_t> tokens) : given_(true), tokens_(tokens) {}
  TokenIndices(std::initializer_list<std::pair<std::string, Tokens>> modules) : given_(true), modules_(modules) {}
  TokenIndices(Tokens tokens) : given_(true), tokens_(std::move(tokens)) {}
  TokenIndices(Map modules) : given_(true), modules_(std::move(modules)) {}

  bool given() const { return given_; }
  bool is_map() const { return !modules_.empty(); }
  const Tokens& tokens() const { return tokens_; }
  const Map& modules() const { return modules_; }
  bool operator==(const TokenIndices&) const = default;

 private:
  bool given_ = false;
  Tokens tokens_;
  Map modules_;
};

// Every field has the name and default of PEFT's; the last ones are the same in all methods.

/// Low-rank adaptation (Hu et al. 2021, arXiv 2106.09685).
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
  /// true, false, "gaussian", "pissa", "pissa_niter_N" (Meng et al. 2024, arXiv 2404.02948), "olora" (Büyükakyüz 2024, arXiv 2406.01775) or "orthogonal".
  std::variant<bool, std::string> init_lora_weights = true;
  std::optional<std::vector<std::int64_t>> layers_to_transform;
  std::optional<std::vector<std::string>> layers_pattern;
  std::vector<std::pair<std::string, std::int64_t>> rank_pattern;  ///< first matching key wins
  std::vector<std::pair<std::string, double>> alpha_pattern;
  TokenIndices trainable_token_indices = {};
  bool use_dora = false;            ///< magnitude and direction apart (Liu et al. 2024, arXiv 2402.09353)
  bool lora_bias = false;           ///< a bias on B
  std::optional<TaskType> task_type = std::nullopt;
  std::optional<std::string> base_model_name_or_path = std::nullopt, revision = std::nullopt;
  bool inference_mode = false;      ///< true: the adapter is not trained
  std::string other_fields = "{}";  ///< what a file held besides: unsupported fields at their defaults and unknown ones, written back as they were
};

/// Learned vectors that scale activations (Liu et al. 2022, arXiv 2205.05638).
struct IA3Config {
  ModuleSelection target_modules;   ///< nothing: the table of defaults per architecture
  ModuleSelection exclude_modules;
  ModuleSelection feedforward_modules;  ///< those whose input is scaled instead of their output; may be an empty list
  bool fan_in_fan_out = false;
  std::optional<std::vector<std::string>> modules_to_save;
  bool init_ia3_weights = true;     ///< ones; false: standard normal
  std::optional<TaskType> task_type = std::nullopt;
  std::optional<std::string> base_model_name_or_path = std::nullopt, revision = std::nullopt;
  bool inference_mode = false;
  std::string other_fields = "{}";
};

enum class PromptTuningInit { RANDOM, TEXT, SAMPLE_VOCAB };

/// Trained embeddings before the text (Lester et al. 2021, arXiv 2104.08691). Absent sizes are taken from the base model.
struct PromptTuningConfig {
  std::optional<std::int64_t> num_virtual_tokens = std::nullopt;
  PromptTuningInit prompt_tuning_init = PromptTuningInit::RANDOM;
  std::optional<std::string> prompt_tuning_init_text = std::nullopt;  ///< with TEXT
  std::optional<std::string> tokenizer_name_or_path = std::nullopt;   ///< with TEXT
  std::optional<std::string> tokenizer_kwargs = std::nullopt;         ///< with TEXT: a JSON object
  std::optional<std::int64_t> token_dim = std::nullopt, num_transformer_submodules = std::nullopt, num_attention_heads = std::nullopt, num_layers = std::nullopt;
  std::optional<std::vector<std::string>> modules_to_save = std::nullopt;
  std::optional<TaskType> task_type = std::nullopt;
  std::optional<std::string> base_model_name_or_path = std::nullopt, revision = std::nullopt;
  bool inference_mode = false;
  std::string other_fields = "{}";
};

/// Trained keys and values before every layer's own (Li and Liang 2021, arXiv 2101.00190).
struct PrefixTuningConfig {
  std::optional<std::int64_t> num_virtual_tokens = std::nullopt;
  std::optional<std::int64_t> encoder_hidden_size = std::nullopt;  ///< of the projection; absent: token_dim
  bool prefix_projection = false;
  std::optional<std::string> init_weights = std::nullopt;          ///< "zero" or nothing: normal
  std::optional<std::int64_t> token_dim = std::nullopt, num_transformer_submodules = std::nullopt, num_attention_heads = std::nullopt, num_layers = std::nullopt;
  std::optional<std::vector<std::string>> modules_to_save = std::nullopt;
  std::optional<TaskType> task_type = std::nullopt;
  std::optional<std::string> base_model_name_or_path = std::nullopt, revision = std::nullopt;
  bool inference_mode = false;
  std::string other_fields = "{}";
};

enum class PromptEncoderType { MLP, LSTM };

/// P-tuning: embeddings before the text, made by a small network (Liu et al. 2021, arXiv 2103.10385).
struct PromptEncoderConfig {
  std::optional<std::int64_t> num_virtual_tokens = std::nullopt;
  PromptEncoderType encoder_reparameterization_type = PromptEncoderType::MLP;
  std::optional<std::int64_t> encoder_hidden_size = std::nullopt;  ///< absent: token_dim
  std::int64_t encoder_num_layers = 2;  ///< of the LSTM
  double encoder_dropout = 0.0;         ///< between layers of the LSTM
  std::optional<std::int64_t> token_dim = std::nullopt, num_transformer_submodules = std::nullopt, num_attention_heads = std::nullopt, num_layers = std::nullopt;
  std::optional<std::vector<std::string>> modules_to_save = std::nullopt;
  std::optional<TaskType> task_type = std::nullopt;
  std::optional<std::string> base_model_name_or_path = std::nullopt, revision = std::nullopt;
  bool inference_mode = false;
  std::string other_fields = "{}";
};

/// One of the methods.
using PeftConfig = std::variant<LoraConfig, IA3Config, PromptTuningConfig, PrefixTuningConfig, PromptEncoderConfig>;

std::string_view peft_type_of(const PeftConfig& config);  ///< LORA, IA3, PROMPT_TUNING, PREFIX_TUNING, P_TUNING
bool is_prompt_learning(const PeftConfig& config);        ///< one of the last three: the base's layers stay as they are

const ModuleSelection& target_modules_of(const PeftConfig& config);  ///< StateError for prompt learning

/// What `init_lora_weights` says, as one of the ways; ConfigError listing them.
struct LoraInit {
  enum class Way { kaiming, uniform, gaussian, pissa, olora, orthogonal };
  Way way = Way::kaiming;
  std::optional<std::int64_t> iterations = std::nullopt;  ///< pissa: power iterations of the randomised SVD; absent: the exact one
  bool changes_base() const { return way == Way::pissa || way == Way::olora; }
};
LoraInit parse_lora_init(const std::variant<bool, std::string>& init);

/// What a configuration says by itself (no model needed); ConfigError for what PEFT refuses at construction.
void validate(const LoraConfig& config);
void validate(const IA3Config& config);
void validate(const PromptTuningConfig& config);
void validate(const PrefixTuningConfig& config);
void validate(const PromptEncoderConfig& config);

/// adapter_config.json as PEFT 0.21 writes it: all its keys, sorted, two spaces of indent, `inference_mode` true.
std::string to_json(const PeftConfig& config);

/// Reads adapter_config.json. Unknown keys are kept and told in `warnings`; a known one that would change the maths and is not supported is a ConfigError.
PeftConfig parse_peft_config(std::string_view json, const std::string& where, std::vector<std::string>* warnings = nullptr);
PeftConfig read_peft_config(const std::string& folder, std::vector<std::string>* warnings = nullptr);

}  // namespace cambium
