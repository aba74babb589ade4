// The training loop.
#include "train/trainer.h"

#include <algorithm>
#include <chrono>
#include <cmath>

#include "nn/optim/adamw.h"
#include "nn/optim/clip.h"
#include "nn/optim/schedules.h"

namespace cambium {

namespace {

using Clock = std::chrono::steady_clock;
double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

Schedule make_schedule(const TrainOptions& options, std::int64_t total) {
  if (options.schedule == "constant") return constant_schedule(options.warmup_steps);
  if (options.schedule == "linear") return linear_schedule(options.warmup_steps, total);
  return cosine_schedule(options.warmup_steps, total);
}

/// Batches one after another, epoch after epoch.
class BatchStream {
 public:
  BatchStream(const Dataset& data, const TrainOptions& options, const BatchFormat& format)
      : data_(data), format_(format), plan_{options.batch_size, options.packing, options.max_length, options.shuffle, options.seed}, batches_(plan_epoch(data, plan_, 0)) {}

  std::int64_t per_epoch() const { return static_cast<std::int64_t>(batches_.size()); }
  Batch next() {
    if (at_ == batches_.size()) {
      batches_ = plan_epoch(data_, plan_, ++epoch_);
      at_ = 0;
    }
    std::vector<const Example*> rows;
    for (std::int64_t i : batches_[at_]) rows.push_back(&data_.examples[static_cast<std::size_t>(i)]);
    ++at_;
    return make_batch(rows, format_, data_.task);
  }
  double epoch() const { return static_cast<double>(epoch_) + static_cast<double>(at_) / static_cast<double>(batches_.size()); }

 private:
  const Dataset& data_;
  BatchFormat format_;
  BatchPlan plan_;
  std::vector<std::vector<std::int64_t>> batches_;
  std::size_t at_ = 0;
  std::int64_t epoch_ = 0;
};

bool is_language_task(Task task) { return task == Task::causal_lm || task == Task::seq2seq_lm; }

void check_options(const TrainOptions& o) {
  check<ConfigError>(o.batch_size >= 1, "batch_size: expected at least 1, found ", o.batch_size);
  check<ConfigError>(o.gradient_accumulation >= 1, "gradient_accumulation: expected at least 1, found ", o.gradient_accumulation);
  check<ConfigError>(std::isfinite(o.learning_rate) && o.learning_rate > 0, "learning_rate: expected a positive number, found ", o.learning_rate);
  check<ConfigError>(!o.head_learning_rate || (std::isfinite(*o.head_learning_rate) && *o.head_learning_rate > 0), "head_learning_rate: expected a positive number, found ", o.head_learning_rate.value_or(0));
  check<ConfigError>(std::isfinite(o.weight_decay) && o.weight_decay >= 0, "weight_decay: expected no negative number, found ", o.weight_decay);
  check<ConfigError>(std::isfinite(o.max_grad_norm) && o.max_grad_norm >= 0, "max_grad_norm: expected no negative number, found ", o.max_grad_norm);
  check<ConfigError>(o.schedule == "constant" || o.schedule == "linear" || o.schedule == "cosine", "schedule: expected constant, linear or cosine, found '", o.schedule, "'");
  check<ConfigError>(o.warmup_steps >= 0, "warmup_steps: expected no negative number, found ", o.warmup_steps);
  check<ConfigError>(!o.steps || *o.steps >= 1, "steps: expected at least 1");
  check<ConfigError>(std::isfinite(o.epochs) && o.epochs > 0, "epochs: expected a positive number, found ", o.epochs);
}

}  // namespace

std::int64_t planned_steps(const Dataset& data, const TrainOptions& options) {
  check_options(options);
  if (options.steps) return *options.steps;
  const BatchPlan plan{options.batch_size, options.packing, options.max_length, options.shuffle, options.seed};
  const auto batches = static_cast<double>(plan_epoch(data, plan, 0).size());
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(std::ceil(options.epochs * batches / static_cast<double>(options.gradient_accumulation) - 1e-9)));
}

