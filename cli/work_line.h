// A progress line for work that is done piece by piece: rewrites itself on a terminal, plain lines at intervals elsewhere.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace cambium::cli {

class WorkLine {
 public:
  /// what: "merging", "combining".
  WorkLine(std::string what, bool quiet);
  ~WorkLine() { finish(); }
  WorkLine(const WorkLine&) = delete;
  WorkLine& operator=(const WorkLine&) = delete;
  /// `done` of `total` pieces; `share` of the work (0 to 1) where pieces are of different size; the piece's name.
  void update(std::size_t done, std::size_t total, double share, const std::string& name);
  void finish();
  double seconds() const;

 private:
  std::string what_;
  bool quiet_, terminal_, open_ = false;
  std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
  double last_ = -1e9;
};

}  // namespace cambium::cli
