// Choosing the next token of each row.
#include "nn/generation_rows.h"

#include <algorithm>

namespace cambium {

GenerationRows::GenerationRows(std::size_t count, const ModelConfig& config, const GenerationOptions& options, const ForwardContext& context)
    : options_(options), ends_(options.eos_token_ids.value_or(config.eos_token_ids)), filler_(config.pad_token_id.value_or(ends_.empty() ? 0 : ends_.front())), tokens_(count),
      done_(count, false) {
  options.sampling.check();
  check<ConfigError>(options.max_new_tokens >= 0, "generate: 'max_new_tokens': expected no negative number, found ", options.max_new_tokens);
  check<ConfigError>(!context.training, "generate: the context says that the model is training");
}

std::vector<std::int64_t> GenerationRows::sampled(const Tensor& logits, const std::vector<SamplingRow>& rows) const {
  const Tensor values = to_dtype(contiguous(logits), DType::f32);
  const std::int64_t vocabulary = values.size(2);
  if (values.device().type != DeviceType::cpu) return sample_on_device(reshape(values, {values.size(0), vocabulary}), rows, options_.sampling);
  const std::span<const float> all(values.data<float>(), static_cast<std::size_t>(values.count()));
  std::vector<std::int64_t> out;
  for (const SamplingRow& row : rows)
    out.push_back(sample_token(all.subspan(static_cast<std::size_t>(row.row * vocabulary), static_cast<std::size_t>(vocabulary)), row.seen, options_.sampling, row.key));
  return out;
}

std::vector<std::int64_t> GenerationRows::choose(const Tensor& logits, const std::function<std::vector<std::int64_t>(std::size_t)>& seen) {
  std::vector<SamplingRow> rows;
  for (std::size_t row = 0; row < tokens_.size(); ++row) {
    if (done_[row]) continue;
    const RandomKey key = options_.key.fold(static_cast<std::uint64_t>(step_)).fold(static_cast<std::uint64_t>(row));
    rows.push_back({static_cast<std::int64_t>(row), options_.sampling.repetition_penalty != 1.0 ? seen(row) : std::vector<std::int64_t>(), key});
  }
  const std::vector<std::int64_t> next = sampled(logits, rows);
  std::vector<std::int64_t> chosen(tokens_.size(), filler_);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const auto row = static_cast<std::size_t>(rows[i].row);
    const std::int64_t token = next[i];
    chosen[row] = token;
    tokens_[row].push_back(token);
    done_[row] = std::find(ends_.begin(), ends_.end(), token) != ends_.end();
    if (options_.on_token && !options_.on_token(static_cast<std::int64_t>(row), token)) stopped_ = true;
  }
  ++step_;
  return chosen;
}

bool GenerationRows::finished() const {
  return stopped_ || step_ >= options_.max_new_tokens || std::all_of(done_.begin(), done_.end(), [](bool done) { return done; });
}

}  // namespace cambium
