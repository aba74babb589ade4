// A LoRA adapter from the difference of two full models.
#pragma once

#include <string>
#include <vector>

#include "peft/combine.h"

namespace cambium {

struct ExtractOptions {
  std::int64_t rank = 16;          ///< of every module
  ModuleSelection target_modules;  ///< nothing: every matrix that differs, but embeddings and the head
  RandomKey key{};                 ///< of the randomised route
};

/// What of the difference is in the adapter, and what is not.
struct ExtractReport {
  CombinationReport modules;            ///< with the error of each
  std::vector<std::string> left_over;   ///< tensors that differ and that the adapter does not hold: norms, biases, embeddings, what target_modules leaves out
};

/// The adapter of this rank that is closest to tuned - base, matrix by matrix (Frobenius norm), read from two Hugging Face folders one tensor at a time. Its scaling is 1.
/// NameError and ShapeError when the folders hold different models; ConfigError when no matrix differs.
LoraAdapter extract_adapter(const std::string& base_folder, const std::string& tuned_folder, const ExtractOptions& options = {}, ExtractReport* report = nullptr, const CombinationProgress& progress = {});

}  // namespace cambium
