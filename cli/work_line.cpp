// Drawing the line.
#include "cli/work_line.h"

#include <algorithm>
#include <cstdio>

#include <unistd.h>

namespace cambium::cli {

WorkLine::WorkLine(std::string what, bool quiet) : what_(std::move(what)), quiet_(quiet), terminal_(isatty(STDERR_FILENO) != 0) {}

double WorkLine::seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count(); }

void WorkLine::update(std::size_t done, std::size_t total, double share, const std::string& name) {
  if (quiet_) return;
  const double now = seconds(), interval = terminal_ ? 0.1 : 5.0;
  if (now - last_ < interval && (!terminal_ || done != total)) return;
  last_ = now;
  constexpr int kWidth = 20;
  const int filled = static_cast<int>(kWidth * std::clamp(share, 0.0, 1.0));
  std::string bar(static_cast<std::size_t>(filled), '#');
  bar.resize(kWidth, '.');
  const double left = share > 0.0 ? now / share - now : 0.0;
  std::fprintf(stderr, "%s%s %zu/%zu [%s] %.0f s, %.0f s left  %s%s", terminal_ ? "\r\033[K" : "", what_.c_str(), done, total, bar.c_str(), now, left, name.c_str(), terminal_ ? "" : "\n");
  std::fflush(stderr);
  open_ = terminal_;
}

void WorkLine::finish() {
  if (open_) std::fputc('\n', stderr);
  open_ = false;
}

}  // namespace cambium::cli
