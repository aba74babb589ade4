// Base models against stored numbers.
#include "tests/goldens/base_models.h"

#include <bit>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "autograd/ops.h"
#include "nn/generation.h"
#include "nn/generation_seq2seq.h"
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

/// Ids or labels, one row or several; whole numbers or others.
Tensor values_tensor(const Json& value) {
  if (value.at(0).is_array() && value.at(0).at(0).is_number_integer()) return ids_tensor(value);
  if (value.at(0).is_number_integer()) return from_vector(value.get<std::vector<std::int64_t>>(), {static_cast<std::int64_t>(value.size())});
  if (!value.at(0).is_array()) return from_vector(value.get<std::vector<float>>(), {static_cast<std::int64_t>(value.size())});
  std::vector<float> values;
  for (const Json& row : value)
    for (const Json& x : row) values.push_back(x.get<float>());
  return from_vector(values, {static_cast<std::int64_t>(value.size()), static_cast<std::int64_t>(value.at(0).size())});
}

Task task_named(const std::string& name) {
  constexpr std::pair<std::string_view, Task> kNames[] = {
      {"causal_lm", Task::causal_lm}, {"seq_2_seq_lm", Task::seq2seq_lm}, {"seq_cls", Task::sequence_classification},
      {"token_cls", Task::token_classification}, {"question_ans", Task::question_answering}, {"feature", Task::feature_extraction}};
  for (const auto& [text, task] : kNames)
    if (text == name) return task;
  fail<ConfigError>("task '", name, "' is not known");
}

/// The member of an input that a name in the files means; null for an unknown one.
Tensor* member(ModelInput& input, const std::string& name) {
  const std::pair<const char*, Tensor*> members[] = {{"input_ids", &input.input_ids}, {"attention_mask", &input.attention_mask}, {"position_ids", &input.position_ids},
                                                     {"token_type_ids", &input.token_type_ids}, {"labels", &input.labels}, {"start_positions", &input.start_positions},
                                                     {"end_positions", &input.end_positions}};
  for (const auto& [text, tensor] : members)
    if (name == text) return tensor;
  return nullptr;
}

