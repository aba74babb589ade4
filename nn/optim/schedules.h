// Learning-rate schedules: what the rate is multiplied by at each step.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>

namespace cambium {

/// Factor of the learning rate at a step counted from 0: `optimizer.set_learning_rate_factor(schedule(step))` before each step.
/// Formulas as in transformers' optimization.py; all rise linearly from 0 over `warmup_steps`.
using Schedule = std::function<double(std::int64_t step)>;

Schedule constant_schedule(std::int64_t warmup_steps = 0);
Schedule linear_schedule(std::int64_t warmup_steps, std::int64_t total_steps);  ///< to 0
/// Half a cosine wave to 0 (cycles = 0.5), or `cycles` waves; `least` > 0 ends there instead of at 0.
Schedule cosine_schedule(std::int64_t warmup_steps, std::int64_t total_steps, double cycles = 0.5, double least = 0.0);
Schedule cosine_restarts_schedule(std::int64_t warmup_steps, std::int64_t total_steps, double cycles = 1.0);
/// From `rate` to `end_rate` by a power of the remaining share.
Schedule polynomial_schedule(std::int64_t warmup_steps, std::int64_t total_steps, double rate, double end_rate = 1e-7, double power = 1.0);
/// `timescale`: default the warm-up, or 10000 without one.
Schedule inverse_sqrt_schedule(std::int64_t warmup_steps, std::optional<std::int64_t> timescale = {});
/// Warm-up, a plateau, and a cosine decay over the last `decay_steps` to `least`.
Schedule warmup_stable_decay_schedule(std::int64_t warmup_steps, std::int64_t decay_steps, std::int64_t total_steps, double least = 0.0);

}  // namespace cambium
