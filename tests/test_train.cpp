// Data files and the training loop: errors with line numbers, layouts of batches, accumulation, reproducibility, memory, stopping.
#include <doctest/doctest.h>

#include <set>

#include "autograd/engine.h"
#include "kernels/device.h"
#include "kernels/parallel.h"
#include "peft/peft_model.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_models.h"
#include "train/shuffle.h"
#include "train/trainer.h"

using namespace cambium;
using namespace cambium::test;

namespace {

Dataset read(const std::string& text, DataOptions options = {}, const char* name = "d.jsonl") {
  const TemporaryFolder folder;
  return load_dataset(folder.write(name, text), nullptr, options);
}
std::string refused(const std::string& text, DataOptions options = {}, const char* name = "d.jsonl") {
  const std::string message = error_of<Error>([&] { read(text, options, name); });
  return message.substr(std::min(message.size(), message.find(name)));  // without the folder
}

/// Rows of different lengths; the first part of each is not to be learned.
Dataset sample_data(std::int64_t rows = 13) {
  Dataset data;
  data.kind = DataKind::tokens;
  for (std::int64_t i = 0; i < rows; ++i) {
    Example example;
    example.line = i + 1;
    const std::int64_t length = 3 + (i * 5) % 9;
    for (std::int64_t t = 0; t < length; ++t) {
      example.ids.push_back((i * 7 + t * t * 3 + 1) % 40);
      example.labels.push_back(t > i % 2 ? example.ids.back() : -100);
    }
    data.examples.push_back(example);
  }
  data.count();
  return data;
}

struct Run {
  std::unique_ptr<PeftModel> peft;
  Trainable trainable;
};
std::unique_ptr<Run> make_run(double dropout = 0.0) {
  LoraConfig config;
  config.r = 3;
  config.target_modules = {"q_proj", "v_proj", "down_proj"};
  config.lora_dropout = dropout;
  config.init_lora_weights = false;
  auto run = std::make_unique<Run>();
  run->peft.reset(new PeftModel(tiny_llama(), config));
  run->trainable.parameters = run->peft->trainable_parameters();
  run->trainable.forward = [peft = run->peft.get()](const ModelInput& input, const ForwardContext& context) { return peft->forward(input, context); };
  return run;
}

TrainOptions options_of(std::int64_t steps, std::int64_t batch_size = 3) {
  TrainOptions options;
  options.steps = steps;
  options.batch_size = batch_size;
  options.learning_rate = 1e-2;
  options.max_length = 16;
  return options;
}

std::vector<double> adapter_of(const Run& run) {
  std::vector<double> out;
  for (const auto& [name, slot] : run.trainable.parameters)
    for (double v : slot->tensor.to_vector<double>()) out.push_back(v);
  return out;
}

/// Loss and gradients of one batch.
std::pair<double, std::vector<double>> loss_and_gradient(const Dataset& data, BatchLayout layout, std::int64_t pad_id = 0) {
  const auto run = make_run();
  std::vector<const Example*> rows;
  for (const Example& example : data.examples) rows.push_back(&example);
  const Batch batch = make_batch(rows, {layout, pad_id});
  const ModelOutput output = run->trainable.forward(batch.input, {});
  backward(output.loss);
  std::vector<double> gradient;
  for (const auto& [name, slot] : run->trainable.parameters)
    for (double v : slot->tensor.grad().to_vector<double>()) gradient.push_back(v);
  return {output.loss.item(), gradient};
}

double largest(const std::vector<double>& a, const std::vector<double>& b) {
  REQUIRE(a.size() == b.size());
  double out = 0;
  for (std::size_t i = 0; i < a.size(); ++i) out = std::max(out, std::fabs(a[i] - b[i]));
  return out;
}

}  // namespace

