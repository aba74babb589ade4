// generate with an encoder-decoder: the encoder runs once, the decoder token by token.
#pragma once

#include "nn/generation.h"

namespace cambium {

/// Tokens of each row behind decoder_start_token_id, an end token included. `encoder_input` has what the encoder reads (input_ids or inputs_embeds, or encoder_output,
/// and the attention_mask, padded on either side) and nothing else; options.past stands before the decoder's tokens. Records nothing. StateError for a model of
/// another kind, ConfigError for options.
std::vector<std::vector<std::int64_t>> generate_seq2seq(const PretrainedModel& model, const ModelInput& encoder_input, const GenerationOptions& options = {},
                                                        const ForwardContext& context = {});

}  // namespace cambium
