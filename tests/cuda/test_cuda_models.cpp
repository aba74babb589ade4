// Whole models on the device: what crosses to the host, moving modules there and back, what is told about tensors on two devices.
#include <doctest/doctest.h>

#include <functional>

#include "emulation.h"
#include "nn/generation.h"
#include "nn/generation_seq2seq.h"
#include "nn/optim/adafactor.h"
#include "nn/optim/adamw.h"
#include "nn/optim/clip.h"
#include "nn/optim/sgd.h"
#include "tensor/gguf.h"
#include "tests/data_paths.h"
#include "tests/lora_layers.h"
#include "tests/temporary_folder.h"
#include "tests/tiny_task_models.h"
#include "train/trainer.h"

using namespace cambium;
using namespace cambium::test;

namespace {

constexpr Device kGpu{DeviceType::cuda, 0}, kOther{DeviceType::cuda, 1};

struct Crossed {
  std::int64_t copies, bytes;
  bool operator==(const Crossed&) const = default;
};
Crossed to_host_by(const std::function<void()>& action) {
  const kemu::Counters before = kemu::counters();
  action();
  return {kemu::counters().device_to_host - before.device_to_host, kemu::counters().device_to_host_bytes - before.device_to_host_bytes};
}

std::shared_ptr<PretrainedModel> on_gpu(std::shared_ptr<PretrainedModel> model) {
  model->to(kGpu);
  return model;
}

// One configuration of each method, with what its kind of forward can cost most.
std::vector<PeftConfig> methods() {
  LoraConfig lora = config_of({"q_proj", "v_proj", "down_proj"}), dora = config_of({"o_proj", "up_proj"});
  lora.lora_dropout = 0.1;
  dora.use_dora = true;
  IA3Config ia3;
  PromptTuningConfig prompt{.num_virtual_tokens = 3};
  PrefixTuningConfig prefix;
  prefix.num_virtual_tokens = 3;
  PromptEncoderConfig mlp, lstm;
  mlp.num_virtual_tokens = lstm.num_virtual_tokens = 3;
  lstm.encoder_reparameterization_type = PromptEncoderType::LSTM;
  std::vector<PeftConfig> out{lora, dora, ia3, prompt, prefix, mlp, lstm};
  for (PeftConfig& config : out) std::visit([](auto& c) { c.task_type = TaskType::CAUSAL_LM; }, config);
  return out;
}

ModelInput learned_input() {
  ModelInput input = tiny_input();
  input.labels = input.input_ids;
  input.want_logits = false;
  return input;
}

ForwardContext training_context() {
  ForwardContext context;
  context.training = true;
  context.key = RandomKey{3, 0};
  return context;
}

Dataset rows() {
  Dataset data;
  data.kind = DataKind::tokens;
  for (std::int64_t i = 0; i < 4; ++i) {
    Example example;
    example.line = i + 1;
    for (std::int64_t t = 0; t < 4 + i; ++t) example.ids.push_back((i * 7 + t * 3 + 1) % 40);
    example.labels = example.ids;
    data.examples.push_back(example);
  }
  data.count();
  return data;
}

std::string device_error_of(const std::function<void()>& action) { return error_of<DeviceError>(action); }

}  // namespace

