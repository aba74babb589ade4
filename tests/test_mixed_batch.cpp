// Rows with different adapters in one batch, and adapters chosen by sessions while others generate.
#include <doctest/doctest.h>

#include <atomic>
#include <set>
#include <thread>

#include "autograd/engine.h"
#include "nn/generation.h"
#include "peft/peft_model.h"
#include "tests/tiny_models.h"

using namespace cambium;
using namespace cambium::test;

namespace {

LoraConfig config_of(ModuleSelection targets, std::int64_t r = 4) {
  LoraConfig config;
  config.r = r;
  config.lora_alpha = 8;
  config.target_modules = std::move(targets);
  return config;
}

void randomize(PeftModel& peft, double size = 0.3) {
  for (const std::string& adapter : peft.adapters())
    for (const auto& [name, slot] : peft.base_model->adapter_state(adapter)) {
      const bool trained = slot->tensor.requires_grad();
      slot->tensor = random_uniform(slot->tensor.shape(), RandomKey{5, 0}.fold(name).fold(adapter), -size, size);
      slot->tensor.set_requires_grad(trained);
    }
}

Tensor ids_of(const std::vector<std::vector<std::int64_t>>& rows) {
  std::vector<std::int64_t> flat;
  for (const auto& row : rows) flat.insert(flat.end(), row.begin(), row.end());
  return from_vector(flat, {static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(rows[0].size())});
}

const std::vector<std::vector<std::int64_t>> kRows{{1, 5, 9, 30}, {7, 2, 8, 8}, {39, 11, 3, 4}, {1, 5, 9, 30}, {6, 6, 21, 17}};
const std::vector<std::string> kNames{"a", "b", "__base__", "b", "a"};

ForwardContext context_of(const std::vector<std::string>& names) {
  ForwardContext context;
  context.adapter_names = names;
  return context;
}

}  // namespace

TEST_CASE("every row gets what it gets in a batch of its own") {
  for (const bool gpt2 : {false, true}) {
    LoraConfig first = gpt2 ? config_of({"c_attn", "c_proj"}) : config_of({"q_proj", "down_proj", "lm_head"}), second = gpt2 ? config_of({"c_fc"}, 2) : config_of({"q_proj", "v_proj"}, 2);
    second.modules_to_save = gpt2 ? std::optional<std::vector<std::string>>() : std::vector<std::string>{"up_proj"};
    PeftModel peft = get_peft_model(gpt2 ? tiny_gpt2() : tiny_llama(), first, {.adapter_name = "a"});
    peft.add_adapter("b", second);
    randomize(peft);
    ModelInput input;
    input.input_ids = ids_of(kRows);
    NoGrad no_grad;
    const Tensor mixed = peft.forward(input, context_of(kNames)).logits;
    double largest = 0.0;
    for (const float v : mixed.to_vector<float>()) largest = std::max(largest, std::fabs(static_cast<double>(v)));
    for (std::size_t row = 0; row < kRows.size(); ++row) {
      ModelInput one;
      one.input_ids = ids_of({kRows[row]});
      ForwardContext alone;
      alone.override_adapters = true;
      if (kNames[row] != "__base__") alone.adapters = {kNames[row]};
      const Tensor expected = peft.forward(one, alone).logits;
      CHECK(largest_difference(slice(mixed, 0, static_cast<std::int64_t>(row), static_cast<std::int64_t>(row) + 1).to_vector<float>(), expected.to_vector<float>()) <= 1e-6 * largest);
    }
    // Rows of equal ids and different adapters differ.
    CHECK(largest_difference(slice(mixed, 0, 0, 1).to_vector<float>(), slice(mixed, 0, 3, 4).to_vector<float>()) > 1e-3);
  }
}

