// generate_seq2seq.
#include "nn/generation_seq2seq.h"

#include "nn/generation_rows.h"
#include "nn/kv_cache.h"
#include "nn/models/inputs.h"

namespace cambium {

std::vector<std::vector<std::int64_t>> generate_seq2seq(const PretrainedModel& model, const ModelInput& encoder_input, const GenerationOptions& options,
                                                        const ForwardContext& context) {
  NoGrad no_grad;
  check<StateError>(model.task() == Task::seq2seq_lm, "generate: expected a sequence-to-sequence model, found one for ", name_of(model.task()));
  const ModelInput& given = encoder_input;
  refuse_members({{"labels", given.labels.defined()}, {"decoder_input_ids", given.decoder_input_ids.defined()}, {"decoder_attention_mask", given.decoder_attention_mask.defined()},
                  {"cache", given.cache != nullptr}, {"past in the input (it is an option)", given.past != nullptr}, {"position_ids", given.position_ids.defined()},
                  {"token_type_ids", given.token_type_ids.defined()}, {"starts", given.starts.defined()}});
  const Tensor& source = given.encoder_output.defined() ? given.encoder_output : given.inputs_embeds.defined() ? given.inputs_embeds : given.input_ids;
  check<ShapeError>(source.defined() && source.rank() >= 2 && source.count() > 0, "generate: expected input_ids (batch, time) with a token to read, found ",
                    source.defined() ? source.shape() : Shape());
  const std::optional<std::int64_t> start = model.config().decoder_start_token_id;
  check<ConfigError>(start.has_value(), "generate: the configuration has no decoder_start_token_id");

  const std::int64_t batch = source.size(0);
  GenerationRows rows(static_cast<std::size_t>(batch), model.config(), options, context);
  std::vector<std::vector<std::int64_t>> ids(static_cast<std::size_t>(batch), {*start});
  std::unique_ptr<KvCache> cache;
  if (options.use_cache && options.max_new_tokens > 0) cache = model.make_cache(batch, options.max_new_tokens);
  Tensor encoded = given.encoder_output;
  while (!rows.finished()) {
    const std::int64_t first = cache ? cache->length() : 0, length = static_cast<std::int64_t>(ids.front().size());
    std::vector<std::int64_t> fresh;
    for (const auto& row : ids) fresh.insert(fresh.end(), row.begin() + first, row.end());
    ModelInput input;
    if (first == 0) {
      input.encoder_output = encoded;
      if (!encoded.defined()) {
        input.input_ids = given.input_ids;
        input.inputs_embeds = given.inputs_embeds;
      }
    }
    input.attention_mask = given.attention_mask;
    input.decoder_input_ids = from_vector(fresh, {batch, length - first}, source.device());
    input.past = options.past;
    input.cache = cache.get();
    input.last_logits_only = true;
    const ModelOutput output = model.forward(input, context);
    if (!encoded.defined()) encoded = output.encoder_output;
    const std::vector<std::int64_t> next = rows.choose(output.logits, [&](std::size_t row) { return ids[row]; });
    for (std::size_t row = 0; row < next.size(); ++row) ids[row].push_back(next[row]);
  }
  return rows.tokens();
}

}  // namespace cambium