TEST_CASE("in a training step nothing but the loss comes to the host") {
  for (const PeftConfig& config : methods()) {
    PeftModel peft(on_gpu(tiny_llama()), config);
    CAPTURE(peft.base_model->type_name());
    AdamW optimizer(peft.trainable_parameters());
    const ModelInput input = learned_input();
    for (int step = 0; step < 2; ++step) {
      Tensor loss;
      const Crossed quiet = to_host_by([&] {
        loss = peft.forward(input, training_context()).loss;
        backward(loss);
        optimizer.step();
        optimizer.zero_grad();
      });
      CHECK(quiet == Crossed{0, 0});
      CHECK(to_host_by([&] { CHECK(loss.item() > 0.0); }) == Crossed{1, 4});
    }
  }
  const auto gpt2 = on_gpu(tiny_gpt2());
  gpt2->set_requires_grad(true);
  Sgd sgd(gpt2->named_parameters(), {.learning_rate = 0.01});
  Adafactor adafactor(gpt2->named_parameters(), {});
  for (Optimizer* optimizer : {static_cast<Optimizer*>(&sgd), static_cast<Optimizer*>(&adafactor)})
    CHECK(to_host_by([&] {
      backward(gpt2->forward(learned_input(), training_context()).loss);
      optimizer->step();
      optimizer->zero_grad();
    }) == Crossed{0, 0});
  const Tensor logits = zeros({2, 3}, DType::f32, kGpu).set_requires_grad(true), weight = ones({3}, DType::f32, kGpu);
  CHECK(to_host_by([&] { backward(cross_entropy(logits, from_vector<std::int64_t>({0, 2}, {2}, kGpu), {.weight = weight})); }) == Crossed{0, 0});
}

TEST_CASE("blocks of a GGUF file cross to the device as they lie in it") {
  const auto path = goldens("gguf/blocks.gguf");
  if (!path) return;
  const GgufFile file(*path);
  for (const GgufTensorInfo& info : file.tensors()) {
    if (ggml_format(info.type).dtype) continue;
    INFO(info.name);
    for (const DType dtype : {DType::f32, DType::bf16}) {
      const kemu::Counters before = kemu::counters();
      const Tensor decoded = file.tensor(info.name, dtype, kGpu);
      CHECK(kemu::counters().host_to_device_bytes - before.host_to_device_bytes == static_cast<std::int64_t>(info.bytes));
      CHECK(decoded.device() == kGpu);
      CHECK(decoded.shape() == info.shape);
      CHECK(decoded.to_vector<double>() == file.tensor(info.name, dtype).to_vector<double>());
    }
  }
}

TEST_CASE("the trainer reports loss and norm of the gradients, a number of each step") {
  const auto crossed_in = [](std::int64_t steps) {
    PeftModel peft(on_gpu(tiny_llama()), config_of({"q_proj", "v_proj"}));
    Trainable trainable;
    trainable.parameters = peft.trainable_parameters();
    trainable.forward = [&](const ModelInput& input, const ForwardContext& context) { return peft.forward(input, context); };
    TrainOptions options;
    options.steps = steps;
    options.batch_size = 2;
    return to_host_by([&] { train(trainable, rows(), options); });
  };
  CHECK(crossed_in(3) == Crossed{3 * 2, 3 * (4 + 8)});
  CHECK(crossed_in(5) == Crossed{5 * 2, 5 * (4 + 8)});
}

TEST_CASE("in a generation nothing but the chosen ids comes to the host") {
  GenerationOptions greedy;
  greedy.max_new_tokens = 5;
  greedy.eos_token_ids = std::vector<std::int64_t>{};
  GenerationOptions sampled = greedy;
  sampled.sampling.do_sample = true;
  sampled.sampling.top_k = 20;
  sampled.sampling.top_p = 0.9;
  sampled.sampling.repetition_penalty = 1.3;
  for (const PeftConfig& config : methods()) {
    PeftModel peft(on_gpu(tiny_llama()), config);
    for (const GenerationOptions& options : {greedy, sampled}) {
      std::vector<std::vector<std::int64_t>> rows;
      CHECK(to_host_by([&] { rows = peft.generate(tiny_input().input_ids, {}, options); }) == Crossed{5, 5 * 2 * 8});
      REQUIRE(rows.size() == 2);
      CHECK(rows[1].size() == 5);
    }
  }
  const auto t5 = on_gpu(model_for(Task::seq2seq_lm, t5_config()));
  ModelInput input;
  input.input_ids = int_rows({5, 9, 30, 7, 1});
  CHECK(to_host_by([&] { generate_seq2seq(*t5, input, greedy); }) == Crossed{5, 5 * 8});
}

