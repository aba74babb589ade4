// all-MiniLM-L6-v2, read from its folder: the reference's embeddings, hidden states and pooler, and trajectories of LoRA and IA3 classification on real text.
#include <doctest/doctest.h>

#include <cmath>
#include <fstream>

#include "nn/optim/adamw.h"
#include "peft/peft_model.h"
#include "tensor/json.h"
#include "tensor/safetensors.h"
#include "tests/data_paths.h"

using namespace cambium;

namespace {

constexpr const char* kFolder = "all-MiniLM-L6-v2";

double largest_difference(const Tensor& found, const Tensor& expected) {
  REQUIRE(found.count() == expected.count());
  return max(abs(sub(reshape(to_dtype(found, expected.dtype()), {found.count()}), reshape(expected, {found.count()})))).item();
}

/// Mean over the real tokens, with Euclidean norm 1: (B, C).
Tensor sentence_embeddings(const Tensor& hidden, const Tensor& mask) {
  const Tensor real = unsqueeze(to_dtype(mask, DType::f32), 2);
  const Tensor mean = div(sum(mul(hidden, real), {1}), sum(real, {1}));
  return div(mean, norm(mean, {1}, true));
}

ModelInput padded(const std::vector<std::vector<std::int64_t>>& rows) {
  std::size_t width = 0;
  for (const auto& row : rows) width = std::max(width, row.size());
  std::vector<std::int64_t> ids, mask;
  for (const auto& row : rows)
    for (std::size_t t = 0; t < width; ++t) {
      ids.push_back(t < row.size() ? row[t] : 0);
      mask.push_back(t < row.size());
    }
  const Shape shape{static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(width)};
  ModelInput input;
  input.input_ids = from_vector(ids, shape);
  input.attention_mask = from_vector(mask, shape);
  return input;
}

/// One line of batches.jsonl.
ModelInput batch_of(const std::string& line) {
  const Json batch = parse_json(line, "batches.jsonl");
  const auto lengths = batch.at("lengths").get<std::vector<std::size_t>>();
  std::vector<std::vector<std::int64_t>> rows;
  for (std::size_t row = 0; row < lengths.size(); ++row) {
    rows.push_back(batch.at("input_ids").at(row).get<std::vector<std::int64_t>>());
    rows.back().resize(lengths[row]);
  }
  ModelInput input = padded(rows);
  input.labels = from_vector(batch.at("labels").get<std::vector<std::int64_t>>(), {static_cast<std::int64_t>(rows.size())});
  return input;
}

/// Trains on the stored batches and compares every loss, the first gradients and the logits after the last step. The reference had no dropout: nothing trains here
/// in the sense of ForwardContext.
void compare_trajectory(const std::string& folder, PeftModel& model) {
  const Json trajectory = read_json_file(folder + "/trajectory.json");
  const Json& o = trajectory.at("optimizer");
  AdamWConfig config;
  config.learning_rate = o.at("lr").get<double>();
  config.beta1 = o.at("betas").at(0).get<double>();
  config.beta2 = o.at("betas").at(1).get<double>();
  config.epsilon = o.at("eps").get<double>();
  config.weight_decay = o.at("weight_decay").get<double>();
  CHECK(model.trainable_parameter_count() == trajectory.at("trainable").get<std::int64_t>());
  std::vector<NamedParameter> parameters;
  for (const auto& entry : model.base_model->adapter_state("default"))
    if (entry.second->tensor.requires_grad()) parameters.push_back(entry);
  AdamW optimizer(parameters, config);
  const SafetensorsFile gradients(folder + "/grads-step1.safetensors"), probe(folder + "/probe.safetensors");
  CHECK(parameters.size() == gradients.names().size());
  std::ifstream lines(folder + "/batches.jsonl");
  std::string line;
  ModelInput input;
  const Json& losses = trajectory.at("losses");
  for (std::size_t step = 0; step < losses.size(); ++step) {
    CAPTURE(step);
    REQUIRE(std::getline(lines, line));
    input = batch_of(line);
    const Tensor loss = model.forward(input).loss;
    CHECK(std::fabs(loss.item() - losses.at(step).get<double>()) <= 1e-4);
    backward(loss);
    if (step == 0)
      for (const auto& [name, slot] : parameters) {
        const std::string& key = name;
        CAPTURE(key);
        const Tensor expected = gradients.tensor(key);
        CHECK(largest_difference(slot->tensor.grad(), expected) <= 1e-4 * max(abs(expected)).item() + 1e-8);
      }
    optimizer.step();
    optimizer.zero_grad();
  }
  NoGrad no_grad;
  CHECK(largest_difference(model.forward(input).logits, probe.tensor("probe.logits")) <= 1e-4);
}

std::shared_ptr<PretrainedModel> classifier(const std::string& path, const std::string& folder) {
  return AutoModelForSequenceClassification::from_pretrained(path, {.label_names = read_json_file(folder + "/trajectory.json").at("classes").get<std::vector<std::string>>()});
}

}  // namespace

