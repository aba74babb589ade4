// Sizes of prompt methods, completed from the base model's configuration. Internal: not installed.
#pragma once

#include <string>
#include <vector>

#include "nn/models/model.h"
#include "peft/config.h"

namespace cambium {

struct PromptSizes {
  std::int64_t tokens = 0;      ///< num_virtual_tokens: N
  std::int64_t submodules = 1;  ///< num_transformer_submodules
  std::int64_t layers = 0, width = 0, heads = 0;  ///< num_layers, token_dim, num_attention_heads
  std::int64_t hidden = 0;      ///< encoder_hidden_size
  bool prefix = false;
  /// Rows of the adapter: prompts have one part for each submodule (an encoder-decoder uses the first), prefixes one for all.
  std::int64_t rows() const { return prefix ? tokens : tokens * submodules; }
  std::int64_t columns() const { return prefix ? 2 * layers * width : width; }
};

/// Fills in what a configuration of a prompt method leaves open, as PEFT does, and what the base's attention says where PEFT's guess cannot run (heads of Falcon's
/// multi_query, T5 with other key sizes or more decoder than encoder layers). ConfigError for sizes that do not fit the model.
PromptSizes complete_prompt_config(PeftConfig& config, const PretrainedModel& model, std::vector<std::string>& warnings);

}  // namespace cambium
