// Getting a 16-bit base model ready for training adapters.
#pragma once

#include <memory>

#include "nn/models/model.h"

namespace cambium {

/// Freezes every parameter, converts the 16-bit ones to float32 and, if asked for, switches gradient checkpointing on (on bases of any kind; PEFT does so on quantised ones only).
/// Nothing has to be done for gradients to reach adapters below checkpoints: they name their parameters. Returns the model.
std::shared_ptr<PretrainedModel> prepare_model_for_kbit_training(std::shared_ptr<PretrainedModel> model, bool use_gradient_checkpointing = true);

/// The name it had until PEFT 0.10.
inline std::shared_ptr<PretrainedModel> prepare_model_for_int8_training(std::shared_ptr<PretrainedModel> model, bool use_gradient_checkpointing = true) {
  return prepare_model_for_kbit_training(std::move(model), use_gradient_checkpointing);
}

}  // namespace cambium
