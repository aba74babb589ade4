// Means as a product with a constant matrix, so that rows side by side need no padding.
#include "train/mean_head.h"

#include <cmath>
#include <filesystem>

#include "autograd/ops.h"
#include "tensor/safetensors.h"

namespace cambium {

namespace {

constexpr const char* kFile = "mean_head.safetensors";

/// (B, total): 1 / length where a token belongs to the row.
Tensor averaging(const std::vector<std::int32_t>& starts) {
  const auto rows = static_cast<std::int64_t>(starts.size()) - 1;
  const std::int64_t total = starts.back();
  std::vector<float> weights(static_cast<std::size_t>(rows * total));
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto i = static_cast<std::size_t>(row);
    for (std::int32_t t = starts[i]; t < starts[i + 1]; ++t) weights[static_cast<std::size_t>(row * total + t)] = 1.0F / static_cast<float>(starts[i + 1] - starts[i]);
  }
  return from_vector(weights, {rows, total});
}

/// (B, 1, V + T) from a mask (B, T): zero on the V virtual tokens and on padding.
Tensor averaging(const Tensor& mask, std::int64_t width) {
  const std::vector<std::int64_t> real = mask.to_vector<std::int64_t>();
  const std::int64_t rows = mask.size(0), length = mask.size(1), before = width - length;
  std::vector<float> weights(static_cast<std::size_t>(rows * width));
  for (std::int64_t row = 0; row < rows; ++row) {
    std::int64_t count = 0;
    for (std::int64_t t = 0; t < length; ++t) count += real[static_cast<std::size_t>(row * length + t)] != 0 ? 1 : 0;
    for (std::int64_t t = 0; t < length; ++t)
      if (real[static_cast<std::size_t>(row * length + t)] != 0) weights[static_cast<std::size_t>(row * width + before + t)] = 1.0F / static_cast<float>(count);
  }
  return from_vector(weights, {rows, 1, width});
}

}  // namespace

MeanHead::MeanHead(std::int64_t features, std::int64_t classes, RandomKey key) {
  const double bound = 1.0 / std::sqrt(static_cast<double>(features));
  weight.set(random_uniform({classes, features}, key.fold("weight"), -bound, bound));
  bias.set(random_uniform({classes}, key.fold("bias"), -bound, bound));
}

Tensor MeanHead::forward(const Tensor& hidden, const ModelInput& input) const {
  check<ShapeError>(hidden.rank() == 3 && hidden.size(2) == weight.get().size(1), "mean head: expected hidden states (B, T, ", weight.get().size(1), "), found ", hidden.shape());
  const Tensor states = to_dtype(hidden, DType::f32);
  if (input.starts.defined()) return linear(matmul(to_device(averaging(input.starts.to_vector<std::int32_t>()), states.device()), select(states, 0, 0)), weight, bias);
  const std::int64_t rows = hidden.size(0), length = input.input_ids.defined() ? input.input_ids.size(1) : input.inputs_embeds.size(1);
  const Tensor mask = input.attention_mask.defined() ? input.attention_mask : ones({rows, length}, DType::i64);
  check<ShapeError>(mask.size(0) == rows && hidden.size(1) >= length, "mean head: hidden states ", hidden.shape(), " do not belong to a mask ", mask.shape());
  return linear(squeeze(matmul(to_device(averaging(mask, hidden.size(1)), states.device()), states), 1), weight, bias);
}

ModelOutput MeanHead::classify(const std::function<ModelOutput(const ModelInput&, const ForwardContext&)>& features, const ModelInput& input, const ForwardContext& context) const {
  ModelInput unlabelled = input;
  unlabelled.labels = {};
  unlabelled.label_count = {};
  unlabelled.want_logits = true;
  ModelOutput output = features(unlabelled, context);
  output.logits = forward(output.logits, input);
  if (!input.labels.defined()) return output;
  check<DTypeError>(input.labels.dtype() == DType::i64, "mean head: expected classes as int64, found ", input.labels.dtype(), ": numbers are predicted by --head hf");
  CrossEntropyOptions options;
  options.reduction = LossReduction::sum;
  output.labelled = input.labels.count();
  output.loss = mul(cross_entropy(output.logits, to_device(input.labels, output.logits.device()), options), 1.0 / input.label_count.value_or(static_cast<double>(output.labelled)));
  return output;
}

void MeanHead::save(const std::string& folder) const {
  NoGrad no_grad;
  save_safetensors((std::filesystem::path(folder) / kFile).string(), {{"weight", detach(weight.get())}, {"bias", detach(bias.get())}});
}

std::shared_ptr<MeanHead> MeanHead::load(const std::string& folder, std::int64_t features) {
  const std::string path = (std::filesystem::path(folder) / kFile).string();
  if (!std::filesystem::exists(path)) return nullptr;
  const SafetensorsFile file(path);
  for (const char* name : {"weight", "bias"}) check<FileError>(file.contains(name), path, ": expected a tensor '", name, "'");
  check<FileError>(file.tensors().size() == 2, path, ": expected weight and bias and nothing else");
  const Tensor w = to_dtype(file.tensor("weight"), DType::f32), b = to_dtype(file.tensor("bias"), DType::f32);
  check<FileError>(w.rank() == 2 && b.rank() == 1 && w.size(0) == b.size(0) && w.size(1) == features, path, ": expected a weight (classes, ", features, ") and as many biases, found ", w.shape(), " and ", b.shape());
  std::shared_ptr<MeanHead> head(new MeanHead());
  NoGrad no_grad;
  head->weight.set(clone(w));  // what is mapped from the file cannot be written
  head->bias.set(clone(b));
  return head;
}

}  // namespace cambium
