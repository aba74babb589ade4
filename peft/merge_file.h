// Merging adapters into the files of a model, tensor by tensor: memory of a few tensors, whatever the model's size.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/ggml_types.h"
#include "kernels/dtype.h"

namespace cambium {

struct MergeProgress {
  std::size_t done = 0, total = 0;   ///< tensors
  std::uint64_t bytes = 0, total_bytes = 0;
  std::string tensor;
};

struct MergeOptions {
  bool safe = true;                     ///< StateError when a merged tensor holds NaN or infinity
  std::optional<DType> dtype;           ///< of a folder that is written; absent: as stored, float32 where block formats were
  std::optional<GgmlType> gguf_type;    ///< of matrices in a GGUF file that is written: F32, F16, BF16 or Q8_0; absent: as stored, F16 where block formats were
  std::function<void(const MergeProgress&)> progress;
  std::function<bool()> stop;           ///< asked often; true ends the work with a StateError and nothing left behind
};

struct MergeReport {
  std::size_t tensors = 0, merged = 0;  ///< written; changed by an adapter
  std::uint64_t bytes = 0;
  std::vector<std::string> files;
  std::vector<std::string> notes;       ///< "the head is no longer tied", …
};

/// Writes `model` (a Hugging Face folder or a .gguf file) with the adapters merged in, in their order, to `out`: a folder in the same shards, or, from GGUF only, a .gguf file. Adapters are
/// PEFT folders (LoRA of all kinds, IA3) or GGUF LoRA adapters. Deltas are added in float32 and rounded once, as merge_and_unload() does; every tensor of an adapter is used or the call fails.
/// Everything is written beside `out` and renamed at the end: a full disk, an error or an interrupt leaves no model under that name.
/// ConfigError, NameError and ShapeError for what does not fit together, before anything is written; FileError.
MergeReport merge_model_files(const std::string& model, const std::vector<std::string>& adapters, const std::string& out, const MergeOptions& options = {});

}  // namespace cambium