TEST_CASE("generated on the device as on the CPU") {
  for (const PeftConfig& config : methods()) {
    PeftModel host(tiny_llama(), config, {.key = RandomKey{9, 0}}), device(on_gpu(tiny_llama()), config, {.key = RandomKey{9, 0}});
    for (const bool sample : {false, true}) {
      GenerationOptions options;
      options.max_new_tokens = 8;
      options.sampling.do_sample = sample;
      options.sampling.top_p = 0.8;
      options.key = RandomKey{4, 0};
      const ModelInput input = tiny_input();
      CHECK(host.generate(input.input_ids, {}, options) == device.generate(input.input_ids, {}, options));
    }
  }
}

TEST_CASE("to(device) and back: values, ties, gradients, adapters") {
  LoraConfig config = config_of({"q_proj", "up_proj"});
  config.use_dora = true;
  PeftModel peft(tiny_llama(), config);
  peft.add_adapter("second", config_of({"v_proj", "embed_tokens"}));
  randomize(peft, 5);
  backward(peft.forward(learned_input()).loss);
  const auto values = values_of(peft);
  const auto logits = logits_of(peft);
  std::vector<std::vector<double>> grads;
  for (const auto& [name, slot] : peft.trainable_parameters()) grads.push_back(slot->tensor.grad().to_vector<double>());

  for (const Device device : {kGpu, kOther, Device{}}) {
    peft.to(device);
    INFO(device);
    CHECK(peft.device() == device);
    for (const NamedParameter& parameter : peft.named_parameters()) {
      INFO(parameter.first);
      CHECK(parameter.second->tensor.device() == device);
    }
    CHECK(values_of(peft) == values);
    std::size_t i = 0;
    for (const auto& [name, slot] : peft.trainable_parameters()) {
      REQUIRE(slot->tensor.grad().defined());
      CHECK(slot->tensor.grad().device() == device);
      CHECK(slot->tensor.grad().to_vector<double>() == grads[i++]);
    }
    CHECK(i == grads.size());
    CHECK(largest_difference(logits_of(peft), logits) <= 2e-5);
    peft.merge_adapter({"default"});
    CHECK(largest_difference(logits_of(peft), logits) <= 1e-4);
    peft.unmerge_adapter();
    CHECK(values_of(peft) == values);
  }

  const auto tied = tiny_gpt2();
  const std::size_t count = tied->named_parameters().size();
  tied->to(kGpu);
  CHECK(tied->named_parameters().size() == count);
  CHECK(tied->device() == kGpu);
}

TEST_CASE("saved on the device, loaded on the CPU, and the other way round") {
  const TemporaryFolder folder;
  PeftModel device(on_gpu(tiny_llama()), config_of({"q_proj", "v_proj"}));
  randomize(device, 6);
  device.to(kGpu);
  device.save_pretrained(folder.path());
  const PeftModel host = PeftModel::from_pretrained(tiny_llama(), folder.path()), back = PeftModel::from_pretrained(on_gpu(tiny_llama()), folder.path());
  CHECK(back.device() == kGpu);
  for (const auto& [name, slot] : back.named_parameters()) CHECK(slot->tensor.device() == kGpu);
  CHECK(values_of(host) == values_of(device));
  CHECK(values_of(back) == values_of(device));
}

