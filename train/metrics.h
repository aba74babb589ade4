// How well classes are told apart: accuracy, F1, confusion matrix.
#pragma once

#include <cstdint>
#include <vector>

namespace cambium {

/// Counts of (true class, predicted class).
class Confusion {
 public:
  explicit Confusion(std::int64_t classes = 0);
  void add(std::int64_t truth, std::int64_t predicted);
  std::int64_t classes() const { return classes_; }
  std::int64_t at(std::int64_t truth, std::int64_t predicted) const { return counts_[static_cast<std::size_t>(truth * classes_ + predicted)]; }
  std::int64_t count() const;
  std::int64_t truths(std::int64_t label) const;       ///< how many are of this class
  std::int64_t predictions(std::int64_t label) const;  ///< how many were taken for it
  double accuracy() const;                             ///< share on the diagonal; 0 without any
  double precision(std::int64_t label) const;          ///< 0 where it was never predicted
  double recall(std::int64_t label) const;             ///< 0 where there is none
  double f1(std::int64_t label) const;                 ///< 2 right / (truths + predictions)
  /// Mean of the classes' F1, each counting alike; over those that occur, true or predicted, as scikit-learn takes it.
  double macro_f1() const;

 private:
  std::int64_t classes_;
  std::vector<std::int64_t> counts_;
};

}  // namespace cambium
