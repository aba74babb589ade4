// The networks of P-tuning and of projected prefixes.
#include "peft/prompt_encoder.h"

namespace cambium {

Perceptron::Perceptron(const std::vector<std::int64_t>& widths, UnaryFunction activation, RandomKey key) : activation_(activation) {
  for (std::size_t i = 0; i + 1 < widths.size(); ++i) {
    const std::string name = std::to_string(2 * i);
    layers_.push_back(std::make_unique<Child<Linear>>(*this, name, std::make_shared<Linear>(widths[i], widths[i + 1], key.fold(name))));
  }
}

Tensor Perceptron::forward(const Tensor& x, const ForwardContext& context) const {
  Tensor out = x;
  for (std::size_t i = 0; i < layers_.size(); ++i) out = (*layers_[i])->forward(i == 0 ? out : apply_activation(activation_, out), context);
  return out;
}

PromptEncoder::PromptEncoder(const Options& o, RandomKey key) : VirtualTokens(o.rows, o.width, key) {
  if (o.lstm) {
    const LstmOptions options{.num_layers = o.lstm_layers, .bidirectional = true, .dropout = o.lstm_dropout};
    lstm_head_ = std::make_unique<Child<Lstm>>(*this, "lstm_head", std::make_shared<Lstm>(o.width, o.hidden, key.fold("lstm_head"), options));
    mlp_head_.set(std::make_shared<Perceptron>(std::vector{2 * o.hidden, 2 * o.hidden, o.width}, UnaryFunction::relu, key.fold("mlp_head")));
  } else {
    mlp_head_.set(std::make_shared<Perceptron>(std::vector{o.width, o.hidden, o.hidden, o.width}, UnaryFunction::relu, key.fold("mlp_head")));
  }
}

Tensor PromptEncoder::forward(const ForwardContext& context) const {
  const Tensor& rows = embedding->weight;
  return mlp_head_->forward(lstm_head_ ? squeeze((*lstm_head_)->forward(unsqueeze(rows, 0), context).output, 0) : rows, context);
}

PrefixEncoder::PrefixEncoder(std::int64_t rows, std::int64_t width, std::int64_t hidden, std::int64_t out, RandomKey key) : VirtualTokens(rows, width, key) {
  transform.set(std::make_shared<Perceptron>(std::vector{width, hidden, out}, UnaryFunction::tanh, key.fold("transform")));
}

}  // namespace cambium
