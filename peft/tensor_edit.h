// What adapters do to the tensors of a model's files, row by row, so that no whole tensor has to be in memory in float32.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "peft/lora_adapter.h"

namespace cambium {

/// How a tensor of a file holds the matrix of a layer.
struct StoredMatrix {
  bool transposed = false;    ///< (in, out), as GPT-2's Conv1D in Hugging Face's files
  bool turned = false;        ///< the file holds the transpose of what Hugging Face's files hold
  std::int64_t head_dim = 0;  ///< not 0: the rows of each head lie in pairs for interleaved rotation, as GGUF has Llama's q and k
};

/// Rows of x (rows, …) or of a vector, brought from Hugging Face's order of halves into GGUF's order of pairs, head by head. ShapeError.
Tensor pairs_from_halves(const Tensor& x, std::int64_t head_dim);
/// The way back.
Tensor halves_from_pairs(const Tensor& x, std::int64_t head_dim);

/// The changes of one stored tensor, in the order in which adapters are merged. All arithmetic in float32; what comes out is rounded once by the caller.
class TensorEdit {
 public:
  /// W += scaling B A: b (out, r), a (r, in); `turned`: the stored tensor is (in, out) and gets the transpose.
  void add_delta(Tensor b, Tensor a, double scaling, bool turned);
  /// The same, and each output's norm is brought to `magnitude` (DoRA, Liu et al. 2024, arXiv 2402.09353).
  void add_dora(Tensor b, Tensor a, double scaling, bool turned, Tensor magnitude);
  void scale_rows(Tensor factors);     ///< (rows)
  void scale_columns(Tensor factors);  ///< (columns)
  void add_vector(Tensor values, double scaling);  ///< to a bias
  /// The tensor itself becomes another one.
  void replace(Tensor tensor);
  void replace_rows(std::vector<std::int64_t> rows, Tensor values);
  bool empty() const { return stages_.empty(); }

  /// ShapeError naming `name` when the changes are not for a tensor of this shape.
  void check_shape(const Shape& shape, const std::string& name) const;
  /// Rows [begin, end) after all changes, float32. `read` gives rows of the stored tensor in float32; a DoRA whose outputs are columns reads all of them once.
  using ReadRows = std::function<Tensor(std::int64_t begin, std::int64_t end)>;
  Tensor rows(const Shape& shape, const ReadRows& read, std::int64_t begin, std::int64_t end, std::int64_t rows_at_once);

 private:
  enum class Kind { delta, dora, row_factors, column_factors, vector, whole, some_rows };
  struct Stage {
    Kind kind;
    Tensor b, a;
    double scaling = 1.0;
    bool turned = false;
    Tensor vector;
    std::vector<std::int64_t> indices;
    Tensor column_factors;  ///< of a DoRA over columns, once they are known
  };
  static Tensor delta_rows(const Stage& stage, std::int64_t begin, std::int64_t end);
  Tensor apply(std::size_t stages, const Shape& shape, const ReadRows& read, std::int64_t begin, std::int64_t end, std::int64_t rows_at_once);
  std::vector<Stage> stages_;
};

}  // namespace cambium