TEST_CASE("embeddings, hidden states and pooler are the reference's, one by one and in padded batches") {
  const auto path = test::model_file(kFolder);
  const auto sentences_path = test::goldens("real/minilm/sentences.json"), tensors_path = test::goldens("real/minilm/embeddings.safetensors");
  if (!path || !sentences_path || !tensors_path) return;
  NoGrad no_grad;
  const auto model = load_pretrained(*path);
  CHECK(model->task() == Task::feature_extraction);
  CHECK(model->parameter_count() == 22'713'216);
  const SafetensorsFile tensors(*tensors_path);
  const Tensor expected = tensors.tensor("embeddings");
  std::vector<std::vector<std::int64_t>> rows;
  for (const Json& sentence : read_json_file(*sentences_path)) rows.push_back(sentence.at("ids").get<std::vector<std::int64_t>>());
  REQUIRE(rows.size() == 64);
  const auto compare = [&](const Tensor& found, std::int64_t first) {
    const Tensor part = slice(expected, 0, first, first + found.size(0));
    CHECK(largest_difference(found, part) <= 5e-6);
    CHECK(min(sum(mul(found, part), {1})).item() >= 0.999999);
  };
  for (std::size_t i = 0; i < rows.size(); ++i) {
    CAPTURE(i);
    ModelInput input = padded({rows[i]});
    input.want_hidden_states = i == 1 || i == 7;
    const ModelOutput found = model->forward(input);
    compare(sentence_embeddings(found.logits, input.attention_mask), static_cast<std::int64_t>(i));
    if (!input.want_hidden_states) continue;
    CHECK(largest_difference(found.pooled, tensors.tensor("pooler." + std::to_string(i))) <= 5e-6);
    const Tensor states = tensors.tensor("hidden." + std::to_string(i));
    REQUIRE(states.size(0) == static_cast<std::int64_t>(found.hidden_states.size()));
    for (std::size_t layer = 0; layer < found.hidden_states.size(); ++layer)
      CHECK(largest_difference(found.hidden_states[layer], select(states, 0, static_cast<std::int64_t>(layer))) <= 2e-5);  // entries reach 10
  }
  for (std::size_t first = 0; first < rows.size(); first += 16) {
    const ModelInput input = padded({rows.begin() + static_cast<std::ptrdiff_t>(first), rows.begin() + static_cast<std::ptrdiff_t>(first + 16)});
    compare(sentence_embeddings(model->forward(input).logits, input.attention_mask), static_cast<std::int64_t>(first));
  }
}

TEST_CASE("LoRA on real text: losses, gradients and logits of the reference") {
  const auto path = test::model_file(kFolder), folder = test::goldens("real/minilm/lora-seqcls");
  if (!path || !folder) return;
  PeftModel model = PeftModel::from_pretrained(classifier(*path, *folder), *folder + "/start", "default", {.is_trainable = true});
  compare_trajectory(*folder, model);
}

TEST_CASE("IA3 on real text: losses, gradients and logits of the reference") {
  const auto path = test::model_file(kFolder), folder = test::goldens("real/minilm/ia3-seqcls");
  if (!path || !folder) return;
  IA3Config config;
  config.target_modules = std::vector<std::string>{"key", "value", "output.dense"};
  config.feedforward_modules = std::vector<std::string>{"output.dense"};
  config.task_type = TaskType::SEQ_CLS;
  PeftModel model = get_peft_model(classifier(*path, *folder), config);
  {
    NoGrad no_grad;  // ones and a zero bias are how both sides start; the head's weight was drawn by the reference
    const SafetensorsFile start(*folder + "/init.safetensors");
    for (const auto& [key, slot] : model.base_model->adapter_state("default"))
      if (start.contains(key)) copy_into(slot->tensor, start.tensor(key));
  }
  compare_trajectory(*folder, model);
}
