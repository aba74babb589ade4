// Choosing the next token from logits: transformers' processors and warpers, in its order.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "autograd/random.h"

namespace cambium {

/// How the next token is chosen. With the defaults it is the most likely one. Steps are taken in transformers' order: repetition penalty, temperature,
/// top-k, top-p, min-p.
struct SamplingOptions {
  bool do_sample = false;
  double temperature = 1.0;         ///< > 0
  std::int64_t top_k = 0;           ///< keep the k most likely; 0: all
  double top_p = 1.0;               ///< keep the most likely that together reach p. Holtzman et al. 2019, arXiv 1904.09751
  double min_p = 0.0;               ///< keep those at least min_p times as likely as the first. Nguyen et al. 2024, arXiv 2407.01082
  double repetition_penalty = 1.0;  ///< of tokens seen: positive logits divided, negative ones multiplied. Keskar et al. 2019, arXiv 1909.05858

  void check() const;  ///< ConfigError naming an option that makes no sense
};

/// A token that may be drawn, and its probability.
struct Candidate {
  std::int64_t token;
  double probability;
};

/// What may be drawn after `seen`: probabilities sum to one, most likely first (equals by token id). StateError when a logit is NaN or none is finite.
std::vector<Candidate> sampling_candidates(std::span<const float> logits, std::span<const std::int64_t> seen, const SamplingOptions& options);

/// The next token: the most likely one (the first of equals) unless options.do_sample, else a draw by `key`.
std::int64_t sample_token(std::span<const float> logits, std::span<const std::int64_t> seen, const SamplingOptions& options, RandomKey key);

}  // namespace cambium
