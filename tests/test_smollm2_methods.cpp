// Training SmolLM2-135M-Instruct with a prompt, a prefix and P-tuning on real text, against the reference's losses, first gradients and logits.
#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <fstream>

#include "nn/optim/adamw.h"
#include "peft/peft_model.h"
#include "tensor/json.h"
#include "tensor/safetensors.h"
#include "tests/data_paths.h"

using namespace cambium;

namespace {

using Ids = std::vector<std::int64_t>;

/// One line of batches.jsonl.
ModelInput batch_of(const Json& batch) {
  const Ids lengths = batch.at("lengths").get<Ids>();
  Ids ids, labels, mask;
  std::int64_t time = 0;
  for (std::size_t row = 0; row < lengths.size(); ++row) {
    const Ids row_ids = batch.at("input_ids").at(row).get<Ids>(), row_labels = batch.at("labels").at(row).get<Ids>();
    time = static_cast<std::int64_t>(row_ids.size());
    ids.insert(ids.end(), row_ids.begin(), row_ids.end());
    labels.insert(labels.end(), row_labels.begin(), row_labels.end());
    for (std::int64_t t = 0; t < time; ++t) mask.push_back(t < lengths[row]);
  }
  const Shape shape{static_cast<std::int64_t>(lengths.size()), time};
  ModelInput input;
  input.input_ids = from_vector(ids, shape);
  input.labels = from_vector(labels, shape);
  input.attention_mask = from_vector(mask, shape);
  input.want_logits = false;
  return input;
}

/// What is trained, under the names of the reference's files.
std::vector<NamedParameter> parameters_of(const PeftModel& model) {
  std::vector<NamedParameter> out;
  for (const auto& [key, slot] : model.base_model->encoder_state("default")) out.emplace_back("prompt_encoder." + key, slot);
  if (out.empty()) return model.base_model->adapter_state("default");
  return out;
}

}  // namespace

TEST_CASE("trajectories on real text") {
  const auto file = test::model_file("SmolLM2-135M-Instruct.Q4_1.gguf");
  const auto batches = test::goldens("real/smollm2/batches.jsonl");
  if (!file || !batches) return;
  for (const std::string method : {"prompt", "prefix", "p_tuning"}) {
    CAPTURE(method);
    const auto path_of = [&](const std::string& name) { return test::goldens("real/smollm2/" + method + "/" + name); };
    const auto trajectory_path = path_of("trajectory.json"), init_path = path_of("init.safetensors"), gradients_path = path_of("grads-step1.safetensors"), probe_path = path_of("probe.safetensors"),
               adapter_path = path_of("adapter");
    REQUIRE((trajectory_path && init_path && gradients_path && probe_path && adapter_path));
    const Json trajectory = read_json_file(*trajectory_path);
    PeftConfig config = read_peft_config(*adapter_path);
    std::visit([](auto& c) { c.inference_mode = false; }, config);
    PeftModel model = get_peft_model(AutoModelForCausalLM::from_pretrained(*file), config);
    CHECK(model.trainable_parameter_count() == trajectory.at("trainable").get<std::int64_t>());
    const std::vector<NamedParameter> parameters = parameters_of(model);
    const SafetensorsFile init(*init_path), first_gradients(*gradients_path);
    std::size_t compared = 0;
    for (const auto& [key, slot] : parameters)
      if (init.contains(key)) {
        slot->tensor = clone(init.tensor(key));
        slot->tensor.set_requires_grad(true);
        ++compared;
      }
    CHECK(compared == init.names().size());

    const Json& o = trajectory.at("optimizer");
    AdamWConfig options;
    options.learning_rate = o.at("lr").get<double>();
    options.beta1 = o.at("betas").at(0).get<double>();
    options.beta2 = o.at("betas").at(1).get<double>();
    options.epsilon = o.at("eps").get<double>();
    options.weight_decay = o.at("weight_decay").get<double>();
    AdamW optimizer(parameters, options);
    std::ifstream lines(*batches);
    std::string line;
    ForwardContext context;
    context.training = true;
    for (std::size_t step = 0; step < trajectory.at("losses").size() && std::getline(lines, line); ++step) {
      CAPTURE(step);
      const Tensor loss = model.forward(batch_of(parse_json(line, "batches.jsonl")), context).loss;
      const double difference = std::fabs(loss.item() - trajectory.at("losses").at(step).get<double>());
      CAPTURE(difference);
      CHECK(difference <= 1e-4);
      backward(loss);
      if (step == 0) {
        compared = 0;
        for (const auto& [key, slot] : parameters) {
          if (!first_gradients.contains(key)) continue;
          ++compared;
          const Tensor expected = first_gradients.tensor(key);
          CHECK(max(abs(sub(slot->tensor.grad(), expected))).item() <= 1e-3 * max(abs(expected)).item());
        }
        CHECK(compared == first_gradients.names().size());
      }
      optimizer.step();
      optimizer.zero_grad();
    }

    NoGrad no_grad;
    const Ids probe = trajectory.at("probe_ids").get<Ids>();
    ModelInput input;
    input.input_ids = from_vector(probe, {1, static_cast<std::int64_t>(probe.size())});
    input.last_logits_only = true;
    const SafetensorsFile probe_file(*probe_path);
    const Tensor expected = probe_file.tensor(probe_file.names().front());
    const auto worst = [&](const PeftModel& of) { return max(abs(sub(reshape(of.forward(input).logits, expected.shape()), expected))).item(); };
    const double trained = worst(model);
    CAPTURE(trained);
    CHECK(trained <= 2e-3);
    // The reference's own adapter, read from its folder.
    const double loaded = worst(PeftModel::from_pretrained(AutoModelForCausalLM::from_pretrained(*file), *adapter_path));
    CAPTURE(loaded);
    CHECK(loaded <= 2e-3);
  }
}
