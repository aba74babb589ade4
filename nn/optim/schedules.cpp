// Learning-rate schedules.
#include "nn/optim/schedules.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels/error.h"

namespace cambium {

namespace {

void check_steps(std::int64_t warmup_steps, std::int64_t total_steps) {
  check<ConfigError>(warmup_steps >= 0 && total_steps >= 0, "schedule: steps must not be negative, found ", warmup_steps, " of warm-up and ", total_steps, " in all");
}

double share(std::int64_t part, std::int64_t whole) { return static_cast<double>(part) / static_cast<double>(std::max<std::int64_t>(whole, 1)); }

// `after(step)` once the warm-up is over.
template <class F>
Schedule with_warmup(std::int64_t warmup_steps, std::int64_t total_steps, F after) {
  check_steps(warmup_steps, total_steps);
  return [warmup_steps, after](std::int64_t step) { return step < warmup_steps ? share(step, warmup_steps) : std::max(0.0, after(step)); };
}

double wave(double turns) { return 0.5 * (1.0 + std::cos(2.0 * std::numbers::pi * turns)); }

}  // namespace

Schedule constant_schedule(std::int64_t warmup_steps) {
  return with_warmup(warmup_steps, 0, [](std::int64_t) { return 1.0; });
}

Schedule linear_schedule(std::int64_t warmup_steps, std::int64_t total_steps) {
  return with_warmup(warmup_steps, total_steps, [=](std::int64_t step) { return share(total_steps - step, total_steps - warmup_steps); });
}

Schedule cosine_schedule(std::int64_t warmup_steps, std::int64_t total_steps, double cycles, double least) {
  return with_warmup(warmup_steps, total_steps, [=](std::int64_t step) { return wave(cycles * share(step - warmup_steps, total_steps - warmup_steps)) * (1.0 - least) + least; });
}

Schedule cosine_restarts_schedule(std::int64_t warmup_steps, std::int64_t total_steps, double cycles) {
  return with_warmup(warmup_steps, total_steps, [=](std::int64_t step) {
    const double progress = share(step - warmup_steps, total_steps - warmup_steps);
    return progress >= 1.0 ? 0.0 : wave(0.5 * std::fmod(cycles * progress, 1.0));
  });
}

Schedule polynomial_schedule(std::int64_t warmup_steps, std::int64_t total_steps, double rate, double end_rate, double power) {
  check<ConfigError>(rate > end_rate, "schedule: the polynomial decay needs a rate above end_rate, found ", rate, " and ", end_rate);
  return with_warmup(warmup_steps, total_steps, [=](std::int64_t step) {
    if (step > total_steps) return end_rate / rate;
    return ((rate - end_rate) * std::pow(1.0 - share(step - warmup_steps, total_steps - warmup_steps), power) + end_rate) / rate;
  });
}

Schedule inverse_sqrt_schedule(std::int64_t warmup_steps, std::optional<std::int64_t> timescale) {
  const std::int64_t scale = timescale.value_or(warmup_steps > 0 ? warmup_steps : 10000);
  check<ConfigError>(scale > 0, "schedule: the timescale must be positive, found ", scale);
  return with_warmup(warmup_steps, 0, [=](std::int64_t step) { return 1.0 / std::sqrt(share(step + scale - warmup_steps, scale)); });
}

Schedule warmup_stable_decay_schedule(std::int64_t warmup_steps, std::int64_t decay_steps, std::int64_t total_steps, double least) {
  check_steps(warmup_steps, total_steps);
  check<ConfigError>(decay_steps >= 0 && warmup_steps + decay_steps <= total_steps, "schedule: warm-up ", warmup_steps, " and decay ", decay_steps, " are longer than ", total_steps,
                     " steps");
  return [=](std::int64_t step) {
    if (step < warmup_steps) return share(step, warmup_steps) * (1.0 - least) + least;
    if (step < total_steps - decay_steps) return 1.0;
    if (step < total_steps) return wave(0.5 * share(step - (total_steps - decay_steps), decay_steps)) * (1.0 - least) + least;
    return least;
  };
}

}  // namespace cambium
