// The tensors of a model's files, as merging reads them: by module, in rows, without making the model. Internal: not installed.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/ggml_types.h"
#include "peft/tensor_edit.h"
#include "tensor/json.h"

namespace cambium {

class MergeSource {
 public:
  struct Item {
    std::string name;          ///< as it will be written
    Shape shape;
    DType dtype = DType::f32;  ///< as it will be written unless told otherwise; block formats: float32
    std::size_t file = 0;      ///< which of file_names()
  };
  virtual ~MergeSource() = default;
  const std::vector<Item>& items() const { return items_; }
  /// The tensor of a module: "weight" or "bias". Tied weights are found under the name that holds them.
  virtual std::optional<std::size_t> find(const std::string& module_path, const std::string& member) const = 0;
  virtual StoredMatrix matrix(std::size_t item) const = 0;
  /// The name that a module's tensor has, or would have, in the files written.
  virtual std::string name_for(const std::string& module_path, const std::string& member) const = 0;
  /// Rows in float32 (a scalar counts as one row).
  virtual Tensor rows(std::size_t item, std::int64_t begin, std::int64_t end) const = 0;
  /// The whole tensor as it lies in the file, where it is not of a block format.
  virtual Tensor whole(std::size_t item) const = 0;
  /// What was read of it need not stay in memory.
  virtual void forget(std::size_t item) const = 0;
  /// config.json, as far as there is one: what it says, and the dimension of a head where rows are permuted.
  const Json& config() const { return config_; }
  const std::string& where() const { return where_; }
  /// Names of the files of a folder, by Item::file; one for GGUF.
  const std::vector<std::string>& file_names() const { return file_names_; }

 protected:
  std::vector<Item> items_;
  std::vector<std::string> file_names_;
  Json config_ = Json::object();
  std::string where_;
};

std::unique_ptr<MergeSource> open_huggingface_source(const std::string& folder);
/// as_huggingface: names, order of rows and orientation as Hugging Face's folders have them; else as they lie in the file.
std::unique_ptr<MergeSource> open_gguf_source(const std::string& path, bool as_huggingface);

/// Whether a tensor of this model is stored (in, out).
bool is_stored_transposed(std::string_view model_type, std::string_view tensor_name);

}  // namespace cambium
