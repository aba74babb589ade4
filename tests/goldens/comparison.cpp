// Comparison.
#include "tests/goldens/comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

namespace cambium::test {

void Comparison::within(const std::string& kind, double error, double tolerance) {
  if (!std::isfinite(error)) error = std::numeric_limits<double>::infinity();
  auto found = std::find_if(kinds_.begin(), kinds_.end(), [&](const Kind& k) { return k.name == kind; });
  if (found == kinds_.end()) {
    kinds_.push_back({kind, error, tolerance});
    return;
  }
  const auto share = [](double e, double t) { return t > 0.0 ? e / t : (e > 0.0 ? std::numeric_limits<double>::infinity() : 0.0); };
  if (share(error, tolerance) > share(found->error, found->tolerance)) {
    found->error = error;
    found->tolerance = tolerance;
  }
}

void Comparison::close(const std::string& kind, const Tensor& found, const Tensor& expected, double tolerance, const Tensor& mask) {
  if (!found.defined() || found.shape() != expected.shape()) {
    failure(concat_text(kind, ": expected ", expected.shape(), ", found ", found.defined() ? concat_text(found.shape()) : std::string("nothing")));
    return;
  }
  const std::vector<double> a = found.to_vector<double>(), b = expected.to_vector<double>();
  std::vector<double> rows;
  if (mask.defined()) rows = mask.to_vector<double>();
  const std::size_t width = rows.empty() ? 1 : a.size() / rows.size();
  double error = 0.0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (!rows.empty() && rows[i / width] == 0.0) continue;
    const double difference = std::fabs(a[i] - b[i]);
    error = std::isfinite(difference) ? std::max(error, difference) : std::numeric_limits<double>::infinity();
  }
  within(kind, error, tolerance);
}

void Comparison::same(const std::string& kind, bool equal, const std::string& difference) {
  within(kind, equal ? 0.0 : 1.0, 0.0);
  if (!equal) failure(kind + ": " + difference);
}

bool Comparison::passed() const {
  // A case that compared nothing proves nothing.
  return failures_.empty() && !kinds_.empty() && std::all_of(kinds_.begin(), kinds_.end(), [](const Kind& k) { return k.ok(); });
}

std::string Comparison::line() const {
  std::ostringstream out;
  out.precision(2);
  out << name_ << (passed() ? " ok:" : " FAIL:");
  for (std::size_t i = 0; i < kinds_.size(); ++i) {
    const Kind& k = kinds_[i];
    out << (i ? ", " : " ") << k.name << ' ' << k.error << (k.ok() ? " <= " : " > ") << k.tolerance;
  }
  for (const std::string& text : failures_) out << " [" << text << ']';
  if (kinds_.empty() && failures_.empty()) out << " nothing was compared";
  return std::move(out).str();
}

namespace {
Device chosen_device;
}
Device comparison_device() { return chosen_device; }
void set_comparison_device(Device device) { chosen_device = device; }

}  // namespace cambium::test
