// The table of model families: a new one is its files and a row here. Internal: not installed.
#pragma once

#include <span>
#include <string_view>

#include "nn/models/config_reader.h"
#include "nn/models/model.h"

namespace cambium {

struct ModelFamily {
  std::string_view model_type;    ///< of config.json
  std::string_view architecture;  ///< its causal language model
  /// A model with meta parameters of `dtype`.
  std::shared_ptr<PretrainedModel> (*make)(const ConfigReader& config, const std::string& json, DType dtype);
  void (*initialize)(PretrainedModel& model, RandomKey key, DType dtype);
};

std::span<const ModelFamily> model_families();
/// The row of this config.json; ConfigError naming the known ones, or an architecture that is not a causal language model.
const ModelFamily& family_of(const ConfigReader& config);

/// What every family reads alike.
void read_common(const ConfigReader& config, const std::string& json, ModelConfig& out);

// The families' functions, each beside its model.
std::shared_ptr<PretrainedModel> make_llama(const ConfigReader& config, const std::string& json, DType dtype);
std::shared_ptr<PretrainedModel> make_gpt2(const ConfigReader& config, const std::string& json, DType dtype);
void initialize_llama(PretrainedModel& model, RandomKey key, DType dtype);
void initialize_gpt2(PretrainedModel& model, RandomKey key, DType dtype);

}  // namespace cambium
