// Drawing progress on standard error.
#include "cli/progress.h"

#include <cstdio>
#include <string>

#include <unistd.h>

namespace cambium::cli {

namespace {

std::string clock_text(double seconds) {
  const auto s = static_cast<long>(seconds + 0.5);
  char text[32];
  if (s >= 3600) std::snprintf(text, sizeof text, "%ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
  else std::snprintf(text, sizeof text, "%ld:%02ld", s / 60, s % 60);
  return text;
}

}  // namespace

Progress::Progress(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) != 0) {}

void Progress::update(const StepMetrics& m) {
  if (quiet_) return;
  const bool last = m.step == m.total_steps;
  const double interval = terminal_ ? 0.1 : 5.0;  // seconds
  if (!last && m.step != 1 && m.elapsed_s - last_ < interval) return;
  last_ = m.elapsed_s;
  constexpr int kWidth = 20;
  const auto filled = static_cast<int>(kWidth * m.step / m.total_steps);
  std::string bar(static_cast<std::size_t>(filled), '#');
  bar.resize(kWidth, '.');
  const double left = m.elapsed_s / static_cast<double>(m.step) * static_cast<double>(m.total_steps - m.step);
  std::fprintf(stderr, "%s%lld/%lld [%s] loss %.4f  lr %.2e  %.0f tokens/s  %s<%s%s", terminal_ ? "\r\033[K" : "", static_cast<long long>(m.step), static_cast<long long>(m.total_steps),
               bar.c_str(), m.loss, m.learning_rate, m.tokens_per_second, clock_text(m.elapsed_s).c_str(), clock_text(left).c_str(), terminal_ ? "" : "\n");
  std::fflush(stderr);
  open_ = terminal_;
}

void Progress::finish() {
  if (open_) std::fputc('\n', stderr);
  open_ = false;
}

}  // namespace cambium::cli