TEST_CASE("gradients of a mixed batch are the sum of those of its parts, also without whole logits") {
  LoraConfig second = config_of({"q_proj", "lm_head"}, 2);
  PeftModel peft = get_peft_model(tiny_llama(), config_of({"q_proj", "v_proj"}), {.adapter_name = "a"});
  peft.add_adapter("b", second);
  randomize(peft);
  peft.set_requires_grad({"a", "b"}, true);
  const auto gradients = [&](const std::vector<std::size_t>& rows, bool by_name, bool whole) {
    for (const auto& [name, slot] : peft.trainable_parameters()) slot->tensor.reset_grad();
    std::vector<std::vector<std::int64_t>> ids;
    std::vector<std::string> names;
    for (const std::size_t row : rows) {
      ids.push_back(kRows[row]);
      names.push_back(kNames[row]);
    }
    ModelInput input;
    input.input_ids = input.labels = ids_of(ids);
    input.want_logits = whole;
    input.label_count = 1.0;
    ForwardContext context;
    context.training = true;
    if (by_name) context.adapter_names = names;
    else {
      context.override_adapters = true;
      if (names[0] != "__base__") context.adapters = {names[0]};
    }
    const Tensor loss = peft.forward(input, context).loss;
    if (loss.requires_grad()) backward(loss);
    std::vector<float> out{static_cast<float>(loss.item())};
    for (const auto& [name, slot] : peft.trainable_parameters()) {
      const Tensor grad = slot->tensor.grad();
      const std::vector<float> values = grad.defined() ? grad.to_vector<float>() : std::vector<float>(static_cast<std::size_t>(slot->tensor.count()), 0.0F);
      out.insert(out.end(), values.begin(), values.end());
    }
    return out;
  };
  for (const bool whole : {true, false}) {
    const std::vector<float> mixed = gradients({0, 1, 2, 3, 4}, true, whole);
    std::vector<float> sum(mixed.size(), 0.0F);
    for (const auto& part : {std::vector<std::size_t>{0, 4}, {1, 3}, {2}}) {
      const std::vector<float> alone = gradients(part, false, whole);
      for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += alone[i];
    }
    CHECK(largest_difference(mixed, sum) < 2e-4);
  }
}

TEST_CASE("what cannot be mixed") {
  PeftModel peft = get_peft_model(tiny_llama(), config_of({"q_proj"}), {.adapter_name = "a"});
  const ModelInput input = tiny_input();
  CHECK(contains(error_of<ShapeError>([&] { peft.forward(input, context_of({"a"})); }), "each of the 2 rows"));
  CHECK(contains(error_of<NameError>([&] { peft.forward(input, context_of({"a", "c"})); }), "no adapter 'c'"));
  peft.merge_adapter();
  CHECK(contains(error_of<StateError>([&] { peft.forward(input, context_of({"a", "__base__"})); }), "unmerge"));
  peft.unmerge_adapter();
  CHECK(error_of<Error>([&] { peft.forward(input, context_of({"a", "__base__"})); }).empty());
}

TEST_CASE("10,000 switches while eight threads generate: every text is of one adapter") {
  PeftModel peft = get_peft_model(tiny_llama(1), config_of({"q_proj", "v_proj", "down_proj"}), {.adapter_name = "a"});
  peft.add_adapter("b", config_of({"q_proj", "up_proj"}, 2));
  randomize(peft, 1.0);
  GenerationOptions options;
  options.max_new_tokens = 6;
  options.eos_token_ids = std::vector<std::int64_t>();
  const std::vector<std::int64_t> prompt{1, 5, 9};
  std::set<std::vector<std::int64_t>> possible;
  AdapterSwitch adapters(*peft.base_model);
  const std::vector<std::vector<std::string>> choices{{"a"}, {"b"}, {}, {"a", "b"}};
  for (const auto& names : choices) {
    adapters.select(names);
    possible.insert(generate(peft.model(), prompt, options, adapters.context()));
  }
  CHECK(possible.size() == choices.size());
  std::atomic<bool> stop{false};
  std::atomic<int> wrong{0}, texts{0};
  std::vector<std::thread> sessions;
  for (int i = 0; i < 8; ++i)
    sessions.emplace_back([&] {
      do {
        if (!possible.contains(generate(peft.model(), prompt, options, adapters.context()))) ++wrong;
        ++texts;
      } while (!stop.load());
    });
  for (std::size_t i = 0; i < 10'000; ++i) {
    adapters.select(choices[i % choices.size()]);
    if (i % 64 == 0) std::this_thread::yield();
  }
  stop.store(true);
  for (std::thread& session : sessions) session.join();
  CHECK(wrong == 0);
  CHECK(texts >= 8);
  CHECK(contains(error_of<NameError>([&] { adapters.select({"c"}); }), "'c'"));
}
