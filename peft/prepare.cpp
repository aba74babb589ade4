// prepare_model_for_kbit_training.
#include "peft/prepare.h"

#include "autograd/ops.h"

namespace cambium {

std::shared_ptr<PretrainedModel> prepare_model_for_kbit_training(std::shared_ptr<PretrainedModel> model, bool use_gradient_checkpointing) {
  check<StateError>(model != nullptr, "prepare_model_for_kbit_training: there is no model");
  check<StateError>(model->parent() == nullptr, "prepare_model_for_kbit_training: this model carries adapters: prepare it before get_peft_model()");
  NoGrad no_grad;
  for (const auto& [name, slot] : model->named_parameters()) {  // tied ones once: they stay tied
    if (item_size(slot->tensor.dtype()) == 2 && is_float(slot->tensor.dtype())) slot->tensor = to_dtype(detach(slot->tensor), DType::f32);
    slot->tensor.set_requires_grad(false);
  }
  if (use_gradient_checkpointing) model->set_gradient_checkpointing(true);
  return model;
}

}  // namespace cambium