/// The mask of an output without the virtual tokens that lead it in other outputs of the case.
Tensor last_columns(const Tensor& mask, const Tensor& values) {
  if (!mask.defined() || mask.rank() != 2 || mask.size(1) <= values.size(1)) return mask;
  return slice(mask, 1, mask.size(1) - values.size(1));
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

Task CaseFiles::task() const { return task_named(json.at("task").get<std::string>()); }

ModelInput CaseFiles::input() const {
  ModelInput input;
  // Two adapters' cases have no list: there it is what is stored under a name of an input.
  Json names = json.value("inputs", Json());
  if (names.is_null())
    for (const auto& [name, tensor] : io)
      if (member(input, name) != nullptr) names[name] = nullptr;
  for (const auto& [name, shape] : names.items()) {
    Tensor* place = member(input, name);
    check<ConfigError>(place != nullptr, "the case has an input '", name, "' that is not known");
    *place = io.at(name);
  }
  return input;
}

ModelInput CaseFiles::base_input() const {
  ModelInput out = input();
  if (io.contains("base_labels")) out.labels = io.at("base_labels");
  return out;
}

std::shared_ptr<PretrainedModel> load_base(const CaseFiles& files) { return load_pretrained(files.base, files.task(), {.device = comparison_device()}); }

Tensor loss_of(Task task, const ModelInput& input, const ModelOutput& output) {
  if (task != Task::feature_extraction) return output.loss;
  const Tensor& hidden = output.logits;
  const std::int64_t batch = hidden.size(0), extra = hidden.size(1) - input.attention_mask.size(1);
  Tensor mask = to_device(to_dtype(input.attention_mask, DType::f32), hidden.device());
  if (extra > 0) mask = cat({ones({batch, extra}, DType::f32, hidden.device()), mask}, 1);
  return div(div(sum(mul(square(hidden), unsqueeze(mask, 2))), sum(mask)), static_cast<double>(hidden.size(2)));
}

void compare_names(const CaseFiles& files, Comparison& out) {
  const auto known = [&](const std::string& kind, const std::string& name, std::initializer_list<std::string_view> names) {
    for (const std::string_view one : names)
      if (one == name || (one.ends_with('.') && name.starts_with(one))) return;
    out.failure(kind + " '" + name + "' is not known");
  };
  for (const auto& [name, tensor] : files.io)
    known("io", name, {"input_ids", "attention_mask", "position_ids", "token_type_ids", "labels", "base_labels", "decoder_input_ids", "start_positions", "end_positions", "compare_mask",
                       "logits", "loss", "base_logits", "base_loss", "merged_logits", "hidden.", "encoder_hidden."});
  for (const auto& [name, value] : files.json.items())
    known("case", name, {"name", "task", "peft_type", "base", "seed", "inputs", "padding", "loss", "base_loss", "loss_float64", "trainable_params", "all_params", "targets", "optimizer",
                         "losses", "merged_loss", "merged_logits_max_diff", "unmerged_logits_max_diff", "merge_error", "generate", "warnings", "note", "tolerance", "float32_noise",
                         "text_token_ids", "prompt_row_ids"});
  for (const auto& entry : fs::directory_iterator(files.folder))
    known("file", entry.path().filename().string(), {"case.json", "io.safetensors", "adapter", "grads.safetensors", "after.safetensors", "params.safetensors", "merged.safetensors"});
}

void compare_hidden_states(const CaseFiles& files, const ModelOutput& found, Comparison& out) {
  for (const auto& [kind, states] : {std::pair<std::string, const std::vector<Tensor>&>{"hidden", found.hidden_states}, {"encoder_hidden", found.encoder_hidden_states}}) {
    std::size_t stored = 0;
    for (const auto& [key, tensor] : files.io) {
      if (!key.starts_with(kind + ".")) continue;
      const std::size_t index = std::stoul(key.substr(kind.size() + 1));
      ++stored;
      out.close(kind, index < states.size() ? states[index] : Tensor(), tensor, files.tolerance("logits"), files.compare_mask());
    }
    if (stored > 0) out.same(kind + " count", stored == states.size(), "other number of hidden states");
  }
}

Tensor CaseFiles::compare_mask() const { return io.contains("compare_mask") ? io.at("compare_mask") : Tensor(); }

void compare_base(const CaseFiles& files, const PretrainedModel& model, Comparison& out) {
  NoGrad no_grad;
  compare_names(files, out);
  ModelInput input = files.base_input();
  const ModelOutput found = model.forward(input);
  const Tensor& expected = files.io.at("base_logits");
  out.close("base_logits", found.logits, expected, files.tolerance("logits"), last_columns(files.compare_mask(), expected));
  const double loss = number_of(files.json.at("base_loss")), found_loss = loss_of(files.task(), input, found).item();
  out.within("base_loss", std::fabs(found_loss - loss), files.tolerance("loss"));
  out.within("base_loss", std::fabs(found_loss - files.io.at("base_loss").item()), files.tolerance("loss"));
  // The way without whole logits has to give the same.
  input.want_logits = false;
  if (found.loss.defined()) out.within("base_loss", std::fabs(model.forward(input).loss.item() - loss), files.tolerance("loss"));
  if (files.io.contains("decoder_input_ids")) {
    // What the labels become, and an encoder that ran before.
    ModelInput split;
    split.encoder_output = found.encoder_output;
    split.attention_mask = input.attention_mask;
    split.decoder_input_ids = files.io.at("decoder_input_ids");
    out.close("base_logits", model.forward(split).logits, expected, files.tolerance("logits"), files.compare_mask());
  }
  if (files.json.contains("generate")) compare_generation(files, model, "without_adapter", out);
}

void compare_generation(const CaseFiles& files, const PretrainedModel& model, const std::string& name, Comparison& out) {
  compare_generation(files, [&](const Tensor& ids, const Tensor& mask, const GenerationOptions& options) { return generate(model, ids, mask, options); }, name, out);
}

void compare_generation(const CaseFiles& files, const Continue& continue_ids, const std::string& name, Comparison& out) {
  const Json& g = files.json.at("generate");
  for (const bool cached : {true, false}) {
    const std::string key = cached ? name : "full_forward_" + name;
    if (!g.contains(key)) continue;
    GenerationOptions options;
    options.max_new_tokens = g.at("max_new_tokens").get<std::int64_t>();
    options.eos_token_ids = std::vector<std::int64_t>();
    options.use_cache = cached;
    const auto ids = continue_ids(ids_tensor(g.at("input_ids")), g.contains("attention_mask") ? ids_tensor(g.at("attention_mask")) : Tensor(), options);
    out.same("generate." + key, ids == g.at(key).get<std::vector<std::vector<std::int64_t>>>(), "other ids");
  }
}

Comparison compare_full_gradients(const std::string& folder, const std::string& name) {
  Comparison out(name);
  const Json file = read_json_file((fs::path(folder) / "full_gradients.json").string());
  const Task task = task_named(file.at("task").get<std::string>());
  const std::shared_ptr<PretrainedModel> model = load_pretrained(folder, {}, {.device = comparison_device()});
  out.same("task", model->task() == task, "the architecture stands for another task");
  ModelInput input;
  for (const auto& [key, value] : file.at("inputs").items()) {
    if (Tensor* place = member(input, key)) *place = values_tensor(value);
    else out.failure("input '" + key + "' is not known");
  }
  model->set_requires_grad(true);
  ForwardContext context;
  context.training = true;
  const Tensor loss = loss_of(task, input, model->forward(input, context));
  out.within("loss", std::fabs(loss.item() - number_of(file.at("loss_float64"))), 1e-5);
  out.within("loss", std::fabs(loss.item() - number_of(file.at("loss"))), 1e-5);
  backward(loss);

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
    const std::shared_ptr<PretrainedModel> same = model_from_config(text_of(older), task, RandomKey{1, 0}, {.device = comparison_device()});
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
    const Tensor found = file.tensor(key, DType::f32, comparison_device());
    const std::vector<float> a = found.to_vector<float>(), b = tensor.to_vector<float>();
    bool equal = found.shape() == tensor.shape();
    for (std::size_t i = 0; equal && i < a.size(); ++i) equal = std::bit_cast<std::uint32_t>(a[i]) == std::bit_cast<std::uint32_t>(b[i]);
    out.same(key, equal, "bits differ");
  }
  return out;
}

}  // namespace cambium::test
