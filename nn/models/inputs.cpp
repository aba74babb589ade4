// Checks and defaults of a model's input.
#include "nn/models/inputs.h"

#include <algorithm>
#include <numeric>

namespace cambium {

std::pair<std::int64_t, std::int64_t> token_sizes(std::string_view ids_name, const Tensor& ids, std::string_view embeds_name, const Tensor& embeds, std::int64_t hidden) {
  check<ShapeError>(ids.defined() != embeds.defined(), "forward: give either ", ids_name, " or ", embeds_name);
  const Tensor& tokens = ids.defined() ? ids : embeds;
  if (ids.defined()) check<ShapeError>(tokens.rank() == 2, "forward: expected ", ids_name, " (batch, time), found ", tokens.shape());
  else check<ShapeError>(tokens.rank() == 3 && tokens.size(2) == hidden, "forward: expected ", embeds_name, " (batch, time, ", hidden, "), found ", tokens.shape());
  check<ShapeError>(tokens.size(0) > 0 && tokens.size(1) > 0, "forward: there are no tokens: found ", tokens.shape());
  return {tokens.size(0), tokens.size(1)};
}

ModelInput on_device(ModelInput input, Device device) {
  const std::pair<const char*, Tensor ModelInput::*> integers[] = {
      {"input_ids", &ModelInput::input_ids}, {"attention_mask", &ModelInput::attention_mask}, {"position_ids", &ModelInput::position_ids}, {"token_type_ids", &ModelInput::token_type_ids},
      {"decoder_input_ids", &ModelInput::decoder_input_ids}, {"decoder_attention_mask", &ModelInput::decoder_attention_mask}, {"labels", &ModelInput::labels},
      {"start_positions", &ModelInput::start_positions}, {"end_positions", &ModelInput::end_positions}, {"starts", &ModelInput::starts}};
  const std::pair<const char*, Tensor ModelInput::*> floats[] = {{"inputs_embeds", &ModelInput::inputs_embeds}, {"encoder_output", &ModelInput::encoder_output}};
  const auto check_place = [&](const char* name, const Tensor& x) {
    check<DeviceError>(x.device() == device, "forward: ", name, " ", x.shape(), " is on ", x.device(), ", the model on ", device, ": use to_device");
  };
  for (const auto& [name, member] : integers) {
    Tensor& x = input.*member;
    if (!x.defined()) continue;
    if (x.device().type == DeviceType::cpu) x = to_device(x, device);
    check_place(name, x);
  }
  for (const auto& [name, member] : floats)
    if ((input.*member).defined()) check_place(name, input.*member);
  return input;
}

void check_shape(std::string_view name, const Tensor& tensor, const Shape& expected) {
  check<ShapeError>(!tensor.defined() || tensor.shape() == expected, "forward: expected ", name, " ", expected, ", found ", tensor.defined() ? tensor.shape() : Shape());
}

void refuse_members(std::initializer_list<std::pair<const char*, bool>> members) {
  for (const auto& [name, given] : members) check<StateError>(!given, "forward: this model has no use for ", name, ": leave it away");
}

Tensor key_mask_of(std::string_view name, const Tensor& mask, const Shape& expected) {
  if (!mask.defined()) return {};
  check_shape(name, mask, expected);
  const std::vector<double> values = mask.to_vector<double>();
  std::vector<bool> real(values.size());
  std::transform(values.begin(), values.end(), real.begin(), [](double v) { return v != 0.0; });
  if (std::all_of(real.begin(), real.end(), [](bool v) { return v; })) return {};
  return from_vector(real, expected, mask.device());
}

std::vector<std::int64_t> checked_starts(const ModelInput& input, std::int64_t batch, std::int64_t time) {
  if (!input.starts.defined()) return {};
  check<ShapeError>(batch == 1, "forward: packed sequences need a batch of one row, found ", batch);
  check<StateError>(!input.cache && !input.attention_mask.defined(), "forward: packed sequences go without a cache and without an attention_mask");
  const std::vector<std::int64_t> starts = input.starts.to_vector<std::int64_t>();
  check<ShapeError>(starts.size() >= 2 && starts.front() == 0 && starts.back() == time && std::is_sorted(starts.begin(), starts.end()), "forward: starts must ascend from 0 to ",
                    time, ", found ", starts);
  return starts;
}

Tensor positions_from(std::int64_t first, std::int64_t time, const std::vector<std::int64_t>& starts, Device device) {
  std::vector<std::int64_t> positions(static_cast<std::size_t>(time));
  std::iota(positions.begin(), positions.end(), first);
  for (std::size_t s = 0; s + 1 < starts.size(); ++s) std::iota(positions.begin() + starts[s], positions.begin() + starts[s + 1], first);
  return from_vector(positions, {1, time}, device);
}

void check_past(const Past& past, std::size_t layers) {
  check<ShapeError>(past.layers.size() == layers, "forward: expected a past of ", layers, " layers, found ", past.layers.size());
  const std::int64_t length = past.layers.front().keys.defined() ? past.length() : 0;
  for (std::size_t i = 0; i < layers; ++i) {
    const auto& [keys, values] = past.layers[i];
    check<ShapeError>(keys.defined() && values.defined() && keys.rank() == 3 && keys.size(0) == length && keys.shape() == values.shape(), "forward: past of layer ", i,
                      ": expected keys and values (", length, ", heads, head size), found ", keys.defined() ? concat_text(keys.shape()) : "none", " and ",
                      values.defined() ? concat_text(values.shape()) : "none");
  }
}

}  // namespace cambium