TEST_CASE("rows of token ids") {
  DataOptions options;
  options.vocabulary = 40;
  const Dataset data = read("{\"input_ids\": [1, 2, 3]}\n\n{\"input_ids\": [4, 5, 6, 7], \"labels\": [-100, -100, 6, 7]}\r\n  \n{\"input_ids\": [0, 8, 9], \"attention_mask\": [0, 1, 1]}", options);
  CHECK(data.kind == DataKind::tokens);
  REQUIRE(data.examples.size() == 3);
  CHECK(data.examples[0].labels == std::vector<std::int64_t>{-100, 2, 3});
  CHECK(data.examples[1].labels == std::vector<std::int64_t>{-100, -100, 6, 7});
  CHECK(data.examples[1].line == 3);
  CHECK(data.examples[2].ids == std::vector<std::int64_t>{8, 9});
  CHECK(data.tokens == 9);
  CHECK(data.targets == 5);
  options.max_length = 3;
  const Dataset cut = read("{\"input_ids\": [1, 2, 3, 4, 5]}\n{\"input_ids\": [1, 2, 3]}", options);
  CHECK(cut.cut_rows == 1);
  CHECK(cut.cut_tokens == 2);
  CHECK(cut.examples[0].ids.size() == 3);
}

TEST_CASE("every bad line is told with its number") {
  DataOptions options;
  options.vocabulary = 40;
  const std::string good = "{\"input_ids\": [1, 2, 3]}\n\n";
  CHECK(contains(refused(good + "{\"input_ids\": [1, 2"), "d.jsonl:3"));
  CHECK(contains(refused(good + "[1, 2]"), "d.jsonl:3: expected an object"));
  CHECK(contains(refused(good + "{\"ids\": [1]}"), "d.jsonl:3: 'input_ids': expected a list"));
  CHECK(contains(refused(good + "{\"input_ids\": \"1\"}"), "d.jsonl:3: 'input_ids'"));
  CHECK(contains(refused(good + "{\"input_ids\": [1, 2.5]}"), "d.jsonl:3: 'input_ids': expected integers, found 2.5"));
  CHECK(contains(refused(good + "{\"input_ids\": [1, 40]}", options), "d.jsonl:3: token id 40"));
  CHECK(contains(refused(good + "{\"input_ids\": [1, -1]}", options), "d.jsonl:3: token id -1"));
  CHECK(contains(refused(good + "{\"input_ids\": [1, 2], \"labels\": [1]}"), "d.jsonl:3: 2 input_ids but 1 labels"));
  CHECK(contains(refused(good + "{\"input_ids\": [1, 2], \"labels\": [1, 77]}", options), "d.jsonl:3: label 77"));
  CHECK(contains(refused(good + "{\"input_ids\": [1, 2], \"labels\": [1, -5]}"), "d.jsonl:3: label -5"));
  CHECK(contains(refused(good + "{\"input_ids\": [1, 2], \"attention_mask\": [1]}"), "d.jsonl:3: 2 input_ids but 1"));
  CHECK(contains(refused(good + "{\"input_ids\": [1, 2], \"labels\": [-100, -100]}"), "d.jsonl:3: nothing to learn"));
  CHECK(contains(refused(good + "{\"input_ids\": [1]}"), "d.jsonl:3: nothing to learn"));
  CHECK(contains(refused(good + "{\"input_ids\": []}"), "d.jsonl:3: nothing to learn"));
  options.max_length = 2;
  CHECK(contains(refused(good + "{\"input_ids\": [1, 2, 3], \"labels\": [-100, -100, 3]}", options), "raise --max-length"));
  CHECK(contains(refused(""), "no row"));
  CHECK(contains(refused("\n \n"), "no row"));
  CHECK(contains(refused("{\"neither\": 1, \"nor\": 2}"), "d.jsonl:1: cannot tell the kind of data from the keys neither, nor"));
  CHECK(contains(refused("{\"text\": \"x\"}"), "d.jsonl:1: this model has no tokenizer"));
  CHECK(contains(refused("{\"messages\": []}"), "d.jsonl:1: this model has no tokenizer"));
  CHECK(contains(refused("x", {}, "d.txt"), "d.txt: this model has no tokenizer"));
  options.kind = DataKind::chat;
  CHECK(contains(refused("x", options, "d.txt"), "plain text"));
  options.max_length = 1;
  CHECK_THROWS_AS(read("{}", options), ConfigError);
  CHECK_THROWS_AS(load_dataset("/nonexistent/d.jsonl", nullptr, {}), FileError);
  CHECK(parse_data_kind("completion") == DataKind::completion);
  CHECK_THROWS_AS(parse_data_kind("poems"), ConfigError);
}

