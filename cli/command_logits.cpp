// `cambium logits`: the forward pass of given token ids, for checks against other programs.
#include <iostream>

#include "cli/command.h"

namespace cambium::cli {

namespace {
struct LogitsArguments {
  SharedOptions shared;
  std::string ids, out, task;
};

Tensor matrix(const Json& object, const std::string& key, const std::string& where) {
  const Json& rows = object[key];
  check<FileError>(rows.is_array() && !rows.empty() && rows[0].is_array() && !rows[0].empty(), where, ": '", key, "': expected a list of lists of integers");
  std::vector<std::int64_t> values;
  const std::size_t width = rows[0].size();
  for (const Json& row : rows) {
    check<FileError>(row.is_array() && row.size() == width, where, ": '", key, "': expected rows of equal length ", width);
    for (const Json& value : row) {
      check<FileError>(value.is_number_integer(), where, ": '", key, "': expected integers, found ", value.dump());
      values.push_back(value.get<std::int64_t>());
    }
  }
  return from_vector(values, {static_cast<std::int64_t>(rows.size()), static_cast<std::int64_t>(width)});
}

/// A member of ModelInput by its name in the file.
Tensor* member(ModelInput& input, const std::string& key) {
  if (key == "input_ids") return &input.input_ids;
  if (key == "attention_mask") return &input.attention_mask;
  if (key == "position_ids") return &input.position_ids;
  if (key == "token_type_ids") return &input.token_type_ids;
  if (key == "decoder_input_ids") return &input.decoder_input_ids;
  if (key == "decoder_attention_mask") return &input.decoder_attention_mask;
  return nullptr;
}

int run(const LogitsArguments& a) {
  const Json object = read_json_file(a.ids);
  check<FileError>(object.is_object() && object.contains("input_ids"), a.ids, ": expected an object with input_ids");
  ModelInput input;
  for (const auto& [key, value] : object.items()) {
    Tensor* const place = member(input, key);
    check<FileError>(place != nullptr, a.ids, ": '", key, "' is no input of a model: expected input_ids, attention_mask, position_ids, token_type_ids, decoder_input_ids or decoder_attention_mask");
    *place = matrix(object, key, a.ids);
  }
  const auto same_shape = [&](const Tensor& of, const char* name, std::initializer_list<Tensor> others) {
    for (const Tensor& other : others)
      check<FileError>(!other.defined() || (of.defined() && other.shape() == of.shape()), a.ids, ": expected the shape of ", name, " for what goes with it, found ", other.defined() ? concat_text(other.shape()) : "");
  };
  same_shape(input.input_ids, "input_ids", {input.attention_mask, input.position_ids, input.token_type_ids});
  same_shape(input.decoder_input_ids, "decoder_input_ids", {input.decoder_attention_mask});
  ModelRequest request;
  if (!a.task.empty()) request.task = parse_task(a.task);
  const LoadedModel model = load_model(a.shared, request);
  check<ConfigError>(model.base->newly_initialized().empty(), "logits: the head of this task is not in the model's files ('", model.base->newly_initialized().empty() ? "" : model.base->newly_initialized().front(), "'): its numbers would be random");
  for (const Tensor& ids : {input.input_ids, input.decoder_input_ids}) {
    if (!ids.defined()) continue;
    for (std::int64_t id : ids.to_vector<std::int64_t>())
      check<FileError>(id >= 0 && id < model.base->config().vocab_size, a.ids, ": token id ", id, " is outside the vocabulary of ", model.base->config().vocab_size);
  }
  NoGrad no_grad;
  const ModelOutput output = model.forward(input);
  std::vector<std::pair<std::string, Tensor>> tensors;
  if (output.start_logits.defined()) tensors = {{"start_logits", output.start_logits}, {"end_logits", output.end_logits}};
  else tensors = {{"logits", output.logits}};
  for (auto& [name, tensor] : tensors) tensor = contiguous(to_dtype(tensor, DType::f32));
  save_safetensors(a.out, tensors);
  const Shape& shape = tensors.front().second.shape();
  say(a.shared, concat_text(tensors.front().first, " ", shape, " in ", a.out));
  answer(a.shared, Json{{"shape", shape.to_vector()}, {"out", a.out}});
  return 0;
}
}  // namespace

Run add_logits(CLI::App& program) {
  auto a = std::make_shared<LogitsArguments>();
  CLI::App& c = *program.add_subcommand("logits", "logits of given token ids, as a safetensors file");
  add_shared(c, a->shared);
  c.add_option("--config", "JSON file with any of these options; the command line wins")->type_name("FILE");
  c.add_option("--task", a->task, "causal-lm, seq2seq, seq-cls, token-cls, question-ans or feature; default: the adapter's, or by the model's architecture");
  c.add_option("--ids", a->ids, "JSON: {\"input_ids\": [[…]], \"attention_mask\": [[…]], …}; also position_ids, token_type_ids, decoder_input_ids, decoder_attention_mask")->required()->type_name("FILE");
  c.add_option("--out", a->out, "safetensors file with the tensor `logits` in float32: (B, T, V), classes (B, N) or (B, T, N), features (B, T, C); answers: start_logits, end_logits")->required()->type_name("FILE");
  return [a] { return run(*a); };
}

}  // namespace cambium::cli
