// LSTM layers from the one-direction op.
#include "nn/lstm.h"

#include <cmath>

namespace cambium {

Lstm::Lstm(std::int64_t input_size, std::int64_t hidden_size, RandomKey key, const LstmOptions& options, DType dtype)
    : hidden_size_(hidden_size), options_(options) {
  check<ConfigError>(input_size > 0 && hidden_size > 0 && options.num_layers > 0, "LSTM: sizes must be positive, found input ", input_size, ", hidden ", hidden_size,
                     ", layers ", options.num_layers);
  check<ConfigError>(options.dropout >= 0.0 && options.dropout <= 1.0, "LSTM: dropout is a probability, found ", options.dropout);
  const double bound = 1.0 / std::sqrt(static_cast<double>(hidden_size));
  const std::int64_t ways = options.bidirectional ? 2 : 1;
  for (std::int64_t layer = 0; layer < options.num_layers; ++layer)
    for (std::int64_t way = 0; way < ways; ++way) {
      const std::string ending = "_l" + std::to_string(layer) + (way == 1 ? "_reverse" : "");
      const auto make = [&](const std::string& name, const Shape& shape) {
        auto parameter = std::make_unique<Param>(*this, name + ending);
        parameter->set(random_uniform(shape, key.fold(name + ending), -bound, bound, dtype));
        parameter->get().set_requires_grad(true);
        return parameter;
      };
      Direction& direction = directions_.emplace_back();
      direction.input = make("weight_ih", {4 * hidden_size, layer == 0 ? input_size : ways * hidden_size});
      direction.hidden = make("weight_hh", {4 * hidden_size, hidden_size});
      if (options.with_bias) {
        direction.input_bias = make("bias_ih", {4 * hidden_size});
        direction.hidden_bias = make("bias_hh", {4 * hidden_size});
      }
    }
}

LstmResult Lstm::forward(const Tensor& x, const ForwardContext& context, const Tensor& hidden, const Tensor& cell) const {
  check<ShapeError>(x.rank() == 3, "LSTM: expected input (batch, time, features), found ", x.shape());
  const std::size_t ways = options_.bidirectional ? 2 : 1;
  const Shape states{static_cast<std::int64_t>(directions_.size()), x.size(0), hidden_size_};
  for (const Tensor& state : {hidden, cell})
    check<ShapeError>(!state.defined() || state.shape() == states, "LSTM: expected initial states ", states, ", found ", state.defined() ? state.shape() : Shape());
  std::vector<Tensor> last_hidden, last_cell;
  Tensor sequence = x;
  for (std::size_t first = 0; first < directions_.size(); first += ways) {
    if (first > 0 && context.training && options_.dropout > 0.0)
      sequence = dropout(sequence, options_.dropout, context.key.fold(path()).fold(static_cast<std::uint64_t>(first)));
    std::vector<Tensor> outputs;
    for (std::size_t way = 0; way < ways; ++way) {
      const Direction& direction = directions_[first + way];
      LstmWeights weights{*direction.input, *direction.hidden, {}, {}};
      if (direction.input_bias) {
        weights.input_bias = *direction.input_bias;
        weights.hidden_bias = *direction.hidden_bias;
      }
      const auto start = [&](const Tensor& state) { return state.defined() ? select(state, 0, static_cast<std::int64_t>(first + way)) : Tensor(); };
      LstmResult result = lstm(sequence, weights, start(hidden), start(cell), way == 1);
      outputs.push_back(result.output);
      last_hidden.push_back(result.hidden);
      last_cell.push_back(result.cell);
    }
    sequence = outputs.size() == 1 ? outputs[0] : cat(outputs, -1);
  }
  return {sequence, stack(last_hidden, 0), stack(last_cell, 0)};
}

}  // namespace cambium
