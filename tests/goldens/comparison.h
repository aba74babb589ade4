// Comparison: what one reference case says, kind of number by kind of number, each with its largest error and its tolerance.
#pragma once

#include <string>
#include <vector>

#include "tensor/tensor.h"

namespace cambium::test {

class Comparison {
 public:
  explicit Comparison(std::string name) : name_(std::move(name)) {}

  /// Keeps the error that is largest against its tolerance. NaN and infinity fail.
  void within(const std::string& kind, double error, double tolerance);
  /// Of all elements; another shape fails. `mask` (rows of x, may be undefined): only where it is not 0.
  void close(const std::string& kind, const Tensor& found, const Tensor& expected, double tolerance, const Tensor& mask = {});
  void same(const std::string& kind, bool equal, const std::string& difference = "differs");
  void failure(const std::string& text) { failures_.push_back(text); }

  const std::string& name() const { return name_; }
  bool passed() const;
  /// "gpt2-lora ok: logits 3.1e-06 <= 7.6e-05, …"
  std::string line() const;

 private:
  struct Kind {
    std::string name;
    double error = 0.0, tolerance = 0.0;
    bool ok() const { return error <= tolerance; }
  };
  std::string name_;
  std::vector<Kind> kinds_;
  std::vector<std::string> failures_;
};

/// Where the models of comparisons run; the CPU unless set.
Device comparison_device();
void set_comparison_device(Device device);

}  // namespace cambium::test
