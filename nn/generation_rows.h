// What generation with every kind of model shares: checks of options, and choosing the next token of each row. Internal: not installed.
#pragma once

#include <functional>
#include <vector>

#include "nn/generation.h"
#include "nn/sampling_device.h"

namespace cambium {

/// The rows that are being continued.
class GenerationRows {
 public:
  /// ConfigError for options that make no sense.
  GenerationRows(std::size_t count, const ModelConfig& config, const GenerationOptions& options, const ForwardContext& context);

  /// The next token of each row from logits (B, 1, V): padding for a row that has ended. `seen`: the ids of a row so far, asked for a repetition penalty only.
  std::vector<std::int64_t> choose(const Tensor& logits, const std::function<std::vector<std::int64_t>(std::size_t row)>& seen);
  /// Every row has ended, or there are enough tokens, or the caller wants no more.
  bool finished() const;
  const std::vector<std::vector<std::int64_t>>& tokens() const { return tokens_; }

 private:
  std::vector<std::int64_t> sampled(const Tensor& logits, const std::vector<SamplingRow>& rows) const;

  const GenerationOptions& options_;
  std::vector<std::int64_t> ends_;
  std::int64_t filler_, step_ = 0;
  std::vector<std::vector<std::int64_t>> tokens_;
  std::vector<bool> done_;
  bool stopped_ = false;
};

}  // namespace cambium