TEST_CASE("holding rows out") {
  Dataset data = sample_data();
  const Dataset all = data;
  const Dataset eval = split_off(data, 0.3, 5);
  CHECK(eval.examples.size() == 4);
  CHECK(data.examples.size() == 9);
  CHECK(data.tokens + eval.tokens == all.tokens);
  CHECK(data.targets + eval.targets == all.targets);
  std::set<std::int64_t> lines;
  for (const Dataset* part : {static_cast<const Dataset*>(&data), &eval})
    for (const Example& e : part->examples) lines.insert(e.line);
  CHECK(lines.size() == 13);
  for (const double bad : {0.0, 1.0, -0.5, 0.99}) {
    Dataset copy = all;
    CHECK_THROWS_AS(split_off(copy, bad, 5), ConfigError);
    CHECK(copy.examples.size() == 13);
  }
}

TEST_CASE("ragged, padded and packed rows mean the same") {
  const Dataset data = sample_data(7);
  const auto ragged = loss_and_gradient(data, BatchLayout::ragged);
  const auto padded = loss_and_gradient(data, BatchLayout::padded);
  const auto other_pad = loss_and_gradient(data, BatchLayout::padded, 13);
  CHECK(ragged.first == doctest::Approx(padded.first).epsilon(1e-6));
  CHECK(largest(ragged.second, padded.second) < 1e-6);
  CHECK(largest(padded.second, other_pad.second) < 1e-7);
  CHECK(largest(ragged.second, std::vector<double>(ragged.second.size(), 0.0)) > 1e-3);
  // The mean over all targets is that of the rows alone, weighted.
  double total = 0;
  std::int64_t targets = 0;
  for (const Example& example : data.examples) {
    Dataset one;
    one.examples = {example};
    total += loss_and_gradient(one, BatchLayout::ragged).first * static_cast<double>(example.targets());
    targets += example.targets();
  }
  CHECK(total / static_cast<double>(targets) == doctest::Approx(ragged.first).epsilon(1e-6));
}

TEST_CASE("packing fills rows, in order, and loses nothing") {
  const Dataset data = sample_data();
  BatchPlan plan;
  plan.batch_size = 2;
  plan.packing = true;
  plan.max_length = 16;
  std::vector<std::int64_t> seen;
  for (const auto& batch : plan_epoch(data, plan, 0)) {
    std::int64_t tokens = 0;
    for (std::int64_t i : batch) {
      seen.push_back(i);
      tokens += static_cast<std::int64_t>(data.examples[static_cast<std::size_t>(i)].ids.size());
    }
    CHECK(tokens <= 2 * 16);
  }
  std::sort(seen.begin(), seen.end());
  CHECK(seen.size() == 13);
  CHECK(std::adjacent_find(seen.begin(), seen.end()) == seen.end());
  const auto packed = plan_epoch(data, plan, 0).size();
  plan.packing = false;
  CHECK(plan_epoch(data, plan, 0).size() == 7);
  CHECK(packed < 7);
}

TEST_CASE("orders: a permutation, by seed and epoch, or the file's") {
  const std::vector<std::int64_t> order = permutation(50, RandomKey{1, 0});
  std::vector<std::int64_t> sorted = order;
  std::sort(sorted.begin(), sorted.end());
  for (std::int64_t i = 0; i < 50; ++i) CHECK(sorted[static_cast<std::size_t>(i)] == i);
  CHECK(order == permutation(50, RandomKey{1, 0}));
  CHECK(order != permutation(50, RandomKey{2, 0}));
  CHECK(permutation(0, {}).empty());
  const Dataset data = sample_data();
  BatchPlan plan;
  CHECK(plan_epoch(data, plan, 0) == plan_epoch(data, plan, 0));
  CHECK(plan_epoch(data, plan, 0) != plan_epoch(data, plan, 1));
  plan.shuffle = false;
  CHECK(plan_epoch(data, plan, 0) == std::vector<std::vector<std::int64_t>>{{0, 1, 2, 3, 4, 5, 6, 7}, {8, 9, 10, 11, 12}});
}

