// Base models against stored numbers.
#include "tests/goldens/base_models.h"

#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "autograd/ops.h"
#include "nn/generation.h"
#include "tensor/gguf.h"
#include "tensor/safetensors.h"

namespace cambium::test {

namespace fs = std::filesystem;

namespace {

Tensor ids_tensor(const Json& rows) {
  std::vector<std::int64_t> values;
  for (const Json& row : rows)
    for (const Json& id : row) values.push_back(id.get<std::int64_t>());
  return from_vector(values, {static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(rows.at(0).size())});
}

std::string text_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

double number_of(const Json& value) { return value.is_string() ? std::stod(value.get<std::string>()) : value.get<double>(); }

}  // namespace

std::map<std::string, Tensor> read_tensors(const std::string& path) {
  std::map<std::string, Tensor> out;
  const SafetensorsFile file(path);
  for (const std::string& name : file.names()) out.emplace(name, file.tensor(name));
  return out;
}

CaseFiles::CaseFiles(const std::string& case_folder)
    : folder(case_folder), json(read_json_file((fs::path(case_folder) / "case.json").string())), io(read_tensors((fs::path(case_folder) / "io.safetensors").string())) {
  const std::string relative = json.at("base").get<std::string>();
  for (fs::path at = fs::absolute(folder); base.empty(); at = at.parent_path()) {
    if (fs::exists(at / relative / "config.json")) base = (at / relative).string();
    check<FileError>(!base.empty() || at != at.root_path(), folder, ": no folder above it holds its base model '", relative, "'");
  }
}

ModelInput CaseFiles::input() const {
  ModelInput input;
  const auto get = [&](const char* name) { return io.contains(name) ? io.at(name) : Tensor(); };
  input.input_ids = get("input_ids");
  input.attention_mask = get("attention_mask");
  input.position_ids = get("position_ids");
  input.labels = get("labels");
  for (const auto& [name, shape] : json.at("inputs").items())
    check<ConfigError>(name == "input_ids" || name == "attention_mask" || name == "position_ids" || name == "labels", "the case has an input '", name,
                       "' that causal language models do not take");
  return input;
}

Tensor CaseFiles::compare_mask() const { return io.contains("compare_mask") ? io.at("compare_mask") : Tensor(); }

void compare_base(const CaseFiles& files, const PretrainedModel& model, Comparison& out) {
  NoGrad no_grad;
  ModelInput input = files.input();
  const ModelOutput found = model.forward(input);
  out.close("base_logits", found.logits, files.io.at("base_logits"), files.tolerance("logits"), files.compare_mask());
  const double loss = number_of(files.json.at("base_loss"));
  out.within("base_loss", std::fabs(found.loss.item() - loss), files.tolerance("loss"));
  out.within("base_loss", std::fabs(found.loss.item() - files.io.at("base_loss").item()), files.tolerance("loss"));
  // The way without whole logits has to give the same.
  input.want_logits = false;
  out.within("base_loss", std::fabs(model.forward(input).loss.item() - loss), files.tolerance("loss"));
  if (files.json.contains("generate")) compare_generation(files, model, "without_adapter", out);
}

void compare_generation(const CaseFiles& files, const PretrainedModel& model, const std::string& name, Comparison& out) {
  const Json& g = files.json.at("generate");
  for (const bool cached : {true, false}) {
    const std::string key = cached ? name : "full_forward_" + name;
    if (!g.contains(key)) continue;
    GenerationOptions options;
    options.max_new_tokens = g.at("max_new_tokens").get<std::int64_t>();
    options.eos_token_ids = std::vector<std::int64_t>();
    options.use_cache = cached;
    const auto ids = generate(model, ids_tensor(g.at("input_ids")), g.contains("attention_mask") ? ids_tensor(g.at("attention_mask")) : Tensor(), options);
    out.same("generate." + key, ids == g.at(key).get<std::vector<std::vector<std::int64_t>>>(), "other ids");
  }
}

Comparison compare_full_gradients(const std::string& folder, const std::string& name) {
  Comparison out(name);
  const Json file = read_json_file((fs::path(folder) / "full_gradients.json").string());
  const std::shared_ptr<PretrainedModel> model = AutoModelForCausalLM::from_pretrained(folder);
  ModelInput input;
  for (const auto& [key, value] : file.at("inputs").items()) {
    if (key == "input_ids") input.input_ids = ids_tensor(value);
    else if (key == "attention_mask") input.attention_mask = ids_tensor(value);
    else if (key == "position_ids") input.position_ids = ids_tensor(value);
    else if (key == "labels") input.labels = ids_tensor(value);
    else out.failure("input '" + key + "' is not known");
  }
  model->set_requires_grad(true);
  ForwardContext context;
  context.training = true;
  const ModelOutput result = model->forward(input, context);
  out.within("loss", std::fabs(result.loss.item() - number_of(file.at("loss_float64"))), 1e-5);
  backward(result.loss);

  Json expected = file.at("gradients");
  for (const auto& [path, slot] : model->named_parameters()) {
    if (!expected.contains(path)) {
      out.failure("parameter '" + path + "' is not in the file");
      continue;
    }
    const Json row = expected.at(path);
    expected.erase(path);
    const Tensor g = slot->tensor.grad();
    out.same("shapes", slot->tensor.shape().to_vector() == row.at("shape").get<std::vector<std::int64_t>>(), path);
    double squares = 0.0, dot = 0.0;
    if (g.defined()) {
      const std::vector<double> values = g.to_vector<double>();
      for (std::size_t i = 0; i < values.size(); ++i) {
        squares += values[i] * values[i];
        dot += values[i] * std::cos(static_cast<double>(i));
      }
    }
    const double norm = row.at("norm").get<double>(), tolerance = 2e-4 * std::max(norm, 1e-3);
    out.within("gradient norms", std::fabs(std::sqrt(squares) - norm), tolerance);
    out.within("gradient dots", std::fabs(dot - row.at("dot").get<double>()), tolerance);
  }
  for (const auto& [path, row] : expected.items()) out.failure("the model has no parameter '" + path + "'");

  const std::string older = (fs::path(folder) / "config_v4.json").string();
  if (fs::exists(older)) {
    NoGrad no_grad;
    const std::shared_ptr<PretrainedModel> same = AutoModelForCausalLM::from_config(text_of(older), RandomKey{1, 0});
    same->load_state_dict(model->state_dict());
    out.close("config_v4", same->forward(input).logits, model->forward(input).logits, 0.0);
  }
  return out;
}

Comparison compare_gguf_blocks(const std::string& folder, const std::string& name) {
  Comparison out(name);
  const GgufFile file((fs::path(folder) / "blocks.gguf").string());
  const std::map<std::string, Tensor> expected = read_tensors((fs::path(folder) / "blocks.safetensors").string());
  out.same("names", expected.size() == file.tensors().size(), "other tensors");
  for (const auto& [key, tensor] : expected) {
    const Tensor found = file.tensor(key, DType::f32);
    const std::vector<float> a = found.to_vector<float>(), b = tensor.to_vector<float>();
    bool equal = found.shape() == tensor.shape();
    for (std::size_t i = 0; equal && i < a.size(); ++i) equal = std::bit_cast<std::uint32_t>(a[i]) == std::bit_cast<std::uint32_t>(b[i]);
    out.same(key, equal, "bits differ");
  }
  return out;
}

}  // namespace cambium::test