TrainResult train(const Trainable& model, const Dataset& data, const TrainOptions& options, const Dataset* eval_data, const TrainCallbacks& callbacks) {
  const std::int64_t total = planned_steps(data, options);
  std::vector<NamedParameter> parameters = model.parameters;
  parameters.insert(parameters.end(), model.head_parameters.begin(), model.head_parameters.end());
  check<StateError>(!parameters.empty(), "train: the model has no trainable parameter");
  const Schedule schedule = make_schedule(options, total);
  AdamWConfig config;
  config.learning_rate = options.learning_rate;
  config.weight_decay = options.weight_decay;
  std::vector<ParameterGroup> groups;
  if (!model.parameters.empty()) groups.push_back({model.parameters, {}, {}});
  if (!model.head_parameters.empty()) groups.push_back({model.head_parameters, options.head_learning_rate, {}});
  AdamW optimizer(groups, config);
  optimizer.zero_grad();
  BatchStream stream(data, options, model.format);
  TrainResult result;
  const Clock::time_point start = Clock::now();
  for (std::int64_t step = 1; step <= total; ++step) {
    const Clock::time_point step_start = Clock::now();
    std::vector<Batch> batches;
    StepMetrics metrics;
    for (std::int64_t i = 0; i < options.gradient_accumulation; ++i) {
      batches.push_back(stream.next());
      metrics.tokens += batches.back().tokens;
      metrics.targets += batches.back().targets;
    }
    for (std::size_t i = 0; i < batches.size(); ++i) {
      ForwardContext context;
      context.training = true;
      context.key = RandomKey{options.seed, 0}.fold("dropout").fold(static_cast<std::uint64_t>(step)).fold(i);
      Batch& batch = batches[i];
      batch.input.want_logits = !is_language_task(data.task);
      batch.input.label_count = static_cast<double>(metrics.targets);  // every target of the step counts alike, however it is cut into batches
      const ModelOutput output = model.forward(batch.input, context);
      const double loss = output.loss.item();
      check<StateError>(std::isfinite(loss), "train: step ", step, ": the loss is ", loss, ": lower the learning rate, or look for NaN with cambium inspect --check-values");
      metrics.loss += loss;
      backward(output.loss);
      batch = {};
    }
    if (step == 1)
      for (const auto& [name, slot] : parameters)
        check<StateError>(slot->tensor.grad().defined(), "train: parameter '", name, "' got no gradient at the first step: it is not part of what the loss is computed from");
    // The norm names the first parameter whose gradient is not finite, before anything is changed.
    metrics.gradient_norm = clip_grad_norm(parameters, options.max_grad_norm > 0 ? options.max_grad_norm : INFINITY);
    optimizer.set_learning_rate_factor(schedule(step - 1));
    metrics.learning_rate = optimizer.learning_rate();
    optimizer.step();
    optimizer.zero_grad();

    metrics.step = step;
    metrics.total_steps = total;
    metrics.epoch = stream.epoch();
    metrics.step_ms = 1e3 * seconds_since(step_start);
    metrics.tokens_per_second = static_cast<double>(metrics.tokens) / (metrics.step_ms / 1e3);
    metrics.elapsed_s = seconds_since(start);
    result.losses.push_back(metrics.loss);
    result.steps = step;
    result.tokens += metrics.tokens;
    if (callbacks.on_step) callbacks.on_step(metrics);
    result.stopped = callbacks.stop != nullptr && callbacks.stop->load();
    const bool last = step == total || result.stopped;
    if (eval_data && callbacks.on_eval && !result.stopped && (last || (options.eval_every > 0 && step % options.eval_every == 0)))
      callbacks.on_eval(step, evaluate(model, *eval_data, options.batch_size, callbacks.stop));
    if (result.stopped) break;
  }
  result.seconds = seconds_since(start);
  return result;
}

}  // namespace cambium