TEST_CASE("how many steps options mean") {
  const Dataset data = sample_data();
  TrainOptions o;
  o.batch_size = 3;
  CHECK(planned_steps(data, o) == 5);
  o.epochs = 2;
  CHECK(planned_steps(data, o) == 10);
  o.gradient_accumulation = 4;
  CHECK(planned_steps(data, o) == 3);
  o.epochs = 0.01;
  CHECK(planned_steps(data, o) == 1);
  o.steps = 77;
  CHECK(planned_steps(data, o) == 77);
  const auto refuses = [&](auto change) {
    TrainOptions bad;
    change(bad);
    return !error_of<ConfigError>([&] { planned_steps(data, bad); }).empty();
  };
  CHECK(refuses([](TrainOptions& b) { b.batch_size = 0; }));
  CHECK(refuses([](TrainOptions& b) { b.gradient_accumulation = 0; }));
  CHECK(refuses([](TrainOptions& b) { b.learning_rate = NAN; }));
  CHECK(refuses([](TrainOptions& b) { b.learning_rate = 0; }));
  CHECK(refuses([](TrainOptions& b) { b.weight_decay = -1; }));
  CHECK(refuses([](TrainOptions& b) { b.max_grad_norm = -1; }));
  CHECK(refuses([](TrainOptions& b) { b.warmup_steps = -1; }));
  CHECK(refuses([](TrainOptions& b) { b.steps = 0; }));
  CHECK(refuses([](TrainOptions& b) { b.epochs = 0; }));
  const auto run = make_run();
  TrainOptions schedule = options_of(1);
  schedule.schedule = "sawtooth";
  CHECK(contains(error_of<ConfigError>([&] { train(run->trainable, data, schedule); }), "sawtooth"));
}

TEST_CASE("accumulated small batches are one large batch") {
  const Dataset data = sample_data(12);
  const auto large = make_run(), small = make_run();
  TrainOptions options = options_of(4, 12);
  options.shuffle = false;
  const TrainResult a = train(large->trainable, data, options);
  options.batch_size = 3;
  options.gradient_accumulation = 4;
  const TrainResult b = train(small->trainable, data, options);
  CHECK(largest(a.losses, b.losses) < 1e-5);
  CHECK(largest(adapter_of(*large), adapter_of(*small)) < 1e-4);
  CHECK(a.losses.back() < a.losses.front());
  CHECK(a.tokens == b.tokens);
}

TEST_CASE("losses and adapter are the same bits for any number of threads") {
  const Dataset data = sample_data();
  for (const int kind : {0, 1, 2}) {
    std::vector<double> losses, adapter;
    for (const int threads : {1, 2, 3, 4}) {
      kernels::set_threads(threads);
      const auto run = make_run(0.1);
      TrainOptions options = options_of(10);
      run->trainable.format.layout = kind == 0 ? BatchLayout::padded : BatchLayout::ragged;
      options.packing = kind == 2;
      const TrainResult result = train(run->trainable, data, options);
      if (threads == 1) {
        losses = result.losses;
        adapter = adapter_of(*run);
        CHECK(losses.size() == 10);
        CHECK(losses.front() != losses.back());
      }
      CHECK(result.losses == losses);
      CHECK(adapter_of(*run) == adapter);
    }
  }
  kernels::set_threads(0);
}

TEST_CASE("the seed decides order and dropout") {
  const Dataset data = sample_data();
  TrainOptions options = options_of(5);
  const auto losses = [&](std::uint64_t seed) {
    options.seed = seed;
    return train(make_run(0.2)->trainable, data, options).losses;
  };
  CHECK(losses(1) == losses(1));
  CHECK(losses(1) != losses(2));
}

TEST_CASE("memory: nothing grows from step to step, and no gradient of a frozen weight is made") {
  const Dataset data = sample_data();
  const auto run = make_run();
  const auto live = [] { return kernels::memory_statistics(Device{}).live_bytes; };
  std::vector<std::int64_t> after;
  TrainCallbacks callbacks;
  callbacks.on_step = [&](const StepMetrics&) { after.push_back(live()); };
  const std::vector<double> frozen_before = run->peft->model().named_parameters()[0].second->tensor.to_vector<double>();
  train(run->trainable, data, options_of(6), nullptr, callbacks);
  REQUIRE(after.size() == 6);
  for (std::int64_t bytes : after) CHECK(bytes == after[0]);
  std::size_t trained = 0;
  for (const auto& [name, slot] : run->peft->named_parameters()) {
    CHECK_FALSE(slot->tensor.grad().defined());
    trained += slot->tensor.requires_grad() ? 1U : 0U;
  }
  CHECK(trained == 12);
  CHECK(run->peft->model().named_parameters()[0].second->tensor.to_vector<double>() == frozen_before);
  // Between backward and the update, only the adapter has gradients.
  const Example* row = &data.examples[0];
  const Batch batch = make_batch(std::span(&row, 1));
  const std::int64_t before = live();
  {
    const ModelOutput output = run->trainable.forward(batch.input, {});
    backward(output.loss);
  }
  std::int64_t gradients = 0;
  for (const auto& [name, slot] : run->peft->named_parameters()) {
    CHECK(slot->tensor.grad().defined() == slot->tensor.requires_grad());
    if (slot->tensor.grad().defined()) gradients += slot->tensor.grad().count() * 4;
  }
  CHECK(live() - before >= gradients);
  CHECK(live() - before < 2 * gradients + 64 * 12);
}

