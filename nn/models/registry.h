// The table of model families: a new one is its files and its rows here. Internal: not installed.
#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>

#include "nn/models/config_reader.h"
#include "nn/models/model.h"

namespace cambium {

struct TensorSource;

/// One class of transformers: a family for a task.
struct ModelClass {
  Task task;
  std::string_view architecture;  ///< "BertForSequenceClassification": of config.json
  std::string_view backbone;      ///< its member that holds the bare model; empty: it is the bare model, or has its members itself
  /// Parts of the head that are initialised when a file lacks them, by prefix ("classifier."). None of a language model: that would be no model at all.
  std::string_view new_head = {}, new_head_too = {};
};

struct ModelFamily {
  std::string_view model_type;                  ///< of config.json
  std::span<const ModelClass> classes;          ///< the first is meant by a configuration without `architectures`
  std::span<const std::string_view> heads;      ///< what stands beside the backbone, by prefix; what a class does not have is left out when it loads
  std::span<const std::string_view> optional;   ///< the same for what stands within the backbone
  /// A model with meta parameters of `dtype`.
  std::shared_ptr<PretrainedModel> (*make)(const ModelClass& chosen, const ConfigReader& config, const std::string& json, DType dtype);
  void (*initialize)(PretrainedModel& model, RandomKey key, DType dtype);
  /// Settings that only the files tell, put into the configuration before the model is made; may be null.
  void (*adapt_config)(Json& config, const TensorSource& source) = nullptr;
  std::string_view no_float16 = {};  ///< why this family refuses float16; empty: it does not
};

std::span<const ModelFamily> model_families();
/// The row of this config.json; ConfigError naming the known ones.
const ModelFamily& family_of(const ConfigReader& config);
/// The class for a task, or the one `architectures` name when there is none; ConfigError naming what the family has.
const ModelClass& class_of(const ModelFamily& family, std::optional<Task> task, const ConfigReader& config);

/// What every family reads alike. Encoder-decoders are refused unless the family is one.
void read_common(const ConfigReader& config, const std::string& json, ModelConfig& out, bool encoder_decoder = false);

// The families' functions, each beside its model.
std::shared_ptr<PretrainedModel> make_bert(const ModelClass& chosen, const ConfigReader& config, const std::string& json, DType dtype);
std::shared_ptr<PretrainedModel> make_t5(const ModelClass& chosen, const ConfigReader& config, const std::string& json, DType dtype);
std::shared_ptr<PretrainedModel> make_llama(const ModelClass& chosen, const ConfigReader& config, const std::string& json, DType dtype);
std::shared_ptr<PretrainedModel> make_gptj(const ModelClass& chosen, const ConfigReader& config, const std::string& json, DType dtype);
std::shared_ptr<PretrainedModel> make_falcon(const ModelClass& chosen, const ConfigReader& config, const std::string& json, DType dtype);
std::shared_ptr<PretrainedModel> make_gpt2(const ModelClass& chosen, const ConfigReader& config, const std::string& json, DType dtype);
void initialize_bert(PretrainedModel& model, RandomKey key, DType dtype);
void initialize_t5(PretrainedModel& model, RandomKey key, DType dtype);
void adapt_t5_config(Json& config, const TensorSource& source);
inline constexpr std::string_view kT5NoFloat16 = "T5's activations grow beyond what float16 holds (65504) and become infinite: load it as bfloat16 or float32";
void initialize_decoder(PretrainedModel& model, RandomKey key, DType dtype);
void initialize_gpt2(PretrainedModel& model, RandomKey key, DType dtype);

}  // namespace cambium
