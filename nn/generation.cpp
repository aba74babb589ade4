// generate.
#include "nn/generation.h"

#include <algorithm>

#include "nn/kv_cache.h"

namespace cambium {

namespace {

/// The rows so far: padded ids, which of them are real, and who is done.
struct Rows {
  std::int64_t count = 0, length = 0;
  std::vector<std::vector<std::int64_t>> ids, real;  ///< by row; real as 0 and 1
  std::vector<bool> done;

  Rows(const Tensor& input_ids, const Tensor& attention_mask) : count(input_ids.size(0)), length(input_ids.size(1)), done(static_cast<std::size_t>(count), false) {
    check<ShapeError>(!attention_mask.defined() || attention_mask.shape() == input_ids.shape(), "generate: expected attention_mask ", input_ids.shape(), ", found ",
                      attention_mask.defined() ? attention_mask.shape() : Shape());
    const std::vector<std::int64_t> all = input_ids.to_vector<std::int64_t>();
    std::vector<std::int64_t> mask(all.size(), 1);
    if (attention_mask.defined()) mask = attention_mask.to_vector<std::int64_t>();
    for (std::int64_t row = 0; row < count; ++row) {
      const auto cut = [&](const std::vector<std::int64_t>& values) { return std::vector(values.begin() + row * length, values.begin() + (row + 1) * length); };
      ids.push_back(cut(all));
      real.push_back(cut(mask));
      for (std::int64_t& value : real.back()) value = value != 0;
      check<ShapeError>(std::is_sorted(real.back().begin(), real.back().end()) && real.back().back() == 1, "generate: row ", row,
                        " is not padded on the left: its last token must be a real one");
    }
  }

  /// Of tokens [first, length): behind `before`, max(cumsum(mask) - 1, 0), or the place in the row where padding counts.
  Tensor positions(std::int64_t first, std::int64_t before, bool count_padding) const {
    std::vector<std::int64_t> out;
    for (const auto& row : real) {
      std::int64_t seen = 0;
      for (std::int64_t t = 0; t < length; ++t) {
        seen += row[static_cast<std::size_t>(t)];
        if (t >= first) out.push_back(before + (count_padding ? t : std::max<std::int64_t>(seen - 1, 0)));
      }
    }
    return from_vector(out, {count, length - first});
  }
  Tensor tokens(std::int64_t first) const { return joined(ids, first); }
  Tensor mask() const { return joined(real, 0); }
  /// What a row has said, without padding.
  std::vector<std::int64_t> seen(std::size_t row) const {
    std::vector<std::int64_t> out;
    for (std::size_t t = 0; t < ids[row].size(); ++t)
      if (real[row][t] != 0) out.push_back(ids[row][t]);
    return out;
  }

 private:
  Tensor joined(const std::vector<std::vector<std::int64_t>>& rows, std::int64_t first) const {
    std::vector<std::int64_t> out;
    for (const auto& row : rows) out.insert(out.end(), row.begin() + first, row.end());
    return from_vector(out, {count, length - first});
  }
};

}  // namespace

std::vector<std::vector<std::int64_t>> generate(const PretrainedModel& model, const Tensor& input_ids, const Tensor& attention_mask, const GenerationOptions& options,
                                                const ForwardContext& context) {
  NoGrad no_grad;
  options.sampling.check();
  check<ConfigError>(options.max_new_tokens >= 0, "generate: 'max_new_tokens': expected no negative number, found ", options.max_new_tokens);
  check<ConfigError>(!context.training, "generate: the context says that the model is training");
  check<ShapeError>(input_ids.defined() && input_ids.rank() == 2 && input_ids.count() > 0, "generate: expected input_ids (batch, time) with a token to start from, found ",
                    input_ids.defined() ? input_ids.shape() : Shape());
  const std::vector<std::int64_t> ends = options.eos_token_ids.value_or(model.config().eos_token_ids);
  const std::int64_t filler = model.config().pad_token_id.value_or(ends.empty() ? 0 : ends.front());

  Rows rows(input_ids, attention_mask);
  std::vector<std::vector<std::int64_t>> out(static_cast<std::size_t>(rows.count));
  if (options.max_new_tokens == 0) return out;
  std::unique_ptr<KvCache> cache;
  if (options.use_cache) cache = model.make_cache(rows.count, rows.length + options.max_new_tokens - 1);
  bool stopped = false;
  for (std::int64_t step = 0; step < options.max_new_tokens && !stopped; ++step) {
    const std::int64_t first = cache ? cache->length() : 0;
    ModelInput input;
    input.input_ids = rows.tokens(first);
    input.attention_mask = rows.mask();
    input.position_ids = rows.positions(first, options.past ? options.past->length() : 0, options.positions_count_padding);
    input.past = options.past;
    input.cache = cache.get();
    input.last_logits_only = true;
    const Tensor logits = to_dtype(contiguous(model.forward(input, context).logits), DType::f32);
    const std::size_t vocabulary = static_cast<std::size_t>(logits.size(2));
    const std::span<const float> all(logits.data<float>(), vocabulary * static_cast<std::size_t>(rows.count));
    for (std::size_t row = 0; row < out.size(); ++row) {
      std::int64_t token = filler;
      if (!rows.done[row]) {
        const std::vector<std::int64_t> seen = options.sampling.repetition_penalty != 1.0 ? rows.seen(row) : std::vector<std::int64_t>();
        const RandomKey key = options.key.fold(static_cast<std::uint64_t>(step)).fold(static_cast<std::uint64_t>(row));
        token = sample_token(all.subspan(row * vocabulary, vocabulary), seen, options.sampling, key);
        out[row].push_back(token);
        rows.done[row] = std::find(ends.begin(), ends.end(), token) != ends.end();
        if (options.on_token && !options.on_token(static_cast<std::int64_t>(row), token)) stopped = true;
      }
      rows.ids[row].push_back(token);
      rows.real[row].push_back(1);
    }
    ++rows.length;
    if (std::all_of(rows.done.begin(), rows.done.end(), [](bool done) { return done; })) break;
  }
  return out;
}

std::vector<std::int64_t> generate(const PretrainedModel& model, const std::vector<std::int64_t>& input_ids, const GenerationOptions& options,
                                   const ForwardContext& context) {
  return generate(model, from_vector(input_ids, {1, static_cast<std::int64_t>(input_ids.size())}), Tensor(), options, context).front();
}

}  // namespace cambium