TEST_CASE("what cannot be trained is an error before anything changes") {
  const Dataset data = sample_data();
  const auto run = make_run();
  const std::vector<double> before = adapter_of(*run);
  auto extra = std::make_shared<ParameterSlot>();
  extra->tensor = zeros({2});
  extra->tensor.set_requires_grad(true);
  Trainable with_extra = run->trainable;
  with_extra.parameters.emplace_back("lonely.weight", extra);
  CHECK(contains(error_of<StateError>([&] { train(with_extra, data, options_of(3)); }), "'lonely.weight' got no gradient"));
  CHECK(adapter_of(*run) == before);
  Trainable nothing = run->trainable;
  nothing.parameters.clear();
  CHECK(contains(error_of<StateError>([&] { train(nothing, data, options_of(3)); }), "no trainable parameter"));
  // A loss that is not finite, in step 3: the parameters are those of after step 2.
  const auto two = make_run();
  TrainOptions options = options_of(5);
  options.schedule = "constant";
  int calls = 0;
  std::vector<double> at_two;
  TrainCallbacks callbacks;
  callbacks.on_step = [&](const StepMetrics& m) {
    if (m.step == 2) at_two = adapter_of(*two);
  };
  Trainable broken = two->trainable;
  broken.forward = [&](const ModelInput& input, const ForwardContext& context) {
    ModelOutput output = two->trainable.forward(input, context);
    if (++calls == 3) output.loss = mul(output.loss, INFINITY);
    return output;
  };
  CHECK(contains(error_of<StateError>([&] { train(broken, data, options, nullptr, callbacks); }), "step 3: the loss is inf"));
  CHECK(calls == 3);
  CHECK(adapter_of(*two) == at_two);
  // Finite loss, gradient that is not: the error names a parameter.
  const auto third = make_run();
  const std::vector<double> start = adapter_of(*third);
  broken.forward = [&](const ModelInput& input, const ForwardContext& context) {
    ModelOutput output = third->trainable.forward(input, context);
    output.loss = sqrt(sub(output.loss, detach(output.loss)));  // 0, with an infinite slope
    return output;
  };
  broken.parameters = third->trainable.parameters;
  CHECK(contains(error_of<StateError>([&] { train(broken, data, options); }), "lora_"));
  CHECK(adapter_of(*third) == start);
}

TEST_CASE("the stop flag ends training after the step under way; evaluation comes when asked") {
  const Dataset data = sample_data(), eval = sample_data(5);
  const auto run = make_run();
  std::atomic<bool> stop{false};
  TrainCallbacks callbacks;
  callbacks.stop = &stop;
  std::vector<std::int64_t> evaluated;
  callbacks.on_eval = [&](std::int64_t step, const EvalResult&) { evaluated.push_back(step); };
  callbacks.on_step = [&](const StepMetrics& m) { stop = m.step == 5; };
  TrainOptions options = options_of(9);
  options.eval_every = 2;
  const TrainResult result = train(run->trainable, data, options, &eval, callbacks);
  CHECK(result.stopped);
  CHECK(result.steps == 5);
  CHECK(result.losses.size() == 5);
  CHECK(evaluated == std::vector<std::int64_t>{2, 4});
  callbacks.on_step = nullptr;
  stop = false;
  evaluated.clear();
  options.eval_every = 0;
  CHECK_FALSE(train(run->trainable, data, options, &eval, callbacks).stopped);
  CHECK(evaluated == std::vector<std::int64_t>{9});
  const EvalResult one = evaluate(run->trainable, eval, 1), many = evaluate(run->trainable, eval, 5);
  CHECK(one.loss == doctest::Approx(many.loss).epsilon(1e-6));
  CHECK(one.tokens == eval.targets);
  CHECK(one.perplexity == std::exp(one.loss));
}
