// GGUF files: their metadata as a config.json, their tensors under Hugging Face's names.
#include "nn/models/loading.h"

namespace cambium {

std::shared_ptr<PretrainedModel> load_gguf(const std::string& path, const LoadOptions&) { fail<FileError>(path, ": GGUF files cannot be read yet"); }

}  // namespace cambium
