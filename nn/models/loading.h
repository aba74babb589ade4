// What loaders of folders and of GGUF files share. Internal: not installed.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "nn/models/model.h"
#include "nn/models/registry.h"

namespace cambium {

class GgufFile;  // tensor/gguf.h

/// The tensors of a file, read one by one.
struct TensorSource {
  std::string where;                                       ///< file or folder, for messages
  std::map<std::string, std::function<Tensor()>> tensors;  ///< by the name in the file, as any class of the family spells it
};

/// Makes the model of this configuration and fills it: see load_pretrained. All floating tensors get one dtype: `options.dtype`, else that of the token embeddings
/// in the file.
std::shared_ptr<PretrainedModel> load_model(Json config, const std::string& config_text, const std::string& config_where, const TensorSource& source,
                                            std::optional<Task> task, const LoadOptions& options);
/// The tensors of `source` under the names that `chosen` has for them; FileError when two become one.
TensorSource renamed(const ModelFamily& family, const ModelClass& chosen, const TensorSource& source);
/// Whether a tensor under the model's name belongs to a head or to a part that not every class has.
bool is_optional_part(const ModelFamily& family, const ModelClass& chosen, std::string_view name);

/// What a GGUF file's metadata say, as a config.json. ConfigError for an architecture or a setting that is not supported.
Json config_from_gguf(const GgufFile& file);

std::shared_ptr<PretrainedModel> load_huggingface_folder(const std::string& folder, std::optional<Task> task, const LoadOptions& options);
std::shared_ptr<PretrainedModel> load_gguf(const std::string& path, std::optional<Task> task, const LoadOptions& options);

}  // namespace cambium
