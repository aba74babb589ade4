// Sums over the confusion matrix.
#include "train/metrics.h"

#include <numeric>

#include "kernels/error.h"

namespace cambium {

namespace {
double ratio(std::int64_t part, std::int64_t whole) { return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole); }
}  // namespace

Confusion::Confusion(std::int64_t classes) : classes_(classes), counts_(static_cast<std::size_t>(classes * classes)) {}

void Confusion::add(std::int64_t truth, std::int64_t predicted) {
  check<ShapeError>(truth >= 0 && truth < classes_ && predicted >= 0 && predicted < classes_, "confusion: class ", truth, " or ", predicted, " is none of ", classes_);
  ++counts_[static_cast<std::size_t>(truth * classes_ + predicted)];
}

std::int64_t Confusion::count() const { return std::accumulate(counts_.begin(), counts_.end(), std::int64_t{0}); }

std::int64_t Confusion::truths(std::int64_t label) const {
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < classes_; ++i) sum += at(label, i);
  return sum;
}

std::int64_t Confusion::predictions(std::int64_t label) const {
  std::int64_t sum = 0;
  for (std::int64_t i = 0; i < classes_; ++i) sum += at(i, label);
  return sum;
}

double Confusion::accuracy() const {
  std::int64_t right = 0;
  for (std::int64_t i = 0; i < classes_; ++i) right += at(i, i);
  return ratio(right, count());
}

double Confusion::precision(std::int64_t label) const { return ratio(at(label, label), predictions(label)); }
double Confusion::recall(std::int64_t label) const { return ratio(at(label, label), truths(label)); }
double Confusion::f1(std::int64_t label) const { return ratio(2 * at(label, label), truths(label) + predictions(label)); }

double Confusion::macro_f1() const {
  double sum = 0;
  std::int64_t seen = 0;
  for (std::int64_t i = 0; i < classes_; ++i)
    if (truths(i) + predictions(i) > 0) {
      sum += f1(i);
      ++seen;
    }
  return seen == 0 ? 0.0 : sum / static_cast<double>(seen);
}

}  // namespace cambium