TEST_CASE("an optimizer's state goes where its parameters are") {
  const auto trained = [](Device device) {
    auto peft = std::make_unique<PeftModel>(tiny_llama(), config_of({"q_proj", "v_proj"}));
    peft->to(device);
    return peft;
  };
  const auto step = [](PeftModel& peft, Optimizer& optimizer) {
    backward(peft.forward(learned_input()).loss);
    optimizer.step();
    optimizer.zero_grad();
  };
  const auto host = trained(Device{}), device = trained(kGpu);
  AdamW on_host(host->trainable_parameters()), on_device(device->trainable_parameters());
  step(*host, on_host);
  step(*device, on_device);
  // The state of the CPU is taken on by the device's optimizer.
  for (std::size_t i = 0; i < host->trainable_parameters().size(); ++i) device->trainable_parameters()[i].second->tensor = to_device(detach(host->trainable_parameters()[i].second->tensor), kGpu).set_requires_grad(true);
  on_device.load_state(on_host.state());
  for (const auto& state : on_device.state()) {
    INFO(state.first);
    if (!state.first.ends_with(".step")) CHECK(state.second.device() == kGpu);
  }
  step(*host, on_host);
  step(*device, on_device);
  for (std::size_t i = 0; i < host->trainable_parameters().size(); ++i) {
    const NamedParameter parameter = host->trainable_parameters()[i];
    INFO(parameter.first);
    CHECK(difference_of(parameter.second->tensor, to_device(device->trainable_parameters()[i].second->tensor, Device{})) <= 1e-5);
  }
  // A model that moves under its optimizer takes the state along.
  device->to(Device{});
  step(*device, on_device);
  for (const auto& [name, tensor] : on_device.state()) CHECK(tensor.device() == Device{});
}

TEST_CASE("tensors on two devices are an error that names them") {
  const auto model = on_gpu(tiny_llama());
  ModelInput input;
  input.inputs_embeds = zeros({1, 3, 16});
  CHECK(contains(device_error_of([&] { model->forward(input, {}); }), "forward: inputs_embeds [1, 3, 16] is on cpu, the model on cuda:0: use to_device"));
  input.inputs_embeds = zeros({1, 3, 16}, DType::f32, kOther);
  CHECK(contains(device_error_of([&] { model->forward(input, {}); }), "inputs_embeds [1, 3, 16] is on cuda:1, the model on cuda:0"));

  // A parameter left behind.
  const auto slot_named = [](const Module& module, const std::string& wanted) {
    for (const auto& [name, slot] : module.named_parameters())
      if (name.ends_with(wanted)) return slot;
    FAIL("no parameter ", wanted);
    return std::shared_ptr<ParameterSlot>();
  };
  const auto left_behind = [&](PeftModel& peft, const std::string& name) {
    const auto slot = slot_named(peft, name);
    const Tensor before = slot->tensor;
    slot->tensor = to_device(detach(before), Device{});
    const std::string message = device_error_of([&] { peft.forward(tiny_input()); });
    slot->tensor = before;
    return message;
  };
  PeftModel peft(model, config_of({"q_proj"}));
  CHECK(contains(left_behind(peft, "layers.1.self_attn.q_proj.base_layer.weight"), "model.layers.1.self_attn.q_proj"));
  CHECK(contains(left_behind(peft, "layers.1.mlp.up_proj.weight"), "model.layers.1.mlp.up_proj"));
  CHECK(contains(left_behind(peft, "layers.0.self_attn.q_proj.lora_A.default.weight"), "model.layers.0.self_attn.q_proj"));
  CHECK(contains(left_behind(peft, "layers.0.input_layernorm.weight"), "model.layers.0.input_layernorm"));
  CHECK(contains(left_behind(peft, "model.embed_tokens.weight"), "model.embed_tokens"));

  // Gradients and parameters of an optimizer.
  const Tensor here = ones({2}).set_requires_grad(true), there = ones({2}, DType::f32, kGpu).set_requires_grad(true);
  here.set_grad(ones({2}));
  there.set_grad(ones({2}, DType::f32, kGpu));
  const std::vector<NamedParameter> both{{"here", as_parameters(std::vector{here})[0].second}, {"there", as_parameters(std::vector{there})[0].second}};
  CHECK(contains(device_error_of([&] { clip_grad_norm(both, 1.0); }), "'there' is on cuda:0, that of 'here' on cpu"));
}
