// Trainer: the loop of forward, backward and update, with everything it promises checked aloud.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "nn/models/model.h"
#include "train/batching.h"
#include "train/dataset.h"
#include "train/metrics.h"

namespace cambium {

/// What is trained: how to run it, which parameters an optimizer may change, and how it takes its rows.
struct Trainable {
  std::function<ModelOutput(const ModelInput&, const ForwardContext&)> forward;
  std::vector<NamedParameter> parameters;
  std::vector<NamedParameter> head_parameters;  ///< those with TrainOptions::head_learning_rate
  BatchFormat format;
  bool first_token_is_target = false;           ///< DataOptions::first_token_is_target that suits it
};

struct TrainOptions {
  std::optional<std::int64_t> steps;   ///< else `epochs`
  double epochs = 1.0;
  std::int64_t batch_size = 8, gradient_accumulation = 1, max_length = 1024;
  bool packing = false, shuffle = true;
  double learning_rate = 2e-4;
  std::optional<double> head_learning_rate;  ///< of Trainable::head_parameters; absent: learning_rate
  double weight_decay = 0.0, max_grad_norm = 1.0;  ///< 0: no clipping
  std::string schedule = "linear";     ///< constant, linear, cosine
  std::int64_t warmup_steps = 0, eval_every = 0;  ///< eval_every 0: at the end only
  std::uint64_t seed = 0;
};

/// One row of metrics.jsonl.
struct StepMetrics {
  std::int64_t step = 0, total_steps = 0, tokens = 0, targets = 0;
  double epoch = 0, loss = 0, learning_rate = 0, gradient_norm = 0, step_ms = 0, tokens_per_second = 0, elapsed_s = 0;
};
struct EvalResult {
  Task task = Task::causal_lm;
  double loss = 0;                          ///< mean over the labelled targets
  std::int64_t tokens = 0;                  ///< labelled targets: tokens, or rows for classes, numbers and answers
  std::optional<double> perplexity;         ///< of language models: exp(loss)
  std::optional<double> accuracy, f1;       ///< share of right classes, or of answers found exactly; mean overlap of answers
  std::optional<Confusion> confusion;       ///< of classes
};

struct TrainCallbacks {
  std::function<void(const StepMetrics&)> on_step;
  std::function<void(std::int64_t step, const EvalResult&)> on_eval;
  const std::atomic<bool>* stop = nullptr;  ///< set by a signal: training ends after the step under way
};

struct TrainResult {
  std::vector<double> losses;
  std::int64_t steps = 0, tokens = 0;
  bool stopped = false;
  double seconds = 0;
};

/// Number of steps that the options mean for this data.
std::int64_t planned_steps(const Dataset& data, const TrainOptions& options);

/// Trains with AdamW. StateError naming the parameter when one has no gradient at the first step, or when a loss or gradient is not finite: then the parameters are those
/// of the step before.
TrainResult train(const Trainable& model, const Dataset& data, const TrainOptions& options, const Dataset* eval_data = nullptr, const TrainCallbacks& callbacks = {});

/// The mean loss of the labelled targets, in double over all of them, and what the task is measured by besides.
EvalResult evaluate(const Trainable& model, const Dataset& data, std::int64_t batch_size, const std::atomic<bool>* stop = nullptr);

}  // namespace cambium
