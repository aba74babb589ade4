// Batches whose rows use different adapters, and sessions that choose theirs while others run.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "nn/module.h"

namespace cambium {

class Tuner;

/// The row of a batch that uses no adapter.
inline constexpr const char* kBaseRow = "__base__";

/// forward() of a layer, each row of x (rows, …) with the adapter that `context.adapter_names` gives it: every distinct adapter runs once, on its rows together; rows whose adapter this layer
/// does not have (`has` says so) run together without one. A row gets the same as in a batch of its own. ShapeError when x has another number of rows.
Tensor forward_by_rows(const Layer& layer, const Tensor& x, const ForwardContext& context, const std::function<bool(const std::string&)>& has);

/// What a mixed batch asks of a model, told before anything runs: a name for each of `rows` (ShapeError), known ones (NameError), nothing merged (StateError).
void check_adapter_names(const Tuner& tuner, const ForwardContext& context, std::int64_t rows);

/// Which adapters new requests use, swapped while others run: a session asks for a context when a request begins and keeps it to the end, so that no output is of two minds. The model itself
/// is not touched. Adapters may be added and deleted only while nothing runs.
class AdapterSwitch {
 public:
  explicit AdapterSwitch(const Tuner& tuner);  ///< starts with the model's active adapters
  /// From now on; an empty list: none. NameError.
  void select(const std::vector<std::string>& names);
  std::vector<std::string> selected() const;
  /// `context` with the adapters selected now.
  ForwardContext context(ForwardContext context = {}) const;

 private:
  std::vector<std::string> known_;
  mutable std::mutex mutex_;
  std::shared_ptr<const std::vector<std::string>> names_;
};

}  // namespace cambium
