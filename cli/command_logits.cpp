// `cambium logits`: the forward pass of given token ids, for checks against other programs.
#include <iostream>

#include "cli/command.h"

namespace cambium::cli {

namespace {
struct LogitsArguments {
  SharedOptions shared;
  std::string ids, out;
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

int run(const LogitsArguments& a) {
  const Json object = read_json_file(a.ids);
  check<FileError>(object.is_object() && object.contains("input_ids"), a.ids, ": expected an object with input_ids");
  ModelInput input;
  for (const auto& [key, value] : object.items()) {
    if (key == "input_ids") input.input_ids = matrix(object, key, a.ids);
    else if (key == "attention_mask") input.attention_mask = matrix(object, key, a.ids);
    else if (key == "position_ids") input.position_ids = matrix(object, key, a.ids);
    else fail<FileError>(a.ids, ": '", key, "' is no input of a causal language model: expected input_ids, attention_mask, position_ids");
  }
  for (const Tensor& other : {input.attention_mask, input.position_ids})
    check<FileError>(!other.defined() || other.shape() == input.input_ids.shape(), a.ids, ": all inputs must have the shape ", input.input_ids.shape(), " of input_ids");
  const LoadedModel model = load_model(a.shared);
  for (std::int64_t id : input.input_ids.to_vector<std::int64_t>())
    check<FileError>(id >= 0 && id < model.base->config().vocab_size, a.ids, ": token id ", id, " is outside the vocabulary of ", model.base->config().vocab_size);
  NoGrad no_grad;
  const Tensor logits = to_dtype(model.forward(input).logits, DType::f32);
  save_safetensors(a.out, {{"logits", contiguous(logits)}});
  say(a.shared, concat_text("logits ", logits.shape(), " in ", a.out));
  answer(a.shared, Json{{"shape", logits.shape().to_vector()}, {"out", a.out}});
  return 0;
}
}  // namespace

Run add_logits(CLI::App& program) {
  auto a = std::make_shared<LogitsArguments>();
  CLI::App& c = *program.add_subcommand("logits", "logits of given token ids, as a safetensors file");
  add_shared(c, a->shared);
  c.add_option("--config", "JSON file with any of these options; the command line wins")->type_name("FILE");
  c.add_option("--ids", a->ids, "JSON: {\"input_ids\": [[…]], \"attention_mask\": [[…]], \"position_ids\": [[…]]}")->required()->type_name("FILE");
  c.add_option("--out", a->out, "safetensors file with the tensor `logits` (B, T, V) in float32")->required()->type_name("FILE");
  return [a] { return run(*a); };
}

}  // namespace cambium::cli
