// The progress line: rewrites itself on a terminal, plain lines at intervals elsewhere.
#pragma once

#include <cstdint>

#include "train/trainer.h"

namespace cambium::cli {

class Progress {
 public:
  explicit Progress(bool quiet);
  void update(const StepMetrics& metrics);
  void finish();  ///< leaves the line as it is and goes to the next

 private:
  bool quiet_, terminal_, open_ = false;
  double last_ = -1e9;
};

}  // namespace cambium::cli
