// What loaders of folders and of GGUF files share. Internal: not installed.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "nn/models/model.h"
#include "nn/models/registry.h"

namespace cambium {

/// The tensors of a file under the names of the model, read one by one.
struct TensorSource {
  std::string where;                                       ///< file or folder, for messages
  std::map<std::string, std::function<Tensor()>> tensors;  ///< by the model's name
};

/// Makes the model of this configuration and fills it: every tensor used, none missing (NameError listing names). Parameters do not require gradients.
/// All floating tensors get one dtype: `options.dtype`, else that of the token embeddings in the file.
std::shared_ptr<PretrainedModel> load_model(const Json& config, const std::string& config_text, const std::string& config_where, TensorSource source,
                                            const LoadOptions& options);

std::shared_ptr<PretrainedModel> load_huggingface_folder(const std::string& folder, const LoadOptions& options);
std::shared_ptr<PretrainedModel> load_gguf(const std::string& path, const LoadOptions& options);

}  // namespace cambium
